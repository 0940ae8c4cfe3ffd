//! A guard for as long as one likes, with traffic of every kind and everything that changes a guard in turns: nothing that lives
//! is lost, nothing that is denied comes through, every view says what happens, and there is no more of anything in the end.

use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use portguard_harness::frames::{Generator, Palette};
use portguard_harness::net::Process;
use portguard_harness::traffic::{
    PacketSocket, TcpEcho, UdpEcho, connect, exchange_tcp, receive_datagram, udp_socket,
};

use crate::agent::flood::resident;
use crate::agent::listening;
use crate::faults::state::{check_whole, maps};
use crate::faults::traffic::Traffic;
use crate::guard::{Guarded, LONG, SHORT, SOON, eventually};

/// How long, beyond the two turns that there are always.
const SECONDS: &str = "PORTGUARD_SOAK_SECONDS";

/// Open in all policies, in one of two, in none.
const ALWAYS: u16 = 7010;
const FIRST: u16 = 7011;
const SECOND: u16 = 7012;
const NEVER: u16 = 7013;
/// A documented TCP port of the host, and what the host asks of the peer.
const DOOR: u16 = 7014;
const OUTSIDE: u16 = 8001;

/// Length of an Ethernet header.
const HEADER: usize = 14;

/// KiB that the agent may grow by. It knows each port that was hit, of three transports: some 300 octets for each while it looks, and
/// the C library keeps as much again for the next look.
const GROWTH: u64 = 80 << 10;
/// Files that it may have open beyond those of a moment before: its resolver asks by a dozen sockets, and it reads.
const FILES: usize = 20;

#[test]
#[ignore = "takes minutes, or as many seconds as `PORTGUARD_SOAK_SECONDS` says"]
fn nothing_wears_a_guard_out() -> Result<()> {
    let seconds = std::env::var(SECONDS).map_or(Ok(0), |said| said.parse())?;
    let mut soak = Soak::new()?;
    // All that there ever is has been there once.
    soak.turn()?;
    let (first, begun) = (soak.held()?, Instant::now());
    let mut turns = 1;
    while turns < 3 || begun.elapsed() < Duration::from_secs(seconds) {
        soak.turn()?;
        turns += 1;
        let now = soak.held()?;
        println!("turn {turns}, {} s: {now:?}", begun.elapsed().as_secs());
        now.expect_no_more_than(&first)?;
    }
    let (frames, datagrams) = soak.end()?;
    println!(
        "{turns} turns in {} s: {frames} frames of every kind, {datagrams} datagrams of which none was lost, {:?} at first",
        begun.elapsed().as_secs(),
        first
    );
    Ok(())
}

/// What is held for a guard.
#[derive(Debug)]
struct Held {
    /// Maps of its programs.
    maps: usize,
    /// What is pinned.
    pins: usize,
    /// Resident memory of the agent, KiB.
    agent: u64,
    /// Open files of the agent.
    files: usize,
}

impl Held {
    fn expect_no_more_than(&self, first: &Self) -> Result<()> {
        ensure!(
            self.maps <= first.maps
                && self.pins <= first.pins
                && self.agent <= first.agent + GROWTH
                && self.files <= first.files + FILES,
            "{self:?}, and at first {first:?}"
        );
        Ok(())
    }
}

struct Soak {
    // Ends before what it sends to.
    noise: Noise,
    agent: Process,
    /// Connections to the host and of the host's own, and a conversation of its own in datagrams.
    streams: Vec<TcpStream>,
    asking: UdpSocket,
    datagrams: u64,
    _echoes: (Vec<TcpEcho>, Vec<UdpEcho>),
    guarded: Guarded,
}

impl Soak {
    fn new() -> Result<Self> {
        let guarded = Guarded::new()?;
        let (host, peer) = (&guarded.link.left, &guarded.link.right);
        let (own, other) = (IpAddr::V4(host.v4()), IpAddr::V4(peer.v4()));
        let (door, outside) = ((own, DOOR).into(), (other, OUTSIDE).into());
        let doors = vec![
            TcpEcho::start(&host.host, door)?,
            TcpEcho::start(&peer.host, outside)?,
        ];
        let mut bells = vec![UdpEcho::start(&peer.host, outside)?];
        for port in [FIRST, SECOND] {
            bells.push(UdpEcho::start(&host.host, (own, port).into())?);
        }
        // One that was there before the guard, and one that came later.
        let mut streams = vec![host.host.run(|| connect(outside, SOON).stream())?];
        enforce(&guarded, FIRST, &[])?;
        streams.push(host.host.run(|| connect(outside, SOON).stream())?);
        streams.push(peer.host.run(|| connect(door, SOON).stream())?);
        let asking = host.host.run(|| udp_socket(SocketAddr::new(own, 0)))?;
        let history = std::env::temp_dir().join(format!("{}-soak", guarded.interface()));
        let history = format!("--history={}", history.display());
        let agent = guarded.start(&["agent", "--every=1", &history].map(str::to_owned), None)?;
        listening(&agent)?;
        Ok(Self {
            noise: Noise::start(&guarded)?,
            agent,
            streams,
            asking,
            datagrams: 0,
            _echoes: (doors, bells),
            guarded,
        })
    }

    /// Everything once.
    fn turn(&mut self) -> Result<()> {
        let traffic = Traffic::start(&self.guarded, ALWAYS, NEVER)?;
        for open in [SECOND, FIRST] {
            enforce(&self.guarded, open, &[])?;
            self.expect("a swap", open)?;
        }
        enforce(&self.guarded, SECOND, &["--confirm-within", "5m"])?;
        self.verb("confirm")?;
        self.expect("a confirmation", SECOND)?;
        enforce(&self.guarded, FIRST, &["--confirm-within", "2s"])?;
        eventually("an unconfirmed policy gives way", || {
            self.guarded.reaches(SECOND, SHORT)
        })?;
        self.expect("a lapse", SECOND)?;
        self.verb("rollback")?;
        self.expect("a rollback", SECOND)?;
        for change in ["add", "del"] {
            let mut command = Command::new("busybox");
            command.args(["ip", "address", change, "10.77.0.50/24", "dev"]);
            command.arg(self.guarded.interface());
            self.guarded
                .link
                .left
                .host
                .output(&mut command, LONG)?
                .success()?;
            self.expect("another address", SECOND)?;
        }
        self.datagrams += traffic.finish()?;
        // In audit everything comes through.
        let weaker = ["--allow-weaker", "--confirm-within", "0"];
        load(&self.guarded, "--audit", FIRST, &weaker)?;
        for port in [FIRST, SECOND] {
            ensure!(self.guarded.reaches(port, SOON)?, "{port} in audit");
        }
        self.converse("audit")?;
        enforce(&self.guarded, FIRST, &[])?;
        self.expect("enforce again", FIRST)?;
        check_whole(&self.guarded, "a turn")
    }

    /// One port is open, as every view says, and all conversations go on.
    fn expect(&mut self, after: &str, open: u16) -> Result<()> {
        let closed = FIRST + SECOND - open;
        ensure!(
            self.guarded.reaches(open, SOON)? && !self.guarded.reaches(closed, SHORT)?,
            "after {after}: {open} should be open, and {closed} not"
        );
        for port in [FIRST, SECOND, NEVER] {
            let said = self.guarded.explain(port)?;
            let expected = i32::from(port != open);
            ensure!(said.code() == expected, "after {after}: {port}: {said}");
        }
        self.converse(after)
    }

    fn converse(&mut self, after: &str) -> Result<()> {
        for (index, stream) in self.streams.iter_mut().enumerate() {
            ensure!(
                exchange_tcp(stream, b"still here", SOON)?,
                "after {after}: connection {index} is lost"
            );
        }
        let peer = SocketAddr::from((self.guarded.link.right.v4(), OUTSIDE));
        self.asking.send_to(b"still here", peer)?;
        let answer = receive_datagram(&self.asking, Instant::now() + SOON)?;
        ensure!(answer.is_some(), "after {after}: no answer to a datagram");
        Ok(())
    }

    fn verb(&self, verb: &str) -> Result<()> {
        let args = [verb, "--interface", self.guarded.interface()].map(str::to_owned);
        self.guarded.run(&args, None)?.success()?;
        Ok(())
    }

    fn held(&self) -> Result<Held> {
        Ok(Held {
            maps: maps(&self.guarded)?.len(),
            pins: self.guarded.pinned()?.len(),
            agent: resident(self.agent.id())?,
            files: self.files()?,
        })
    }

    /// Open files of the agent.
    fn files(&self) -> Result<usize> {
        let files = std::fs::read_dir(format!("/proc/{}/fd", self.agent.id()))?;
        Ok(files.count())
    }

    /// Frames of every kind that were sent, and datagrams that all arrived.
    fn end(self) -> Result<(u64, u64)> {
        Ok((self.noise.end()?, self.datagrams))
    }
}

fn enforce(guarded: &Guarded, open: u16, more: &[&str]) -> Result<()> {
    let more = if more.is_empty() {
        &["--confirm-within", "0"]
    } else {
        more
    };
    load(guarded, "--enforce", open, more)
}

fn load(guarded: &Guarded, mode: &str, open: u16, more: &[&str]) -> Result<()> {
    let door = format!("tcp/{DOOR}");
    let more: Vec<&str> = more
        .iter()
        .copied()
        .chain(["--management", &door])
        .collect();
    guarded.load(mode, &[ALWAYS, open], &more)?;
    Ok(())
}

/// Frames of every kind from the peer, whole and damaged, until it ends.
struct Noise {
    ended: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    sender: Option<JoinHandle<Result<()>>>,
}

impl Noise {
    fn start(guarded: &Guarded) -> Result<Self> {
        let peer = &guarded.link.right;
        let socket = peer.host.run(|| PacketSocket::open(&peer.name))?;
        let (ended, sent) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let (over, count) = (ended.clone(), sent.clone());
        let sender = std::thread::spawn(move || {
            // Of strangers, and for nobody here: what ARP says of the host's own peers is believed.
            let mut generator = Generator::new(fastrand::u64(..)).palette(Palette {
                v4: vec![[192, 0, 2, 7].into(), [198, 51, 100, 8].into()],
                v6: vec![[0x2001, 0xdb8, 0, 0, 0, 0, 0, 7].into()],
                ..Palette::default()
            });
            let mut frame = Vec::new();
            while !over.load(Ordering::Relaxed) {
                for _ in 0..16 {
                    generator.fill(&mut frame);
                    // A packet socket takes no less than a header.
                    if frame.len() < HEADER {
                        continue;
                    }
                    count.fetch_add(u64::from(socket.offer(&frame)?), Ordering::Relaxed);
                }
                // Others use this machine, too.
                std::thread::sleep(Duration::from_millis(1));
            }
            Ok(())
        });
        Ok(Self {
            ended,
            sent,
            sender: Some(sender),
        })
    }

    fn end(mut self) -> Result<u64> {
        self.ended.store(true, Ordering::Relaxed);
        let sender = self.sender.take().context("ended twice")?;
        sender.join().ok().context("the sender panicked")??;
        Ok(self.sent.load(Ordering::Relaxed))
    }
}

impl Drop for Noise {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
    }
}
