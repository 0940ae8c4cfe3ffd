//! Frames, well-formed unless told otherwise: every length, checksum and "next" field is right until it is overridden.
//!
//! ```
//! use portguard_harness::frames::{Extension, Frame, Ipv6, Tcp};
//! let bytes = Frame::new([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2])
//!     .tag(0x8100, 5)
//!     .ipv6(Ipv6::new([0xfd77; 8].into(), [0xfd78; 8].into()))
//!     .extension(Extension::fragment(0, false, 7))
//!     .tcp(Tcp::syn(40_000, 443))
//!     .build();
//! assert_eq!(bytes.len(), 14 + 4 + 40 + 8 + 20);
//! ```

mod arbitrary;
mod checksum;
mod fragment;
mod ip;
mod mutate;
mod stock;
mod transport;

use crate::net::Interface;

pub use arbitrary::{CLASSES, Generator, Label, Palette, arbitrary};
pub use checksum::{checksum, crc32c};
pub use fragment::{fragments, split};
pub use ip::{Extension, Ipv4, Ipv6};
pub use mutate::{MUTATIONS, mutate};
pub use stock::{
    arp_request, dhcp, dhcpv6, echo_request, icmp_error, neighbour_advertisement,
    neighbour_solicitation, router_advertisement, sctp_init,
};
pub use transport::{Icmp, Sctp, Tcp, Udp};

/// EtherTypes and IP protocol numbers, by the names used here.
pub mod number {
    /// EtherType of IPv4.
    pub const IPV4: u16 = 0x0800;
    /// EtherType of ARP.
    pub const ARP: u16 = 0x0806;
    /// EtherType of IPv6.
    pub const IPV6: u16 = 0x86dd;
    /// Tag of a VLAN.
    pub const VLAN: u16 = 0x8100;
    /// Tag of a service provider's VLAN.
    pub const QINQ: u16 = 0x88a8;
    /// The older tag of the same.
    pub const QINQ_OLD: u16 = 0x9100;
    /// Hop-by-hop options.
    pub const HOP_BY_HOP: u8 = 0;
    /// ICMP for IPv4.
    pub const ICMPV4: u8 = 1;
    /// IPv4 within IP.
    pub const IPIP: u8 = 4;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// IPv6 within IP.
    pub const SIT: u8 = 41;
    /// Routing header.
    pub const ROUTING: u8 = 43;
    /// Fragment header.
    pub const FRAGMENT: u8 = 44;
    /// GRE.
    pub const GRE: u8 = 47;
    /// ESP.
    pub const ESP: u8 = 50;
    /// Authentication header.
    pub const AUTHENTICATION: u8 = 51;
    /// ICMP for IPv6.
    pub const ICMPV6: u8 = 58;
    /// Nothing follows.
    pub const NO_NEXT: u8 = 59;
    /// Destination options.
    pub const DESTINATION: u8 = 60;
    /// SCTP.
    pub const SCTP: u8 = 132;
}

/// What "next" says where nothing was added after a header: a number set aside for experiments, in both spaces.
const EXPERIMENT_PROTOCOL: u8 = 253;
const EXPERIMENT_ETHERTYPE: u16 = 0x88b5;

/// A frame to be. Layers are added from the outside in, as they stand on the wire.
#[derive(Debug, Clone, Default)]
pub struct Frame {
    destination: [u8; 6],
    source: [u8; 6],
    tags: Vec<(u16, u16)>,
    ethertype: Option<u16>,
    layers: Vec<Layer>,
    payload: Vec<u8>,
    truncate: Option<usize>,
    pad: usize,
}

#[derive(Debug, Clone)]
enum Layer {
    Ipv4(Ipv4),
    Ipv6(Ipv6),
    Extension(Extension),
    Tcp(Tcp),
    Udp(Udp),
    Sctp(Sctp),
    Icmpv4(Icmp),
    Icmpv6(Icmp),
    Protocol(u8),
}

/// The pseudo header's source of addresses: where the nearest IP header begins, and its version.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Pseudo {
    None,
    V4([u8; 8]),
    V6([u8; 32]),
}

impl Frame {
    /// An Ethernet frame to and from these addresses.
    pub fn new(destination: [u8; 6], source: [u8; 6]) -> Self {
        Self {
            destination,
            source,
            ..Self::default()
        }
    }

    /// An Ethernet frame from one end of a link to the other.
    pub fn between(from: &Interface, to: &Interface) -> Self {
        Self::new(to.mac, from.mac)
    }

    /// Adds a VLAN tag inside those added before: the tag's EtherType (0x8100, 0x88a8, 0x9100 ...) and its 16 bits.
    #[must_use]
    pub fn tag(mut self, ethertype: u16, control: u16) -> Self {
        self.tags.push((ethertype, control));
        self
    }

    /// Says another EtherType than that of what follows.
    #[must_use]
    pub fn ethertype(mut self, ethertype: u16) -> Self {
        self.ethertype = Some(ethertype);
        self
    }

    /// Adds an IPv4 header.
    #[must_use]
    pub fn ipv4(self, header: Ipv4) -> Self {
        self.layer(Layer::Ipv4(header))
    }

    /// Adds an IPv6 header.
    #[must_use]
    pub fn ipv6(self, header: Ipv6) -> Self {
        self.layer(Layer::Ipv6(header))
    }

    /// Adds an IPv6 extension header (also behind IPv4, where AH is at home).
    #[must_use]
    pub fn extension(self, header: Extension) -> Self {
        self.layer(Layer::Extension(header))
    }

    /// Adds a TCP header.
    #[must_use]
    pub fn tcp(self, header: Tcp) -> Self {
        self.layer(Layer::Tcp(header))
    }

    /// Adds a UDP header.
    #[must_use]
    pub fn udp(self, header: Udp) -> Self {
        self.layer(Layer::Udp(header))
    }

    /// Adds an SCTP common header; chunks are the payload ([`sctp_init`]).
    #[must_use]
    pub fn sctp(self, header: Sctp) -> Self {
        self.layer(Layer::Sctp(header))
    }

    /// Adds an ICMPv4 header.
    #[must_use]
    pub fn icmpv4(self, header: Icmp) -> Self {
        self.layer(Layer::Icmpv4(header))
    }

    /// Adds an ICMPv6 header.
    #[must_use]
    pub fn icmpv6(self, header: Icmp) -> Self {
        self.layer(Layer::Icmpv6(header))
    }

    /// Says that what follows is of this IP protocol, and adds nothing: the payload is all there is of it.
    #[must_use]
    pub fn protocol(self, protocol: u8) -> Self {
        self.layer(Layer::Protocol(protocol))
    }

    /// Sets what follows the last header.
    #[must_use]
    pub fn payload(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.payload = bytes.into();
        self
    }

    /// Cuts the finished frame to at most this many bytes, lengths and checksums left as they were.
    #[must_use]
    pub fn truncate(mut self, length: usize) -> Self {
        self.truncate = Some(length);
        self
    }

    /// Fills the finished frame with zeros up to this length, as Ethernet does for short ones (60).
    #[must_use]
    pub fn pad(mut self, length: usize) -> Self {
        self.pad = length;
        self
    }

    /// The bytes.
    pub fn build(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(128 + self.payload.len());
        self.build_into(&mut out);
        out
    }

    /// The bytes, in a buffer that is used again.
    pub fn build_into(&self, out: &mut Vec<u8>) {
        out.clear();
        out.extend_from_slice(&self.destination);
        out.extend_from_slice(&self.source);
        for (ethertype, control) in &self.tags {
            out.extend_from_slice(&ethertype.to_be_bytes());
            out.extend_from_slice(&control.to_be_bytes());
        }
        let ethertype = self.ethertype.unwrap_or_else(|| match self.layers.first() {
            Some(Layer::Ipv4(_)) => number::IPV4,
            Some(Layer::Ipv6(_)) => number::IPV6,
            _ => EXPERIMENT_ETHERTYPE,
        });
        out.extend_from_slice(&ethertype.to_be_bytes());

        let mut starts = Vec::with_capacity(self.layers.len());
        for (position, layer) in self.layers.iter().enumerate() {
            let next = self
                .layers
                .get(position + 1)
                .map_or(EXPERIMENT_PROTOCOL, Layer::number);
            let pseudo = self.pseudo(position);
            starts.push((layer, out.len(), pseudo));
            layer.emit(next, out);
        }
        out.extend_from_slice(&self.payload);
        // From the inside out: an inner checksum is part of what an outer one covers.
        for (layer, start, pseudo) in starts.into_iter().rev() {
            if let Some(bytes) = out.get_mut(start..) {
                layer.finish(pseudo, bytes);
            }
        }
        if out.len() < self.pad {
            out.resize(self.pad, 0);
        }
        if let Some(length) = self.truncate {
            out.truncate(length);
        }
    }

    fn layer(mut self, layer: Layer) -> Self {
        self.layers.push(layer);
        self
    }

    fn pseudo(&self, position: usize) -> Pseudo {
        let before = self.layers.get(..position).unwrap_or_default();
        before
            .iter()
            .rev()
            .find_map(|layer| match layer {
                Layer::Ipv4(header) => Some(header.pseudo()),
                Layer::Ipv6(header) => Some(header.pseudo()),
                Layer::Extension(_)
                | Layer::Tcp(_)
                | Layer::Udp(_)
                | Layer::Sctp(_)
                | Layer::Icmpv4(_)
                | Layer::Icmpv6(_)
                | Layer::Protocol(_) => None,
            })
            .unwrap_or(Pseudo::None)
    }
}

impl Layer {
    /// Its number as a "next header" or "protocol".
    fn number(&self) -> u8 {
        match self {
            Self::Ipv4(_) => number::IPIP,
            Self::Ipv6(_) => number::SIT,
            Self::Extension(header) => header.protocol,
            Self::Tcp(_) => number::TCP,
            Self::Udp(_) => number::UDP,
            Self::Sctp(_) => number::SCTP,
            Self::Icmpv4(_) => number::ICMPV4,
            Self::Icmpv6(_) => number::ICMPV6,
            Self::Protocol(number) => *number,
        }
    }

    /// Appends the header, with zeros for what depends on what follows.
    fn emit(&self, next: u8, out: &mut Vec<u8>) {
        match self {
            Self::Ipv4(header) => header.emit(next, out),
            Self::Ipv6(header) => header.emit(next, out),
            Self::Extension(header) => header.emit(next, out),
            Self::Tcp(header) => header.emit(out),
            Self::Udp(header) => header.emit(out),
            Self::Sctp(header) => header.emit(out),
            Self::Icmpv4(header) | Self::Icmpv6(header) => header.emit(out),
            Self::Protocol(_) => {}
        }
    }

    /// Fills in lengths and checksums; `bytes` is from this header to the end.
    fn finish(&self, pseudo: Pseudo, bytes: &mut [u8]) {
        match self {
            Self::Ipv4(header) => header.finish(bytes),
            Self::Ipv6(header) => header.finish(bytes),
            Self::Tcp(header) => header.finish(pseudo, bytes),
            Self::Udp(header) => header.finish(pseudo, bytes),
            Self::Sctp(header) => header.finish(bytes),
            Self::Icmpv4(header) => header.finish(Pseudo::None, bytes),
            Self::Icmpv6(header) => header.finish(pseudo, bytes),
            Self::Extension(_) | Self::Protocol(_) => {}
        }
    }
}

/// Overwrites bytes, where there are that many.
pub(crate) fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    if let Some(slot) = bytes.get_mut(at..at + value.len()) {
        slot.copy_from_slice(value);
    }
}

/// A length as its field holds it; longer ones show the most it can.
pub(crate) fn length16(length: usize) -> u16 {
    u16::try_from(length).unwrap_or(u16::MAX)
}
