//! Who is connected when a guard starts to enforce stays connected, or the guard says whom it would cut.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Result, ensure};
use portguard_harness::traffic::{TcpEcho, connect, exchange_tcp};

use crate::guard::{Guarded, SOON};

/// The port that the policy documents.
const OPEN: u16 = 7000;

#[test]
fn sessions_of_the_host_survive_and_sessions_of_peers_are_not_cut_unasked() -> Result<()> {
    let guarded = Guarded::new()?;
    let (left, right) = (&guarded.link.left, &guarded.link.right);
    for (ours, theirs) in left.both().into_iter().zip(right.both()) {
        let outside = TcpEcho::start(&right.host, SocketAddr::new(theirs, 0))?;
        let mut own = left
            .host
            .run(|| connect(outside.address(), SOON).stream())?;
        let output = guarded.load("--enforce", &[OPEN], &[])?;
        ensure!(
            output.stderr.contains("of the host's own seeded")
                // A session that was closed a moment ago may still count; this one must.
                && !output.stderr.contains(" 0 of the host's own seeded"),
            "{output:?}"
        );
        ensure!(
            exchange_tcp(&mut own, b"still here", SOON)?,
            "{ours}: the host's own session was cut"
        );
        let refused = right
            .host
            .run(|| Ok(connect(SocketAddr::new(ours, 7009), SOON)))?;
        ensure!(refused.is_timed_out(), "{refused:?}");
        guarded.unload()?.success()?;
        drop(own);

        let server = TcpEcho::start(&left.host, SocketAddr::new(ours, 7008))?;
        let mut peer = right
            .host
            .run(|| connect(server.address(), SOON).stream())?;
        ensure!(exchange_tcp(&mut peer, b"hello", SOON)?);
        let output = guarded.run(&guarded.load_args("--enforce", &[OPEN], &[]), None)?;
        ensure!(output.code() == 2, "{output:?}");
        ensure!(output.stderr.contains("tcp port 7008"), "{output:?}");
        ensure!(guarded.status()?.is_none());
        ensure!(exchange_tcp(&mut peer, b"hello", SOON)?);
        guarded.load("--enforce", &[OPEN], &["--force"])?;
        ensure!(
            !exchange_tcp(&mut peer, b"hello", SOON)?,
            "forced, and yet it lives"
        );
        guarded.unload()?.success()?;
    }
    Ok(())
}

#[test]
fn the_operators_own_connection_is_not_cut_unasked() -> Result<()> {
    let guarded = Guarded::new()?;
    let own = IpAddr::V4(guarded.link.left.v4());
    let ssh = format!("10.77.0.2 50000 {own} 22");
    let load = |more: &[&str]| -> Result<_> {
        let args = guarded.load_args("--enforce", &[OPEN], more);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let mut command = Guarded::command(&args);
        command.env("SSH_CONNECTION", &ssh);
        guarded
            .link
            .left
            .host
            .output(&mut command, crate::guard::LONG)
    };
    let output = load(&[])?;
    ensure!(output.code() == 2, "{output:?}");
    ensure!(
        output.stderr.contains("--management tcp/22=10.77.0.2"),
        "{output:?}"
    );
    let output = load(&["--management", "tcp/22=10.77.0.0/24"])?.success()?;
    ensure!(output.stderr.contains("stays open"), "{output:?}");
    let status = guarded.status()?.unwrap();
    let left = status["confirm_seconds_left"].as_u64();
    ensure!(
        left.is_some_and(|left| (100..=120).contains(&left)),
        "{status}"
    );
    load(&["--force", "--confirm-within", "0"])?.success()?;
    let status = guarded.status()?.unwrap();
    ensure!(status.get("confirm_deadline").is_none(), "{status}");
    Ok(())
}
