//! Every reason by itself: what is counted is what was sent, in audit and in enforce, with no tool running; and events of
//! one reason leave room for those of the others.

mod exact;
mod shapes;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use pcap_file::pcapng::blocks::enhanced_packet::EnhancedPacketOption;
use pcap_file::pcapng::{Block, PcapNgReader};
use portguard_harness::frames::{Frame, Ipv4, Udp};
use portguard_harness::traffic::PacketSocket;
use serde_json::Value;

use super::guard::{Guarded, LONG, eventually};

/// Opened by the site.
const OPEN: u16 = 7_001;
const CLOSED: u16 = 61_001;

/// Violations of three reasons, from the right to the left.
fn frames(guarded: &Guarded) -> BTreeMap<&'static str, Vec<u8>> {
    let (from, to) = (&guarded.link.right, &guarded.link.left);
    let frame = |header| Frame::between(from, to).ipv4(header).payload(vec![0; 200]);
    let ip = || Ipv4::new(from.v4(), to.v4());
    let udp = |port| Udp::new(40_000, port);
    [
        ("undocumented-port", frame(ip()).udp(udp(CLOSED))),
        ("undocumented-protocol", frame(ip().protocol(47))),
        ("malformed", frame(ip().ihl(4)).udp(udp(OPEN))),
    ]
    .into_iter()
    .map(|(reason, frame)| (reason, frame.build()))
    .collect()
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
    let frames = frames(&guarded);
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
