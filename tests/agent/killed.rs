//! The agent is killed while it counts: nothing is counted twice or lost, and what it kept goes on where it ended.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use anyhow::{Context as _, Result, ensure};
use portguard_harness::frames::{Frame, Ipv4, Udp};
use portguard_harness::net::Process;
use portguard_harness::traffic::PacketSocket;
use portguard_observe::history;

use super::{get, listening};
use crate::guard::{Guarded, LONG, eventually};

const PORT: u16 = 61_004;
/// How often the agent dies.
const DEATHS: usize = 3;

fn start(guarded: &Guarded, history: &Path) -> Result<Process> {
    let history = format!("--history={}", history.display());
    let args = ["agent", "--every=1", &history];
    let agent = guarded.start(&args.map(str::to_owned), None)?;
    listening(&agent)?;
    Ok(agent)
}

/// Packets of the reason as the agent tells them.
fn told(guarded: &Guarded) -> Result<u64> {
    let (_, body) = get(&guarded.link.left.host, "/metrics", "*/*")?;
    let line = body.lines().find(|line| {
        line.starts_with("portguard_packets_total{") && line.contains("\"undocumented-port\"")
    });
    // Not before the first violation.
    let Some(line) = line else { return Ok(0) };
    let (_, number) = line.rsplit_once(' ').context("a number")?;
    Ok(number.parse()?)
}

#[test]
fn an_agent_that_is_killed_loses_no_packet_and_no_sample() -> Result<()> {
    let guarded = Guarded::new()?;
    guarded.load("--enforce", &[], &["--force", "--confirm-within", "0"])?;
    let before = guarded.status()?.context("a guard")?;
    let directory = std::env::temp_dir().join(format!("{}-killed", guarded.interface()));
    let kept = || {
        let read = history::read(&directory, guarded.interface());
        read.ok().flatten().unwrap_or_default().samples
    };
    let (from, to) = (&guarded.link.right, &guarded.link.left);
    let frame = Frame::between(from, to)
        .ipv4(Ipv4::new(from.v4(), to.v4()))
        .udp(Udp::new(40_000, PORT))
        .payload(vec![0; 20])
        .build();
    let socket = from.host.run(|| PacketSocket::open(&from.name))?;
    let (sent, is_over) = (AtomicU64::new(0), AtomicBool::new(false));

    let agent = thread::scope(|scope| {
        let traffic = scope.spawn(|| -> Result<()> {
            while !is_over.load(Ordering::Relaxed) {
                guarded.receive(&socket, &frame, 64)?;
                sent.fetch_add(64, Ordering::Relaxed);
            }
            Ok(())
        });
        let result = (|| -> Result<Process> {
            let mut agent = start(&guarded, &directory)?;
            let (mut most, mut samples) = (0, Vec::new());
            for death in 0..DEATHS {
                // In the midst of traffic, after it has told and kept more than the one before.
                eventually("the agent counts on", || {
                    let now = told(&guarded)?;
                    ensure!(now >= most, "{now} after {most}: it fell");
                    let is_more = now > most && kept().len() > samples.len();
                    most = if is_more { now } else { most };
                    Ok(is_more)
                })?;
                agent.kill();
                let left = kept();
                ensure!(
                    left.starts_with(&samples),
                    "death {death}: {samples:?}, then {left:?}"
                );
                samples = left;
                agent = start(&guarded, &directory)?;
            }
            let (is_kept, now) = (kept().starts_with(&samples), told(&guarded)?);
            ensure!(is_kept && now >= most, "{now} after {most}");
            Ok(agent)
        })();
        is_over.store(true, Ordering::Relaxed);
        traffic.join().expect("no panic")?;
        result
    })?;

    let sent = sent.into_inner();
    println!("{sent} frames sent, {DEATHS} deaths");
    assert_eq!(told(&guarded)?, sent);
    eventually("the last sample is kept", || {
        Ok(kept()
            .last()
            .is_some_and(|sample| sample.violations == sent))
    })?;
    // Every line of the file is a whole sample, and sums only grow.
    let samples = kept();
    let text = std::fs::read_to_string(directory.join(format!("{}.jsonl", guarded.interface())))?;
    assert_eq!(text.lines().count(), samples.len(), "{text}");
    let is_growing = |pair: &[history::Sample]| match pair {
        [one, next] => one.at <= next.at && one.violations <= next.violations,
        _ => true,
    };
    assert!(samples.windows(2).all(is_growing), "{samples:?}");

    // The guard noticed nothing.
    let after = guarded.status()?.context("a guard")?;
    for key in ["mode", "generation", "programs", "digest"] {
        assert_eq!(after[key], before[key], "{key}");
    }
    assert_eq!(after["warnings"], before["warnings"]);
    agent.terminate()?;
    assert_eq!(agent.output(LONG)?.code(), 0);
    std::fs::remove_dir_all(directory)?;
    Ok(())
}
