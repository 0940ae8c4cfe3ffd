//! Frames as small as they come: what an attacker sends, and the worst case of a program's cost a byte.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use portguard_harness::frames::{Frame, Icmp, Ipv4, Ipv6, Tcp, Udp};

/// The guarded host.
pub(crate) const HOST4: Ipv4Addr = Ipv4Addr::new(10, 9, 9, 9);
pub(crate) const HOST6: Ipv6Addr = Ipv6Addr::new(0xfd09, 0, 0, 0, 0, 0, 0, 9);
/// Somebody else.
pub(crate) const PEER4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
pub(crate) const PEER6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 7);

pub(crate) const SYN: u8 = 0x02;
pub(crate) const ACK: u8 = 0x10;

/// Offset of the source address and of the ports in frames without tags.
pub(crate) const SOURCE4_AT: u32 = 26;
pub(crate) const PORTS4_AT: u32 = 34;
pub(crate) const SOURCE6_AT: u32 = 22;
pub(crate) const PORTS6_AT: u32 = 54;
/// Offset of the destination address.
pub(crate) const DESTINATION4_AT: u32 = 30;

fn ethernet() -> Frame {
    Frame::new([2, 0, 0, 0, 0, 9], [2, 0, 0, 0, 0, 7]).pad(60)
}

/// From and to, of one family.
fn ip(frame: Frame, from: IpAddr, to: IpAddr) -> Frame {
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => frame.ipv4(Ipv4::new(from, to)),
        (IpAddr::V6(from), IpAddr::V6(to)) => frame.ipv6(Ipv6::new(from, to)),
        _ => frame,
    }
}

/// The two ends of what arrives.
pub(crate) fn ends(v6: bool) -> (IpAddr, IpAddr) {
    if v6 {
        (PEER6.into(), HOST6.into())
    } else {
        (PEER4.into(), HOST4.into())
    }
}

pub(crate) fn tcp(ends: (IpAddr, IpAddr), ports: (u16, u16), flags: u8) -> Frame {
    ip(ethernet(), ends.0, ends.1).tcp(Tcp::new(ports.0, ports.1, flags))
}

pub(crate) fn udp(ends: (IpAddr, IpAddr), ports: (u16, u16)) -> Frame {
    ip(ethernet(), ends.0, ends.1).udp(Udp::new(ports.0, ports.1))
}

/// The same with tags.
pub(crate) fn tagged(tags: &[u16], v6: bool, port: u16) -> Frame {
    let ends = ends(v6);
    let frame = tags
        .iter()
        .fold(ethernet(), |frame, tag| frame.tag(*tag, 42));
    ip(frame, ends.0, ends.1).tcp(Tcp::syn(40_000, port))
}

pub(crate) fn ping(v6: bool) -> Frame {
    let ends = ends(v6);
    let frame = ip(ethernet(), ends.0, ends.1);
    if v6 {
        frame.icmpv6(Icmp::new(128, 0))
    } else {
        frame.icmpv4(Icmp::new(8, 0))
    }
}

/// An Ethernet frame with an IPv4 or IPv6 header, to be gone on with.
pub(crate) fn open4(header: Ipv4) -> Frame {
    ethernet().ipv4(header)
}

pub(crate) fn open6() -> Frame {
    ip(ethernet(), PEER6.into(), HOST6.into())
}
