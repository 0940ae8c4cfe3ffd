//! From a frame to what the packet is: link header, network header by EtherType, transport header.

use crate::wire::early::Early;
use crate::wire::ethernet::{self, ethertype};
use crate::wire::frame::{Frame, Window};
use crate::wire::network::{Network, short};
use crate::wire::packet::{Packet, Shape};
use crate::wire::plain::Plain;
use crate::wire::{ipv4, ipv6, transport};

pub use crate::wire::network::Nonlinear;

/// Parses an Ethernet frame. Total: every sequence of bytes has an answer.
///
/// # Errors
/// [`Nonlinear`] if a header lies outside of the linear part; never for a slice.
#[inline(always)]
pub fn parse<F: Frame + ?Sized>(frame: &mut F) -> Result<Packet, Nonlinear> {
    parse_tagged(frame, 0)
}

/// Parses a frame whose outermost VLAN tag, if `vlan` is not zero, is known from elsewhere (as in [`Packet::vlan`]).
///
/// # Errors
/// [`Nonlinear`], as [`parse`].
#[inline(always)]
pub fn parse_tagged<F: Frame + ?Sized>(frame: &mut F, vlan: u32) -> Result<Packet, Nonlinear> {
    let mut packet = Packet::new(0);
    parse_tagged_into(frame, vlan, &mut packet)?;
    Ok(packet)
}

/// As [`parse_tagged`], into a packet that stands somewhere, of which nothing is known yet ([`Packet::new`]): what stands in a
/// map's memory is no state for verifiers.
///
/// # Errors
/// [`Nonlinear`], as [`parse`]; the packet is worth nothing then.
#[inline(always)]
pub fn parse_tagged_into<F: Frame + ?Sized>(
    frame: &mut F,
    vlan: u32,
    packet: &mut Packet,
) -> Result<(), Nonlinear> {
    packet.length = frame.linear();
    packet.vlan = vlan;
    let network = match ethernet::parse(frame, packet) {
        Ok(at) => network(frame, packet, at),
        Err(done) => done,
    };
    finish(frame, packet, network)
}

/// The fast path: what nearly every frame is, TCP or UDP with its ports, without IP options, extension headers and
/// fragments, behind up to two tags, all of it in place. Anything else is `None`, and for [`parse_tagged`] to look at; where
/// there is an answer, both give the same.
#[inline(always)]
pub fn parse_plain<F: Frame + Clone>(frame: &F, vlan: u32) -> Option<Plain<F>> {
    Plain::parse(frame, vlan)
}

/// What is no plain frame and yet says enough in its first headers: ARP and other protocols, later fragments, headers that do
/// not hold. Anything else, and what cannot be read in place, is `None`, as with [`parse_plain`]; where there is an answer, it is
/// that of [`parse_tagged`].
#[inline(always)]
pub fn parse_early<F: Frame + ?Sized>(frame: &mut F, vlan: u32) -> Option<Early> {
    Early::parse(frame, vlan)
}

/// Parses a frame that starts with its IP header, as interfaces without a link header give it (tun, `WireGuard`, PPP).
///
/// # Errors
/// [`Nonlinear`], as [`parse`].
#[inline(always)]
pub fn parse_ip<F: Frame + ?Sized>(frame: &mut F) -> Result<Packet, Nonlinear> {
    let mut packet = Packet::new(0);
    parse_ip_into(frame, &mut packet)?;
    Ok(packet)
}

/// As [`parse_ip`], into a packet that stands somewhere: see [`parse_tagged_into`].
///
/// # Errors
/// [`Nonlinear`], as [`parse`]; the packet is worth nothing then.
#[inline(always)]
pub fn parse_ip_into<F: Frame + ?Sized>(
    frame: &mut F,
    packet: &mut Packet,
) -> Result<(), Nonlinear> {
    packet.length = frame.linear();
    let Some(first) = frame.window::<{ ipv4::HEADER }>(0) else {
        packet.shape = match short(frame, ipv4::HEADER) {
            Network::Done(shape) => shape,
            Network::Nonlinear | Network::Payload(_) => return Err(Nonlinear),
        };
        return Ok(());
    };
    packet.ethertype = if first.u8::<{ ipv4::field::VERSION_LENGTH }>() >> 4 == 6 {
        ethertype::IPV6
    } else {
        // Any other version is malformed as IPv4.
        ethertype::IPV4
    };
    let network = network(frame, packet, 0);
    finish(frame, packet, network)
}

/// Parses from the network header at `at` on, for frames whose EtherType and VLAN tag are known from elsewhere.
///
/// # Errors
/// [`Nonlinear`], as [`parse`].
#[inline(always)]
pub fn parse_network<F: Frame + ?Sized>(
    frame: &mut F,
    ethertype: u16,
    vlan: u32,
    at: usize,
) -> Result<Packet, Nonlinear> {
    let mut packet = Packet::new(frame.linear());
    packet.ethertype = ethertype;
    packet.vlan = vlan;
    let network = network(frame, &mut packet, at);
    finish(frame, &mut packet, network)?;
    Ok(packet)
}

#[inline(always)]
fn finish<F: Frame + ?Sized>(
    frame: &mut F,
    packet: &mut Packet,
    network: Network,
) -> Result<(), Nonlinear> {
    packet.shape = match network {
        Network::Payload(payload) => transport::parse(frame, packet, payload)?,
        Network::Done(shape) => shape,
        Network::Nonlinear => return Err(Nonlinear),
    };
    Ok(())
}

/// By EtherType.
#[inline(always)]
fn network<F: Frame + ?Sized>(frame: &mut F, packet: &mut Packet, at: usize) -> Network {
    match packet.ethertype {
        ethertype::IPV4 => ipv4::parse(frame, packet, at),
        ethertype::IPV6 => ipv6::parse(frame, packet, at),
        ethertype::ARP => Network::Done(Shape::Arp),
        _ => Network::Done(Shape::NonIp),
    }
}
