//! The IPv6 header and its extension headers (RFC 8200).

use crate::addr::Addr;
use crate::frame::{Frame, HEADER_SPAN, Window};
use crate::packet::{Malformed, Packet, Shape, protocol};
use crate::parse::{Network, Payload, Whole, short};

pub(crate) const HEADER: usize = 40;
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

/// Parses the IPv6 header at `at`, and the extension headers behind it.
#[inline(always)]
pub(crate) fn parse<F: Frame + ?Sized, const EVERY: bool>(
    frame: &mut F,
    packet: &mut Packet,
    at: usize,
) -> Network {
    let Some(header) = frame.window::<40>(at) else {
        return short(frame, at + HEADER);
    };
    packet.source = Addr::v6(header.u64::<8>(), header.u64::<16>());
    packet.destination = Addr::v6(header.u64::<24>(), header.u64::<32>());
    packet.protocol = header.u8::<6>();
    packet.hop_limit = header.u8::<7>();
    if header.u8::<0>() >> 4 != 6 {
        return Network::Done(Shape::Malformed(Malformed::Version));
    }
    let end = if frame.is_segmented() {
        packet.length
    } else {
        let end = at + HEADER + usize::from(header.u16::<4>());
        if end > packet.length {
            if !frame.holds(end) {
                return Network::Done(Shape::Malformed(Malformed::Length));
            }
            packet.length = end;
        }
        end
    };
    let at = at + HEADER;
    if !EVERY {
        // An extension header is no transport that has ports: `transport` turns it away.
        return Network::Payload(Payload {
            at,
            end,
            whole: Whole::Yes,
        });
    }
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
        if at + 8 > end {
            return Network::Done(Shape::Malformed(whole.cut()));
        }
        frame.renew();
        let Some(header) = frame.window::<8>(at) else {
            return short(frame, at + 8);
        };
        // Which header it is makes one state for the verifier, not one for each kind.
        #[expect(clippy::cast_possible_truncation, reason = "it was eight bits")]
        let this = frame.forget(usize::from(packet.protocol)) as u8;
        packet.protocol = header.u8::<0>();
        let mut length = usize::from(header.u8::<1>()) * 8 + 8;
        match this {
            next::HOP_BY_HOP if index != 0 => {
                return Network::Done(Shape::Malformed(Malformed::ExtensionHeaders));
            }
            next::ROUTING if header.u8::<2>() == 0 => {
                return Network::Done(Shape::Malformed(Malformed::RoutingHeader));
            }
            next::FRAGMENT => {
                // Its second octet is reserved: the sender controls it, and it is no length.
                length = 8;
                let fragment = header.u16::<2>();
                if fragment & FRAGMENT_OFFSET != 0 {
                    if packet.protocol == protocol::TCP && fragment & FRAGMENT_OFFSET == 8 {
                        return Network::Done(Shape::Malformed(Malformed::TinyFragment));
                    }
                    return Network::Done(Shape::Fragment);
                }
                if fragment & MORE_FRAGMENTS != 0 {
                    whole = Whole::First;
                }
            }
            // RFC 4302 section 2.2: in words of four octets, less two.
            next::AUTHENTICATION => length = usize::from(header.u8::<1>()) * 4 + 8,
            _ => {}
        }
        at = frame.forget(at + length);
        if at > end {
            return Network::Done(Shape::Malformed(whole.cut()));
        }
        if !is_extension(packet.protocol) {
            // As with IPv4 options: one state for the verifier, whatever was walked.
            frame.renew();
            return Network::Payload(Payload {
                at: frame.forget(at),
                end,
                whole,
            });
        }
    }
    Network::Done(Shape::Malformed(Malformed::ExtensionHeaders))
}
