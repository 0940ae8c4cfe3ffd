//! Every reason by itself: what is counted is what was sent, in audit and in enforce, with no tool running; and events of
//! one reason leave room for those of the others.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use pcap_file::pcapng::blocks::enhanced_packet::EnhancedPacketOption;
use pcap_file::pcapng::{Block, PcapNgReader};
use portguard_harness::frames::{Frame, Icmp, Ipv4, Udp};
use portguard_harness::traffic::PacketSocket;
use serde_json::Value;

use super::guard::{Guarded, LONG, eventually};

/// Opened by the site to everybody, and to somebody else.
const OPEN: u16 = 7_001;
const OTHERS: u16 = 7_002;
const CLOSED: u16 = 61_001;
/// The first fragment of a datagram whose rest is `fragment`, by another identification: nothing is put together.
const IDENTIFICATION: u16 = 77;

/// Frames from the right to the left, by the reason that each is counted for.
fn frames(guarded: &Guarded) -> Vec<(&'static str, Vec<u8>)> {
    let (from, to) = (&guarded.link.right, &guarded.link.left);
    let frame = || Frame::between(from, to);
    let ip = || Ipv4::new(from.v4(), to.v4());
    let icmp = |kind| {
        frame()
            .ipv4(ip())
            .icmpv4(Icmp::new(kind, 0))
            .payload(vec![0; 200])
    };
    let udp = |port| {
        frame()
            .ipv4(ip())
            .udp(Udp::new(40_000, port))
            .payload(vec![0; 200])
    };
    let built = |frame: Frame| frame.build();
    vec![
        (
            "non-ip",
            built(frame().ethertype(0x88cc).payload(vec![0; 46])),
        ),
        ("icmp-echo-reply", built(icmp(0))),
        ("icmp-echo", built(icmp(8))),
        ("icmp", built(icmp(13))),
        ("management", built(udp(OPEN))),
        ("dhcp", built(udp(68))),
        ("undocumented-port", built(udp(CLOSED))),
        ("undocumented-peer", built(udp(OTHERS))),
        (
            "undocumented-protocol",
            built(frame().ipv4(ip().protocol(47)).payload(vec![0; 200])),
        ),
        (
            "fragment",
            built(
                frame()
                    .ipv4(ip().fragment(IDENTIFICATION, 64, false).protocol(17))
                    .payload(vec![0; 200]),
            ),
        ),
        (
            "malformed",
            built(
                frame()
                    .ipv4(ip().ihl(4))
                    .udp(Udp::new(40_000, OPEN))
                    .payload(vec![0; 200]),
            ),
        ),
    ]
}

/// Inbound packets and bytes by reason.
fn counted(guarded: &Guarded) -> Result<BTreeMap<String, (u64, u64)>> {
    let output = guarded
        .run(&["counters", "--json", "--raw"].map(str::to_owned), None)?
        .success()?;
    let answer: Value = serde_json::from_str(&output.stdout)?;
    let reasons = answer["interfaces"][0]["reasons"]
        .as_array()
        .context("reasons")?;
    let inbound = reasons.iter().filter(|line| line["direction"] == "in");
    inbound
        .map(|line| {
            let number = |key: &str| line[key].as_u64().context("a number");
            let name = line["reason"].as_str().context("a reason")?;
            Ok((name.to_owned(), (number("packets")?, number("bytes")?)))
        })
        .collect()
}

#[test]
fn every_reason_is_counted_exactly_in_audit_and_in_enforce_and_over_reloads() -> Result<()> {
    let guarded = Guarded::new()?;
    // The host needs to ask nobody for an address: what it is sent is what the test sends.
    let (left, right) = (&guarded.link.left, &guarded.link.right);
    left.add_neighbour(right.v4().into(), right.mac)?;
    let frames = frames(&guarded);
    let mut sent: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    let mut first: Option<BTreeMap<String, (u64, u64)>> = None;
    for (round, mode) in ["--audit", "--enforce", "--audit", "--enforce"]
        .into_iter()
        .enumerate()
    {
        let others = format!("udp/{OTHERS}=192.0.2.0/24");
        guarded.load(mode, &[OPEN], &["--force", "--management", &others])?;
        let before = first.get_or_insert(counted(&guarded)?).clone();
        let socket = right.host.run(|| PacketSocket::open(&right.name))?;
        for (index, (reason, frame)) in frames.iter().enumerate() {
            // A number of its own for each, so that no two can be taken for each other.
            let count = 3 + 2 * (index as u64) + round as u64;
            for _ in 0..count {
                socket.send(frame)?;
            }
            let sum = sent.entry(reason).or_default();
            sum.0 += count;
            sum.1 += count * frame.len() as u64;
        }
        let deadline = Instant::now() + LONG;
        loop {
            let now = counted(&guarded)?;
            let differing: Vec<String> = sent
                .iter()
                .filter_map(|(reason, wanted)| {
                    let (was, is) = (before.get(*reason), now.get(*reason));
                    let (was, is) = (
                        was.copied().unwrap_or_default(),
                        is.copied().unwrap_or_default(),
                    );
                    let more = (is.0 - was.0, is.1 - was.1);
                    (more != *wanted).then(|| format!("{reason}: {more:?}, sent {wanted:?}"))
                })
                .collect();
            if differing.is_empty() {
                break;
            }
            ensure!(
                Instant::now() < deadline,
                "{mode}: {differing:?}\nall: {now:?}"
            );
        }
    }
    Ok(())
}

#[test]
fn a_flood_of_one_reason_leaves_room_for_events_of_another() -> Result<()> {
    const FLOOD: usize = 20_000;
    let guarded = Guarded::new()?;
    guarded.load("--audit", &[OPEN], &[])?;
    let capture = std::env::temp_dir().join(format!("{}.pcapng", guarded.interface()));
    let arguments = ["events", "--follow", "--json", "--pcap"].map(str::to_owned);
    let mut arguments = Vec::from(arguments);
    arguments.push(capture.display().to_string());
    let events = guarded.start(&arguments, None)?;
    let frames: BTreeMap<&str, Vec<u8>> = frames(&guarded).into_iter().collect();
    let right = &guarded.link.right;
    let socket = right.host.run(|| PacketSocket::open(&right.name))?;
    // From the first event on somebody listens.
    eventually("the first event", || {
        socket.send(&frames["undocumented-protocol"])?;
        Ok(events.stdout().contains("undocumented-protocol"))
    })?;
    let start = Instant::now();
    for number in 0..FLOOD {
        socket.send(&frames["undocumented-port"])?;
        if number % 128 == 0 {
            std::thread::yield_now();
        }
    }
    let lasted = start.elapsed();
    // In the midst of what the flood has left of its second.
    socket.send(&frames["malformed"])?;
    events.wait_for("\"malformed\"", Duration::from_secs(20))?;
    events.interrupt()?;
    let ended = events.output(LONG)?;
    assert_eq!(ended.code(), 0, "{ended}");
    let lines: Vec<Value> = ended
        .stdout
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()?;
    let of = |reason: &str| lines.iter().filter(|line| line["reason"] == reason).count();
    // The quota of each reason, CPU and second, and one more second at each end.
    let cpus = std::thread::available_parallelism()?.get();
    let seconds = usize::try_from(lasted.as_secs())? + 2;
    let flood = of("undocumented-port");
    println!("{flood} of {FLOOD} told in {lasted:?}");
    ensure!(
        (1..=64 * cpus * seconds).contains(&flood),
        "{flood} in {lasted:?}"
    );
    let line = lines
        .iter()
        .find(|line| line["reason"] == "undocumented-port");
    let line = line.context("an event")?;
    assert_eq!(line["destination_port"], CLOSED);

    // The same events by another parser, each with its reason.
    let bytes = std::fs::read(&capture)?;
    let mut reader = PcapNgReader::new(bytes.as_slice())?;
    let mut comments = Vec::new();
    while let Some(block) = reader.next_block() {
        if let Block::EnhancedPacket(packet) = block?.into_owned() {
            let comment = packet.options.iter().find_map(|option| match option {
                EnhancedPacketOption::Comment(text) => Some(text.to_string()),
                EnhancedPacketOption::Flags(_)
                | EnhancedPacketOption::Hash(_)
                | EnhancedPacketOption::DropCount(_)
                | EnhancedPacketOption::CustomBinary(_)
                | EnhancedPacketOption::CustomUtf8(_)
                | EnhancedPacketOption::Unknown(_) => None,
            });
            comments.push(comment.context("a comment")?);
        }
    }
    for reason in ["undocumented-port", "undocumented-protocol", "malformed"] {
        assert!(
            comments.iter().any(|text| text.contains(reason)),
            "{reason}: {comments:?}"
        );
    }
    std::fs::remove_file(capture)?;
    Ok(())
}
