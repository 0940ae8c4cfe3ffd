//! Events that there is no room for are counted: what was to be told is what is read and what is lost.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use aya::programs::Xdp;
use aya::{TestRun as _, TestRunOptions};
use portguard_common::abi::{EVENTS_A_TICK, slot};
use portguard_common::sampler::SAMPLED_ALL;
use portguard_harness::frames::{Frame, Icmp, Ipv4, Udp};
use portguard_harness::net::unique_name;
use portguard_harness::traffic::PacketSocket;
use portguard_kernel::object::{HostFacts, load};
use portguard_kernel::pins;
use portguard_kernel::pins::bpffs::Layout;
use portguard_observe::counters::Snapshot;
use portguard_observe::events::stream::Stream;
use portguard_policy::cells::Directory;
use portguard_policy::image::Image;
use portguard_policy::policy::Policy;
use serde_json::Value;

use crate::guard::{Guarded, LONG};

/// Ports of as many parts of the table, each with a pace of its own.
const PORTS: u16 = 16;
/// Violations of each in a unit of time: all are looked at.
const EACH: u32 = 60;
/// Units of time of four jiffies.
const SHIFT: u32 = 2;
/// How long such a unit may last, and some, with the slowest clock that kernels have (100 a second).
const UNIT: Duration = Duration::from_millis(60);
/// Units: more events than the ring has room for.
const UNITS: u32 = 20;

fn port(index: u16) -> u16 {
    3_000 + 4_096 * index
}

/// Violations of four reasons; the first by many ports.
fn frames() -> Vec<Vec<u8>> {
    let frame = || Frame::new([2; 6], [4; 6]);
    let ip = || Ipv4::new([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
    let mut frames: Vec<Frame> = (0..PORTS)
        .map(|index| frame().ipv4(ip()).udp(Udp::new(40_000, port(index))))
        .collect();
    frames.push(frame().ipv4(ip()).protocol(47));
    frames.push(frame().ipv4(ip()).icmpv4(Icmp::new(13, 0)));
    frames.push(frame().ipv4(ip().ihl(4)).udp(Udp::new(40_000, 53)));
    let padded = frames
        .into_iter()
        .map(|frame| frame.payload([0; 40]).build());
    padded.collect()
}

fn run(program: &Xdp, frame: &[u8]) -> Result<()> {
    program.test_run(TestRunOptions {
        data_in: Some(frame),
        repeat: EACH,
        ..TestRunOptions::default()
    })?;
    Ok(())
}

#[test]
fn a_ring_that_nobody_reads_fills_and_the_rest_is_counted() -> Result<()> {
    const { assert!((EACH as u64) < SAMPLED_ALL && SAMPLED_ALL <= EVENTS_A_TICK) };
    let image = Image::build(&Policy::default(), Directory::default())?;
    drop(pins::lock()?);
    let layout = Layout::of(&unique_name("pgo"));
    let generation = layout.generation(1);
    std::fs::create_dir_all(layout.shared())?;
    std::fs::create_dir_all(&generation)?;
    let result = (|| {
        let facts = HostFacts {
            tick_shift: SHIFT,
            ..HostFacts::default()
        };
        let mut loaded = load(&image, &facts, Some(&layout.shared()))?;
        loaded.map("CONTROL")?.pin(generation.join("CONTROL"))?;
        let program = &*loaded.ingress()?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let _inside = runtime.enter();
        let lost = || -> Result<u64> {
            let snapshot = Snapshot::read(&layout.shared(), 0)?;
            Ok(snapshot.slot(slot::EVENTS_LOST).packets)
        };
        let frames = frames();
        let mut stream = Stream::open(&layout)?;
        let mut sent = 0;
        for _ in 0..UNITS {
            stream.announce()?;
            for frame in &frames {
                run(program, frame)?;
                sent += u64::from(EACH);
            }
            // Time itself is waited for: the next unit looks at as many again.
            std::thread::sleep(UNIT);
        }
        stream.hush()?;
        let read = stream.ready().len() as u64;
        println!("{sent} to tell, {read} read, {} lost", lost()?);
        assert_eq!(read + lost()?, sent);
        // Not for want of a share alone: those of three reasons were never more than theirs.
        let shares = u64::from(UNITS) * (EVENTS_A_TICK + 3 * u64::from(EACH));
        ensure!(read < shares, "{read} of {shares}: the ring was never full");

        // Read, it has room again; and nobody listening is no loss.
        let before = lost()?;
        stream.announce()?;
        run(program, frames.last().context("a frame")?)?;
        stream.hush()?;
        run(program, frames.last().context("a frame")?)?;
        assert_eq!(stream.ready().len() as u64, u64::from(EACH));
        assert_eq!(lost()?, before);
        Ok(())
    })();
    std::fs::remove_dir_all(&layout.directory)?;
    result
}

#[test]
fn a_listener_says_how_many_it_was_not_told() -> Result<()> {
    let guarded = Guarded::new()?;
    guarded.load("--audit", &[], &[])?;
    let (from, to) = (&guarded.link.right, &guarded.link.left);
    let socket = from.host.run(|| PacketSocket::open(&from.name))?;
    let listener = guarded.start(
        &[
            "events",
            "--follow",
            "--json",
            "--interface",
            guarded.interface(),
        ]
        .map(str::to_owned),
        None,
    )?;
    let frame = || {
        Frame::between(from, to)
            .payload([0; 20])
            .ipv4(Ipv4::new(from.v4(), to.v4()))
    };
    // It listens from its first event on; what came before it did is nobody's.
    let mut knocks = 0;
    crate::guard::eventually("the first event", || {
        guarded.receive(&socket, &frame().protocol(47).build(), 1)?;
        knocks += 1;
        Ok(!listener.stdout().is_empty())
    })?;
    let mut sent = 0;
    for index in 0..PORTS {
        let frame = frame().udp(Udp::new(40_000, port(index))).build();
        guarded.receive(&socket, &frame, EACH.into())?;
        sent += u64::from(EACH);
    }
    listener.interrupt()?;
    let ended = listener.output(LONG)?;
    ensure!(ended.code() == 0, "{ended}");
    let told = ended.stdout.lines();
    let told = told.filter(|line| {
        line.contains("\"reason\":\"undocumented-port\"") && !line.contains("summary")
    });
    let told = told.count() as u64;
    let lost: u64 = ended
        .stderr
        .lines()
        .filter_map(|line| line.strip_suffix(" events lost")?.rsplit_once(' '))
        .map(|(_, number)| number.parse::<u64>())
        .sum::<Result<_, _>>()?;
    println!("{sent} to tell, {told} told, {lost} lost, after {knocks} knocks");
    assert!(lost > 0, "{ended}");
    assert_eq!(told + lost, sent, "{}", ended.stderr);
    Ok(())
}

#[test]
fn all_that_happened_is_shown_lost_or_said_not_to_be_sampled() -> Result<()> {
    const FLOOD: u64 = 5_000;
    let guarded = Guarded::new()?;
    guarded.load("--audit", &[], &[])?;
    let (from, to) = (&guarded.link.right, &guarded.link.left);
    let socket = from.host.run(|| PacketSocket::open(&from.name))?;
    let name = guarded.interface();
    let args = ["events", "--follow", "--json", "--interface", name].map(str::to_owned);
    let listener = guarded.start(&args, None)?;
    let frame = || {
        Frame::between(from, to)
            .payload([0; 20])
            .ipv4(Ipv4::new(from.v4(), to.v4()))
    };
    // Of another reason, until it listens.
    crate::guard::eventually("the first event", || {
        guarded.receive(&socket, &frame().protocol(47).build(), 1)?;
        Ok(!listener.stdout().is_empty())
    })?;
    let flood = frame().udp(Udp::new(40_000, port(1))).build();
    guarded.receive(&socket, &flood, FLOOD)?;
    listener.interrupt()?;
    let ended = listener.output(LONG)?;
    ensure!(ended.code() == 0, "{ended}");
    let lines: Vec<Value> = ended
        .stdout
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()?;
    let last = lines.last().context("a line")?;
    let summary = &last["summary"];
    let number = |value: &Value, key: &str| {
        value[key]
            .as_u64()
            .with_context(|| format!("{key}: {value}"))
    };
    let events: Vec<&Value> = lines
        .iter()
        .filter(|line| line.get("summary").is_none())
        .collect();
    let [all, shown, lost, not_sampled] =
        ["violations", "shown", "lost", "not_sampled"].map(|key| number(summary, key));
    let (all, shown, lost, not_sampled) = (all?, shown?, lost?, not_sampled?);
    println!("{all} happened: {shown} shown, {lost} lost, {not_sampled} not sampled");
    assert_eq!(shown, events.len() as u64);
    assert_eq!(shown + lost + not_sampled, all);
    assert!(not_sampled > FLOOD / 2, "{summary}");
    let reasons = summary["reasons"].as_array().context("reasons")?;
    let mut sum = 0;
    for reason in reasons {
        let told = events
            .iter()
            .filter(|event| event["reason"] == reason["reason"])
            .count();
        assert_eq!(reason["shown"], told);
        sum += number(reason, "violations")?;
    }
    assert_eq!(sum, all);
    let flood = reasons
        .iter()
        .find(|one| one["reason"] == "undocumented-port");
    assert_eq!(flood.context("the flood")?["violations"], FLOOD);
    // For people, at the end.
    let words = format!(
        "{name}: {} violations: ",
        portguard_policy::human::grouped(all)
    );
    assert!(ended.stderr.contains(&words), "{}", ended.stderr);
    let quiet = ["events", "--seconds", "0", "--interface", name].map(str::to_owned);
    let quiet = guarded.run(&quiet, None)?.success()?;
    assert!(
        quiet.stderr.contains("no violation") && quiet.stdout.is_empty(),
        "{quiet}"
    );
    Ok(())
}
