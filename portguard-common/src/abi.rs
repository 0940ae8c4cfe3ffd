//! Layout of what the kernel and the host share: plain integers, explicit padding, sizes asserted.

pub use crate::engine::config::Config;
pub use crate::engine::conntrack::{Record, Set};
pub use crate::engine::sampler::Sampler;
pub use crate::engine::tables::{Ending, Host6, MAX_CELLS, Net6, Step};
pub use crate::engine::talkers::TalkerSet;

use crate::engine::tables::Key;

/// Changes whenever a shared layout or the meaning of a number does. Names the pin directory.
pub const ABI_VERSION: u32 = 2;

/// Keys a chunk of violation counters covers.
pub const CHUNK_KEYS: u32 = 4096;
/// Chunks a direction: three spaces of ports, and one chunk of protocols.
pub const CHUNKS: u32 = Key::END / CHUNK_KEYS;
/// Counter cells a chunk of [`Cells`] holds.
pub const CELLS_A_CHUNK: u32 = 2048;
/// Slots of [`Counter`]s kept by reason: see [`slot`].
pub const SLOTS: u32 = 256;

/// Packets and bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Counter {
    /// Packets.
    pub packets: u64,
    /// Bytes on the wire.
    pub bytes: u64,
}

/// Violations by key, one CPU's share: 32-bit counts side by side, and totals by reason.
///
/// A count that wraps is carried into the map `CARRY`, so that sums stay exact.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct Violations {
    /// Samples the violations of this chunk.
    pub sampler: Sampler,
    /// Closed to everybody.
    pub closed: Counter,
    /// Open to other peers.
    pub peer: Counter,
    /// By key, modulo 2^32.
    pub counts: [u32; CHUNK_KEYS as usize],
}

/// Grants by cell, one CPU's share.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct Cells {
    /// By cell.
    pub cells: [Counter; CELLS_A_CHUNK as usize],
}

/// One block of an address table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Block {
    /// [`crate::engine::tables::Leaf`]s by the next eight bits of the address.
    pub leaves: [u32; 256],
}

impl Default for Block {
    fn default() -> Self {
        Self { leaves: [0; 256] }
    }
}

/// Slots of the counters by reason: `reason` itself from 0, EtherTypes from 32, malformed causes from 48, each plus 64
/// for egress; the data plane's own troubles from 128.
pub mod slot {
    use crate::engine::ethertypes;
    use crate::engine::reason::{Direction, Reason};
    use crate::wire::packet::Malformed;

    /// Slots a direction.
    pub const DIRECTION: u32 = 64;
    /// First EtherType slot; by [`ethertypes::ALL`], then "other".
    pub const ETHERTYPE: u32 = 32;
    /// First slot of malformed causes.
    pub const MALFORMED: u32 = 48;
    /// Events that the ring buffer had no room for.
    pub const EVENTS_LOST: u32 = 128;
    /// Flows that took the cell of another live one.
    pub const FLOWS_EVICTED: u32 = 129;
    /// New flows.
    pub const FLOWS_CREATED: u32 = 130;
    /// Frames since the deadline of this generation was over, which the one before it judged, if there was one.
    pub const OVERDUE: u32 = 131;
    /// Flows that went to the overflow table.
    pub const FLOWS_SPILLED: u32 = 132;
    /// Flows that there was no room for.
    pub const FLOWS_LOST: u32 = 133;

    /// The slot of a reason.
    #[inline(always)]
    pub const fn reason(direction: Direction, reason: Reason) -> u32 {
        direction as u32 * DIRECTION + reason as u32
    }

    /// The slot of a malformed cause.
    #[inline(always)]
    pub const fn malformed(direction: Direction, cause: Malformed) -> u32 {
        direction as u32 * DIRECTION + MALFORMED + cause as u32
    }

    /// The slot of an EtherType.
    #[inline(always)]
    pub const fn ethertype(direction: Direction, ethertype: u16) -> u32 {
        direction as u32 * DIRECTION + ETHERTYPE + ethertypes::index(ethertype)
    }
}

/// How programs find the interfaces above one in the kernel's memory.
pub mod above {
    /// Words of the global `PLACES`: where members stand in the kernel's structures, in octets; all 0 where that is not known.
    pub mod word {
        /// `rxq` of `struct xdp_buff`.
        pub const QUEUE: usize = 0;
        /// `dev` of `struct xdp_rxq_info`.
        pub const QUEUE_DEVICE: usize = 1;
        /// `dev` of `struct sk_buff`.
        pub const BUFFER_DEVICE: usize = 2;
        /// `ifindex` of `struct net_device`.
        pub const INDEX: usize = 3;
        /// `nd_net` of `struct net_device`.
        pub const NAMESPACE: usize = 4;
        /// `adj_list.upper` of `struct net_device`.
        pub const UPPER: usize = 5;
        /// `list` of `struct netdev_adjacent`, whose first member is the interface.
        pub const LIST: usize = 6;
        /// `priv_flags` of `struct net_device`: see [`super::IS_VRF`].
        pub const FLAGS: usize = 7;
        /// `dev_addr` of `struct net_device`.
        pub const ADDRESS: usize = 8;
        /// `master` of `struct netdev_adjacent`.
        pub const MASTER: usize = 9;
        /// No place: whether the kernel's answers leave VRFs out.
        pub const HIDES_VRFS: usize = 10;
        /// `rtnl_link_ops` of `struct net_device`.
        pub const OPERATIONS: usize = 11;
        /// `kind` of `struct rtnl_link_ops`.
        pub const KIND: usize = 12;
        /// What the driver keeps behind `struct net_device`.
        pub const PRIVATE: usize = 13;
        /// `rx_handler` of `struct net_device`; 0, as are the next two, where that is not known.
        pub const HANDLER: usize = 14;
        /// What runs for what an interface receives, beside it: `tcx_ingress` of `struct net_device`, or `miniq_ingress`.
        pub const PROGRAMS: usize = 15;
        /// `nf_hooks_ingress` of `struct net_device`.
        pub const FILTER: usize = 16;
    }
    /// How many.
    pub const WORDS: usize = 17;
    /// The flag of a VRF.
    pub const IS_VRF: u64 = 1 << 18;
    /// As many interfaces are asked for, the one at the bottom among them.
    pub const ASKED: usize = 64;
}

/// The global `LOCAL`: what routes keep for the host, and what is judged though the kernel may route it otherwise.
pub mod local {
    /// As many prefixes fit.
    pub const PREFIXES: usize = 256;
    /// Words: how many prefixes there are, and four of each.
    pub const WORDS: usize = 1 + 4 * PREFIXES;
}

/// The maps `NAMESPACE` and `COUNTS` of a network namespace's socket programs.
pub mod namespace {
    /// Words of the map `NAMESPACE`.
    pub mod word {
        /// The secret of the hash: two words.
        pub const KEY: u32 = 0;
        /// Number of sets less one.
        pub const MASK: u32 = 2;
        /// See [`crate::engine::config::Config::tick_shift`].
        pub const TICK_SHIFT: u32 = 3;
        /// The cookie of the network namespace.
        pub const COOKIE: u32 = 4;
        /// See [`crate::engine::config::Config::tcp_idle`].
        pub const TCP_IDLE: u32 = 5;
        /// See [`crate::engine::config::Config::udp_idle`].
        pub const UDP_IDLE: u32 = 6;
        /// 1 once what was open before is known, too.
        pub const COMPLETE: u32 = 7;
    }
    /// How many.
    pub const WORDS: u32 = 8;

    /// Counts of the map `COUNTS`, of what sockets began.
    pub mod counter {
        /// Conversations that were not known before.
        pub const CREATED: u32 = 0;
        /// Of them, those that took the cell of another that may have lived.
        pub const EVICTED: u32 = 1;
        /// Those that went to the overflow table.
        pub const SPILLED: u32 = 2;
        /// Those that there was no room for.
        pub const LOST: u32 = 3;
        /// Conversations that ended.
        pub const ENDED: u32 = 4;
    }
    /// How many.
    pub const COUNTERS: u32 = 5;
}

/// Words of the map `CONTROL`, which user space writes while a generation runs.
pub mod control {
    /// 1 once somebody has confirmed this generation; until then, its deadline holds.
    pub const CONFIRMED: u32 = 0;
    /// Boot-time clock in nanoseconds until which somebody listens to events; before that, none are written.
    pub const LISTENERS: u32 = 1;
    /// Nanoseconds to add to the boot-time clock for the time of day, by which grants end; not written where none does.
    pub const WALL: u32 = 2;
    /// How many words.
    pub const WORDS: u32 = 3;
}

/// Events a reason may have in one unit of time (about half a second), on each CPU; those beyond count as lost.
pub const EVENTS_A_TICK: u64 = 64;

/// One sampled violation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Event {
    /// Boot-time clock, nanoseconds.
    pub time: u64,
    /// Source address: IPv4 in the low word of `source[1]`, see [`crate::wire::addr::Addr`].
    pub source: [u64; 2],
    /// Destination address.
    pub destination: [u64; 2],
    /// Interface index.
    pub ifindex: u32,
    /// Bytes on the wire.
    pub length: u32,
    /// Violations of this kind since the last event, on this CPU.
    pub weight: u32,
    /// Outermost VLAN tag, as in [`crate::wire::packet::Packet::vlan`].
    pub vlan: u32,
    /// Host order.
    pub source_port: u16,
    /// Host order.
    pub destination_port: u16,
    /// EtherType.
    pub ethertype: u16,
    /// [`crate::engine::reason::Reason`].
    pub reason: u8,
    /// IP protocol.
    pub protocol: u8,
    /// ICMP type, or [`crate::wire::packet::Malformed`].
    pub detail: u8,
    /// 1 = IPv6.
    pub v6: u8,
    /// [`crate::engine::reason::Direction`].
    pub direction: u8,
    /// 1 = dropped, 0 = counted only.
    pub dropped: u8,
    /// Bytes of the frame that follow in `head`.
    pub captured: u16,
    /// Padding.
    pub reserved: u16,
    /// The first bytes of the frame.
    pub head: [u8; EVENT_HEAD],
}

/// Bytes of a frame that an event carries.
pub const EVENT_HEAD: usize = 96;

const _: () = {
    assert!(size_of::<Counter>() == 16);
    assert!(size_of::<Violations>() == 64 + 4 * CHUNK_KEYS as usize);
    assert!(
        size_of::<Violations>() <= 32 * 1024,
        "a per-CPU element is at most 32 KiB"
    );
    assert!(size_of::<Cells>() == 32 * 1024);
    assert!(size_of::<Block>() == 1024);
    assert!(size_of::<Set>() == 64);
    assert!(size_of::<Record>() == 56);
    assert!(size_of::<TalkerSet>() == 512);
    assert!(size_of::<Sampler>() == 32);
    assert!(size_of::<Host6>() == 24);
    assert!(size_of::<Net6>() == 16);
    assert!(size_of::<Step>() == 32);
    assert!(size_of::<Ending>() == 16);
    assert!(size_of::<Config>() == 24 * 4 + 40);
    assert!(size_of::<Event>() == 72 + EVENT_HEAD);
    assert!(core::mem::offset_of!(Event, head) == 72 && EVENT_HEAD.is_multiple_of(8));
    assert!(Key::END.is_multiple_of(CHUNK_KEYS));
};
