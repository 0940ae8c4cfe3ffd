//! Peers that connect and say nothing keep no scraper out, and are not kept for ever.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use portguard_harness::net::Lab;

use super::{SOON, get, listening, portguard};

/// Connections that say nothing, or never say all.
const IDLE: usize = 300;
/// Scrapes in their midst.
const SCRAPES: usize = 10;
/// How long one may take, on a busy machine: a tenth of what a Prometheus waits.
const AT_ONCE: Duration = Duration::from_secs(1);

#[test]
fn idle_connections_starve_nobody() -> Result<()> {
    let host = Lab::new()?.host("crowd")?;
    let history = std::env::temp_dir().join(format!("portguard-crowd-{}", std::process::id()));
    let agent = host.start(&mut portguard(&[
        "agent",
        &format!("--history={}", history.display()),
    ]))?;
    listening(&agent)?;
    let mut idle = host.run(|| {
        let address: SocketAddr = ([127, 0, 0, 1], 9475).into();
        let mut all = Vec::new();
        for number in 0..IDLE {
            let mut stream = TcpStream::connect_timeout(&address, SOON)?;
            stream.set_read_timeout(Some(SOON))?;
            if number % 2 == 0 {
                // What had to make room already is reset.
                let _ = stream.write_all(b"GET /metrics HTTP/1.1\r\nHost:");
            }
            all.push(stream);
        }
        Ok(all)
    })?;
    for scrape in 0..SCRAPES {
        let start = Instant::now();
        let (head, _) = get(&host, "/metrics", "*/*")?;
        let lasted = start.elapsed();
        ensure!(head.starts_with("HTTP/1.1 200"), "{head}");
        ensure!(lasted < AT_ONCE, "scrape {scrape} took {lasted:?}");
    }
    let files = std::fs::read_dir(format!("/proc/{}/fd", agent.id()))?.count();
    ensure!(files < IDLE / 2, "{files} descriptors");
    // Each is let go of in the end, without a word.
    for stream in &mut idle {
        let mut answer = Vec::new();
        match stream.read_to_end(&mut answer) {
            Ok(_) => ensure!(answer.is_empty(), "{answer:?}"),
            Err(error) => ensure!(
                error.kind() == std::io::ErrorKind::ConnectionReset,
                "{error}"
            ),
        }
    }
    agent.terminate()?;
    ensure!(agent.output(SOON)?.code() == 0);
    // Nothing was guarded: there is nothing that it could have kept.
    let _ = std::fs::remove_dir_all(&history);
    Ok(())
}
