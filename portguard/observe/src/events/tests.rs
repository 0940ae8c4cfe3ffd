use portguard_common::abi::EVENT_HEAD;

use super::*;
use portguard_policy::policy::{Grant, GrantKind, Peers};

const BOOTED: u64 = 1_795_306_500_000_000_000;

fn event() -> Event {
    let v4 = |address: [u8; 4]| [0, u64::from(u32::from_be_bytes(address))];
    Event {
        time: 123_456_000,
        source: v4([10, 0, 0, 1]),
        destination: v4([10, 0, 0, 2]),
        ifindex: 2,
        length: 66,
        weight: 64,
        vlan: 0x1_0064,
        source_port: 40_000,
        destination_port: 444,
        ethertype: 0x0800,
        reason: Reason::UndocumentedPort as u8,
        protocol: protocol::TCP,
        detail: 0,
        v6: 0,
        direction: 0,
        dropped: 0,
        captured: 14,
        reserved: 0,
        head: [7; EVENT_HEAD],
    }
}

static NONE: Catalog = Catalog {
    systems: std::collections::BTreeMap::new(),
};

fn policy() -> Policy {
    let grant = |transport, first, last, row: &str| Grant {
        kind: GrantKind::Documented,
        transport,
        first,
        last,
        peers: Peers::Set(0),
        row: row.to_owned(),
        until: None,
    };
    Policy {
        inbound: vec![
            grant(Transport::Tcp, 443, 443, "a/https"),
            grant(Transport::Udp, 444, 444, "a/quic"),
            grant(Transport::Tcp, 9000, 9000, "a/far"),
        ],
        ..Policy::default()
    }
}

#[test]
fn a_line_has_the_fields_of_the_contract() {
    let policy = policy();
    let line = Words::new("eth0", &policy, &NONE).tell(&event(), BOOTED);
    let json = serde_json::to_value(&line).unwrap();
    assert_eq!(
        json,
        serde_json::json!({
            "time": "2026-11-22T00:15:00.123456Z", "interface": "eth0", "direction": "in", "verdict": "drop", "effective": "pass",
            "reason": "undocumented-port", "source": "10.0.0.1", "destination": "10.0.0.2", "transport": "tcp",
            "source_port": 40000, "destination_port": 444, "vlan": 100, "length": 66, "weight": 64,
            "rows": [], "nearest": line.nearest
        })
    );
    // As `explain` has it.
    let near: Vec<_> = line
        .nearest
        .iter()
        .map(|near| (near.kind, near.row.as_str()))
        .collect();
    assert_eq!(near, [("other-transport", "a/quic")]);
    assert_eq!(
        line.text(),
        "2026-11-22T00:15:00.123456Z eth0 in would drop undocumented-port tcp 10.0.0.1:40000 -> 10.0.0.2:444 \
         vlan 100 66 bytes near a/quic (one of 64)"
    );
}

#[test]
fn the_reason_decides_which_fields_there_are() {
    let policy = policy();
    let words = Words::new("eth0", &policy, &NONE);
    let peer = Event {
        reason: Reason::UndocumentedPeer as u8,
        destination_port: 443,
        dropped: 1,
        ..event()
    };
    let line = words.tell(&peer, BOOTED);
    assert_eq!(
        (line.effective, line.rows),
        ("drop", vec!["a/https".to_owned()])
    );
    let malformed = Event {
        reason: Reason::Malformed as u8,
        detail: Malformed::Options as u8,
        ..event()
    };
    let line = words.tell(&malformed, BOOTED);
    assert_eq!(
        (line.detail, line.source, line.destination_port),
        (Some("ip-options"), None, None)
    );
    let ping = Event {
        reason: Reason::Icmp as u8,
        protocol: protocol::ICMPV6,
        ethertype: 0x86dd,
        v6: 1,
        source: [0xfd00 << 48, 1],
        detail: 139,
        ..event()
    };
    let line = words.tell(&ping, BOOTED);
    assert_eq!((line.icmp_type, line.source_port), (Some(139), None));
    assert_eq!(line.source, Some("fd00::1".parse().unwrap()));
    let strange = Event {
        reason: 200,
        ..event()
    };
    assert_eq!(words.tell(&strange, BOOTED).reason, "unknown");
}

#[test]
fn records_decode_and_short_ones_do_not() {
    let mut bytes = Vec::new();
    bytes.extend(5u64.to_ne_bytes());
    bytes.extend([0; 32]);
    bytes.extend(7u32.to_ne_bytes());
    bytes.extend([0; 12]);
    bytes.extend(1u16.to_ne_bytes());
    bytes.extend(2u16.to_ne_bytes());
    bytes.resize(size_of::<Event>(), 9);
    let event = decode(&bytes).unwrap();
    assert_eq!((event.time, event.ifindex), (5, 7));
    assert_eq!((event.source_port, event.destination_port), (1, 2));
    assert_eq!(event.head, [9; EVENT_HEAD]);
    assert!(decode(&bytes[1..]).is_none());
}

#[test]
fn captures_are_read_back_with_their_comments() {
    use pcap_file::pcapng::blocks::enhanced_packet::EnhancedPacketOption;
    use pcap_file::pcapng::{Block, PcapNgReader};
    let policy = policy();
    let line = Words::new("eth0", &policy, &NONE).tell(&event(), BOOTED);
    let mut file = Vec::new();
    let mut capture = pcap::Capture::new(&mut file, &["eth0"]).unwrap();
    assert!(capture.write(0, &event(), &line, BOOTED).unwrap());
    let headless = Event {
        captured: 0,
        ..event()
    };
    assert!(!capture.write(0, &headless, &line, BOOTED).unwrap());
    let mut reader = PcapNgReader::new(file.as_slice()).unwrap();
    let mut packets = Vec::new();
    while let Some(block) = reader.next_block() {
        if let Block::EnhancedPacket(packet) = block.unwrap().into_owned() {
            packets.push(packet);
        }
    }
    let [packet] = packets.as_slice() else {
        panic!("one packet: {packets:?}")
    };
    assert_eq!((packet.data.len(), packet.original_len), (14, 66));
    assert_eq!(
        u64::try_from(packet.timestamp.as_nanos()).unwrap(),
        BOOTED + 123_456_000
    );
    assert_eq!(
        packet.options,
        [EnhancedPacketOption::Comment(line.text().into())]
    );
}
