//! `portguard flows`, and what a flood from outside does to the table: nothing.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use aya::maps::MapData;
use fastrand::Rng;
use portguard_harness::frames::{Frame, Icmp, Ipv4, Ipv6, Tcp, Udp, fragments};
use portguard_harness::net::Link;
use portguard_harness::traffic::{PacketSocket, TcpEcho, UdpEcho, connect, exchange_udp};
use serde_json::Value;

use crate::guard::{Guarded, LONG, SOON};
use crate::living::town::{Site, TCP, UDP};

/// How long the flood lasts.
const FLOOD: Duration = Duration::from_secs(3);

/// Different frames of the flood, sent over and over.
const FRAMES: usize = 20_000;

/// How often a client asks a documented service meanwhile, and how long it waits.
const ASKING: Duration = Duration::from_millis(20);

fn flows(guarded: &Guarded, more: &[&str]) -> Result<(i32, Value)> {
    let args: Vec<String> = ["flows", "--json"]
        .iter()
        .chain(more)
        .map(|arg| (*arg).to_owned())
        .collect();
    let output = guarded.run(&args, None)?;
    let code = output.code();
    let answer: Value =
        serde_json::from_str(&output.stdout).with_context(|| format!("{output:?}"))?;
    ensure!(answer["schema"] == 1, "{answer}");
    Ok((code, answer["interfaces"][0].clone()))
}

#[test]
fn the_table_says_what_is_in_it() -> Result<()> {
    let guarded = Guarded::new()?;
    let none = guarded.run(&["flows".to_owned()], None)?.success()?;
    ensure!(none.stdout.contains("no interface is guarded"), "{none:?}");
    Site::new("audit")?.load(&guarded, &[])?;
    let (_, empty) = flows(&guarded, &[])?;
    ensure!(empty["name"] == guarded.interface(), "{empty}");
    ensure!(empty["timeouts"]["tcp_idle_seconds"] == 3, "{empty}");
    let cells = empty["occupancy"]["capacity"].as_u64().unwrap_or(0);
    ensure!(cells >= 1024, "{empty}");
    // Of each line of memory, one word is no cell.
    ensure!(
        empty["occupancy"]["memory_bytes"] == cells / 7 * 64,
        "{empty}"
    );

    let (left, right) = (&guarded.link.left, &guarded.link.right);
    for (ours, theirs) in left.both().into_iter().zip(right.both()) {
        let outside = TcpEcho::start(&right.host, SocketAddr::new(theirs, 0))?;
        let stream = left
            .host
            .run(|| connect(outside.address(), SOON).stream())?;
        let (local, remote) = (stream.local_addr()?, outside.address());
        ensure!(local.ip() == ours);
        let live = |local: SocketAddr| {
            flows(
                &guarded,
                &["--live", "tcp", &local.to_string(), &remote.to_string()],
            )
        };
        let (code, known) = live(local)?;
        ensure!(code == 0 && known["live"]["live"] == true, "{known}");
        ensure!(known["live"]["idle_seconds"].as_u64() < Some(5), "{known}");
        let (code, unknown) = live(SocketAddr::new(ours, 9))?;
        ensure!(code == 1 && unknown["live"]["live"] == false, "{unknown}");
    }
    let (_, two) = flows(&guarded, &[])?;
    // The kernel's own chatter may add a few.
    ensure!(two["occupancy"]["live"].as_u64() >= Some(2), "{two}");
    ensure!(two["created"].as_u64() >= Some(2), "{two}");
    ensure!(two["evicted"] == 0, "{two}");

    let text = guarded.run(&["flows".to_owned()], None)?.success()?.stdout;
    ensure!(text.contains("conversations of the host"), "{text}");
    let args = ["flows", "--live", "tcp", "here", "there"].map(str::to_owned);
    let wrong = guarded.run(&args, None)?;
    ensure!(
        wrong.code() == 2 && wrong.stderr.contains("hint:"),
        "{wrong:?}"
    );
    guarded.load("--audit", &[UDP], &["--outbound", "off"])?;
    let (_, off) = flows(&guarded, &[])?;
    ensure!(
        off["enabled"] == false && off["occupancy"].is_null(),
        "{off}"
    );
    Ok(())
}

/// Frames of nobody: sources, ports, flags, protocols and lengths at random, some in fragments.
fn spoofed(link: &Link, rng: &mut Rng) -> Result<Vec<u8>> {
    let frame = Frame::new(link.left.mac, link.right.mac);
    let (port, own) = (rng.u16(..), rng.u16(..));
    // A tenth for what is documented: the host's answers must cost no state either.
    let port = [TCP, UDP].get(rng.usize(..20)).copied().unwrap_or(port);
    let frame = if rng.bool() {
        let source: [u8; 4] = [rng.u8(1..224), rng.u8(..), rng.u8(..), rng.u8(..)];
        frame.ipv4(Ipv4::new(source.into(), link.left.v4()))
    } else {
        let net = 0x2000_u16 | rng.u16(..0x1fff);
        let source = [net, rng.u16(..), rng.u16(..), 0, 0, 0, 0, rng.u16(..)];
        frame.ipv6(Ipv6::new(source.into(), link.left.v6()))
    };
    let frame = match rng.u8(..8) {
        0..4 => frame.tcp(Tcp::new(own, port, rng.u8(..))),
        4..7 => frame.udp(Udp::new(own, port)),
        _ => frame.icmpv4(Icmp::new(rng.u8(..), 0)),
    };
    let frame = frame.payload(vec![0x5a; rng.usize(..64)]).build();
    if rng.u8(..16) > 0 || frame.len() < 80 {
        return Ok(frame);
    }
    let piece = fragments(&frame, rng.u32(..), &[0..8, 8..24])?;
    Ok(piece[usize::from(rng.bool())].clone())
}

/// What the kernel charges for the maps that are pinned for the interface, in bytes.
fn map_memory(guarded: &Guarded) -> Result<u64> {
    let mut sum = 0;
    for pin in std::fs::read_dir(guarded.pins()?.join("shared"))? {
        let map = MapData::from_pin(pin?.path())?;
        let number = map.fd().as_fd().as_raw_fd();
        let facts = std::fs::read_to_string(format!("/proc/self/fdinfo/{number}"))?;
        let charged = facts
            .lines()
            .find_map(|line| line.strip_prefix("memlock:"))
            .context("no `memlock`")?;
        sum += charged.trim().parse::<u64>()?;
    }
    Ok(sum)
}

/// Resident memory of a process, in KiB.
fn resident(process: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .context("no `VmRSS`")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

#[test]
fn a_flood_leaves_everything_where_it_was() -> Result<()> {
    let guarded = Guarded::new()?;
    let link = &guarded.link;
    Site::new("audit")?.load(&guarded, &["--enforce"])?;
    // Answers to those who do not exist have a way to go.
    let next = IpAddr::V4(link.right.v4());
    link.left.add_route("0.0.0.0/0".parse()?, Some(next))?;
    let next = IpAddr::V6(link.right.v6());
    link.left.add_route("::/0".parse()?, Some(next))?;
    let bell = SocketAddr::new(link.left.v4().into(), UDP);
    let _bell = UdpEcho::start(&link.left.host, bell)?;
    let _door = TcpEcho::start(&link.left.host, SocketAddr::new(link.left.v4().into(), TCP))?;
    // Conversations of the host's own, of which the flood must not push out one.
    let outside = UdpEcho::start(
        &link.right.host,
        SocketAddr::new(link.right.v4().into(), 8001),
    )?;
    for _ in 0..50 {
        let answered = link
            .left
            .host
            .run(|| exchange_udp(outside.address(), b"mine", SOON))?;
        ensure!(answered);
    }
    let listener = ["events", "--follow", "--json"].map(str::to_owned);
    let listener = guarded.start(&listener, None)?;
    let knocked = link
        .right
        .host
        .run(|| exchange_udp(SocketAddr::new(link.left.v4().into(), 9), b"x", ASKING));
    ensure!(!knocked?, "the guard enforces");
    let (_, before) = flows(&guarded, &[])?;
    let (maps, memory) = (map_memory(&guarded)?, resident(listener.id())?);

    let mut rng = Rng::with_seed(7);
    let frames: Vec<Vec<u8>> = (0..FRAMES)
        .map(|_| spoofed(link, &mut rng))
        .collect::<Result<_>>()?;
    let (over, sent) = (AtomicBool::new(false), AtomicU64::new(0));
    let begun = Instant::now();
    let mut answers = Vec::new();
    std::thread::scope(|scope| -> Result<()> {
        let flood = scope.spawn(|| {
            link.right.host.run(|| {
                let socket = PacketSocket::open(&link.right.name)?;
                for frame in frames.iter().cycle() {
                    if over.load(Ordering::Relaxed) {
                        break;
                    }
                    socket.send(frame)?;
                    sent.fetch_add(1, Ordering::Relaxed);
                }
                Ok(())
            })
        });
        let asking = link.right.host.run(|| {
            while begun.elapsed() < FLOOD {
                if exchange_udp(bell, b"are you there?", ASKING)? {
                    answers.push(begun.elapsed());
                }
            }
            Ok(())
        });
        over.store(true, Ordering::Relaxed);
        asking?;
        flood
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })?;
    let sent = sent.load(Ordering::Relaxed);
    println!(
        "{sent} frames in {:.1} s, {} answers meanwhile",
        begun.elapsed().as_secs_f64(),
        answers.len()
    );
    let (_, after) = flows(&guarded, &[])?;
    let grown = resident(listener.id())?.saturating_sub(memory);
    ensure!(before["created"] == after["created"], "{before} {after}");
    ensure!(before["evicted"] == after["evicted"], "{before} {after}");
    ensure!(after["occupancy"]["full_sets"] == 0, "{after}");
    ensure!(map_memory(&guarded)? == maps, "maps have grown");
    ensure!(grown < 8 << 10, "the listener has grown by {grown} KiB");
    listener.interrupt()?;
    listener.output(LONG)?.success()?;
    // Throughout: in every half second of it.
    for slice in 0..6_u64 {
        let span = Duration::from_millis(500 * slice)..Duration::from_millis(500 * (slice + 1));
        let count = answers.iter().filter(|at| span.contains(*at)).count();
        ensure!(count > 0, "no answer within {span:?} of {sent} frames");
    }
    ensure!(sent > 50_000, "{sent} frames are no flood");
    Ok(())
}
