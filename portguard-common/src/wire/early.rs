//! Frames that their first headers say enough about: ARP and other protocols, later fragments, headers that do not hold.

use crate::wire::addr::Addr;
use crate::wire::ethernet::{self, ethertype};
use crate::wire::frame::Frame;
use crate::wire::network::Network;
use crate::wire::packet::{Malformed, Packet, Shape, Subject};
use crate::wire::{ipv4, ipv6};

/// A frame of which nothing but its shape and its EtherType matters: no address, no port, no type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Early {
    kind: Kind,
    ethertype: u16,
    length: usize,
}

/// The shapes that such a frame can have: a type of its own, so that the compiler knows that it has no other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Arp,
    NonIp,
    Fragment,
    Malformed(Malformed),
}

impl Kind {
    #[inline(always)]
    const fn of(shape: Shape) -> Option<Self> {
        match shape {
            Shape::Arp => Some(Self::Arp),
            Shape::NonIp => Some(Self::NonIp),
            Shape::Fragment => Some(Self::Fragment),
            Shape::Malformed(cause) => Some(Self::Malformed(cause)),
            Shape::Ports | Shape::Icmp | Shape::Protocol => None,
        }
    }
}

impl Early {
    /// As [`crate::wire::parse::parse_early`] says.
    #[inline(always)]
    pub(crate) fn parse<F: Frame + ?Sized>(frame: &mut F, vlan: u32) -> Option<Self> {
        let mut packet = Packet::new(frame.linear());
        packet.vlan = vlan;
        let done = match ethernet::parse(frame, &mut packet) {
            Ok(at) => network(frame, &mut packet, at)?,
            Err(done) => done,
        };
        let Network::Done(shape) = done else {
            return None;
        };
        Some(Self {
            kind: Kind::of(shape)?,
            ethertype: packet.ethertype,
            length: packet.length,
        })
    }
}

/// `None` if there is more to read.
#[inline(always)]
fn network<F: Frame + ?Sized>(frame: &F, packet: &mut Packet, at: usize) -> Option<Network> {
    let shape = match packet.ethertype {
        ethertype::IPV4 => match ipv4::fixed(frame, packet, at) {
            // Options are walked before the fragment field is looked at.
            Ok(fixed) if fixed.length > ipv4::HEADER => return None,
            Ok(fixed) => ipv4::later(packet.protocol, fixed.fragment)?,
            Err(done) => return Some(done),
        },
        ethertype::IPV6 => match ipv6::fixed(frame, packet, at) {
            Ok(end) => ipv6::later(frame, packet, at, end)?,
            Err(done) => return Some(done),
        },
        ethertype::ARP => Shape::Arp,
        _ => Shape::NonIp,
    };
    Some(Network::Done(shape))
}

impl Subject for Early {
    /// As with [`crate::wire::plain::Plain`].
    const IS_ROUTED: bool = false;

    #[inline(always)]
    fn shape(&self) -> Shape {
        match self.kind {
            Kind::Arp => Shape::Arp,
            Kind::NonIp => Shape::NonIp,
            Kind::Fragment => Shape::Fragment,
            Kind::Malformed(cause) => Shape::Malformed(cause),
        }
    }

    #[inline(always)]
    fn ethertype(&self) -> u16 {
        self.ethertype
    }

    #[inline(always)]
    fn length(&self) -> usize {
        self.length
    }

    // None of these shapes is asked for the rest.

    #[inline(always)]
    fn source(&self) -> Addr {
        Addr::v4(0)
    }

    #[inline(always)]
    fn destination(&self) -> Addr {
        Addr::v4(0)
    }

    #[inline(always)]
    fn protocol(&self) -> u8 {
        0
    }

    #[inline(always)]
    fn source_port(&self) -> u16 {
        0
    }

    #[inline(always)]
    fn destination_port(&self) -> u16 {
        0
    }

    #[inline(always)]
    fn icmp_type(&self) -> u8 {
        0
    }

    #[inline(always)]
    fn tcp_flags(&self) -> u8 {
        0
    }

    #[inline(always)]
    fn hop_limit(&self) -> u8 {
        0
    }
}
