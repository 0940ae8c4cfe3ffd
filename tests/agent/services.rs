//! What enforcing would drop is counted in audit, too, where a service began after the load.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use portguard_harness::traffic::{UdpEcho, receive_datagram};

use crate::guard::{Guarded, eventually, listen};

/// A resolver's own port, for all its questions.
const RESOLVER: u16 = 5300;
const DNS: u16 = 53;
/// The last number of the last name server: there are many, so that each question begins a conversation.
const SERVERS: u8 = 200;
const PATIENCE: Duration = Duration::from_millis(200);

#[test]
fn questions_that_enforcing_would_not_know_are_counted_in_audit() -> Result<()> {
    let guarded = Guarded::new()?;
    guarded.load("--audit", &[], &[])?;
    let right = &guarded.link.right;
    let servers: Vec<(SocketAddr, UdpEcho)> = (10..SERVERS)
        .map(|last| {
            let address = Ipv4Addr::new(10, 77, 0, last);
            right.add_address(format!("{address}/24").parse()?)?;
            let address = SocketAddr::new(address.into(), DNS);
            Ok((address, UdpEcho::start(&right.host, address)?))
        })
        .collect::<Result<_>>()?;
    let resolver = listen(&guarded, RESOLVER)?;
    let mut next = servers.iter().map(|(address, _)| *address);
    let mut ask = || -> Result<bool> {
        let server = next.next().context("a server that was not asked yet")?;
        resolver.send_to(b"a question", server)?;
        Ok(receive_datagram(&resolver, Instant::now() + PATIENCE)?.is_some())
    };
    let violations = || -> Result<u64> {
        let status = guarded.status()?.context("a guard")?;
        status["violations"].as_u64().context("a number")
    };
    ensure!(ask()?, "audit drops nothing");
    let before = violations()?;
    let history = format!(
        "--history={}",
        std::env::temp_dir().join(guarded.interface()).display()
    );
    let agent = guarded.start(&["agent", "--every=1", &history].map(str::to_owned), None)?;
    eventually("that answers are counted", || {
        ensure!(ask()?, "audit drops nothing: {}", agent.stderr());
        Ok(violations()? > before)
    })?;
    drop(agent);
    guarded.load("--enforce", &[], &["--force", "--confirm-within", "0"])?;
    ensure!(!ask()?, "what audit counted is dropped");
    Ok(())
}
