//! What a generation is loaded with: the mode, and which features the policy needs.

use crate::engine::conntrack::Lifetimes;

/// What holds as long as a generation lives; the kernel's copy is frozen, so that its verifier removes what it rules out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Config {
    /// Drop ingress violations (1) or count them only (0).
    pub enforce: u32,
    /// Drop egress violations (1) or count them only (0).
    pub enforce_out: u32,
    /// Later fragments are violations.
    pub strict_fragments: u32,
    /// EtherTypes other than IPv4, IPv6 and ARP are violations, but for those of [`Self::ethertypes`].
    pub strict_ethertypes: u32,
    /// Some grant is for some peers only, so that addresses have classes.
    pub sources: u32,
    /// Some IPv6 hosts are in the host table.
    pub hosts: u32,
    /// Number of cells of the host table less one; a power of two less one.
    pub host_mask: u32,
    /// Some IPv6 networks are in the table of networks.
    pub nets: u32,
    /// Number of cells of that table less one; a power of two less one.
    pub net_mask: u32,
    /// Number of bits of the filter in front of it less one; a power of two less one.
    pub filter_mask: u32,
    /// Width of the admission matrix: number of peer classes.
    pub width: u32,
    /// Judge only what the kernel would not forward: see [`crate::engine::tables::Tables::is_forwarded`].
    pub scoped: u32,
    /// There is a flow table (an egress program).
    pub flows: u32,
    /// Number of sets of the flow table less one; a power of two less one.
    pub flow_mask: u32,
    /// TCP and SCTP that is known by its packets is forgotten when nothing was sent for so long, in units of [`crate::engine::conntrack::now`].
    pub tcp_idle: u32,
    /// The same for UDP and the rest.
    pub udp_idle: u32,
    /// How far jiffies are shifted right to make units of time.
    pub tick_shift: u32,
    /// The frame may have parts that cannot be read in place.
    pub multi_buffer: u32,
    /// Frames start with the IP header: the interface has no link header.
    pub raw_ip: u32,
    /// No frame is judged on the fast path: it has no link header, or routes are asked, beside which the rest hardly counts.
    /// One word, since the fast path asks it first.
    pub no_fast_path: u32,
    /// Non-IP protocols that pass although `strict_ethertypes`: a bit each, by [`crate::engine::ethertypes::index`].
    pub ethertypes: u32,
    /// Which of the DHCP clients' ports are open for nothing but DHCP: see [`dhcp`].
    pub dhcp: u32,
    /// The ports that the kernel picks for who asks for none: the first in the high half, the last in the low one.
    pub picked_ports: u32,
    /// Some grant ends by itself: see [`crate::engine::tables::Ending`].
    pub endings: u32,
    /// Index of the interface, where its driver alone decides by the link address who gets a frame: see
    /// [`crate::engine::tables::Tables::is_for_other_host`]; 0 = nothing is known of that.
    pub card: u64,
    /// Its link address at the load, first octet lowest: what is for that is asked no more about.
    pub card_address: u64,
    /// Boot-time clock in nanoseconds after which an unconfirmed generation gives way; 0 = never.
    pub deadline: u64,
    /// Secret of the flow table's hash.
    pub flow_key: [u64; 2],
}

impl Config {
    /// Whether a port is one that the kernel picks.
    #[inline(always)]
    pub const fn is_picked(&self, port: u16) -> bool {
        let port = port as u32;
        self.picked_ports >> 16 <= port && port <= self.picked_ports & 0xffff
    }

    /// How long conversations live.
    #[inline(always)]
    pub const fn lifetimes(&self) -> Lifetimes {
        Lifetimes {
            tcp_idle: self.tcp_idle,
            udp_idle: self.udp_idle,
        }
    }
}

/// Ports of DHCP clients that hear DHCP servers only: bits of [`Config::dhcp`].
pub mod dhcp {
    /// UDP 68, from port 67 (RFC 2131 section 4.1).
    pub const V4: u32 = 1;
    /// UDP 546, from port 547 (RFC 8415 section 7.2).
    pub const V6: u32 = 2;
    /// The two with the port of the client and that of the server.
    pub const PORTS: [(u32, u16, u16); 2] = [(V4, 68, 67), (V6, 546, 547)];
}
