//! The IPv4 header (RFC 791).

use crate::wire::addr::Addr;
use crate::wire::frame::{Frame, Window};
use crate::wire::ipv4_options::Walk;
use crate::wire::network::{Network, Payload, Whole, is_big, short};
use crate::wire::packet::{Malformed, Packet, Shape, protocol};

/// Header without options.
pub(crate) const HEADER: usize = 20;
/// The first octet of a header without options: version 4, five words.
pub(crate) const PLAIN: u8 = 0x45;

/// Offsets in the header.
pub(crate) mod field {
    pub(crate) const VERSION_LENGTH: usize = 0;
    pub(crate) const TOTAL_LENGTH: usize = 2;
    pub(crate) const FRAGMENT: usize = 6;
    pub(crate) const TTL: usize = 8;
    pub(crate) const PROTOCOL: usize = 9;
    pub(crate) const SOURCE: usize = 12;
    pub(crate) const DESTINATION: usize = 16;
}

const MORE_FRAGMENTS: u16 = 0x2000;
const FRAGMENT_OFFSET: u16 = 0x1fff;
/// Bits of the fragment field that only fragments have.
pub(crate) const FRAGMENTED: u16 = MORE_FRAGMENTS | FRAGMENT_OFFSET;

/// The address at an offset.
#[inline(always)]
pub(crate) fn address<W: Window, const O: usize>(header: &W) -> Addr {
    Addr::v4(header.u32::<O>())
}

/// The fixed part of an IPv4 header, whose lengths hold.
pub(crate) struct Fixed {
    /// Length of the header with its options.
    pub(crate) length: usize,
    /// Where the packet ends.
    end: usize,
    /// See [`later`].
    pub(crate) fragment: u16,
}

/// Parses the fixed part of the IPv4 header at `at`.
#[inline(always)]
pub(crate) fn fixed<F: Frame + ?Sized>(
    frame: &F,
    packet: &mut Packet,
    at: usize,
) -> Result<Fixed, Network> {
    let Some(header) = frame.window::<HEADER>(at) else {
        return Err(short(frame, at + HEADER));
    };
    packet.source = address::<_, { field::SOURCE }>(&header);
    packet.destination = address::<_, { field::DESTINATION }>(&header);
    packet.protocol = header.u8::<{ field::PROTOCOL }>();
    packet.hop_limit = header.u8::<{ field::TTL }>();
    let version_length = header.u8::<{ field::VERSION_LENGTH }>();
    let total = usize::from(header.u16::<{ field::TOTAL_LENGTH }>());
    let fragment = header.u16::<{ field::FRAGMENT }>();

    if version_length >> 4 != 4 {
        return Err(Network::Done(Shape::Malformed(Malformed::Version)));
    }
    let length = usize::from(version_length & 0xf) * 4;
    if length < HEADER {
        return Err(Network::Done(Shape::Malformed(Malformed::HeaderLength)));
    }
    let end = if frame.is_segmented() || is_big(frame, at, total) {
        packet.length
    } else {
        let end = at + total;
        if total < length {
            return Err(Network::Done(Shape::Malformed(Malformed::Length)));
        }
        if end > packet.length {
            if !frame.holds(end) {
                return Err(Network::Done(Shape::Malformed(Malformed::Length)));
            }
            packet.length = end;
        }
        end
    };
    Ok(Fixed {
        length,
        end,
        fragment,
    })
}

/// What a fragment is that is not the first, by the fragment field; `None` if it is the first, or none.
#[inline(always)]
pub(crate) fn later(protocol: u8, fragment: u16) -> Option<Shape> {
    match fragment & FRAGMENT_OFFSET {
        0 => None,
        // RFC 1858: eight bytes further a fragment could rewrite the flags of a TCP header that was judged.
        1 if protocol == protocol::TCP => Some(Shape::Malformed(Malformed::TinyFragment)),
        _ => Some(Shape::Fragment),
    }
}

/// Parses the IPv4 header at `at`.
#[inline(always)]
pub(crate) fn parse<F: Frame + ?Sized>(frame: &mut F, packet: &mut Packet, at: usize) -> Network {
    let Fixed {
        length,
        end,
        fragment,
    } = match fixed(frame, packet, at) {
        Ok(fixed) => fixed,
        Err(done) => return done,
    };
    // One state for verifiers, wherever the packet ends.
    let end = frame.barrier_var(end);
    packet.length = frame.barrier_var(packet.length);
    if length > HEADER {
        match options(frame, at + HEADER, at + length) {
            Some(true) => {}
            Some(false) => return Network::Done(Shape::Malformed(Malformed::Options)),
            None => return short(frame, at + length),
        }
    }
    if let Some(shape) = later(packet.protocol, fragment) {
        return Network::Done(shape);
    }
    let whole = if fragment & MORE_FRAGMENTS == 0 {
        Whole::Yes
    } else {
        Whole::First
    };
    // The lengths of all options become one state for the verifier; the bound is checked again where it is read.
    let length = if length > HEADER {
        frame.renew();
        frame.barrier_var(length)
    } else {
        length
    };
    Network::Payload(Payload {
        at: at + length,
        end,
        whole,
    })
}

/// Walks the options between `at` and `end` (at most ten words): whether they are harmless, `None` if they cannot be read.
///
/// Reads every word in turn and forgets where the options start in them, rather than jumping from option to option: then
/// the verifier sees ten states instead of millions.
#[inline(always)]
fn options<F: Frame + ?Sized>(frame: &mut F, at: usize, end: usize) -> Option<bool> {
    let length = end - at;
    let mut walk = Walk::new(frame.barrier_var(length) as u64);
    for word in 0..10 {
        let start = word * 4;
        if start >= frame.barrier_var(length) {
            break;
        }
        frame.renew();
        let octets = frame.window::<4>(at + start)?.u32::<0>();
        walk = Walk(frame.walk(walk.0, octets));
        if walk.0 & Walk::DONE != 0 {
            return Some(walk.0 & Walk::HARMFUL == 0);
        }
    }
    Some(walk.size_at() != walk.length())
}
