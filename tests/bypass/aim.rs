//! Who sends what to whom, and the plain packet that all shapes are made of.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::Range;

use anyhow::Result;
use portguard_harness::frames::{Extension, Frame, Ipv4, Ipv6, Tcp, Udp, fragments};

/// Open to all on the guarded hosts, for either transport.
pub(super) const OPEN: [u16; 2] = [7001, 7002];

/// Open to nobody.
pub(super) const CLOSED: u16 = 7009;

/// One packet to a port of a host.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is independent of the others"
)]
#[derive(Debug, Clone)]
pub(super) struct Aim {
    pub(super) v6: bool,
    pub(super) tcp: bool,
    /// Whether the port is the documented one.
    pub(super) documented: bool,
    pub(super) to_mac: [u8; 6],
    pub(super) from_mac: [u8; 6],
    pub(super) v4_ends: (Ipv4Addr, Ipv4Addr),
    pub(super) v6_ends: (Ipv6Addr, Ipv6Addr),
    /// No two packets of a test have the same.
    pub(super) source_port: u16,
    /// Of fragments.
    pub(super) id: u32,
    /// Datagrams over IPv4 come without a checksum.
    pub(super) unsummed: bool,
}

impl Aim {
    pub(super) fn new(v6: bool, tcp: bool) -> Self {
        Self {
            v6,
            tcp,
            documented: false,
            to_mac: [0; 6],
            from_mac: [0; 6],
            v4_ends: (Ipv4Addr::UNSPECIFIED, Ipv4Addr::UNSPECIFIED),
            v6_ends: (Ipv6Addr::UNSPECIFIED, Ipv6Addr::UNSPECIFIED),
            source_port: 0,
            id: 0,
            unsummed: false,
        }
    }

    #[must_use]
    pub(super) fn at(mut self, documented: bool) -> Self {
        self.documented = documented;
        self
    }

    /// The port that is aimed at.
    pub(super) fn port(&self) -> u16 {
        if self.documented {
            OPEN[usize::from(!self.tcp)]
        } else {
            CLOSED
        }
    }

    /// The other port: what a disguise shows.
    pub(super) fn other(&self) -> u16 {
        self.clone().at(!self.documented).port()
    }

    /// Number of this aim, in its payload.
    pub(super) fn marker(&self) -> [u8; 6] {
        let [a, b, c, d] = self.id.to_be_bytes();
        [b'p', b'g', a, b, c, d]
    }

    /// Enough for several fragments.
    pub(super) fn payload(&self) -> Vec<u8> {
        let mut payload = self.marker().to_vec();
        payload.resize(64, 0x5a);
        payload
    }

    /// Bytes of the transport header and the payload.
    pub(super) fn length(&self) -> usize {
        64 + if self.tcp { 20 } else { 8 }
    }

    pub(super) fn frame(&self) -> Frame {
        Frame::new(self.to_mac, self.from_mac)
    }

    pub(super) fn ipv4(&self) -> Ipv4 {
        Ipv4::new(self.v4_ends.0, self.v4_ends.1)
    }

    pub(super) fn ipv6(&self) -> Ipv6 {
        Ipv6::new(self.v6_ends.0, self.v6_ends.1)
    }

    /// An IP header of the aim's family.
    pub(super) fn ip(&self, frame: Frame) -> Frame {
        if self.v6 {
            frame.ipv6(self.ipv6())
        } else {
            frame.ipv4(self.ipv4())
        }
    }

    /// A transport header and the payload.
    pub(super) fn transport(&self, frame: Frame) -> Frame {
        self.transport_to(frame, self.port())
    }

    pub(super) fn transport_to(&self, frame: Frame, port: u16) -> Frame {
        let frame = if self.tcp {
            frame.tcp(Tcp::syn(self.source_port, port))
        } else {
            let checksum = (self.unsummed && !self.v6).then_some(0);
            frame.udp(Udp {
                checksum,
                ..Udp::new(self.source_port, port)
            })
        };
        frame.payload(self.payload())
    }

    pub(super) fn whole(&self) -> Vec<u8> {
        self.transport(self.ip(self.frame())).build()
    }

    /// The packet with the other port written over its own, and nothing else changed: what a reassembly makes the packet
    /// of that lets later pieces win.
    pub(super) fn disguised(&self) -> Vec<u8> {
        let mut bytes = self.whole();
        let at = 14 + if self.v6 { 40 } else { 20 } + 2;
        bytes[at..at + 2].copy_from_slice(&self.other().to_be_bytes());
        bytes
    }

    /// The packet cut up.
    pub(super) fn pieces(&self, ranges: &[Range<usize>]) -> Result<Vec<Vec<u8>>> {
        fragments(&self.whole(), self.id, ranges)
    }

    /// The disguised packet cut up.
    pub(super) fn disguises(&self, ranges: &[Range<usize>]) -> Result<Vec<Vec<u8>>> {
        fragments(&self.disguised(), self.id, ranges)
    }

    /// The packet with extension headers.
    pub(super) fn chain(&self, headers: impl IntoIterator<Item = Extension>) -> Vec<u8> {
        let frame = headers
            .into_iter()
            .fold(self.ip(self.frame()), Frame::extension);
        self.transport(frame).build()
    }

    /// The packet with another IPv4 header.
    pub(super) fn with4(&self, change: impl FnOnce(Ipv4) -> Ipv4) -> Vec<u8> {
        let frame = self.frame().ipv4(change(self.ipv4()));
        self.transport(frame).build()
    }

    /// The packet with another IPv6 header.
    pub(super) fn with6(&self, change: impl FnOnce(Ipv6) -> Ipv6) -> Vec<u8> {
        let frame = self.frame().ipv6(change(self.ipv6()));
        self.transport(frame).build()
    }
}

impl fmt::Display for Aim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let family = if self.v6 { "IPv6" } else { "IPv4" };
        let transport = if self.tcp { "TCP" } else { "UDP" };
        write!(f, "{family} {transport} to {}", self.port())
    }
}
