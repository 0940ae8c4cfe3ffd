//! TCP, UDP, SCTP and ICMP. Fields are public; `None` means "as it should be".

use super::checksum::{checksum, crc32c};
use super::{Pseudo, length16, number, put};

/// A TCP header.
#[derive(Debug, Clone, Default)]
pub struct Tcp {
    /// Source port.
    pub source: u16,
    /// Destination port.
    pub destination: u16,
    /// Sequence number.
    pub sequence: u32,
    /// Acknowledged sequence number.
    pub acknowledged: u32,
    /// Flags, [`Tcp::SYN`] and so on.
    pub flags: u8,
    /// Window.
    pub window: u16,
    /// Options; filled with zeros to a multiple of 4.
    pub options: Vec<u8>,
    /// Overrides the header length in units of 4 bytes.
    pub data_offset: Option<u8>,
    /// Overrides the checksum.
    pub checksum: Option<u16>,
}

impl Tcp {
    /// Flag.
    pub const FIN: u8 = 1;
    /// Flag.
    pub const SYN: u8 = 2;
    /// Flag.
    pub const RST: u8 = 4;
    /// Flag.
    pub const PSH: u8 = 8;
    /// Flag.
    pub const ACK: u8 = 16;
    /// Flag.
    pub const URG: u8 = 32;

    /// A segment with these flags.
    pub fn new(source: u16, destination: u16, flags: u8) -> Self {
        Self {
            source,
            destination,
            flags,
            sequence: 1,
            window: 64_240,
            ..Self::default()
        }
    }

    /// A request to connect.
    pub fn syn(source: u16, destination: u16) -> Self {
        Self::new(source, destination, Self::SYN)
    }

    fn header_length(&self) -> usize {
        20 + self.options.len().next_multiple_of(4)
    }

    pub(super) fn emit(&self, out: &mut Vec<u8>) {
        let start = out.len();
        let words = u8::try_from(self.header_length() / 4).unwrap_or(15).min(15);
        out.extend_from_slice(&self.source.to_be_bytes());
        out.extend_from_slice(&self.destination.to_be_bytes());
        out.extend_from_slice(&self.sequence.to_be_bytes());
        out.extend_from_slice(&self.acknowledged.to_be_bytes());
        out.extend_from_slice(&[self.data_offset.unwrap_or(words) << 4, self.flags]);
        out.extend_from_slice(&self.window.to_be_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&self.options);
        out.resize(start + self.header_length(), 0);
    }

    pub(super) fn finish(&self, pseudo: Pseudo, bytes: &mut [u8]) {
        let sum = self
            .checksum
            .unwrap_or_else(|| pseudo.sum(number::TCP, bytes));
        put(bytes, 16, &sum.to_be_bytes());
    }
}

/// A UDP header.
#[derive(Debug, Clone, Default)]
pub struct Udp {
    /// Source port.
    pub source: u16,
    /// Destination port.
    pub destination: u16,
    /// Overrides the length.
    pub length: Option<u16>,
    /// Overrides the checksum; 0 says that there is none.
    pub checksum: Option<u16>,
}

impl Udp {
    /// From one port to another.
    pub fn new(source: u16, destination: u16) -> Self {
        Self {
            source,
            destination,
            length: None,
            checksum: None,
        }
    }

    pub(super) fn emit(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.source.to_be_bytes());
        out.extend_from_slice(&self.destination.to_be_bytes());
        out.extend_from_slice(&[0; 4]);
    }

    pub(super) fn finish(&self, pseudo: Pseudo, bytes: &mut [u8]) {
        let length = self.length.unwrap_or(length16(bytes.len()));
        put(bytes, 4, &length.to_be_bytes());
        let sum = self
            .checksum
            .unwrap_or_else(|| match pseudo.sum(number::UDP, bytes) {
                0 => 0xffff, // zero would say "no checksum"
                sum => sum,
            });
        put(bytes, 6, &sum.to_be_bytes());
    }
}

/// An SCTP common header.
#[derive(Debug, Clone, Default)]
pub struct Sctp {
    /// Source port.
    pub source: u16,
    /// Destination port.
    pub destination: u16,
    /// Verification tag.
    pub tag: u32,
    /// Overrides the checksum.
    pub checksum: Option<u32>,
}

impl Sctp {
    /// From one port to another.
    pub fn new(source: u16, destination: u16) -> Self {
        Self {
            source,
            destination,
            tag: 0,
            checksum: None,
        }
    }

    pub(super) fn emit(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.source.to_be_bytes());
        out.extend_from_slice(&self.destination.to_be_bytes());
        out.extend_from_slice(&self.tag.to_be_bytes());
        out.extend_from_slice(&[0; 4]);
    }

    pub(super) fn finish(&self, bytes: &mut [u8]) {
        let sum = self.checksum.unwrap_or_else(|| crc32c(bytes));
        put(bytes, 8, &sum.to_le_bytes());
    }
}

/// An ICMP header of either family.
#[derive(Debug, Clone, Default)]
pub struct Icmp {
    /// Type.
    pub kind: u8,
    /// Code.
    pub code: u8,
    /// The four bytes after the checksum: identifier and sequence, MTU, ...
    pub rest: [u8; 4],
    /// Overrides the checksum.
    pub checksum: Option<u16>,
}

impl Icmp {
    /// A message of this type and code, the rest zero.
    pub fn new(kind: u8, code: u8) -> Self {
        Self {
            kind,
            code,
            rest: [0; 4],
            checksum: None,
        }
    }

    /// Sets the four bytes after the checksum.
    #[must_use]
    pub fn rest(mut self, rest: [u8; 4]) -> Self {
        self.rest = rest;
        self
    }

    pub(super) fn emit(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&[self.kind, self.code, 0, 0]);
        out.extend_from_slice(&self.rest);
    }

    /// ICMPv4 has no pseudo header: the caller passes [`Pseudo::None`].
    pub(super) fn finish(&self, pseudo: Pseudo, bytes: &mut [u8]) {
        let sum = self
            .checksum
            .unwrap_or_else(|| pseudo.sum(number::ICMPV6, bytes));
        put(bytes, 2, &sum.to_be_bytes());
    }
}

impl Pseudo {
    /// The checksum of a transport header and what follows, its checksum field being zero.
    fn sum(self, protocol: u8, bytes: &[u8]) -> u16 {
        let length = length16(bytes.len()).to_be_bytes();
        match self {
            Self::None => checksum(&[bytes]),
            Self::V4(addresses) => checksum(&[&addresses, &[0, protocol], &length, bytes]),
            Self::V6(addresses) => checksum(&[&addresses, &length, &[0, protocol], bytes]),
        }
    }
}
