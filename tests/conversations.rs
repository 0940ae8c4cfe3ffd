//! Which conversations are the host's: begun by it, known for as long as they last, and nobody else's.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use portguard_harness::traffic::{UdpEcho, connect, receive_datagram, udp_socket, wait_readable};
use serde_json::Value;

use crate::guard::{Guarded, SHORT, SOON, eventually};

/// A port that no row has.
const CLOSED: u16 = 9999;
/// A port that one has.
const OPEN: u16 = 7000;

fn flows(guarded: &Guarded) -> Result<Value> {
    let output = guarded.run(&["flows", "--json"].map(str::to_owned), None)?;
    let answer: Value = serde_json::from_str(&output.success()?.stdout)?;
    Ok(answer["interfaces"][0].clone())
}

/// Packets of a reason, inbound.
fn counted(guarded: &Guarded, reason: &str) -> Result<u64> {
    let args = ["counters", "--by", "reason", "--json"].map(str::to_owned);
    let output = guarded.run(&args, None)?.success()?;
    let answer: Value = serde_json::from_str(&output.stdout)?;
    let reasons = answer["interfaces"][0]["reasons"]
        .as_array()
        .cloned()
        .context("reasons")?;
    Ok(reasons
        .iter()
        .filter(|one| one["direction"] == "in" && one["reason"] == reason)
        .filter_map(|one| one["packets"].as_u64())
        .sum())
}

/// Whether a datagram of this socket is answered.
fn is_answered(socket: &UdpSocket, to: SocketAddr, wait: Duration) -> Result<bool> {
    socket.send_to(b"are you there?", to)?;
    Ok(receive_datagram(socket, Instant::now() + wait)?.is_some())
}

#[test]
fn audit_counts_each_datagram_to_an_undocumented_service() -> Result<()> {
    let guarded = Guarded::new()?;
    let (left, right) = (&guarded.link.left, &guarded.link.right);
    guarded.load("--audit", &[OPEN], &[])?;
    for (ours, theirs) in left.both().into_iter().zip(right.both()) {
        let service = UdpEcho::start(&left.host, SocketAddr::new(ours, CLOSED))?;
        // A port that clients pick, and two that servers have.
        for port in [0, 53, 123] {
            let caller = right
                .host
                .run(|| udp_socket(SocketAddr::new(theirs, port)))?;
            let before = counted(&guarded, "undocumented-port")?;
            for _ in 0..20 {
                ensure!(is_answered(&caller, service.address(), SOON)?);
            }
            let after = counted(&guarded, "undocumented-port")?;
            ensure!(
                after - before == 20,
                "{ours} from port {port}: {before} {after}"
            );
        }
    }
    ensure!(counted(&guarded, "reply")? == 0);
    Ok(())
}

#[test]
fn who_was_answered_in_audit_is_a_stranger_when_it_enforces() -> Result<()> {
    for steps in [
        &["--enforce"][..],
        &["--enforce", "--audit", "rollback"],
        &["--enforce", "--audit", "--enforce"],
    ] {
        let guarded = Guarded::new()?;
        let (left, right) = (&guarded.link.left, &guarded.link.right);
        let service = UdpEcho::start(&left.host, SocketAddr::new(left.v4().into(), CLOSED))?;
        let own = UdpEcho::start(&right.host, SocketAddr::new(right.v4().into(), 8001))?;
        let stranger = right
            .host
            .run(|| udp_socket(SocketAddr::new(right.v4().into(), 0)))?;
        let client = left
            .host
            .run(|| udp_socket(SocketAddr::new(left.v4().into(), 0)))?;
        guarded.load("--audit", &[OPEN], &[])?;
        ensure!(is_answered(&stranger, service.address(), SOON)?);
        ensure!(is_answered(&client, own.address(), SOON)?);
        for step in steps {
            match *step {
                "rollback" => drop(guarded.run(&["rollback".to_owned()], None)?.success()?),
                mode => drop(guarded.load(mode, &[OPEN], &["--force"])?),
            }
            let is_open = *step == "--audit";
            let wait = if is_open { SOON } else { SHORT };
            for _ in 0..3 {
                let answered = is_answered(&stranger, service.address(), wait)?;
                ensure!(answered == is_open, "{steps:?}: {step}");
                ensure!(
                    is_answered(&client, own.address(), SOON)?,
                    "{steps:?}: {step}: its own"
                );
            }
        }
    }
    Ok(())
}

/// Both ends of a connection that the host opened.
fn pair(guarded: &Guarded, theirs: IpAddr) -> Result<(TcpStream, TcpStream)> {
    let (left, right) = (&guarded.link.left, &guarded.link.right);
    let listener = right
        .host
        .run(|| Ok(TcpListener::bind(SocketAddr::new(theirs, 0))?))?;
    let opener = left
        .host
        .run(|| connect(listener.local_addr()?, SOON).stream())?;
    Ok((opener, listener.accept()?.0))
}

/// Whether the far end is heard.
fn hears(opener: &TcpStream, accepter: &mut TcpStream) -> Result<bool> {
    accepter.write_all(b"x")?;
    Ok(wait_readable(opener, Instant::now() + SOON)? && { opener }.read(&mut [0; 8])? == 1)
}

#[test]
fn quiet_connections_outlive_a_flood_of_questions() -> Result<()> {
    const QUIET: usize = 40;
    const QUESTIONS: u32 = 64_000;
    let guarded = Guarded::new()?;
    let (left, right) = (&guarded.link.left, &guarded.link.right);
    // Half are there at load, and half come after.
    let mut quiet = Vec::new();
    for _ in 0..QUIET / 2 {
        quiet.push(pair(&guarded, right.v4().into())?);
    }
    guarded.load("--enforce", &[OPEN], &[])?;
    for _ in 0..QUIET / 2 {
        quiet.push(pair(&guarded, right.v6().into())?);
    }
    left.host.run(|| {
        let to = SocketAddr::new(right.v4().into(), 53);
        for _ in 0..QUESTIONS {
            // Refused is as good.
            let _ = UdpSocket::bind("0.0.0.0:0")?.send_to(b"?", to);
        }
        Ok(())
    })?;
    for (index, (opener, accepter)) in quiet.iter_mut().enumerate() {
        ensure!(hears(opener, accepter)?, "connection {index} is lost");
    }
    let known = flows(&guarded)?["occupancy"]["sockets"].as_u64();
    ensure!(known == Some(QUIET as u64), "{known:?}");
    drop(quiet);
    // Those that came after the load end by themselves, and the others with the next load.
    eventually("closed connections are forgotten", || {
        Ok(flows(&guarded)?["occupancy"]["sockets"].as_u64() <= Some(QUIET as u64 / 2))
    })?;
    Ok(())
}
