//! Built frames against an independent parser, and the pace of the generator. Needs no privileges.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test's helper fails by panic, like the test itself"
)]

use std::time::Instant;

use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use portguard_harness::frames::{
    self, Extension, Frame, Generator, Icmp, Ipv4, Ipv6, Sctp, Tcp, Udp, number,
};

const MACS: ([u8; 6], [u8; 6]) = ([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);

fn v4() -> Frame {
    Frame::new(MACS.0, MACS.1).ipv4(Ipv4::new([10, 0, 0, 1].into(), [10, 0, 0, 2].into()))
}

fn v6() -> Frame {
    Frame::new(MACS.0, MACS.1).ipv6(Ipv6::new([0xfd01; 8].into(), [0xfd02; 8].into()))
}

/// The payload of the transport header, its checksum proved.
fn checked(bytes: &[u8]) -> Vec<u8> {
    let packet = SlicedPacket::from_ethernet(bytes).unwrap();
    let net = packet.net.unwrap();
    match packet.transport.unwrap() {
        TransportSlice::Tcp(tcp) => {
            let sum = match &net {
                NetSlice::Ipv4(ip) => {
                    tcp.calc_checksum_ipv4(ip.header().source(), ip.header().destination())
                }
                NetSlice::Ipv6(ip) => {
                    tcp.calc_checksum_ipv6(ip.header().source(), ip.header().destination())
                }
                NetSlice::Arp(_) => panic!("ARP"),
            };
            assert_eq!(sum.unwrap(), tcp.checksum());
            tcp.payload().to_vec()
        }
        TransportSlice::Udp(udp) => {
            let header = udp.to_header();
            let sum = match &net {
                NetSlice::Ipv4(ip) => {
                    header.calc_checksum_ipv4(&ip.header().to_header(), udp.payload())
                }
                NetSlice::Ipv6(ip) => {
                    header.calc_checksum_ipv6(&ip.header().to_header(), udp.payload())
                }
                NetSlice::Arp(_) => panic!("ARP"),
            };
            assert_eq!(sum.unwrap(), udp.checksum());
            udp.payload().to_vec()
        }
        TransportSlice::Icmpv4(icmp) => {
            assert_eq!(frames::checksum(&[icmp.slice()]), 0);
            icmp.payload().to_vec()
        }
        TransportSlice::Icmpv6(icmp) => {
            let NetSlice::Ipv6(ip) = &net else {
                panic!("not IPv6")
            };
            assert!(icmp.is_checksum_valid(ip.header().source(), ip.header().destination()));
            icmp.payload().to_vec()
        }
        TransportSlice::Igmp(_) => panic!("IGMP"),
    }
}

#[test]
fn well_formed_frames_are_understood() {
    let payloads: [&[u8]; 3] = [b"", b"odd", b"even"];
    for payload in payloads {
        for base in [v4(), v6()] {
            let frames = [
                base.clone().tcp(Tcp::syn(1000, 443)),
                base.clone().tcp(Tcp {
                    options: vec![2, 4, 5, 0xb4],
                    ..Tcp::syn(1000, 443)
                }),
                base.clone().udp(Udp::new(53, 53)),
                base.clone()
                    .tag(0x8100, 5)
                    .tag(0x8100, 6)
                    .udp(Udp::new(53, 53)),
            ];
            for frame in frames {
                assert_eq!(checked(&frame.payload(payload).build()), payload);
            }
        }
        assert_eq!(
            checked(&v4().icmpv4(Icmp::new(8, 0)).payload(payload).build()),
            payload
        );
        assert_eq!(
            checked(&v6().icmpv6(Icmp::new(128, 0)).payload(payload).build()),
            payload
        );
    }
}

#[test]
fn extension_chains_are_understood() {
    let frame = v6()
        .extension(Extension::hop_by_hop(2))
        .extension(Extension::destination(0))
        .extension(Extension::routing(4, 1))
        .extension(Extension::fragment(0, false, 9))
        .extension(Extension::authentication(5))
        .extension(Extension::destination(31))
        .tcp(Tcp::syn(1, 2))
        .payload(*b"end");
    assert_eq!(checked(&frame.build()), b"end");
    let frame = v4()
        .extension(Extension::authentication(7))
        .udp(Udp::new(1, 2))
        .payload(*b"end");
    assert_eq!(checked(&frame.build()), b"end");
}

#[test]
fn stock_frames_are_understood() {
    let (from, to) = ("fd00::1".parse().unwrap(), "fd00::2".parse().unwrap());
    let solicitation = frames::neighbour_solicitation(MACS.0, from, to).build();
    assert_eq!(checked(&solicitation).len(), 24);
    assert_eq!(
        solicitation.get(38..54),
        Some([255, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 255, 0, 0, 2].as_slice())
    );
    checked(&frames::neighbour_advertisement(MACS.0, MACS.1, from, to).build());
    checked(&frames::router_advertisement(MACS.0, from).build());
    let dhcp = v4()
        .udp(Udp::new(67, 68))
        .payload(frames::dhcp(2, 1, MACS.0))
        .build();
    assert_eq!(checked(&dhcp).len(), 300);
    let arp = frames::arp_request(MACS.0, [10, 0, 0, 1].into(), [10, 0, 0, 2].into()).build();
    let parsed = SlicedPacket::from_ethernet(&arp).unwrap();
    assert!(matches!(parsed.net, Some(NetSlice::Arp(_))));
    let sctp = v4()
        .sctp(Sctp::new(1, 2))
        .payload(frames::sctp_init())
        .build();
    assert_eq!((sctp[23], sctp.len()), (number::SCTP, 14 + 20 + 12 + 20));
    let about = v4().udp(Udp::new(1, 2)).build();
    let error = frames::icmp_error(
        Frame::new(MACS.0, MACS.1),
        [10, 0, 0, 9].into(),
        [10, 0, 0, 1].into(),
        3,
        4,
        [0, 0, 5, 0],
        &about[14..],
    );
    assert_eq!(checked(&error.build()).len(), 28);
}

#[test]
fn overrides_override() {
    let header = Ipv4 {
        ttl: 3,
        ..Ipv4::new([1; 4].into(), [2; 4].into())
    };
    let bytes = Frame::new(MACS.0, MACS.1)
        .ipv4(
            header
                .fragment(7, 185, true)
                .ihl(4)
                .total_length(9)
                .protocol(99),
        )
        .tcp(Tcp {
            checksum: Some(1),
            data_offset: Some(2),
            ..Tcp::syn(1, 2)
        })
        .build();
    assert_eq!(bytes[14..24], [0x44, 0, 0, 9, 0, 7, 0x20, 185, 3, 99]);
    assert_eq!(
        (bytes[34 + 12], &bytes[34 + 16..34 + 18]),
        (0x20, [0, 1].as_slice())
    );
    assert_eq!(v6().udp(Udp::new(1, 2)).truncate(50).build().len(), 50);
    assert_eq!(v4().pad(60).build().len(), 60);
}

#[test]
fn the_generator_keeps_pace() {
    const FRAMES: u32 = 200_000;
    let mut generator = Generator::new(1);
    let mut frame = Vec::new();
    let mut bytes = 0;
    let started = Instant::now();
    for _ in 0..FRAMES {
        generator.fill(&mut frame);
        bytes += frame.len();
    }
    let pace = f64::from(FRAMES) / started.elapsed().as_secs_f64();
    println!("{pace:.0} frames/s, {} bytes each", bytes / FRAMES as usize);
    // A tenth of what a quiet machine does with and without optimisation: this is to notice a blunder.
    assert!(
        pace > if cfg!(debug_assertions) {
            10_000.0
        } else {
            50_000.0
        },
        "{pace}"
    );
}
