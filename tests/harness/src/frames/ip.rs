//! IPv4, IPv6 and its extension headers. Fields are public; `None` means "as it should be".

use std::net::{Ipv4Addr, Ipv6Addr};

use super::checksum::checksum;
use super::{Pseudo, length16, number, put};

/// An IPv4 header.
#[derive(Debug, Clone)]
pub struct Ipv4 {
    /// Source address.
    pub source: Ipv4Addr,
    /// Destination address.
    pub destination: Ipv4Addr,
    /// The byte of DSCP and ECN.
    pub service: u8,
    /// Identification of the fragments of one packet.
    pub id: u16,
    /// The reserved flag.
    pub reserved: bool,
    /// The "don't fragment" flag.
    pub dont_fragment: bool,
    /// The "more fragments" flag.
    pub more_fragments: bool,
    /// Fragment offset in units of 8 bytes; 13 bits are used.
    pub offset: u16,
    /// Time to live.
    pub ttl: u8,
    /// Options as they stand on the wire; filled with zeros to a multiple of 4, at most 40 make sense.
    pub options: Vec<u8>,
    /// Overrides the version.
    pub version: Option<u8>,
    /// Overrides the header length in units of 4 bytes.
    pub ihl: Option<u8>,
    /// Overrides the total length.
    pub total_length: Option<u16>,
    /// Overrides the protocol.
    pub protocol: Option<u8>,
    /// Overrides the header checksum.
    pub checksum: Option<u16>,
}

impl Ipv4 {
    /// From one address to another, "don't fragment" set.
    pub fn new(source: Ipv4Addr, destination: Ipv4Addr) -> Self {
        Self {
            source,
            destination,
            service: 0,
            id: 0,
            reserved: false,
            dont_fragment: true,
            more_fragments: false,
            offset: 0,
            ttl: 64,
            options: Vec::new(),
            version: None,
            ihl: None,
            total_length: None,
            protocol: None,
            checksum: None,
        }
    }

    /// Makes it a fragment: identification, offset in units of 8 bytes, whether more follow.
    #[must_use]
    pub fn fragment(mut self, id: u16, offset: u16, more: bool) -> Self {
        self.id = id;
        self.offset = offset;
        self.more_fragments = more;
        self.dont_fragment = false;
        self
    }

    /// Sets the options.
    #[must_use]
    pub fn options(mut self, options: impl Into<Vec<u8>>) -> Self {
        self.options = options.into();
        self
    }

    /// Overrides the header length, in units of 4 bytes.
    #[must_use]
    pub fn ihl(mut self, ihl: u8) -> Self {
        self.ihl = Some(ihl);
        self
    }

    /// Overrides the total length.
    #[must_use]
    pub fn total_length(mut self, length: u16) -> Self {
        self.total_length = Some(length);
        self
    }

    /// Overrides the protocol.
    #[must_use]
    pub fn protocol(mut self, protocol: u8) -> Self {
        self.protocol = Some(protocol);
        self
    }

    pub(super) fn pseudo(&self) -> Pseudo {
        let mut both = [0; 8];
        put(&mut both, 0, &self.source.octets());
        put(&mut both, 4, &self.destination.octets());
        Pseudo::V4(both)
    }

    fn header_length(&self) -> usize {
        20 + self.options.len().next_multiple_of(4)
    }

    pub(super) fn emit(&self, next: u8, out: &mut Vec<u8>) {
        let start = out.len();
        let words = u8::try_from(self.header_length() / 4).unwrap_or(15).min(15);
        let first = (self.version.unwrap_or(4) << 4) | (self.ihl.unwrap_or(words) & 15);
        let flags = (u16::from(self.reserved) << 15)
            | (u16::from(self.dont_fragment) << 14)
            | (u16::from(self.more_fragments) << 13)
            | (self.offset & 0x1fff);
        let [id_high, id_low] = self.id.to_be_bytes();
        let [flags_high, flags_low] = flags.to_be_bytes();
        out.extend_from_slice(&[
            first,
            self.service,
            0,
            0,
            id_high,
            id_low,
            flags_high,
            flags_low,
        ]);
        out.extend_from_slice(&[self.ttl, self.protocol.unwrap_or(next), 0, 0]);
        out.extend_from_slice(&self.source.octets());
        out.extend_from_slice(&self.destination.octets());
        out.extend_from_slice(&self.options);
        out.resize(start + self.header_length(), 0);
    }

    pub(super) fn finish(&self, bytes: &mut [u8]) {
        let length = self.total_length.unwrap_or(length16(bytes.len()));
        put(bytes, 2, &length.to_be_bytes());
        let header = bytes.get(..self.header_length()).unwrap_or_default();
        let sum = self.checksum.unwrap_or_else(|| checksum(&[header]));
        put(bytes, 10, &sum.to_be_bytes());
    }
}

/// An IPv6 header.
#[derive(Debug, Clone)]
pub struct Ipv6 {
    /// Source address.
    pub source: Ipv6Addr,
    /// Destination address.
    pub destination: Ipv6Addr,
    /// Traffic class.
    pub class: u8,
    /// Flow label, 20 bits.
    pub flow: u32,
    /// Hop limit.
    pub hop_limit: u8,
    /// Overrides the version.
    pub version: Option<u8>,
    /// Overrides the next header.
    pub next: Option<u8>,
    /// Overrides the payload length.
    pub payload_length: Option<u16>,
}

impl Ipv6 {
    /// From one address to another, hop limit 64.
    pub fn new(source: Ipv6Addr, destination: Ipv6Addr) -> Self {
        Self {
            source,
            destination,
            class: 0,
            flow: 0,
            hop_limit: 64,
            version: None,
            next: None,
            payload_length: None,
        }
    }

    /// Sets the hop limit; neighbour discovery wants 255.
    #[must_use]
    pub fn hop_limit(mut self, limit: u8) -> Self {
        self.hop_limit = limit;
        self
    }

    /// Overrides the payload length.
    #[must_use]
    pub fn payload_length(mut self, length: u16) -> Self {
        self.payload_length = Some(length);
        self
    }

    /// Overrides the next header.
    #[must_use]
    pub fn next(mut self, next: u8) -> Self {
        self.next = Some(next);
        self
    }

    pub(super) fn pseudo(&self) -> Pseudo {
        let mut both = [0; 32];
        put(&mut both, 0, &self.source.octets());
        put(&mut both, 16, &self.destination.octets());
        Pseudo::V6(both)
    }

    pub(super) fn emit(&self, next: u8, out: &mut Vec<u8>) {
        let first = (u32::from(self.version.unwrap_or(6) & 15) << 28)
            | (u32::from(self.class) << 20)
            | (self.flow & 0xf_ffff);
        out.extend_from_slice(&first.to_be_bytes());
        out.extend_from_slice(&[0, 0, self.next.unwrap_or(next), self.hop_limit]);
        out.extend_from_slice(&self.source.octets());
        out.extend_from_slice(&self.destination.octets());
    }

    pub(super) fn finish(&self, bytes: &mut [u8]) {
        let length = self
            .payload_length
            .unwrap_or(length16(bytes.len().saturating_sub(40)));
        put(bytes, 4, &length.to_be_bytes());
    }
}

/// An IPv6 extension header.
#[derive(Debug, Clone)]
pub struct Extension {
    /// Its own number.
    pub protocol: u8,
    /// Overrides the number of what follows.
    pub next: Option<u8>,
    /// The second byte: a length, or of the fragment header the reserved byte.
    pub second: u8,
    /// All that follows the second byte.
    pub body: Vec<u8>,
}

impl Extension {
    /// Hop-by-hop options: `8 + 8 * units` bytes of options that mean nothing.
    pub fn hop_by_hop(units: u8) -> Self {
        Self::options(number::HOP_BY_HOP, units)
    }

    /// Destination options: `8 + 8 * units` bytes of options that mean nothing.
    pub fn destination(units: u8) -> Self {
        Self::options(number::DESTINATION, units)
    }

    /// A routing header of this type with nothing left to visit, and `units` times 8 bytes of zeros.
    pub fn routing(kind: u8, units: u8) -> Self {
        let mut body = vec![0; 6 + 8 * usize::from(units)];
        put(&mut body, 0, &[kind]);
        Self {
            protocol: number::ROUTING,
            next: None,
            second: units,
            body,
        }
    }

    /// A fragment header: offset in units of 8 bytes, whether more follow, identification. Offset 0 without more to
    /// follow is an atomic fragment.
    pub fn fragment(offset: u16, more: bool, id: u32) -> Self {
        let mut body = ((offset << 3) | u16::from(more)).to_be_bytes().to_vec();
        body.extend_from_slice(&id.to_be_bytes());
        Self {
            protocol: number::FRAGMENT,
            next: None,
            second: 0,
            body,
        }
    }

    /// An authentication header of `4 * words` bytes, at least 12; its length is counted in units of 4 bytes, less two.
    pub fn authentication(words: u8) -> Self {
        let words = words.max(3);
        let mut body = vec![0xa5; 4 * usize::from(words) - 2];
        put(&mut body, 0, &[0, 0]);
        Self {
            protocol: number::AUTHENTICATION,
            next: None,
            second: words - 2,
            body,
        }
    }

    /// Overrides the number of what follows.
    #[must_use]
    pub fn next(mut self, next: u8) -> Self {
        self.next = Some(next);
        self
    }

    /// Overrides the second byte: the length, or of the fragment header the reserved byte.
    #[must_use]
    pub fn second(mut self, second: u8) -> Self {
        self.second = second;
        self
    }

    /// Its length on the wire.
    pub fn length(&self) -> usize {
        2 + self.body.len()
    }

    /// Linux drops more than 7 bytes of padding, so longer headers hold an option for experiments that receivers skip.
    fn options(protocol: u8, units: u8) -> Self {
        const PAD: u8 = 1;
        const EXPERIMENT: u8 = 0x1e;
        let mut left = 6 + 8 * usize::from(units);
        let mut body = Vec::with_capacity(left);
        while left > 0 {
            // An option carries at most 255 bytes; what is left must hold another option's head, or be nothing.
            let step = if left > 257 { 250 } else { left };
            body.push(if step > 7 { EXPERIMENT } else { PAD });
            body.push(u8::try_from(step - 2).unwrap_or(0));
            body.resize(body.len() + step - 2, 0);
            left -= step;
        }
        Self {
            protocol,
            next: None,
            second: units,
            body,
        }
    }

    pub(super) fn emit(&self, next: u8, out: &mut Vec<u8>) {
        out.push(self.next.unwrap_or(next));
        out.push(self.second);
        out.extend_from_slice(&self.body);
    }
}
