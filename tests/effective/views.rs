//! The views that follow what happens: events, the dashboard, what is asked before enforcing, and a running agent.

use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use portguard_harness::traffic::udp_socket;
use serde_json::Value;

use super::{DEADLINE, enforcing, lapse, run};
use crate::agent::{get, listening};
use crate::guard::{Guarded, LONG, eventually};

/// One datagram of the peer's to a port that nothing opens.
fn knock(guarded: &Guarded) -> Result<()> {
    let (left, right) = (&guarded.link.left, &guarded.link.right);
    right.host.run(|| {
        let socket = udp_socket("0.0.0.0:0".parse()?)?;
        socket.send_to(b"knock", (left.v4(), 9))?;
        Ok(())
    })
}

#[test]
fn what_has_lapsed_is_followed_as_what_drops_nothing() -> Result<()> {
    for (more, is_lapsed) in [(&[][..], false), (&["--confirm-within", DEADLINE], true)] {
        let guarded = enforcing(more)?;
        if is_lapsed {
            lapse(&guarded)?;
        }
        let events = ["events", "--follow", "--json"].map(str::to_owned);
        let events = guarded.start(&events, None)?;
        eventually("an event", || {
            knock(&guarded)?;
            Ok(events.stdout().contains("undocumented-port"))
        })?;
        events.interrupt()?;
        let heard = events.output(LONG)?;
        let line: Value = serde_json::from_str(heard.stdout.lines().next().unwrap_or_default())?;
        let wanted = if is_lapsed { "pass" } else { "drop" };
        ensure!(line["verdict"] == "drop", "{line}");
        ensure!(line["effective"] == wanted, "{line}");

        let program = env!("CARGO_BIN_EXE_portguard");
        let shown = format!("stty rows 30 cols 130; {program} top");
        let mut command = Command::new("script");
        command.args(["-qfec", &shown, "/dev/null"]);
        command.env("TERM", "xterm");
        let top = guarded.link.left.host.start(&mut command)?;
        let words = if is_lapsed {
            "has given way"
        } else {
            "dropped"
        };
        let seen = top.wait_for(words, Duration::from_secs(20))?;
        let is_said = seen.contains("not confirmed");
        ensure!(is_said == is_lapsed, "{seen}");
    }
    Ok(())
}

/// What an unconfirmed enforce leaves behind is no evidence that it enforces.
#[test]
fn what_has_lapsed_can_be_promoted() -> Result<()> {
    let guarded = enforcing(&["--confirm-within", DEADLINE])?;
    lapse(&guarded)?;
    let state = tempfile::tempdir()?;
    let promote = |more: &[&str]| -> Result<Value> {
        let mut args = guarded.load_args("--enforce", &[7000], &["--json", "--dry-run"]);
        args[0] = "promote".to_owned();
        args.extend(more.iter().map(|word| (*word).to_owned()));
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let mut command = Guarded::command(&args);
        command.env("STATE_DIRECTORY", state.path());
        let output = guarded.link.left.host.output(&mut command, LONG)?;
        Ok(serde_json::from_str(&output.stdout)?)
    };
    knock(&guarded)?;
    let answer = promote(&["--window", "0", "--min-packets", "1"])?;
    ensure!(!answer.to_string().contains("already"), "{answer}");
    ensure!(
        answer["interfaces"][0]["flows"][0]["what"] == "udp/9",
        "{answer}"
    );
    Ok(())
}

#[test]
fn an_agent_that_runs_says_that_an_interface_is_gone() -> Result<()> {
    let guarded = enforcing(&[])?;
    let history = tempfile::tempdir()?;
    let flag = format!("--history={}", history.path().display());
    let agent = guarded.start(&["agent".to_owned(), "--every=1".to_owned(), flag], None)?;
    listening(&agent)?;
    let host = &guarded.link.left.host;
    let name = guarded.interface();
    let line = |value: u8| format!("portguard_enforcing{{interface=\"{name}\"}} {value}\n");
    let (head, _) = get(host, "/healthz", "*/*")?;
    ensure!(head.starts_with("HTTP/1.1 200"), "{head}");
    ensure!(get(host, "/metrics", "*/*")?.1.contains(&line(1)));
    host.delete_interface(name)?;
    eventually("it is not healthy", || {
        let (head, _) = get(host, "/healthz", "*/*")?;
        Ok(head.starts_with("HTTP/1.1 503"))
    })?;
    let (_, metrics) = get(host, "/metrics", "*/*")?;
    ensure!(!metrics.contains(&line(1)), "{metrics}");
    // It comes back, and so does its guard.
    let _link = super::again(&guarded)?;
    eventually("it is guarded again", || {
        let healthy = get(host, "/healthz", "*/*")?.0.starts_with("HTTP/1.1 200");
        Ok(healthy && get(host, "/metrics", "*/*")?.1.contains(&line(1)))
    })?;
    run(&guarded, &["status"])?.success()?;
    Ok(())
}
