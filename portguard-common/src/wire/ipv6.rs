//! The IPv6 header and its extension headers (RFC 8200).

use crate::wire::addr::Addr;
use crate::wire::frame::{Frame, HEADER_SPAN, Window};
use crate::wire::network::{Network, Payload, Whole, is_big, short};
use crate::wire::packet::{Malformed, Packet, Shape, protocol};

pub(crate) const HEADER: usize = 40;
/// Offsets in the header.
pub(crate) mod field {
    pub(crate) const VERSION: usize = 0;
    pub(crate) const PAYLOAD_LENGTH: usize = 4;
    pub(crate) const NEXT_HEADER: usize = 6;
    pub(crate) const HOP_LIMIT: usize = 7;
    pub(crate) const SOURCE: usize = 8;
    pub(crate) const SOURCE_LOW: usize = 16;
    pub(crate) const DESTINATION: usize = 24;
    pub(crate) const DESTINATION_LOW: usize = 32;
}

/// Offsets in an extension header.
mod extension {
    pub(super) const NEXT_HEADER: usize = 0;
    pub(super) const LENGTH: usize = 1;
    pub(super) const ROUTING_TYPE: usize = 2;
    pub(super) const FRAGMENT: usize = 2;
    /// What all have at least, in bytes.
    pub(super) const LEAST: usize = 8;
}

/// Extension headers that are walked.
pub(crate) const MAX_EXTENSION_HEADERS: usize = 8;
const MORE_FRAGMENTS: u16 = 1;
const FRAGMENT_OFFSET: u16 = 0xfff8;

/// Extension headers by their number.
mod next {
    pub(super) const HOP_BY_HOP: u8 = 0;
    pub(super) const ROUTING: u8 = 43;
    pub(super) const FRAGMENT: u8 = 44;
    pub(super) const AUTHENTICATION: u8 = 51;
    pub(super) const DESTINATION: u8 = 60;
}

/// The address whose halves are at these offsets.
#[inline(always)]
pub(crate) fn address<W: Window, const HIGH: usize, const LOW: usize>(header: &W) -> Addr {
    Addr::v6(header.u64::<HIGH>(), header.u64::<LOW>())
}

/// Parses the fixed header at `at`. Gives where the packet ends.
#[inline(always)]
pub(crate) fn fixed<F: Frame + ?Sized>(
    frame: &F,
    packet: &mut Packet,
    at: usize,
) -> Result<usize, Network> {
    let Some(header) = frame.window::<HEADER>(at) else {
        return Err(short(frame, at + HEADER));
    };
    packet.source = address::<_, { field::SOURCE }, { field::SOURCE_LOW }>(&header);
    packet.destination = address::<_, { field::DESTINATION }, { field::DESTINATION_LOW }>(&header);
    packet.protocol = header.u8::<{ field::NEXT_HEADER }>();
    packet.hop_limit = header.u8::<{ field::HOP_LIMIT }>();
    if header.u8::<{ field::VERSION }>() >> 4 != 6 {
        return Err(Network::Done(Shape::Malformed(Malformed::Version)));
    }
    let payload = usize::from(header.u16::<{ field::PAYLOAD_LENGTH }>());
    if frame.is_segmented() || is_big(frame, at, payload) {
        return Ok(packet.length);
    }
    let end = at + HEADER + payload;
    if end > packet.length {
        if !frame.holds(end) {
            return Err(Network::Done(Shape::Malformed(Malformed::Length)));
        }
        packet.length = end;
    }
    Ok(end)
}

/// What a fragment is that is not the first and whose header comes right behind the fixed one at `at`; `None` if it is no such
/// one. The packet ends at `end`.
#[inline(always)]
pub(crate) fn later<F: Frame + ?Sized>(
    frame: &F,
    packet: &Packet,
    at: usize,
    end: usize,
) -> Option<Shape> {
    let at = at + HEADER;
    if packet.protocol != next::FRAGMENT || at + extension::LEAST > end {
        return None;
    }
    let header = frame.window::<{ extension::LEAST }>(at)?;
    let protocol = header.u8::<{ extension::NEXT_HEADER }>();
    behind_first(protocol, header.u16::<{ extension::FRAGMENT }>())
}

/// What a fragment is, by its fragment field, that is not the first.
#[inline(always)]
const fn behind_first(protocol: u8, fragment: u16) -> Option<Shape> {
    match fragment & FRAGMENT_OFFSET {
        0 => None,
        8 if protocol == protocol::TCP => Some(Shape::Malformed(Malformed::TinyFragment)),
        _ => Some(Shape::Fragment),
    }
}

/// Parses the IPv6 header at `at`, and the extension headers behind it.
#[inline(always)]
pub(crate) fn parse<F: Frame + ?Sized>(frame: &mut F, packet: &mut Packet, at: usize) -> Network {
    let end = match fixed(frame, packet, at) {
        Ok(end) => end,
        Err(done) => return done,
    };
    // One state for verifiers, wherever the packet ends.
    let end = frame.barrier_var(end);
    packet.length = frame.barrier_var(packet.length);
    let at = at + HEADER;
    if is_extension(packet.protocol) {
        extensions(frame, packet, at, end)
    } else {
        Network::Payload(Payload {
            at,
            end,
            whole: Whole::Yes,
        })
    }
}

#[inline(always)]
const fn is_extension(next_header: u8) -> bool {
    matches!(
        next_header,
        next::HOP_BY_HOP
            | next::ROUTING
            | next::FRAGMENT
            | next::AUTHENTICATION
            | next::DESTINATION
    )
}

/// Walks the extension headers from `at` on; `packet.protocol` is the number of the first.
#[inline(always)]
fn extensions<F: Frame + ?Sized>(
    frame: &mut F,
    packet: &mut Packet,
    mut at: usize,
    end: usize,
) -> Network {
    let mut whole = Whole::Yes;
    for index in 0..MAX_EXTENSION_HEADERS {
        // Each is a multiple of eight bytes and starts with the number of the next header.
        if at > HEADER_SPAN {
            return Network::Done(Shape::Malformed(Malformed::ExtensionHeaders));
        }
        if at + extension::LEAST > end {
            return Network::Done(Shape::Malformed(whole.cut()));
        }
        frame.renew();
        let Some(header) = frame.window::<{ extension::LEAST }>(at) else {
            return short(frame, at + extension::LEAST);
        };
        // Which header it is makes one state for the verifier, not one for each kind.
        #[expect(clippy::cast_possible_truncation, reason = "it was eight bits")]
        let this = frame.barrier_var(usize::from(packet.protocol)) as u8;
        packet.protocol = header.u8::<{ extension::NEXT_HEADER }>();
        let mut length = usize::from(header.u8::<{ extension::LENGTH }>()) * 8 + 8;
        match this {
            next::HOP_BY_HOP if index != 0 => {
                return Network::Done(Shape::Malformed(Malformed::ExtensionHeaders));
            }
            next::ROUTING if header.u8::<{ extension::ROUTING_TYPE }>() == 0 => {
                return Network::Done(Shape::Malformed(Malformed::RoutingHeader));
            }
            next::FRAGMENT => {
                // Its second octet is reserved: the sender controls it, and it is no length.
                length = 8;
                let fragment = header.u16::<{ extension::FRAGMENT }>();
                if let Some(shape) = behind_first(packet.protocol, fragment) {
                    return Network::Done(shape);
                }
                if fragment & MORE_FRAGMENTS != 0 {
                    whole = Whole::First;
                }
            }
            // RFC 4302 section 2.2: in words of four octets, less two.
            next::AUTHENTICATION => {
                length = usize::from(header.u8::<{ extension::LENGTH }>()) * 4 + 8;
            }
            _ => {}
        }
        at = frame.barrier_var(at + length);
        if at > end {
            return Network::Done(Shape::Malformed(whole.cut()));
        }
        if !is_extension(packet.protocol) {
            // As with IPv4 options: one state for the verifier, whatever was walked.
            frame.renew();
            return Network::Payload(Payload {
                at: frame.barrier_var(at),
                end,
                whole,
            });
        }
    }
    Network::Done(Shape::Malformed(Malformed::ExtensionHeaders))
}
