//! The link layer, both families, and damage by truncation.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::source::Source;
use super::{ipv4, ipv6};
use crate::frames::{Extension, Frame, Udp, dhcp, number, stock};

pub(super) fn arp(s: &mut Source<'_>) -> Frame {
    stock::arp_request(s.mac(), s.v4(), s.v4()).pad(60 * s.rng.usize(..2))
}

pub(super) fn other_ethertype(s: &mut Source<'_>) -> Frame {
    const KNOWN: [u16; 13] = [
        0x88cc, 0x8809, 0x888e, 0x88e5, 0x8847, 0x8848, 0x8863, 0x8864, 0x88f7, 0x8906, 0x8914,
        0x8892, 0x8035,
    ];
    let kind = if s.rng.bool() {
        s.rng.u16(..)
    } else {
        s.rng.choice(KNOWN).unwrap_or(0x88cc)
    };
    s.ethernet().ethertype(kind).payload(s.payload())
}

/// IEEE 802.3: the EtherType is a length; now and then that of spanning tree.
pub(super) fn length_field(s: &mut Source<'_>) -> Frame {
    let length = s.rng.u16(..1537);
    if length.is_multiple_of(4) {
        return s
            .ethernet()
            .ethertype(38)
            .payload([0x42, 0x42, 3, 0, 0, 0, 0, 0]);
    }
    s.either().ethertype(length)
}

pub(super) fn vlan(s: &mut Source<'_>) -> Frame {
    let frame = s.either();
    let frame = s.tagged(frame);
    if s.rng.bool() { s.tagged(frame) } else { frame }
}

/// Three tags and more; or a tag with nothing or nonsense behind.
pub(super) fn vlan_deep(s: &mut Source<'_>) -> Frame {
    let mut frame = s.either();
    for _ in 0..s.rng.u8(2..6) {
        frame = s.tagged(frame);
    }
    match s.rng.u8(..4) {
        0 => frame.truncate(s.rng.usize(12..40)),
        1 => frame.ethertype(number::VLAN),
        _ => frame,
    }
}

/// AH behind either family; its length unit is 4 bytes.
pub(super) fn authentication(s: &mut Source<'_>) -> Frame {
    let frame = if s.rng.bool() {
        s.ethernet().ipv4(s.ip4())
    } else {
        s.ethernet().ipv6(s.ip6())
    };
    let header = Extension::authentication(s.rng.u8(3..12));
    let header = if s.one_in(8) {
        header.second(s.rng.u8(..))
    } else {
        header
    };
    s.transport(frame.extension(header))
}

pub(super) fn other_protocol(s: &mut Source<'_>) -> Frame {
    const KNOWN: [u8; 10] = [
        number::ESP,
        number::NO_NEXT,
        number::GRE,
        2,
        33,
        89,
        103,
        112,
        135,
        136,
    ];
    let kind = if s.rng.bool() {
        s.rng.u8(..)
    } else {
        s.rng.choice(KNOWN).unwrap_or(50)
    };
    let frame = if s.rng.bool() {
        s.ethernet().ipv4(s.ip4())
    } else {
        s.ethernet().ipv6(s.ip6())
    };
    frame.protocol(kind).payload(s.payload())
}

/// IP in IP: the outer header is what counts.
pub(super) fn encapsulated(s: &mut Source<'_>) -> Frame {
    let frame = if s.rng.bool() {
        s.ethernet().ipv4(s.ip4())
    } else {
        s.ethernet().ipv6(s.ip6())
    };
    let frame = if s.rng.bool() {
        frame.ipv4(s.ip4())
    } else {
        frame.ipv6(s.ip6())
    };
    s.transport(frame)
}

pub(super) fn dhcp_message(s: &mut Source<'_>) -> Frame {
    let mac = s.mac();
    let transaction = s.rng.u32(..);
    let (client, server) = if s.rng.bool() { (68, 67) } else { (546, 547) };
    let ports = if s.rng.bool() {
        Udp::new(server, client)
    } else {
        Udp::new(client, server)
    };
    if server == 67 {
        s.ethernet()
            .ipv4(s.ip4())
            .udp(ports)
            .payload(dhcp(s.rng.u8(1..8), transaction, mac))
    } else {
        let payload = stock::dhcpv6(s.rng.u8(1..12), transaction, mac);
        s.ethernet().ipv6(s.ip6()).udp(ports).payload(payload)
    }
}

/// Multicast and broadcast destinations.
pub(super) fn group(s: &mut Source<'_>) -> Frame {
    let frame = if s.rng.bool() {
        let mut header = s.ip4();
        header.destination = if s.rng.bool() {
            Ipv4Addr::BROADCAST
        } else {
            Ipv4Addr::from_bits(0xe000_0000 | (s.rng.u32(..) >> 4))
        };
        Frame::new([0xff; 6], s.mac()).ipv4(header)
    } else {
        let mut header = s.ip6();
        header.destination = Ipv6Addr::from_bits((0xff02 << 112) | s.rng.u128(..0x1_0000));
        Frame::new([0x33, 0x33, 0, 0, 0, 1], s.mac()).ipv6(header)
    };
    s.transport(frame)
}

/// A frame of any class, cut within its headers.
pub(super) fn truncated(s: &mut Source<'_>) -> Frame {
    let frame = match s.rng.u8(..6) {
        0 => s.ipv4(),
        1 => s.ipv6(),
        2 => vlan(s),
        3 => ipv4::options(s),
        4 => ipv6::chain(s),
        _ => ipv6::icmpv6(s),
    };
    frame.truncate(s.rng.usize(..100))
}

pub(super) fn noise(s: &mut Source<'_>) -> Frame {
    let mut kinds = [number::IPV4, number::IPV6, number::VLAN, number::ARP].into_iter();
    let kind = kinds.nth(s.rng.usize(..4)).unwrap_or(number::IPV4);
    Frame::new(s.mac(), s.mac())
        .ethertype(kind)
        .payload(s.bytes(120))
}
