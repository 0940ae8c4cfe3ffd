//! A flood of violations from as many sources as there are: the agent, and what it keeps, stay as large as they were.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use fastrand::Rng;
use portguard_harness::frames::{Frame, Ipv4, Udp};
use portguard_harness::traffic::PacketSocket;
use portguard_observe::history;

use super::get;
use crate::guard::{Guarded, LONG, eventually};

/// How long it lasts.
const FLOOD: Duration = Duration::from_secs(4);
/// Sources and ports.
const FRAMES: usize = 4_096;
/// What a sample takes in the history, at most.
const SAMPLE: u64 = 160;
/// What the agent may grow by, KiB: room for all callers that the kernel keeps, and for texts about them.
const GROWTH: u64 = 8 << 10;

/// Resident memory of a process, in KiB.
pub(crate) fn resident(process: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let line = line.context("no `VmRSS`")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

/// Bytes of all that is in a directory.
fn size(directory: &Path) -> Result<u64> {
    let mut sum = 0;
    for entry in std::fs::read_dir(directory)? {
        sum += entry?.metadata()?.len();
    }
    Ok(sum)
}

#[test]
fn a_flood_makes_the_agent_and_its_files_no_larger() -> Result<()> {
    let guarded = Guarded::new()?;
    guarded.load("--enforce", &[], &["--force", "--confirm-within", "0"])?;
    let directory = std::env::temp_dir().join(format!("{}-flooded", guarded.interface()));
    let flag = format!("--history={}", directory.display());
    let args = ["agent", "--every=1", &flag].map(str::to_owned);
    let agent = guarded.start(&args, None)?;
    let (from, to) = (&guarded.link.right, &guarded.link.left);
    let mut rng = Rng::with_seed(5);
    let frames: Vec<Vec<u8>> = (0..FRAMES)
        .map(|_| {
            let source = [rng.u8(1..224), rng.u8(..), rng.u8(..), rng.u8(..)];
            Frame::between(from, to)
                .ipv4(Ipv4::new(source.into(), to.v4()))
                .udp(Udp::new(40_000, rng.u16(20_000..)))
                .payload([0; 20])
                .build()
        })
        .collect();
    let samples = || {
        let read = history::read(&directory, guarded.interface());
        read.ok()
            .flatten()
            .map_or(0, |history| history.samples.len())
    };
    let scrape = || get(&guarded.link.left.host, "/metrics", "*/*");
    // Everything that it does, it has done once: it has seen callers, been asked, and kept a sample.
    let socket = from.host.run(|| PacketSocket::open(&from.name))?;
    guarded.receive_all(&socket, frames.iter().take(64))?;
    eventually("two samples", || Ok(samples() >= 2))?;
    let (_, before) = scrape()?;
    let memory = resident(agent.id())?;

    let begun = Instant::now();
    let mut sent = 0_u64;
    for frame in frames.iter().cycle() {
        socket.send(frame)?;
        sent += 1;
        if sent.is_multiple_of(1_024) && begun.elapsed() > FLOOD {
            break;
        }
    }
    let during = samples();
    eventually("a sample after it", || Ok(samples() > during))?;
    let (_, after) = scrape()?;
    let grown = resident(agent.id())?.saturating_sub(memory);
    println!("{sent} frames; the agent has grown by {grown} KiB to {memory} KiB");
    ensure!(grown < GROWTH, "the agent has grown by {grown} KiB");
    ensure!(sent > 50_000, "{sent} frames are no flood");
    // The flood is in the numbers, not in how many there are: only callers come, ten at most.
    let series = |text: &str| {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        lines
            .filter(|line| !line.starts_with("portguard_caller_"))
            .count()
    };
    assert_eq!(series(&before), series(&after), "{after}");
    let (kept, count) = (size(&directory)?, samples() as u64);
    ensure!(kept <= count * SAMPLE, "{kept} bytes for {count} samples");
    agent.terminate()?;
    ensure!(agent.output(LONG)?.code() == 0);
    std::fs::remove_dir_all(directory)?;
    Ok(())
}
