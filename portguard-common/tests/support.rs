//! A small policy written out by hand, and frames of which only the first bytes can be read in place.

use portguard_common::addr::Addr;
use portguard_common::config::{Config, dhcp};
use portguard_common::conntrack::Set;
use portguard_common::frame::{Frame, HEADER_SPAN};
use portguard_common::packet::{Malformed, Packet, Shape};
use portguard_common::parse::{Nonlinear, parse};
use portguard_common::reason::Direction;
use portguard_common::tables::{Ending, Entry, Host6, Key, Leaf, Net6, Rule, Step, Tables};
use portguard_common::verdict::{self, Verdict};

/// Cells by what they count.
pub(crate) mod cell {
    pub(crate) const HTTPS: u16 = 1;
    pub(crate) const DNS: u16 = 2;
    pub(crate) const SIGTRAN: u16 = 3;
    pub(crate) const ADMIN: u16 = 4;
    pub(crate) const ECHO: u16 = 5;
    pub(crate) const OSPF: u16 = 6;
    pub(crate) const DHCP: u16 = 7;
    pub(crate) const DHCPV6: u16 = 8;
}

/// TCP 443 and UDP 53 and SCTP 2905 for all, TCP 8443 for `10.0.0.0/16` and `fd00::/16`, DHCP, ping, OSPF; TCP 9000 is closed
/// and stays in audit.
#[derive(Debug, Clone)]
pub(crate) struct Matrix {
    pub(crate) facts: Config,
    /// The host's own address of each family, where only those are judged.
    pub(crate) own: Vec<Addr>,
}

impl Matrix {
    pub(crate) fn new() -> Self {
        Self {
            facts: Config {
                enforce: 1,
                sources: 1,
                width: 1,
                dhcp: dhcp::V4 | dhcp::V6,
                ..Config::default()
            },
            own: vec![Addr::v4(0x0a00_0001), Addr::v6(0xfd00_0000_0000_0000, 1)],
        }
    }

    pub(crate) fn judge(&self, frame: &[u8]) -> (Packet, Verdict) {
        let packet = parse_slice(frame);
        (packet, verdict::ingress(self, &packet))
    }
}

impl Tables for Matrix {
    fn config(&self) -> &Config {
        &self.facts
    }

    fn entry(&self, direction: Direction, key: Key) -> Entry {
        if direction == Direction::Egress {
            return Entry(0);
        }
        Entry(match (key.space(), key.number()) {
            (0, 443) => cell::HTTPS,
            (0, 8443) => Entry::RESTRICTED | 7,
            (0, 9000) => Entry::AUDIT,
            (1, 53) => cell::DNS,
            (1, 68) => cell::DHCP,
            (1, 546) => cell::DHCPV6,
            (2, 2905) => cell::SIGTRAN,
            (3, 89) => cell::OSPF,
            (3, 0x100) => cell::ECHO,
            _ => 0,
        })
    }

    fn rule(&self, index: u16) -> Rule {
        assert_eq!(index, 7, "the only rule");
        Rule::new(0, cell::ADMIN)
    }

    fn admit(&self, index: u32) -> u32 {
        index
    }

    fn ending(&self, _cell: u32) -> Ending {
        Ending::default()
    }

    fn wall_time(&self) -> u64 {
        0
    }

    fn root4(&self, index: u16) -> Leaf {
        Leaf(u32::from(index == 0x0a00))
    }

    fn root6(&self, index: u16) -> Leaf {
        Leaf(u32::from(index == 0xfd00))
    }

    fn filter6(&self, _word: u32) -> u64 {
        0
    }

    fn net6(&self, _cell: u32) -> Net6 {
        Net6::default()
    }

    fn step(&self, _index: u32) -> Option<&Step> {
        None
    }

    fn block(&self, _block: u32, _index: u8) -> Leaf {
        Leaf(0)
    }

    fn host6(&self, _cell: u32) -> Host6 {
        Host6::default()
    }

    fn is_for_other_host(&self) -> bool {
        true
    }

    fn is_forwarded(&self, direction: Direction, source: Addr, destination: Addr) -> bool {
        !self.own.contains(match direction {
            Direction::Ingress => &destination,
            Direction::Egress => &source,
        })
    }

    fn flow_set(&self, _index: u32) -> Option<&Set> {
        None
    }

    fn spilled(&self, _key: u64) -> Option<u64> {
        None
    }

    fn jiffies(&self) -> u64 {
        0
    }
}

/// Parses a frame that lies in one piece.
pub(crate) fn parse_slice(mut frame: &[u8]) -> Packet {
    parse(&mut frame).expect("a slice has no part out of line")
}

/// A frame of which only the first bytes can be read in place, as a driver may hand it over.
#[derive(Debug, Clone, Copy)]
struct Split<'a> {
    readable: &'a [u8],
    whole: usize,
}

impl Frame for Split<'_> {
    type Window<const N: usize> = [u8; N];

    fn window<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.readable.get(offset..offset + N)?.try_into().ok()
    }

    fn linear(&self) -> usize {
        self.readable.len()
    }

    fn holds(&self, length: usize) -> bool {
        self.whole >= length
    }
}

/// Parses a frame with this many bytes in place the way the kernel's program does: there, else in a copy of its head.
pub(crate) fn parse_split(frame: &[u8], linear: usize) -> Packet {
    let whole = frame.len();
    let mut split = Split {
        readable: &frame[..linear],
        whole,
    };
    parse(&mut split)
        .or_else(|Nonlinear| {
            let mut copy = Split {
                readable: &frame[..whole.min(HEADER_SPAN)],
                whole,
            };
            parse(&mut copy)
        })
        .unwrap_or_else(|Nonlinear| {
            let mut packet = Packet::new(0);
            packet.shape = Shape::Malformed(Malformed::Truncated);
            packet
        })
}

/// A VLAN tag put in front of a frame's EtherType.
pub(crate) fn tagged(frame: &[u8], ethertype: u16, control: u16) -> Vec<u8> {
    let mut out = frame[..12].to_vec();
    out.extend_from_slice(&ethertype.to_be_bytes());
    out.extend_from_slice(&control.to_be_bytes());
    out.extend_from_slice(&frame[12..]);
    out
}

/// Where the IP packet of a frame ends by its own account, if it is one with a sound length.
pub(crate) fn packet_end(frame: &[u8]) -> Option<usize> {
    let mut at = 14;
    while matches!(frame.get(at - 2..at)?, [0x81 | 0x91, 0] | [0x88, 0xa8]) {
        at += 4;
    }
    let length = |from: usize| {
        let bytes = frame.get(from..from + 2)?;
        Some(usize::from(bytes[0]) << 8 | usize::from(bytes[1]))
    };
    match frame.get(at - 2..at)? {
        [8, 0] => Some(at + length(at + 2)?),
        [0x86, 0xdd] => Some(at + 40 + length(at + 4)?),
        _ => None,
    }
}
