//! One guard for as long as it is told, with frames of every kind and everything that changes a guard in turns: nothing that lives
//! is lost, nothing that is denied comes through, and there is no more of anything in the end.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use aya::maps::loaded_maps;
use aya::programs::loaded_programs;
use portguard_harness::frames::{Generator, Palette};
use portguard_harness::net::{End, Lab, Process, unique_name};
use portguard_harness::traffic::PacketSocket;

use crate::checks::{FRAMES, many};
use crate::living::{Talk, converses};
use crate::world::{OPEN, PATIENCE, RESTRICTED, UNDOCUMENTED, World};

/// How long, in seconds: a word of the kernel's command line, which it hands to its first process.
const SECONDS: &str = "PORTGUARD_SOAK_SECONDS";
/// Networks of clients: the peer is in one of them.
const ELSEWHERE: &str = "192.0.2.0/24";
const PEER: &str = "10.77.0.0/24";
/// Frames of every kind a turn.
const NOISE: usize = 2_000;
/// Length of an Ethernet header.
const HEADER: usize = 14;
/// Between two looks at what the agent says.
const STEP: Duration = Duration::from_millis(20);
/// KiB that the agent may grow by: its program is built without optimisation.
const GROWTH: u64 = 48 << 10;

/// How long, if it is wanted.
pub(crate) fn seconds() -> Option<u64> {
    std::env::var(SECONDS).ok()?.parse().ok()
}

/// What there is of everything.
#[derive(Debug)]
struct Held {
    maps: usize,
    programs: usize,
    /// Resident memory of the agent, KiB.
    agent: u64,
}

impl Held {
    fn now(agent: &Process) -> Result<Self> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", agent.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let line = line.context("the agent has ended")?;
        Ok(Self {
            maps: loaded_maps().flatten().count(),
            programs: loaded_programs().flatten().count(),
            agent: line.trim().trim_end_matches(" kB").parse()?,
        })
    }
}

pub(crate) fn soak(world: &mut World) -> Result<()> {
    let long = Duration::from_secs(seconds().unwrap_or(0));
    let begun = Instant::now();
    world.load("--enforce", ELSEWHERE)?;
    let agent = start(world)?;
    let mut talk = converses(&world.link)?;
    // All that there ever is has been there once.
    turn(world, &mut talk)?;
    let first = Held::now(&agent)?;
    let mut turns = 1;
    let mut last = Held::now(&agent)?;
    while turns < 3 || begun.elapsed() < long {
        turn(world, &mut talk)?;
        turns += 1;
        last = Held::now(&agent)?;
        ensure!(
            last.maps <= first.maps
                && last.programs <= first.programs
                && last.agent <= first.agent + GROWTH,
            "after {turns} turns {last:?}, and at first {first:?}"
        );
    }
    let took = begun.elapsed().as_secs();
    let said = format!("{turns} turns in {took} s: {last:?}, and at first {first:?}");
    world.facts.push(("soak", said));
    drop(agent);
    let name = world.link.left.name.clone();
    world.portguard(&["unload", "--interface", &name]).map(drop)
}

fn start(world: &World) -> Result<Process> {
    let mut command = Command::new(world.program());
    let history = std::env::temp_dir().join("soak");
    command.args(["agent", "--every=1", "--listen=127.0.0.1:0"]);
    command.arg(format!("--history={}", history.display()));
    let agent = world.link.left.host.start(&mut command)?;
    let deadline = Instant::now() + PATIENCE;
    while !agent.stderr().contains("listening") {
        ensure!(Instant::now() < deadline, "{}", agent.stderr());
        std::thread::sleep(STEP);
    }
    Ok(agent)
}

/// Everything once.
fn turn(world: &World, talk: &mut Talk) -> Result<()> {
    for clients in [PEER, ELSEWHERE] {
        world.load("--enforce", clients)?;
        expect(
            world,
            talk,
            "swap",
            if clients == PEER { FRAMES } else { 0 },
        )?;
    }
    noise(world)?;
    let name = &world.link.left.name;
    // Not confirmed: what was in force before comes back.
    world.load_on(name, PEER, &["--enforce", "--confirm-within", "2s"])?;
    let deadline = Instant::now() + PATIENCE;
    let reaches = |marker: &str| {
        let frames = many(world, RESTRICTED, marker);
        world.arrivals(&frames, marker, 0)
    };
    while reaches("lapse")? > 0 {
        ensure!(Instant::now() < deadline, "what nobody confirmed stays");
    }
    expect(world, talk, "lapsed", 0)?;
    world.portguard(&["rollback", "--interface", name])?;
    expect(world, talk, "rollback", 0)?;
    // An interface and its addresses come and go.
    let (left, right) = (&world.link.left.host, &world.link.right.host);
    let other = unique_name("pgo");
    let end = End::new(&other).address("10.78.0.1/24");
    Lab::new()?.connect(left, &end, right, &End::new(&unique_name("pgo")))?;
    expect(world, talk, "address", 0)?;
    left.delete_interface(&other)?;
    expect(world, talk, "no-address", 0)?;
    let weaker = ["--audit", "--allow-weaker", "--confirm-within", "0"];
    world.load_on(name, ELSEWHERE, &weaker)?;
    world.expect(&many(world, UNDOCUMENTED, "audit"), "audit", FRAMES)?;
    talk.go_on()?;
    world.load("--enforce", ELSEWHERE)?;
    expect(world, talk, "again", 0)
}

/// One port is open to all, one to so many frames of this peer, one to nobody; and conversations go on.
fn expect(world: &World, talk: &mut Talk, after: &str, restricted: usize) -> Result<()> {
    let wanted = [(OPEN, FRAMES), (RESTRICTED, restricted), (UNDOCUMENTED, 0)];
    for (port, expected) in wanted {
        let marker = format!("{after}-{port}");
        world.expect(&many(world, port, &marker), &marker, expected)?;
    }
    talk.go_on().with_context(|| format!("after {after}"))
}

/// Frames of every kind from the peer, whole and damaged, of strangers.
fn noise(world: &World) -> Result<()> {
    let right = &world.link.right;
    let socket = right.host.run(|| PacketSocket::open(&right.name))?;
    let mut generator = Generator::new(fastrand::u64(..)).palette(Palette {
        v4: vec![[192, 0, 2, 7].into(), [198, 51, 100, 8].into()],
        v6: vec![[0x2001, 0xdb8, 0, 0, 0, 0, 0, 7].into()],
        ..Palette::default()
    });
    let mut frame = Vec::new();
    for _ in 0..NOISE {
        generator.fill(&mut frame);
        if frame.len() >= HEADER {
            socket.offer(&frame)?;
        }
    }
    Ok(())
}
