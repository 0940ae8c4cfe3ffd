//! IPv6: broken headers, fragments, chains, ICMP.

use super::source::Source;
use crate::frames::{Extension, Frame, Icmp, stock};

pub(super) fn bad_header(s: &mut Source<'_>) -> Frame {
    let mut header = s.ip6();
    match s.rng.u8(..4) {
        0 => header.version = Some(s.rng.u8(..16)),
        1 => header.payload_length = Some(s.rng.u16(..64)),
        // Zero announces a jumbogram.
        2 => header.payload_length = Some(0),
        _ => header.payload_length = Some(s.rng.u16(..)),
    }
    let frame = s.ethernet().ipv6(header);
    s.transport(frame)
}

pub(super) fn fragment(s: &mut Source<'_>) -> Frame {
    let offset = match s.rng.u8(..3) {
        0 => 0,
        1 => s.rng.u16(1..4),
        _ => s.rng.u16(..0x2000),
    };
    let mut header = Extension::fragment(offset, s.rng.bool(), s.rng.u32(..));
    if s.rng.bool() {
        header = header.second(s.rng.u8(..));
    }
    let mut frame = s.ethernet().ipv6(s.ip6());
    if s.one_in(4) {
        frame = frame.extension(s.extension());
    }
    frame = frame.extension(header);
    if s.one_in(4) {
        frame = frame.extension(s.extension());
    }
    if s.one_in(4) {
        return frame
            .protocol(s.rng.choice([6, 17, 132, 58]).unwrap_or(6))
            .payload(s.bytes(12));
    }
    s.transport(frame)
}

pub(super) fn atomic_fragment(s: &mut Source<'_>) -> Frame {
    let header = Extension::fragment(0, false, s.rng.u32(..)).second(s.rng.u8(..));
    let frame = s.ethernet().ipv6(s.ip6()).extension(header);
    s.transport(frame)
}

pub(super) fn chain(s: &mut Source<'_>) -> Frame {
    let mut frame = s.ethernet().ipv6(s.ip6());
    for _ in 0..s.rng.u8(1..5) {
        frame = frame.extension(s.extension());
    }
    s.transport(frame)
}

/// Around the limit of the walk.
pub(super) fn long_chain(s: &mut Source<'_>) -> Frame {
    let mut frame = s.ethernet().ipv6(s.ip6());
    for _ in 0..s.rng.u8(6..12) {
        let header = if s.one_in(3) {
            s.extension()
        } else {
            Extension::destination(0)
        };
        frame = frame.extension(header);
    }
    s.transport(frame)
}

pub(super) fn routing(s: &mut Source<'_>) -> Frame {
    let kind = s.rng.choice([0, 0, 2, 3, 4, 253]).unwrap_or(0);
    let mut header = Extension::routing(kind, s.rng.u8(..4));
    if let Some(left) = header.body.get_mut(1) {
        *left = s.rng.u8(..3);
    }
    let frame = s.ethernet().ipv6(s.ip6()).extension(header);
    s.transport(frame)
}

/// Lengths that lead out of the packet or into the middle of the next header.
pub(super) fn broken_chain(s: &mut Source<'_>) -> Frame {
    let header = s.extension().second(s.rng.u8(..));
    let frame = s.ethernet().ipv6(s.ip6()).extension(header);
    let frame = s.transport(frame);
    if s.rng.bool() {
        frame.truncate(s.rng.usize(54..80))
    } else {
        frame
    }
}

pub(super) fn icmpv6(s: &mut Source<'_>) -> Frame {
    let kind = if s.rng.bool() {
        s.rng.u8(128..156)
    } else {
        s.rng.u8(..6)
    };
    let message = Icmp::new(kind, s.rng.u8(..8)).rest(s.rng.u32(..).to_be_bytes());
    let frame = s.ethernet().ipv6(s.ip6());
    // Multicast listener messages travel behind hop-by-hop options.
    let frame = if s.one_in(4) {
        frame.extension(Extension::hop_by_hop(0))
    } else {
        frame
    };
    frame.icmpv6(message).payload(s.payload())
}

/// Neighbour discovery, also with a hop limit that shows it crossed a router.
pub(super) fn neighbour(s: &mut Source<'_>) -> Frame {
    match s.rng.u8(..4) {
        0 => stock::neighbour_solicitation(s.mac(), s.v6(), s.v6()),
        1 => stock::neighbour_advertisement(s.mac(), s.mac(), s.v6(), s.v6()),
        2 => stock::router_advertisement(s.mac(), s.v6()),
        _ => {
            let limit = s.rng.u8(250..=255);
            let message = Icmp::new(s.rng.u8(133..138), 0);
            s.ethernet()
                .ipv6(s.ip6().hop_limit(limit))
                .icmpv6(message)
                .payload(s.bytes(32))
        }
    }
}
