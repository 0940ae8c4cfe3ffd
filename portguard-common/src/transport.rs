//! TCP, UDP, SCTP and ICMP: the ports, or the type.

use crate::frame::{Frame, HEADER_SPAN, Window};
use crate::packet::{Malformed, Packet, Shape, protocol};
use crate::parse::{Nonlinear, Payload, Whole};

/// Parses the transport header at `at` of a packet that ends at `end`.
///
/// A whole packet must hold the whole fixed header; a first fragment only its first four bytes, the ports. Later
/// fragments count in units of eight bytes and so cannot rewrite those.
#[inline(always)]
pub(crate) fn parse<F: Frame + ?Sized>(
    frame: &mut F,
    packet: &mut Packet,
    payload: Payload,
) -> Result<Shape, Nonlinear> {
    let Payload { at, end, whole } = payload;
    let (shape, header) = match packet.protocol {
        protocol::TCP => (Shape::Ports, 20),
        protocol::UDP => (Shape::Ports, 8),
        protocol::SCTP => (Shape::Ports, 12),
        protocol::ICMP if !packet.source.v6 => (Shape::Icmp, 8),
        protocol::ICMPV6 if packet.source.v6 => (Shape::Icmp, 8),
        _ => return Ok(Shape::Protocol),
    };
    let needed = match whole {
        Whole::Yes => header,
        Whole::First => 4,
    };
    // First, and on `at` alone: it is what the verifier bounds the packet pointer by. What is read ends within the span
    // too, or a copy of it would lack bytes that the frame in one piece has.
    if at > HEADER_SPAN - 14 {
        return Ok(Shape::Malformed(Malformed::ExtensionHeaders));
    }
    if at + needed > end {
        return Ok(Shape::Malformed(whole.cut()));
    }
    // The packet goes on to `end`, and the frame was checked to hold that: what is missing here lies out of line.
    if packet.protocol == protocol::TCP && matches!(whole, Whole::Yes) {
        let start = frame.window::<14>(at).ok_or(Nonlinear)?;
        packet.tcp_flags = start.u8::<13>();
        ports(packet, &start);
    } else {
        let start = frame.window::<4>(at).ok_or(Nonlinear)?;
        if matches!(shape, Shape::Ports) {
            ports(packet, &start);
        } else {
            packet.icmp_type = start.u8::<0>();
        }
    }
    Ok(shape)
}

#[inline(always)]
fn ports<W: Window>(packet: &mut Packet, start: &W) {
    packet.source_port = start.u16::<0>();
    packet.destination_port = start.u16::<2>();
}
