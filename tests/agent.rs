//! The agent: metrics that a Prometheus reads, health, and an end that leaves the guard on.

mod crowd;
pub(crate) mod flood;
mod killed;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result};
use portguard_harness::net::{Host, Lab, Process};

use crate::guard::eventually;

const SOON: Duration = Duration::from_secs(20);

pub(crate) fn get(host: &Host, path: &str, accept: &str) -> Result<(String, String)> {
    host.run(|| {
        let address: SocketAddr = ([127, 0, 0, 1], 9475).into();
        let mut stream = TcpStream::connect_timeout(&address, SOON)?;
        stream.set_read_timeout(Some(SOON))?;
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: x\r\nAccept: {accept}\r\n\r\n"
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").context("an answer")?;
        Ok((head.to_owned(), body.to_owned()))
    })
}

/// Waits until an agent serves.
pub(crate) fn listening(agent: &Process) -> Result<()> {
    eventually("the agent listens", || {
        Ok(agent.stderr().contains("listening"))
    })
}

fn portguard(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_portguard"));
    command.args(arguments);
    command
}

#[test]
fn metrics_are_served_and_the_guard_outlives_the_agent() -> Result<()> {
    let link = Lab::new()?.pair()?;
    let host = &link.right.host;
    let history = std::env::temp_dir().join(format!("portguard-agent-{}", std::process::id()));
    let history_flag = format!("--history={}", history.display());
    let agent = host.start(&mut portguard(&["agent", "--every=1", &history_flag]))?;
    listening(&agent)?;
    let (head, body) = get(host, "/healthz", "*/*")?;
    assert!(head.starts_with("HTTP/1.1 503"), "{head}");
    assert_eq!(body, "no interface is guarded\n");

    host.output(
        &mut portguard(&[
            "load",
            "--role=wso2/identity-server",
            "--unprinted-peers=any",
            "--unresolved-peers=any",
            "--audit",
            "--interface",
            &link.right.name,
        ]),
        SOON,
    )?
    .success()?;
    link.left.host.run(|| {
        let socket = std::net::UdpSocket::bind("0.0.0.0:0")?;
        for _ in 0..7 {
            socket.send_to(b"knock", (link.right.v4(), 61_003))?;
        }
        Ok(())
    })?;
    let wanted = format!(
        "portguard_packets_total{{interface=\"{}\",direction=\"in\",reason=\"undocumented-port\",violation=\"true\"}} 7",
        link.right.name
    );
    let started = std::time::Instant::now();
    let body = loop {
        let (head, body) = get(host, "/metrics", "*/*")?;
        assert!(head.contains("text/plain; version=0.0.4"), "{head}");
        if body.contains(&wanted) || started.elapsed() > SOON {
            break body;
        }
    };
    assert!(body.contains(&wanted), "{body}");
    let (head, open) = get(host, "/metrics", "application/openmetrics-text")?;
    assert!(head.contains("application/openmetrics-text"), "{head}");
    assert!(open.ends_with("# EOF\n"), "{open}");
    check(&body)?;
    assert!(get(host, "/nothing", "*/*")?.0.starts_with("HTTP/1.1 404"));

    let kept = history.join(format!("{}.jsonl", link.right.name));
    let started = std::time::Instant::now();
    while !kept.exists() {
        anyhow::ensure!(started.elapsed() < SOON, "no sample: {}", agent.stderr());
        std::thread::sleep(Duration::from_millis(20));
    }

    agent.terminate()?;
    let ended = agent.output(SOON)?;
    assert_eq!(ended.code(), 0, "{ended}");
    let counters = host
        .output(&mut portguard(&["counters", "--json"]), SOON)?
        .success()?;
    assert!(counters.stdout.contains("undocumented-port"), "{counters}");

    // What the agent kept is what the report plots.
    let page = host
        .output(&mut portguard(&["report", &history_flag]), SOON)?
        .success()?;
    assert!(page.stdout.starts_with("<!doctype html>"));
    assert!(page.stdout.contains("61003"));
    std::fs::remove_dir_all(&history)?;
    host.output(&mut portguard(&["unload"]), SOON)?.success()?;
    Ok(())
}

/// Has Prometheus's own tool read the text.
fn check(text: &str) -> Result<()> {
    let tool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut tool = tool.context(
        "this test needs `promtool` of Debian's package `prometheus`: `cargo xtask setup` installs it",
    )?;
    tool.stdin
        .take()
        .context("a pipe")?
        .write_all(text.as_bytes())?;
    let output = tool.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(said.trim().is_empty(), "{said}");
    Ok(())
}
