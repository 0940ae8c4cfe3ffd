//! IPv4: options, broken headers, fragments, ICMP.

use super::source::Source;
use crate::frames::{Frame, Icmp};

pub(super) fn options(s: &mut Source<'_>) -> Frame {
    let mut header = s.ip4();
    let mut options = Vec::new();
    while options.len() < 40 && !s.one_in(4) {
        let piece: &[u8] = match s.rng.u8(..5) {
            0 => &[1],
            1 => &[148, 4, 0, 0],
            2 => &[7, 7, 4, 0, 0, 0, 0],
            3 => &[68, 8, 5, 0, 0, 0, 0, 0],
            _ => &[130, 11, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        };
        if options.len() + piece.len() <= 40 {
            options.extend_from_slice(piece);
        }
    }
    header.options = options;
    let frame = s.ethernet().ipv4(header);
    s.transport(frame)
}

/// Loose (131) or strict (137), somewhere among other options, also behind the end of the list where it says nothing.
pub(super) fn source_route(s: &mut Source<'_>) -> Frame {
    let mut options = vec![s.rng.choice([1, 1, 1, 0]).unwrap_or(1); s.rng.usize(..9)];
    options.extend_from_slice(&[
        if s.rng.bool() { 131 } else { 137 },
        7,
        4,
        10,
        0,
        0,
        s.rng.u8(..),
    ]);
    let frame = s.ethernet().ipv4(s.ip4().options(options));
    s.transport(frame)
}

/// Options whose own lengths are wrong.
pub(super) fn bad_options(s: &mut Source<'_>) -> Frame {
    let mut options = s.bytes(40);
    if let Some(length) = options.get_mut(1) {
        *length = s.rng.u8(..48);
    }
    let frame = s.ethernet().ipv4(s.ip4().options(options));
    s.transport(frame)
}

pub(super) fn bad_header(s: &mut Source<'_>) -> Frame {
    let mut header = s.ip4();
    match s.rng.u8(..5) {
        0 => header.ihl = Some(s.rng.u8(..16)),
        1 => header.version = Some(s.rng.u8(..16)),
        2 => header.total_length = Some(s.rng.u16(..64)),
        3 => header.total_length = Some(s.rng.u16(..)),
        _ => header.checksum = Some(s.rng.u16(..)),
    }
    let frame = s.ethernet().ipv4(header);
    s.transport(frame)
}

pub(super) fn first_fragment(s: &mut Source<'_>) -> Frame {
    let frame = s.ethernet().ipv4(s.ip4().fragment(1, 0, true));
    s.transport(frame)
}

pub(super) fn later_fragment(s: &mut Source<'_>) -> Frame {
    // Offset 1 is the one that overwrites TCP's flags.
    let offset = if s.rng.bool() {
        s.rng.u16(1..4)
    } else {
        s.rng.u16(1..0x2000)
    };
    let more = s.rng.bool();
    let frame = s.ethernet().ipv4(s.ip4().fragment(1, offset, more));
    s.transport(frame)
}

/// A first fragment with fewer bytes than its ports or its header take.
pub(super) fn tiny_fragment(s: &mut Source<'_>) -> Frame {
    let protocol = s.rng.choice([6, 17, 132, 1]).unwrap_or(6);
    let more = !s.one_in(4);
    s.ethernet()
        .ipv4(s.ip4().fragment(2, 0, more))
        .protocol(protocol)
        .payload(s.bytes(24))
}

pub(super) fn icmpv4(s: &mut Source<'_>) -> Frame {
    let kind = s
        .rng
        .choice([0, 3, 4, 5, 8, 8, 9, 10, 11, 12, 13, 14, 17, 255])
        .unwrap_or(8);
    let message = Icmp::new(kind, s.rng.u8(..16)).rest(s.rng.u32(..).to_be_bytes());
    s.ethernet()
        .ipv4(s.ip4())
        .icmpv4(message)
        .payload(s.payload())
}
