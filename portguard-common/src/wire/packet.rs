//! What the parser found out: facts, no judgement.

use crate::wire::addr::Addr;

/// What kind of thing a frame is, as far as a verdict cares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// ARP.
    Arp,
    /// Neither IPv4, IPv6 nor ARP, with its EtherType in [`Packet::ethertype`].
    NonIp,
    /// TCP, UDP or SCTP with its ports.
    Ports,
    /// ICMPv4, ICMPv6 or IGMP with its type.
    Icmp,
    /// Any other IP protocol.
    Protocol,
    /// An IP fragment that is not the first, so that it has no ports.
    Fragment,
    /// See [`Malformed`].
    Malformed(Malformed),
}

/// Why a frame is malformed. The numbers are part of the ABI: counters are kept by them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Malformed {
    /// The frame ends within a header.
    Truncated = 0,
    /// More than two VLAN tags.
    VlanDepth = 1,
    /// The version nibble does not fit the EtherType.
    Version = 2,
    /// IPv4 header length below five words.
    HeaderLength = 3,
    /// The IP length is below its header or above the frame.
    Length = 4,
    /// IPv4 loose or strict source routing, or an option that overruns the header (RFC 7126).
    Options = 5,
    /// A first fragment without the ports, of TCP without the flags, or with an incomplete header chain (RFC 7112).
    FirstFragment = 6,
    /// A TCP fragment at offset 8 (RFC 1858).
    TinyFragment = 7,
    /// More than eight IPv6 extension headers, hop-by-hop not first, or headers beyond [`crate::wire::frame::HEADER_SPAN`].
    ExtensionHeaders = 8,
    /// IPv6 routing header of type 0 (RFC 5095).
    RoutingHeader = 9,
}

impl Malformed {
    /// All causes, by number.
    pub const ALL: [Self; 10] = [
        Self::Truncated,
        Self::VlanDepth,
        Self::Version,
        Self::HeaderLength,
        Self::Length,
        Self::Options,
        Self::FirstFragment,
        Self::TinyFragment,
        Self::ExtensionHeaders,
        Self::RoutingHeader,
    ];

    /// Stable kebab-case name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Truncated => "truncated",
            Self::VlanDepth => "vlan-depth",
            Self::Version => "ip-version",
            Self::HeaderLength => "ip-header-length",
            Self::Length => "ip-length",
            Self::Options => "ip-options",
            Self::FirstFragment => "first-fragment",
            Self::TinyFragment => "tiny-fragment",
            Self::ExtensionHeaders => "extension-headers",
            Self::RoutingHeader => "routing-header",
        }
    }
}

/// The facts of a frame. Fields that its [`Shape`] does not have are zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet {
    /// What it is.
    pub shape: Shape,
    /// EtherType behind the VLAN tags.
    pub ethertype: u16,
    /// Tag control information of the outermost VLAN tag, with bit 16 set if there is one.
    pub vlan: u32,
    /// Source address.
    pub source: Addr,
    /// Destination address.
    pub destination: Addr,
    /// IP protocol behind the extension headers.
    pub protocol: u8,
    /// Source port.
    pub source_port: u16,
    /// Destination port.
    pub destination_port: u16,
    /// ICMP or IGMP type.
    pub icmp_type: u8,
    /// Flags of a TCP header.
    pub tcp_flags: u8,
    /// TTL or hop limit.
    pub hop_limit: u8,
    /// Bytes on the wire: the frame as received, or up to the end of the IP packet where that lies beyond the linear part.
    pub length: usize,
}

impl Packet {
    /// Nothing is known yet.
    #[inline(always)]
    pub const fn new(length: usize) -> Self {
        Self {
            shape: Shape::Malformed(Malformed::Truncated),
            ethertype: 0,
            vlan: 0,
            source: Addr::v4(0),
            destination: Addr::v4(0),
            protocol: 0,
            source_port: 0,
            destination_port: 0,
            icmp_type: 0,
            tcp_flags: 0,
            hop_limit: 0,
            length,
        }
    }
}

/// Key space of a protocol that has ports: see [`crate::engine::tables::Key::space`].
#[inline(always)]
pub const fn space(protocol: u8) -> u32 {
    match protocol {
        protocol::TCP => 0,
        protocol::UDP => 1,
        _ => 2,
    }
}

/// What a verdict asks about a packet: of facts that were all gathered, or of a frame, when it comes to that.
pub trait Subject {
    /// Whether it is judged where routes are asked.
    const IS_ROUTED: bool = true;

    /// See [`Packet::shape`].
    fn shape(&self) -> Shape;
    /// See [`Packet::ethertype`].
    fn ethertype(&self) -> u16;
    /// See [`Packet::source`].
    fn source(&self) -> Addr;
    /// See [`Packet::destination`].
    fn destination(&self) -> Addr;
    /// See [`Packet::protocol`].
    fn protocol(&self) -> u8;
    /// See [`Packet::source_port`].
    fn source_port(&self) -> u16;
    /// See [`Packet::destination_port`].
    fn destination_port(&self) -> u16;
    /// See [`Packet::icmp_type`].
    fn icmp_type(&self) -> u8;
    /// See [`Packet::tcp_flags`].
    fn tcp_flags(&self) -> u8;
    /// See [`Packet::hop_limit`].
    fn hop_limit(&self) -> u8;
    /// See [`Packet::length`].
    fn length(&self) -> usize;

    /// By what it is found again in its frame, if it is plain: see [`crate::wire::plain::Plain::found`].
    #[inline(always)]
    fn handle(&self) -> u64 {
        0
    }

    /// See [`space`].
    #[inline(always)]
    fn space(&self) -> u32 {
        space(self.protocol())
    }

    /// Source, destination and source port, which are all asked for where one of them is.
    #[inline(always)]
    fn ends(&self) -> (Addr, Addr, u16) {
        (self.source(), self.destination(), self.source_port())
    }

    /// Whether it asks to open a connection: such a packet never answers anything.
    #[inline(always)]
    fn is_opening(&self) -> bool {
        self.protocol() == protocol::TCP && self.tcp_flags() & (tcp::SYN | tcp::ACK) == tcp::SYN
    }
}

/// The facts are fields of the same name.
macro_rules! facts {
    ($($name:ident: $type:ty),*) => {
        impl Subject for Packet {
            $(
                #[inline(always)]
                fn $name(&self) -> $type {
                    self.$name
                }
            )*
        }
    };
}

facts! {
    shape: Shape,
    ethertype: u16,
    source: Addr,
    destination: Addr,
    protocol: u8,
    source_port: u16,
    destination_port: u16,
    icmp_type: u8,
    tcp_flags: u8,
    hop_limit: u8,
    length: usize
}

/// TCP flags (RFC 9293).
pub mod tcp {
    /// Closes.
    pub const FIN: u8 = 0x01;
    /// Opens, or answers an opening.
    pub const SYN: u8 = 0x02;
    /// Refuses.
    pub const RST: u8 = 0x04;
    /// Acknowledges.
    pub const ACK: u8 = 0x10;
}

/// IP protocol numbers that the parser knows by name (IANA).
pub mod protocol {
    /// ICMP for IPv4.
    pub const ICMP: u8 = 1;
    /// Multicast group membership for IPv4.
    pub const IGMP: u8 = 2;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// ICMP for IPv6.
    pub const ICMPV6: u8 = 58;
    /// SCTP.
    pub const SCTP: u8 = 132;
}
