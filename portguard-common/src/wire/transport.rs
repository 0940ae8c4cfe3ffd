//! TCP, UDP, SCTP, ICMP and IGMP: the ports, or the type.

use crate::wire::frame::{Frame, HEADER_SPAN, Window};
use crate::wire::network::{Nonlinear, Payload, Whole};
use crate::wire::packet::{Malformed, Packet, Shape, protocol};

/// Lengths of the fixed headers.
pub(crate) mod header {
    pub(crate) const TCP: usize = 20;
    pub(crate) const UDP: usize = 8;
    pub(crate) const SCTP: usize = 12;
    /// ICMP and IGMP.
    pub(crate) const TYPED: usize = 8;
    /// The ports, which TCP, UDP and SCTP start with.
    pub(crate) const PORTS: usize = 4;
    /// TCP up to and with its flags.
    pub(crate) const TCP_FLAGS: usize = 14;
}

/// Offsets in the headers.
pub(crate) mod field {
    pub(crate) const SOURCE_PORT: usize = 0;
    pub(crate) const DESTINATION_PORT: usize = 2;
    pub(crate) const TCP_FLAGS: usize = 13;
    /// Of ICMP and IGMP alike.
    pub(crate) const TYPE: usize = 0;
}

/// Parses the transport header at `at` of a packet that ends at `end`.
///
/// A whole packet must hold the whole fixed header; a first fragment its ports, and of TCP its flags too: whether it asks to
/// open a connection must be known. Later fragments count in units of eight bytes, and where the second is refused they
/// rewrite none of this.
#[inline(always)]
pub(crate) fn parse<F: Frame + ?Sized>(
    frame: &mut F,
    packet: &mut Packet,
    payload: Payload,
) -> Result<Shape, Nonlinear> {
    let Payload { at, end, whole } = payload;
    let (shape, all) = match packet.protocol {
        protocol::TCP => (Shape::Ports, header::TCP),
        protocol::UDP => (Shape::Ports, header::UDP),
        protocol::SCTP => (Shape::Ports, header::SCTP),
        protocol::ICMP | protocol::IGMP if !packet.source.v6 => (Shape::Icmp, header::TYPED),
        protocol::ICMPV6 if packet.source.v6 => (Shape::Icmp, header::TYPED),
        _ => return Ok(Shape::Protocol),
    };
    let needed = match whole {
        Whole::Yes => all,
        Whole::First if packet.protocol == protocol::TCP => header::TCP_FLAGS,
        Whole::First => header::PORTS,
    };
    // First, and on `at` alone: it is what the verifier bounds the packet pointer by. What is read ends within the span
    // too, or a copy of it would lack bytes that the frame in one piece has.
    if at > HEADER_SPAN - header::TCP_FLAGS {
        return Ok(Shape::Malformed(Malformed::ExtensionHeaders));
    }
    if at + needed > end {
        return Ok(Shape::Malformed(whole.cut()));
    }
    // The packet goes on to `end`, and the frame was checked to hold that: what is missing here lies out of line.
    if packet.protocol == protocol::TCP {
        let start = frame.window::<{ header::TCP_FLAGS }>(at).ok_or(Nonlinear)?;
        packet.tcp_flags = start.u8::<{ field::TCP_FLAGS }>();
        ports(packet, &start);
    } else {
        let start = frame.window::<{ header::PORTS }>(at).ok_or(Nonlinear)?;
        if matches!(shape, Shape::Ports) {
            ports(packet, &start);
        } else {
            packet.icmp_type = start.u8::<{ field::TYPE }>();
        }
    }
    Ok(shape)
}

#[inline(always)]
fn ports<W: Window>(packet: &mut Packet, start: &W) {
    packet.source_port = start.u16::<{ field::SOURCE_PORT }>();
    packet.destination_port = start.u16::<{ field::DESTINATION_PORT }>();
}
