//! Frames without a link header, packets longer than their length field can say, and fragments that ask to open.

use portguard_common::packet::{Malformed, Packet, Shape, Subject as _};
use portguard_common::parse::{parse, parse_ip};
use portguard_harness::frames::{Extension, Frame, Ipv4, Ipv6, Tcp, Udp};

fn ethernet() -> Frame {
    Frame::new([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2])
}

fn v4() -> Ipv4 {
    Ipv4::new([10, 0, 0, 9].into(), [10, 0, 0, 1].into())
}

fn v6() -> Ipv6 {
    Ipv6::new(
        [0xfd00, 0, 0, 0, 0, 0, 0, 9].into(),
        [0xfd00, 0, 0, 0, 0, 0, 0, 1].into(),
    )
}

fn read(frame: &[u8]) -> Packet {
    parse(&mut &*frame).expect("a slice is in one piece")
}

fn read_ip(packet: &[u8]) -> Packet {
    parse_ip(&mut &*packet).expect("a slice is in one piece")
}

#[test]
fn a_packet_without_a_link_header_is_what_it_is_behind_one() {
    let frames = [
        ethernet().ipv4(v4()).tcp(Tcp::syn(40_000, 22)),
        ethernet().ipv4(v4()).udp(Udp::new(53, 53)),
        ethernet().ipv4(v4().fragment(1, 9, true)).payload([0; 8]),
        ethernet()
            .ipv4(v4().options([1, 1, 1, 0]))
            .tcp(Tcp::syn(40_000, 22)),
        ethernet().ipv4(v4().ihl(4)).tcp(Tcp::syn(40_000, 22)),
        ethernet().ipv6(v6()).tcp(Tcp::syn(40_000, 22)),
        ethernet()
            .ipv6(v6())
            .extension(Extension::hop_by_hop(0))
            .udp(Udp::new(1, 2)),
    ];
    for frame in frames {
        let bytes = frame.build();
        let mut behind = read(&bytes);
        let without = read_ip(&bytes[14..]);
        behind.length -= 14;
        assert_eq!(without, behind);
        for cut in 0..bytes.len() - 14 {
            // Never something that passes unread.
            let shape = read_ip(&bytes[14..14 + cut]).shape;
            assert!(matches!(shape, Shape::Malformed(_)), "{cut} {shape:?}");
        }
    }
    for first in 0..=255_u8 {
        let shape = read_ip(&[first; 60]).shape;
        let is_ip = matches!(first >> 4, 4 | 6);
        assert!(
            is_ip || shape == Shape::Malformed(Malformed::Version),
            "{first:#x} {shape:?}"
        );
    }
}

#[test]
fn merged_segments_beyond_what_a_length_can_say_are_judged_by_their_ports() {
    for (bytes, offset) in [
        (
            ethernet()
                .ipv4(v4().total_length(0))
                .tcp(Tcp::syn(40_000, 443)),
            14,
        ),
        (
            ethernet()
                .ipv6(v6().payload_length(0))
                .tcp(Tcp::syn(40_000, 443)),
            14,
        ),
        (
            ethernet()
                .ipv6(v6().payload_length(0))
                .extension(Extension::hop_by_hop(0))
                .tcp(Tcp::syn(40_000, 443)),
            14,
        ),
    ] {
        let mut frame = bytes.build();
        for (length, is_sound) in [
            (1_400, false),
            (0xffff + offset, false),
            (0x10000 + offset, true),
            (185_000, true),
        ] {
            frame.resize(length, 0);
            let packet = read(&frame);
            let is_read = packet.shape == Shape::Ports && packet.destination_port == 443;
            assert_eq!(is_read, is_sound, "{length} bytes: {packet:?}");
            assert!(is_read || matches!(packet.shape, Shape::Malformed(_)));
        }
    }
}

#[test]
fn a_syn_in_fragments_asks_to_open_a_connection() {
    // Twenty bytes of TCP, cut at every multiple of eight.
    for cut in [8, 16, 24] {
        let syn = ethernet()
            .ipv4(v4())
            .tcp(Tcp::syn(40_000, 22))
            .payload([0; 40])
            .build();
        let head = &syn[34..34 + cut];
        let four = ethernet()
            .ipv4(v4().fragment(1, 0, true))
            .protocol(6)
            .payload(head)
            .build();
        let six = ethernet()
            .ipv6(v6())
            .extension(Extension::fragment(0, true, 1))
            .protocol(6)
            .payload(head)
            .build();
        for frame in [four, six] {
            let packet = read(&frame);
            if cut < 14 {
                assert_eq!(packet.shape, Shape::Malformed(Malformed::FirstFragment));
            } else {
                assert_eq!((packet.shape, packet.destination_port), (Shape::Ports, 22));
                assert!(packet.is_opening(), "{packet:?}");
            }
        }
    }
}
