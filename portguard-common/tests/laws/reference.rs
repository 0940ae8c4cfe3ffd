//! A second parser, written from the specifications and for the reader: bytes are taken off the front, nothing is fast.

use std::net::IpAddr;

use portguard_common::packet::{Packet, Shape};

/// What a frame is, as the reference sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Seen {
    Arp,
    Other(u16),
    Malformed,
    Later(Route),
    Ports(Route, u8, u16, u16),
    Icmp(Route, u8),
    Protocol(Route, u8),
}

/// From whom to whom.
pub(super) type Route = (IpAddr, IpAddr);

impl Seen {
    /// The same of what the parser found.
    pub(super) fn of(packet: &Packet) -> Self {
        let route = (packet.source.into(), packet.destination.into());
        match packet.shape {
            Shape::Arp => Self::Arp,
            Shape::NonIp => Self::Other(packet.ethertype),
            Shape::Malformed(_) => Self::Malformed,
            Shape::Fragment => Self::Later(route),
            Shape::Ports => Self::Ports(
                route,
                packet.protocol,
                packet.source_port,
                packet.destination_port,
            ),
            Shape::Icmp => Self::Icmp(route, packet.icmp_type),
            Shape::Protocol => Self::Protocol(route, packet.protocol),
        }
    }
}

/// Reads a frame.
pub(super) fn read(frame: &[u8]) -> Seen {
    ethernet(frame).unwrap_or(Seen::Malformed)
}

fn be16(bytes: &[u8]) -> usize {
    usize::from(bytes[0]) * 256 + usize::from(bytes[1])
}

/// `None` is malformed, here and below.
fn ethernet(frame: &[u8]) -> Option<Seen> {
    let mut rest = frame.get(12..)?;
    let mut tags = 0;
    loop {
        let kind = be16(rest.get(..2)?);
        rest = &rest[2..];
        match kind {
            0x8100 | 0x88a8 | 0x9100 if tags == 2 => return None,
            0x8100 | 0x88a8 | 0x9100 => {
                tags += 1;
                rest = rest.get(2..)?;
            }
            0x0806 => return Some(Seen::Arp),
            0x0800 => return ipv4(rest),
            0x86dd => return ipv6(rest),
            // 802.3: a length, and an LLC header that says spanning tree or something else.
            0..1536 => {
                let is_spanning_tree = rest.get(..2)? == [0x42, 0x42];
                return Some(Seen::Other(if is_spanning_tree { 0x42 } else { 0 }));
            }
            other => return Some(Seen::Other(u16::try_from(other).ok()?)),
        }
    }
}

fn ipv4(rest: &[u8]) -> Option<Seen> {
    let fixed = rest.get(..20)?;
    let header_length = usize::from(fixed[0] % 16) * 4;
    let total = be16(&fixed[2..]);
    if fixed[0] / 16 != 4 || header_length < 20 || total < header_length {
        return None;
    }
    let packet = rest.get(..total)?;
    let (header, body) = packet.split_at(header_length);
    let mut options = &header[20..];
    while let Some((&kind, behind)) = options.split_first() {
        match kind {
            0 => break,
            1 => options = behind,
            131 | 137 => return None,
            _ => {
                let length = usize::from(*behind.first()?);
                if length < 2 {
                    return None;
                }
                options = options.get(length..)?;
            }
        }
    }
    let source: [u8; 4] = fixed[12..16].try_into().ok()?;
    let destination: [u8; 4] = fixed[16..].try_into().ok()?;
    let route = (source.into(), destination.into());
    let flags = be16(&fixed[6..]);
    let more = flags / 0x2000 % 2 == 1;
    later(route, fixed[9], flags % 0x2000).or_else(|| transport(route, fixed[9], body, more))
}

fn ipv6(rest: &[u8]) -> Option<Seen> {
    let fixed = rest.get(..40)?;
    if fixed[0] / 16 != 6 {
        return None;
    }
    let mut body = rest.get(40..40 + be16(&fixed[4..]))?;
    let source: [u8; 16] = fixed[8..24].try_into().ok()?;
    let destination: [u8; 16] = fixed[24..].try_into().ok()?;
    let route = (source.into(), destination.into());
    let mut next = fixed[6];
    let mut more = false;
    let mut walked = 0;
    while [0, 43, 44, 51, 60].contains(&next) {
        let head = body.get(..8)?;
        if walked == 8 || (next == 0 && walked > 0) || (next == 43 && head[2] == 0) {
            return None;
        }
        let length = match next {
            44 => 8,
            51 => (usize::from(head[1]) + 2) * 4,
            _ => (usize::from(head[1]) + 1) * 8,
        };
        if next == 44 {
            if let Some(seen) = later(route, head[0], be16(&head[2..]) / 8) {
                return Some(seen);
            }
            more |= head[3] % 2 == 1;
        }
        next = head[0];
        body = body.get(length..)?;
        walked += 1;
    }
    transport(route, next, body, more)
}

/// A fragment that is not the first; offset in units of eight bytes.
fn later(route: Route, protocol: u8, offset: usize) -> Option<Seen> {
    match (offset, protocol) {
        (0, _) => None,
        (1, 6) => Some(Seen::Malformed),
        _ => Some(Seen::Later(route)),
    }
}

fn transport(route: Route, protocol: u8, body: &[u8], more: bool) -> Option<Seen> {
    let header = match (protocol, route.0.is_ipv6()) {
        (6, _) => 20,
        (17, _) | (1 | 2, false) | (58, true) => 8,
        (132, _) => 12,
        _ => return Some(Seen::Protocol(route, protocol)),
    };
    // A first fragment says at least its ports, and of TCP whether it opens a connection.
    let least = if protocol == 6 { 14 } else { 4 };
    let body = body.get(..if more { least } else { header })?;
    if header == 8 && protocol != 17 {
        return Some(Seen::Icmp(route, body[0]));
    }
    let (from, to) = (be16(body), be16(&body[2..]));
    let (from, to) = (u16::try_from(from).ok()?, u16::try_from(to).ok()?);
    Some(Seen::Ports(route, protocol, from, to))
}
