//! One maker for each class.

use std::net::{Ipv4Addr, Ipv6Addr};

use fastrand::Rng;

use super::Palette;
use crate::frames::{Extension, Frame, Icmp, Ipv4, Ipv6, Sctp, Tcp, Udp, dhcp, number, stock};

type Maker = fn(&mut Source<'_>) -> Frame;

/// Name and maker; plain packets come more than once, because much of the policy is about them.
pub(super) const MAKERS: [(&str, Maker); 31] = [
    ("ipv4", ipv4),
    ("ipv6", ipv6),
    ("arp", arp),
    ("other-ethertype", other_ethertype),
    ("length-field", length_field),
    ("vlan", vlan),
    ("vlan-deep", vlan_deep),
    ("ipv4-options", ipv4_options),
    ("ipv4-source-route", ipv4_source_route),
    ("ipv4-bad-options", ipv4_bad_options),
    ("ipv4-bad-header", ipv4_bad_header),
    ("ipv4-first-fragment", ipv4_first_fragment),
    ("ipv4-later-fragment", ipv4_later_fragment),
    ("ipv4-tiny-fragment", ipv4_tiny_fragment),
    ("ipv6-bad-header", ipv6_bad_header),
    ("ipv6-fragment", ipv6_fragment),
    ("ipv6-atomic-fragment", ipv6_atomic_fragment),
    ("ipv6-chain", ipv6_chain),
    ("ipv6-long-chain", ipv6_long_chain),
    ("ipv6-routing", ipv6_routing),
    ("ipv6-broken-chain", ipv6_broken_chain),
    ("authentication", authentication),
    ("other-protocol", other_protocol),
    ("encapsulated", encapsulated),
    ("icmpv4", icmpv4),
    ("icmpv6", icmpv6),
    ("neighbour", neighbour),
    ("dhcp", dhcp_message),
    ("group", group),
    ("truncated", truncated),
    ("noise", noise),
];

/// Where makers take their numbers from.
pub(super) struct Source<'a> {
    pub(super) rng: &'a mut Rng,
    pub(super) palette: &'a Palette,
}

impl Source<'_> {
    fn one_in(&mut self, count: u32) -> bool {
        self.rng.u32(..count) == 0
    }

    fn mac(&mut self) -> [u8; 6] {
        let drawn = self.rng.choice(&self.palette.macs).copied();
        match drawn {
            Some(mac) if !self.one_in(8) => mac,
            _ => std::array::from_fn(|_| self.rng.u8(..)),
        }
    }

    fn v4(&mut self) -> Ipv4Addr {
        let drawn = self.rng.choice(&self.palette.v4).copied();
        match drawn {
            Some(address) if !self.one_in(4) => address,
            _ => Ipv4Addr::from_bits(self.rng.u32(..)),
        }
    }

    fn v6(&mut self) -> Ipv6Addr {
        let drawn = self.rng.choice(&self.palette.v6).copied();
        match drawn {
            Some(address) if !self.one_in(4) => address,
            _ => Ipv6Addr::from_bits(self.rng.u128(..)),
        }
    }

    fn port(&mut self) -> u16 {
        let drawn = self.rng.choice(&self.palette.ports).copied();
        match drawn {
            Some(port) if self.rng.bool() => port,
            // A neighbour of a port that means something.
            Some(port) if self.one_in(4) => {
                port.wrapping_add(1).wrapping_sub(self.rng.u16(..2) * 2)
            }
            _ => self.rng.u16(..),
        }
    }

    fn bytes(&mut self, most: usize) -> Vec<u8> {
        let mut bytes = vec![0; self.rng.usize(..=most)];
        self.rng.fill(&mut bytes);
        bytes
    }

    fn payload(&mut self) -> Vec<u8> {
        self.bytes(self.palette.payload)
    }

    fn ethernet(&mut self) -> Frame {
        let frame = Frame::new(self.mac(), self.mac());
        let frame = if self.one_in(8) {
            frame.pad(60 + self.rng.usize(..20))
        } else {
            frame
        };
        if self.one_in(8) {
            self.tagged(frame)
        } else {
            frame
        }
    }

    fn tagged(&mut self, frame: Frame) -> Frame {
        let kind = self
            .rng
            .choice([number::VLAN, number::QINQ, number::QINQ_OLD]);
        frame.tag(kind.unwrap_or(number::VLAN), self.rng.u16(..))
    }

    fn ip4(&mut self) -> Ipv4 {
        let mut header = Ipv4::new(self.v4(), self.v4());
        header.ttl = self.rng.u8(..);
        header.service = self.rng.u8(..);
        header.id = self.rng.u16(..);
        header.dont_fragment = self.rng.bool();
        header.reserved = self.one_in(32);
        header
    }

    fn ip6(&mut self) -> Ipv6 {
        let mut header = Ipv6::new(self.v6(), self.v6());
        header.hop_limit = if self.rng.bool() {
            255
        } else {
            self.rng.u8(..)
        };
        header.class = self.rng.u8(..);
        header.flow = self.rng.u32(..);
        header
    }

    /// A transport header and payload, mostly sound.
    fn transport(&mut self, frame: Frame) -> Frame {
        let (source, destination) = (self.port(), self.port());
        let frame = match self.rng.u8(..8) {
            0..4 => {
                let mut header = Tcp::new(source, destination, self.rng.u8(..));
                if self.rng.bool() {
                    header.flags = Tcp::SYN;
                }
                if self.one_in(4) {
                    header.options = vec![1; self.rng.usize(..=40)];
                }
                if self.one_in(16) {
                    header.data_offset = Some(self.rng.u8(..16));
                }
                frame.tcp(header)
            }
            4..7 => {
                let mut header = Udp::new(source, destination);
                if self.one_in(16) {
                    header.length = Some(self.rng.u16(..));
                }
                if self.one_in(16) {
                    header.checksum = Some(self.rng.u16(..2));
                }
                frame.udp(header)
            }
            _ => frame.sctp(Sctp::new(source, destination)),
        };
        frame.payload(self.payload())
    }

    fn either(&mut self) -> Frame {
        if self.rng.bool() {
            ipv4(self)
        } else {
            ipv6(self)
        }
    }

    fn extension(&mut self) -> Extension {
        match self.rng.u8(..6) {
            0 => Extension::hop_by_hop(self.rng.u8(..3)),
            1 => Extension::routing(self.rng.u8(1..6), self.rng.u8(..3)),
            2 => Extension::fragment(0, false, self.rng.u32(..)).second(self.rng.u8(..)),
            3 => Extension::authentication(self.rng.u8(3..9)),
            _ => Extension::destination(self.rng.u8(..3)),
        }
    }
}

fn ipv4(s: &mut Source<'_>) -> Frame {
    let frame = s.ethernet().ipv4(s.ip4());
    s.transport(frame)
}

fn ipv6(s: &mut Source<'_>) -> Frame {
    let frame = s.ethernet().ipv6(s.ip6());
    s.transport(frame)
}

fn arp(s: &mut Source<'_>) -> Frame {
    stock::arp_request(s.mac(), s.v4(), s.v4()).pad(60 * s.rng.usize(..2))
}

fn other_ethertype(s: &mut Source<'_>) -> Frame {
    const KNOWN: [u16; 10] = [
        0x88cc, 0x8809, 0x888e, 0x88e5, 0x8847, 0x8848, 0x8863, 0x8864, 0x88f7, 0x8035,
    ];
    let kind = if s.rng.bool() {
        s.rng.u16(..)
    } else {
        s.rng.choice(KNOWN).unwrap_or(0x88cc)
    };
    s.ethernet().ethertype(kind).payload(s.payload())
}

/// IEEE 802.3: the EtherType is a length.
fn length_field(s: &mut Source<'_>) -> Frame {
    let length = s.rng.u16(..1537);
    s.either().ethertype(length)
}

fn vlan(s: &mut Source<'_>) -> Frame {
    let frame = s.either();
    let frame = s.tagged(frame);
    if s.rng.bool() { s.tagged(frame) } else { frame }
}

/// Three tags and more; or a tag with nothing or nonsense behind.
fn vlan_deep(s: &mut Source<'_>) -> Frame {
    let mut frame = s.either();
    for _ in 0..s.rng.u8(2..6) {
        frame = s.tagged(frame);
    }
    match s.rng.u8(..4) {
        0 => frame.truncate(s.rng.usize(12..40)),
        1 => frame.ethertype(number::VLAN),
        _ => frame,
    }
}

fn ipv4_options(s: &mut Source<'_>) -> Frame {
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
fn ipv4_source_route(s: &mut Source<'_>) -> Frame {
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
fn ipv4_bad_options(s: &mut Source<'_>) -> Frame {
    let mut options = s.bytes(40);
    if let Some(length) = options.get_mut(1) {
        *length = s.rng.u8(..48);
    }
    let frame = s.ethernet().ipv4(s.ip4().options(options));
    s.transport(frame)
}

fn ipv4_bad_header(s: &mut Source<'_>) -> Frame {
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

fn ipv4_first_fragment(s: &mut Source<'_>) -> Frame {
    let frame = s.ethernet().ipv4(s.ip4().fragment(1, 0, true));
    s.transport(frame)
}

fn ipv4_later_fragment(s: &mut Source<'_>) -> Frame {
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
fn ipv4_tiny_fragment(s: &mut Source<'_>) -> Frame {
    let protocol = s.rng.choice([6, 17, 132, 1]).unwrap_or(6);
    let more = !s.one_in(4);
    s.ethernet()
        .ipv4(s.ip4().fragment(2, 0, more))
        .protocol(protocol)
        .payload(s.bytes(24))
}

fn ipv6_bad_header(s: &mut Source<'_>) -> Frame {
    let mut header = s.ip6();
    match s.rng.u8(..4) {
        0 => header.version = Some(s.rng.u8(..16)),
        1 => header.payload_length = Some(s.rng.u16(..64)),
        // Zero announces a jumbogram.
        2 => header.payload_length = Some(0),
        _ => header.payload_length = Some(s.rng.u16(..)),
    }
    let frame = s.ethernet().ipv6(header);
    s.transport(frame)
}

fn ipv6_fragment(s: &mut Source<'_>) -> Frame {
    let offset = match s.rng.u8(..3) {
        0 => 0,
        1 => s.rng.u16(1..4),
        _ => s.rng.u16(..0x2000),
    };
    let mut header = Extension::fragment(offset, s.rng.bool(), s.rng.u32(..));
    if s.rng.bool() {
        header = header.second(s.rng.u8(..));
    }
    let mut frame = s.ethernet().ipv6(s.ip6());
    if s.one_in(4) {
        frame = frame.extension(s.extension());
    }
    frame = frame.extension(header);
    if s.one_in(4) {
        frame = frame.extension(s.extension());
    }
    if s.one_in(4) {
        return frame
            .protocol(s.rng.choice([6, 17, 132, 58]).unwrap_or(6))
            .payload(s.bytes(12));
    }
    s.transport(frame)
}

fn ipv6_atomic_fragment(s: &mut Source<'_>) -> Frame {
    let header = Extension::fragment(0, false, s.rng.u32(..)).second(s.rng.u8(..));
    let frame = s.ethernet().ipv6(s.ip6()).extension(header);
    s.transport(frame)
}

fn ipv6_chain(s: &mut Source<'_>) -> Frame {
    let mut frame = s.ethernet().ipv6(s.ip6());
    for _ in 0..s.rng.u8(1..5) {
        frame = frame.extension(s.extension());
    }
    s.transport(frame)
}

/// Around the limit of the walk.
fn ipv6_long_chain(s: &mut Source<'_>) -> Frame {
    let mut frame = s.ethernet().ipv6(s.ip6());
    for _ in 0..s.rng.u8(6..12) {
        let header = if s.one_in(3) {
            s.extension()
        } else {
            Extension::destination(0)
        };
        frame = frame.extension(header);
    }
    s.transport(frame)
}

fn ipv6_routing(s: &mut Source<'_>) -> Frame {
    let kind = s.rng.choice([0, 0, 2, 3, 4, 253]).unwrap_or(0);
    let mut header = Extension::routing(kind, s.rng.u8(..4));
    if let Some(left) = header.body.get_mut(1) {
        *left = s.rng.u8(..3);
    }
    let frame = s.ethernet().ipv6(s.ip6()).extension(header);
    s.transport(frame)
}

/// Lengths that lead out of the packet or into the middle of the next header.
fn ipv6_broken_chain(s: &mut Source<'_>) -> Frame {
    let header = s.extension().second(s.rng.u8(..));
    let frame = s.ethernet().ipv6(s.ip6()).extension(header);
    let frame = s.transport(frame);
    if s.rng.bool() {
        frame.truncate(s.rng.usize(54..80))
    } else {
        frame
    }
}

/// AH behind either family; its length unit is 4 bytes.
fn authentication(s: &mut Source<'_>) -> Frame {
    let frame = if s.rng.bool() {
        s.ethernet().ipv4(s.ip4())
    } else {
        s.ethernet().ipv6(s.ip6())
    };
    let header = Extension::authentication(s.rng.u8(3..12));
    let header = if s.one_in(8) {
        header.second(s.rng.u8(..))
    } else {
        header
    };
    s.transport(frame.extension(header))
}

fn other_protocol(s: &mut Source<'_>) -> Frame {
    const KNOWN: [u8; 10] = [
        number::ESP,
        number::NO_NEXT,
        number::GRE,
        2,
        33,
        89,
        103,
        112,
        135,
        136,
    ];
    let kind = if s.rng.bool() {
        s.rng.u8(..)
    } else {
        s.rng.choice(KNOWN).unwrap_or(50)
    };
    let frame = if s.rng.bool() {
        s.ethernet().ipv4(s.ip4())
    } else {
        s.ethernet().ipv6(s.ip6())
    };
    frame.protocol(kind).payload(s.payload())
}

/// IP in IP: the outer header is what counts.
fn encapsulated(s: &mut Source<'_>) -> Frame {
    let frame = if s.rng.bool() {
        s.ethernet().ipv4(s.ip4())
    } else {
        s.ethernet().ipv6(s.ip6())
    };
    let frame = if s.rng.bool() {
        frame.ipv4(s.ip4())
    } else {
        frame.ipv6(s.ip6())
    };
    s.transport(frame)
}

fn icmpv4(s: &mut Source<'_>) -> Frame {
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

fn icmpv6(s: &mut Source<'_>) -> Frame {
    let kind = if s.rng.bool() {
        s.rng.u8(128..156)
    } else {
        s.rng.u8(..6)
    };
    let message = Icmp::new(kind, s.rng.u8(..8)).rest(s.rng.u32(..).to_be_bytes());
    let frame = s.ethernet().ipv6(s.ip6());
    // Multicast listener messages travel behind hop-by-hop options.
    let frame = if s.one_in(4) {
        frame.extension(Extension::hop_by_hop(0))
    } else {
        frame
    };
    frame.icmpv6(message).payload(s.payload())
}

/// Neighbour discovery, also with a hop limit that shows it crossed a router.
fn neighbour(s: &mut Source<'_>) -> Frame {
    match s.rng.u8(..4) {
        0 => stock::neighbour_solicitation(s.mac(), s.v6(), s.v6()),
        1 => stock::neighbour_advertisement(s.mac(), s.mac(), s.v6(), s.v6()),
        2 => stock::router_advertisement(s.mac(), s.v6()),
        _ => {
            let limit = s.rng.u8(250..=255);
            let message = Icmp::new(s.rng.u8(133..138), 0);
            s.ethernet()
                .ipv6(s.ip6().hop_limit(limit))
                .icmpv6(message)
                .payload(s.bytes(32))
        }
    }
}

fn dhcp_message(s: &mut Source<'_>) -> Frame {
    let mac = s.mac();
    let transaction = s.rng.u32(..);
    let (client, server) = if s.rng.bool() { (68, 67) } else { (546, 547) };
    let ports = if s.rng.bool() {
        Udp::new(server, client)
    } else {
        Udp::new(client, server)
    };
    if server == 67 {
        s.ethernet()
            .ipv4(s.ip4())
            .udp(ports)
            .payload(dhcp(s.rng.u8(1..8), transaction, mac))
    } else {
        let payload = stock::dhcpv6(s.rng.u8(1..12), transaction, mac);
        s.ethernet().ipv6(s.ip6()).udp(ports).payload(payload)
    }
}

/// Multicast and broadcast destinations.
fn group(s: &mut Source<'_>) -> Frame {
    let frame = if s.rng.bool() {
        let mut header = s.ip4();
        header.destination = if s.rng.bool() {
            Ipv4Addr::BROADCAST
        } else {
            Ipv4Addr::from_bits(0xe000_0000 | (s.rng.u32(..) >> 4))
        };
        Frame::new([0xff; 6], s.mac()).ipv4(header)
    } else {
        let mut header = s.ip6();
        header.destination = Ipv6Addr::from_bits((0xff02 << 112) | s.rng.u128(..0x1_0000));
        Frame::new([0x33, 0x33, 0, 0, 0, 1], s.mac()).ipv6(header)
    };
    s.transport(frame)
}

/// A frame of any class, cut within its headers.
fn truncated(s: &mut Source<'_>) -> Frame {
    let frame = match s.rng.u8(..6) {
        0 => ipv4(s),
        1 => ipv6(s),
        2 => vlan(s),
        3 => ipv4_options(s),
        4 => ipv6_chain(s),
        _ => icmpv6(s),
    };
    frame.truncate(s.rng.usize(..100))
}

fn noise(s: &mut Source<'_>) -> Frame {
    let mut kinds = [number::IPV4, number::IPV6, number::VLAN, number::ARP].into_iter();
    let kind = kinds.nth(s.rng.usize(..4)).unwrap_or(number::IPV4);
    Frame::new(s.mac(), s.mac())
        .ethertype(kind)
        .payload(s.bytes(120))
}
