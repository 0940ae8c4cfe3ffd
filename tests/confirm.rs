//! A wrong enforce heals itself: the program gives way when its deadline passes, whoever is still alive.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use portguard_harness::traffic::{TcpEcho, UdpEcho, connect, exchange_udp};

use crate::guard::{Guarded, SHORT, SOON, eventually};

/// Open in both policies, in the first only, in the second only, in none.
const BOTH: u16 = 7000;
const FIRST: u16 = 7001;
const SECOND: u16 = 7002;
const NONE: u16 = 7003;
const ALL: [u16; 4] = [BOTH, FIRST, SECOND, NONE];
/// Long enough for a load and some looks on a busy machine.
const WITHIN: Duration = Duration::from_secs(6);

fn echoes(guarded: &Guarded) -> Result<Vec<UdpEcho>> {
    let address = IpAddr::V4(guarded.link.left.v4());
    ALL.iter()
        .map(|port| UdpEcho::start(&guarded.link.left.host, SocketAddr::new(address, *port)))
        .collect()
}

fn verb(guarded: &Guarded, verb: &str) -> Result<portguard_harness::net::Output> {
    let args = [verb, "--interface", guarded.interface()].map(str::to_owned);
    guarded.run(&args, None)
}

/// Waits for a port to open; returns how long after `start` it did, to within the time of one look.
fn opens(guarded: &Guarded, port: u16, start: Instant) -> Result<Duration> {
    loop {
        if guarded.reaches(port, SHORT)? {
            return Ok(start.elapsed());
        }
        ensure!(start.elapsed() < 3 * WITHIN, "port {port} never opened");
    }
}

#[test]
fn a_first_enforce_that_nobody_confirms_drops_nothing_after_its_deadline() -> Result<()> {
    let guarded = Guarded::new()?;
    let _servers = echoes(&guarded)?;
    let within = format!("{}s", WITHIN.as_secs());
    // The deadline counts from within the load: it is neither earlier than from before it nor later than from after it.
    let before = Instant::now();
    let output = guarded.load("--enforce", &[BOTH], &["--confirm-within", &within])?;
    let after = before.elapsed();
    ensure!(output.stderr.contains("portguard confirm"), "{output:?}");
    ensure!(
        output.stderr.contains("or nothing is dropped any more"),
        "{output:?}"
    );
    ensure!(guarded.open(&[BOTH, NONE])? == [BOTH]);
    let status = guarded.status()?.unwrap();
    ensure!(
        status["confirm_seconds_left"]
            .as_u64()
            .is_some_and(|left| left > 0),
        "{status}"
    );
    let opened = opens(&guarded, NONE, before)?;
    ensure!(opened >= WITHIN, "opened early, after {opened:?}");
    ensure!(
        opened <= WITHIN + after + SOON,
        "opened late, after {opened:?}"
    );
    let status = guarded.status()?.unwrap();
    ensure!(
        status["warnings"][0]
            .as_str()
            .unwrap()
            .contains("not confirmed in time"),
        "{status}"
    );
    let output = verb(&guarded, "confirm")?;
    ensure!(
        output.code() == 2 && output.stderr.contains("too late"),
        "{output:?}"
    );
    // There is nothing to go back to, and nobody is sent there.
    ensure!(!output.stderr.contains("rollback"), "{output:?}");
    ensure!(guarded.open(&ALL)? == ALL);
    let output = verb(&guarded, "rollback")?;
    ensure!(output.code() == 2, "{output:?}");
    Ok(())
}

#[test]
fn a_replacement_that_nobody_confirms_gives_way_to_its_predecessor() -> Result<()> {
    let guarded = Guarded::new()?;
    let _servers = echoes(&guarded)?;
    let within = format!("{}s", WITHIN.as_secs());
    guarded.load("--enforce", &[BOTH, FIRST], &[])?;
    let before = Instant::now();
    guarded.load("--enforce", &[BOTH, SECOND], &["--confirm-within", &within])?;
    ensure!(guarded.open(&ALL)? == [BOTH, SECOND]);
    let opened = opens(&guarded, FIRST, before)?;
    ensure!(opened >= WITHIN, "opened early, after {opened:?}");
    ensure!(
        guarded.open(&ALL)? == [BOTH, FIRST],
        "what only the replacement passes stays out"
    );
    ensure!(guarded.explain(SECOND)?.code() == 1, "every view says so");
    ensure!(guarded.explain(FIRST)?.code() == 0);
    let output = verb(&guarded, "rollback")?.success()?;
    ensure!(
        output.stderr.contains("generation 1 is in force again"),
        "{output:?}"
    );
    ensure!(guarded.open(&ALL)? == [BOTH, FIRST]);
    ensure!(guarded.status()?.unwrap()["generation"] == 1);
    Ok(())
}

#[test]
fn a_host_that_is_opened_for_a_while_closes_again() -> Result<()> {
    let within = format!("{}s", WITHIN.as_secs());
    let deadline: [&'static str; 2] = ["--confirm-within", within.leak()];
    let guarded = Guarded::new()?;
    let _servers = echoes(&guarded)?;
    // Nothing drops anything: there is nothing to give way to, which is said.
    let output = guarded.load("--audit", &[BOTH, FIRST], &deadline)?;
    ensure!(output.stderr.contains("has no effect"), "{output:?}");
    guarded.load("--enforce", &[BOTH, FIRST], &[])?;
    ensure!(guarded.open(&ALL)? == [BOTH, FIRST]);
    let before = Instant::now();
    let weaker = ["--allow-weaker", deadline[0], deadline[1]];
    let output = guarded.load("--audit", &[BOTH, FIRST], &weaker)?;
    ensure!(output.stderr.contains("portguard confirm"), "{output:?}");
    let status = guarded.status()?.context("guarded")?;
    ensure!(!status["confirm_deadline"].is_null(), "{status:#}");
    ensure!(guarded.open(&ALL)? == ALL);
    eventually("it closes again", || {
        Ok(guarded.open(&ALL)? == [BOTH, FIRST])
    })?;
    ensure!(before.elapsed() >= WITHIN);
    // Confirmed in time, it stays open.
    guarded.load(
        "--audit",
        &[BOTH, FIRST],
        &["--allow-weaker", "--confirm-within", "60s"],
    )?;
    verb(&guarded, "confirm")?.success()?;
    ensure!(guarded.open(&ALL)? == ALL);
    Ok(())
}

/// Servers at an undocumented port of the peer's.
fn servers(guarded: &Guarded) -> Result<Vec<(UdpEcho, TcpEcho)>> {
    let right = &guarded.link.right;
    let both = right.both().into_iter();
    both.map(|address| {
        let there = SocketAddr::new(address, NONE);
        Ok((
            UdpEcho::start(&right.host, there)?,
            TcpEcho::start(&right.host, there)?,
        ))
    })
    .collect()
}

/// Whether what the host sends there is answered, by UDP and TCP of both families: all, or none.
fn asks(guarded: &Guarded) -> Result<Option<bool>> {
    let mut answers = BTreeSet::new();
    for address in guarded.link.right.both() {
        let target = SocketAddr::new(address, NONE);
        guarded.link.left.host.run(|| {
            answers.insert(exchange_udp(target, b"portguard", SHORT)?);
            answers.insert(connect(target, SHORT).is_connected());
            Ok(())
        })?;
    }
    Ok((answers.len() == 1).then(|| answers.contains(&true)))
}

#[test]
fn what_is_sent_is_for_the_predecessor_to_judge_as_well() -> Result<()> {
    for (before, after) in [("enforce", "audit"), ("audit", "enforce")] {
        let guarded = Guarded::new()?;
        let _servers = servers(&guarded)?;
        let settings = "--system-version 10 --choose directory-port=636 --choose mail-port=587";
        let load = |outbound, more: &[&'static str]| {
            let words = settings.split(' ').chain(["--outbound", outbound]);
            let words: Vec<&str> = words.chain(more.iter().copied()).collect();
            guarded.load("--enforce", &[], &words)
        };
        let start = Instant::now();
        load(before, &[])?;
        // Long enough for the next load and a look, on a machine as busy as this one.
        let within = Duration::from_secs(1) + 3 * start.elapsed();
        let within: &'static str = format!("{}ms", within.as_millis()).leak();
        ensure!(asks(&guarded)? == Some(before == "audit"), "{before}");
        load(after, &["--allow-weaker", "--confirm-within", within])?;
        ensure!(
            asks(&guarded)? == Some(after == "audit"),
            "{before}, {after}"
        );
        eventually("the one before judges", || {
            Ok(asks(&guarded)? == Some(before == "audit"))
        })?;
    }
    Ok(())
}

#[test]
fn what_is_confirmed_in_time_stays() -> Result<()> {
    let guarded = Guarded::new()?;
    let _servers = echoes(&guarded)?;
    let within = format!("{}s", WITHIN.as_secs());
    let before = Instant::now();
    guarded.load("--enforce", &[BOTH], &["--confirm-within", &within])?;
    verb(&guarded, "confirm")?.success()?;
    std::thread::sleep((WITHIN + Duration::from_secs(1)).saturating_sub(before.elapsed()));
    ensure!(guarded.open(&ALL)? == [BOTH]);
    let status = guarded.status()?.unwrap();
    ensure!(status.get("confirm_deadline").is_none(), "{status}");
    // The next unconfirmed one goes back to this.
    guarded.load("--enforce", &[BOTH, FIRST], &["--confirm-within", "1h"])?;
    guarded.load("--enforce", &[BOTH, SECOND], &["--confirm-within", "1h"])?;
    verb(&guarded, "rollback")?.success()?;
    ensure!(guarded.status()?.unwrap()["generation"] == 1);
    ensure!(guarded.open(&ALL)? == [BOTH]);
    Ok(())
}
