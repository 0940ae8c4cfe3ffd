//! Why a frame passes or is a violation.

/// The reason of a verdict. The numbers are part of the ABI: counters are kept by them.
///
/// [`Reason::Granted`] covers everything that a port or protocol table opens; which grant it was (management, a
/// document's row, the site's own) is what the cell says that is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Reason {
    /// A grant admits it; see the cell.
    Granted = 0,
    /// Answers a connection that the other side was allowed to open.
    Reply = 1,
    /// ARP.
    Arp = 2,
    /// An EtherType that is neither IP nor ARP.
    NonIp = 3,
    /// A fragment behind the first.
    Fragment = 4,
    /// ICMP that a host needs to live: errors, neighbour discovery, multicast listener discovery.
    IcmpEssential = 5,
    /// An answer to ping.
    EchoReply = 6,
    /// Not for this host, and the site judges only what is.
    Transit = 7,
    /// For another host of the link, by its link address: nothing here takes it.
    OtherHost = 8,

    /// No grant opens this port.
    UndocumentedPort = 16,
    /// Grants open this port, to other peers.
    UndocumentedPeer = 17,
    /// No grant opens this IP protocol.
    UndocumentedProtocol = 18,
    /// See [`crate::wire::packet::Malformed`].
    Malformed = 19,
    /// ICMP that nobody needs.
    Icmp = 20,
    /// A fragment behind the first, where the site forbids them.
    StrictFragment = 21,
    /// An EtherType that the site forbids.
    StrictEthertype = 22,
}

impl Reason {
    /// All reasons, by number.
    pub const ALL: [Self; 16] = [
        Self::Granted,
        Self::Reply,
        Self::Arp,
        Self::NonIp,
        Self::Fragment,
        Self::IcmpEssential,
        Self::EchoReply,
        Self::Transit,
        Self::OtherHost,
        Self::UndocumentedPort,
        Self::UndocumentedPeer,
        Self::UndocumentedProtocol,
        Self::Malformed,
        Self::Icmp,
        Self::StrictFragment,
        Self::StrictEthertype,
    ];

    /// Whether enforcing drops it.
    #[inline(always)]
    pub const fn is_violation(self) -> bool {
        self as u8 >= Self::UndocumentedPort as u8
    }

    /// Stable kebab-case name for one direction. A grant is named after its kind, which only the image knows.
    pub const fn name(self, direction: Direction) -> &'static str {
        match (self, direction) {
            (Self::Granted, _) => "documented",
            (Self::Reply, _) => "reply",
            (Self::Arp, _) => "arp",
            (Self::NonIp, _) => "non-ip",
            (Self::Fragment, _) => "fragment",
            (Self::IcmpEssential, _) => "icmp-essential",
            (Self::EchoReply, _) => "icmp-echo-reply",
            (Self::Transit, _) => "transit",
            (Self::OtherHost, _) => "other-host",
            (Self::UndocumentedPort, Direction::Ingress) => "undocumented-port",
            (Self::UndocumentedPort, Direction::Egress) => "undocumented-destination-port",
            (Self::UndocumentedPeer, Direction::Ingress) => "undocumented-peer",
            (Self::UndocumentedPeer, Direction::Egress) => "undocumented-destination",
            (Self::UndocumentedProtocol, _) => "undocumented-protocol",
            (Self::Malformed, _) => "malformed",
            (Self::Icmp, _) => "icmp",
            (Self::StrictFragment, _) => "strict-fragment",
            (Self::StrictEthertype, _) => "strict-ethertype",
        }
    }

    /// The reason with this number.
    pub const fn from_number(number: u8) -> Option<Self> {
        let mut index = 0;
        while index < Self::ALL.len() {
            #[expect(clippy::indexing_slicing, reason = "bounded by the loop, and const")]
            let reason = Self::ALL[index];
            if reason as u8 == number {
                return Some(reason);
            }
            index += 1;
        }
        None
    }
}

/// Which way a frame goes, from the host's view.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Direction {
    /// Towards the host.
    Ingress = 0,
    /// From the host.
    Egress = 1,
}

impl Direction {
    /// `in` or `out`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ingress => "in",
            Self::Egress => "out",
        }
    }
}
