//! One frame for each reason that there is, both ways, in both families where that makes a difference, and what it is
//! counted for.

use std::net::{Ipv4Addr, Ipv6Addr};

use portguard_common::packet::Malformed;
use portguard_common::reason::{Direction, Reason};
use portguard_harness::frames::{Extension, Frame, Icmp, Ipv4, Ipv6, Udp, arp_request, number};
use portguard_harness::net::Link;

/// What the matrix and the site of [`super::exact`] open.
const DOCUMENTED: u16 = 7_001;
const OTHERS: u16 = 7_002;
const SITE: u16 = 7_003;
const MANAGEMENT: u16 = 7_004;
const PROTOCOL: u8 = 50;
/// Opened by nothing.
const CLOSED: u16 = 61_001;
/// Of the host's own conversation.
const OWN: u16 = 50_001;

/// Neither end has it: whatever leaves the host is heard by packet sockets, and nobody answers it; what comes is another host's.
const NOBODY: [u8; 6] = [2, 0x7f, 0, 0, 0, 1];
const FOREIGN: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 9);
const FOREIGN6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 9);
/// The first fragment is never sent: nothing is put together.
const IDENTIFICATION: u16 = 77;

/// What a frame is counted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    /// A reason that is not a grant.
    Is(Reason),
    /// Malformed, with the cause.
    Bad(Malformed),
    /// A grant, by the name of its cell.
    Granted(&'static str),
}

impl Why {
    /// The name that it has in counters.
    pub(super) fn name(self, direction: Direction) -> &'static str {
        match self {
            Self::Is(reason) => reason.name(direction),
            Self::Bad(_) => Reason::Malformed.name(direction),
            Self::Granted(name) => name,
        }
    }

    pub(super) fn reason(self) -> Reason {
        match self {
            Self::Is(reason) => reason,
            Self::Bad(_) => Reason::Malformed,
            Self::Granted(_) => Reason::Granted,
        }
    }
}

/// A frame and what it is.
#[derive(Debug, Clone)]
pub(super) struct Shape {
    pub(super) direction: Direction,
    /// Where nothing is strict.
    pub(super) plain: Why,
    /// With `strict_fragments`, `strict_ethertypes` and `scope = "host-addresses"`.
    pub(super) strict: Why,
    pub(super) frame: Vec<u8>,
}

impl Shape {
    /// The frame as a packet socket at the other end shows it: without its outermost tag.
    pub(super) fn arrival(&self) -> Vec<u8> {
        let tag = number::VLAN.to_be_bytes();
        match (
            self.frame.get(..12),
            self.frame.get(12..14),
            self.frame.get(16..),
        ) {
            (Some(addresses), Some(kind), Some(rest)) if *kind == tag => [addresses, rest].concat(),
            _ => self.frame.clone(),
        }
    }
}

/// All of them, those that the host sends first: so it has opened the conversation that is answered.
pub(super) fn shapes(link: &Link) -> Vec<Shape> {
    let mut list = Shapes::new(link, Direction::Egress);
    list.of_both();
    list.sent();
    let mut all = list.found;
    let mut list = Shapes::new(link, Direction::Ingress);
    list.of_both();
    list.received();
    all.extend(list.found);
    all
}

struct Shapes {
    direction: Direction,
    mac: [u8; 6],
    /// Whom frames are for.
    to_mac: [u8; 6],
    from: (Ipv4Addr, Ipv6Addr),
    to: (Ipv4Addr, Ipv6Addr),
    found: Vec<Shape>,
}

impl Shapes {
    fn new(link: &Link, direction: Direction) -> Self {
        let (from, to) = match direction {
            Direction::Ingress => (&link.right, &link.left),
            Direction::Egress => (&link.left, &link.right),
        };
        Self {
            direction,
            mac: from.mac,
            to_mac: match direction {
                Direction::Ingress => to.mac,
                Direction::Egress => NOBODY,
            },
            from: (from.v4(), from.v6()),
            to: (to.v4(), to.v6()),
            found: Vec::new(),
        }
    }

    /// Adds a frame that is one thing where nothing is strict, and another where all is.
    fn add_either(&mut self, plain: Why, strict: Why, frame: &Frame) {
        let mut frame = frame.build();
        if let Some(destination) = frame.get_mut(..6) {
            destination.copy_from_slice(&self.to_mac);
        }
        self.found.push(Shape {
            direction: self.direction,
            plain,
            strict,
            frame,
        });
    }

    fn add(&mut self, why: Why, frame: &Frame) {
        self.add_either(why, why, frame);
    }

    /// Of a length of its own, so that bytes tell frames apart too.
    fn payload(&self) -> Vec<u8> {
        vec![0xa5; 100 + self.found.len()]
    }

    fn ethernet(&self) -> Frame {
        Frame::new(self.to_mac, self.mac).payload(self.payload())
    }

    fn ip4(&self) -> Ipv4 {
        Ipv4::new(self.from.0, self.to.0)
    }

    fn ip6(&self) -> Ipv6 {
        Ipv6::new(self.from.1, self.to.1)
    }

    fn v4(&self) -> Frame {
        self.ethernet().ipv4(self.ip4())
    }

    fn v6(&self) -> Frame {
        self.ethernet().ipv6(self.ip6())
    }

    /// Datagrams of both families.
    fn udp(&mut self, why: Why, source: u16, destination: u16) {
        let ports = || Udp::new(source, destination);
        self.add(why, &self.v4().udp(ports()));
        self.add(why, &self.v6().udp(ports()));
    }

    fn icmp(&mut self, why: Why, kind4: u8, kind6: u8) {
        self.add(why, &self.v4().icmpv4(Icmp::new(kind4, 0)));
        self.add(why, &self.v6().icmpv6(Icmp::new(kind6, 0)));
    }

    fn of_both(&mut self) {
        let is = Why::Is;
        let closed = is(Reason::UndocumentedPort);
        // Nothing but its link address keeps the host from answering.
        let to_mac = std::mem::replace(&mut self.to_mac, NOBODY);
        self.add(
            is(Reason::Arp),
            &arp_request(self.mac, self.from.0, self.to.0),
        );
        self.to_mac = to_mac;
        for kind in [0x88cc, 0x1234] {
            self.add_either(
                is(Reason::NonIp),
                is(Reason::StrictEthertype),
                &self.ethernet().ethertype(kind),
            );
        }
        self.icmp(is(Reason::EchoReply), 0, 129);
        self.icmp(Why::Granted("icmp-echo"), 8, 128);
        self.icmp(is(Reason::IcmpEssential), 3, 1);
        self.icmp(is(Reason::IcmpEssential), 11, 143);
        self.icmp(is(Reason::Icmp), 13, 200);
        let neighbour = Icmp::new(135, 0);
        let near = self.ip6().hop_limit(255);
        let near = self.ethernet().ipv6(near).icmpv6(neighbour.clone());
        self.add(is(Reason::IcmpEssential), &near);
        self.add(is(Reason::Icmp), &self.v6().icmpv6(neighbour));
        self.add(Why::Granted("protocol"), &self.v4().protocol(PROTOCOL));
        self.add(Why::Granted("protocol"), &self.v6().protocol(PROTOCOL));
        let other = is(Reason::UndocumentedProtocol);
        self.add(other, &self.v4().protocol(number::GRE));
        self.add(other, &self.v6().protocol(number::GRE));
        self.udp(closed, 40_000, CLOSED);
        self.udp(is(Reason::UndocumentedPeer), 40_001, OTHERS);
        self.udp(Why::Granted("documented"), OWN, DOCUMENTED);
        self.udp(Why::Granted("site"), 40_002, SITE);
        self.fragments();
        self.malformed();
        // For another host, or from one.
        let (from, to) = (self.from, self.to);
        let (here4, here6) = match self.direction {
            Direction::Ingress => ((from.0, FOREIGN), (from.1, FOREIGN6)),
            Direction::Egress => ((FOREIGN, to.0), (FOREIGN6, to.1)),
        };
        let ports = || Udp::new(40_003, CLOSED);
        let v4 = self.ethernet().ipv4(Ipv4::new(here4.0, here4.1));
        let v6 = self.ethernet().ipv6(Ipv6::new(here6.0, here6.1));
        // What this host sends is its own, whatever source it says: only what came in elsewhere is on its way.
        let scoped = match self.direction {
            Direction::Ingress => is(Reason::Transit),
            Direction::Egress => closed,
        };
        self.add_either(closed, scoped, &v4.udp(ports()));
        // IPv6 is off on these interfaces, so that they say nothing by themselves: nothing of it is forwarded.
        self.add_either(closed, closed, &v6.udp(ports()));
    }

    fn fragments(&mut self) {
        let (passed, strict) = (Why::Is(Reason::Fragment), Why::Is(Reason::StrictFragment));
        let header = self.ip4().fragment(IDENTIFICATION, 64, false);
        let v4 = self.ethernet().ipv4(header).protocol(number::UDP);
        self.add_either(passed, strict, &v4);
        let header = Extension::fragment(64, false, IDENTIFICATION.into());
        let v6 = self.v6().extension(header).protocol(number::UDP);
        self.add_either(passed, strict, &v6);
    }

    fn malformed(&mut self) {
        for cause in Malformed::ALL {
            let ports = Udp::new(40_000, DOCUMENTED);
            let frame = match cause {
                Malformed::Truncated => self.v4().udp(ports).truncate(30),
                Malformed::VlanDepth => self
                    .v4()
                    .tag(number::VLAN, 1)
                    .tag(number::VLAN, 2)
                    .tag(number::VLAN, 3)
                    .udp(ports),
                Malformed::Version => self.v4().ethertype(number::IPV6).udp(ports),
                Malformed::HeaderLength => self.ethernet().ipv4(self.ip4().ihl(4)).udp(ports),
                Malformed::Length => self
                    .ethernet()
                    .ipv4(self.ip4().total_length(1_400))
                    .udp(ports),
                // A loose source route to nowhere.
                Malformed::Options => self
                    .ethernet()
                    .ipv4(self.ip4().options([0x83, 3, 4, 0]))
                    .udp(ports),
                Malformed::FirstFragment => self
                    .ethernet()
                    .ipv4(self.ip4().fragment(IDENTIFICATION, 0, true))
                    .protocol(number::UDP)
                    .payload([0; 2]),
                Malformed::TinyFragment => self
                    .ethernet()
                    .ipv4(self.ip4().fragment(IDENTIFICATION, 1, true))
                    .protocol(number::TCP),
                Malformed::ExtensionHeaders => (0..9)
                    .fold(self.v6(), |frame, _| {
                        frame.extension(Extension::destination(0))
                    })
                    .udp(ports),
                Malformed::RoutingHeader => {
                    self.v6().extension(Extension::routing(0, 2)).udp(ports)
                }
            };
            self.add(Why::Bad(cause), &frame);
        }
    }

    fn sent(&mut self) {
        self.udp(Why::Granted("baseline"), 40_004, 53);
        // What is open to the peer may be answered to it, without anything being remembered.
        self.udp(Why::Is(Reason::Reply), MANAGEMENT, CLOSED);
    }

    fn received(&mut self) {
        let (is, own) = (Why::Is, self.to_mac);
        self.udp(Why::Granted("management"), 40_004, MANAGEMENT);
        let dhcp = Why::Granted("dhcp");
        self.add(dhcp, &self.v4().udp(Udp::new(67, 68)));
        self.add(dhcp, &self.v6().udp(Udp::new(547, 546)));
        self.to_mac = NOBODY;
        self.udp(is(Reason::OtherHost), 40_004, CLOSED);
        self.to_mac = own;
        // The host asked from there.
        self.udp(Why::Is(Reason::Reply), DOCUMENTED, OWN);
    }
}
