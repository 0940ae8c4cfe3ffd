//! Layout of what the kernel and the host share: plain integers, explicit padding, sizes asserted.

pub use crate::flow::Set;
pub use crate::knock::Set as Knocks;
pub use crate::tables::{Facts, Host6, Step};

use crate::tables::Key;

/// Changes whenever a shared layout or the meaning of a number does. Names the pin directory.
pub const ABI_VERSION: u32 = 1;

/// Keys a chunk of violation counters covers.
pub const CHUNK_KEYS: u32 = 4096;
/// Chunks a direction: three spaces of ports, and one chunk of protocols.
pub const CHUNKS: u32 = Key::END / CHUNK_KEYS;
/// Counter cells a chunk of [`Cells`] holds.
pub const CELLS_A_CHUNK: u32 = 2048;
/// Cells in all: what an [`crate::tables::Entry`] can name.
pub const MAX_CELLS: u32 = 16_384;
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

/// How fast violations come, and when the next of them is looked at closely.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Pace {
    /// Jiffies when this unit of time (about a second) is over.
    pub until: u64,
    /// Violations up to and with the next that is looked at closely.
    pub left: u64,
    /// For how many that one stands: what `left` was when it was set.
    pub stride: u64,
    /// How many were looked at closely in this unit.
    pub taken: u64,
}

/// So many violations of a unit of time are looked at closely one and all.
pub const PACE: u64 = 64;
/// Of those beyond, about one in so many, drawn by lot, which stands for itself and those before it: a power of two.
pub const SPARSE: u32 = 256;

impl Pace {
    /// Another violation, at a time in jiffies: for how many it stands if it is to be looked at closely, else 0.
    ///
    /// Written for the many that are not: a load and a store of their own, and two comparisons. The lot keeps a sender whose
    /// packets come at equal distances from being missed, or from being taken for all of them.
    #[inline(always)]
    pub fn next(
        &mut self,
        jiffies: u64,
        unit: impl FnOnce() -> u64,
        lot: impl FnOnce() -> u32,
    ) -> u32 {
        let left = self.left.wrapping_sub(1);
        self.left = left;
        if left != 0 && jiffies < self.until {
            return 0;
        }
        if jiffies >= self.until {
            *self = Self {
                until: jiffies + unit(),
                left: 1,
                stride: 1,
                taken: 1,
            };
            return 1;
        }
        #[expect(clippy::cast_possible_truncation, reason = "below 2 x SPARSE")]
        let stands = self.stride as u32;
        self.taken += 1;
        self.stride = if self.taken < PACE {
            1
        } else {
            // 1 to 2 x SPARSE - 1: SPARSE in the mean.
            u64::from(lot() & (2 * SPARSE - 1)).max(1)
        };
        self.left = self.stride;
        stands
    }
}

/// Violations by key, one CPU's share: 32-bit counts side by side, and totals by reason.
///
/// A count that wraps is carried into the map `CARRY`, so that sums stay exact.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct Violations {
    /// Of this chunk.
    pub pace: Pace,
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
    /// [`crate::tables::Leaf`]s by the next eight bits of the address.
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
    use crate::packet::Malformed;
    use crate::reason::{Direction, Reason};

    /// Slots a direction.
    pub const DIRECTION: u32 = 64;
    /// First EtherType slot; by [`ETHERTYPES`], the last is "other".
    pub const ETHERTYPE: u32 = 32;
    /// First slot of malformed causes.
    pub const MALFORMED: u32 = 48;
    /// Events that the ring buffer had no room for.
    pub const EVENTS_LOST: u32 = 128;
    /// Flows that took the cell of another live one.
    pub const FLOWS_EVICTED: u32 = 129;
    /// New flows.
    pub const FLOWS_CREATED: u32 = 130;
    /// Frames passed because the deadline of this generation was over.
    pub const OVERDUE: u32 = 131;

    /// EtherTypes that have a counter of their own: LLDP, LACP, EAPOL, `MACsec`, MPLS (two), `PPPoE` (two).
    pub const ETHERTYPES: [u16; 8] = [
        0x88cc, 0x8809, 0x888e, 0x88e5, 0x8847, 0x8848, 0x8863, 0x8864,
    ];

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
        let index = match ethertype {
            0x88cc => 0,
            0x8809 => 1,
            0x888e => 2,
            0x88e5 => 3,
            0x8847 => 4,
            0x8848 => 5,
            0x8863 => 6,
            0x8864 => 7,
            _ => 8,
        };
        direction as u32 * DIRECTION + ETHERTYPE + index
    }
}

/// Words of the map `CONTROL`, which user space writes while a generation runs.
pub mod control {
    /// 1 once somebody has confirmed this generation; until then, its deadline holds.
    pub const CONFIRMED: u32 = 0;
    /// Boot-time clock in nanoseconds until which somebody listens to events; before that, none are written.
    pub const LISTENERS: u32 = 1;
    /// How many words.
    pub const WORDS: u32 = 2;
}

/// Events a reason may have in one unit of time (about half a second), on each CPU; those beyond count as lost.
pub const EVENTS_A_TICK: u64 = 64;

/// One sampled violation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Event {
    /// Boot-time clock, nanoseconds.
    pub time: u64,
    /// Source address: IPv4 in the low word of `source[1]`, see [`crate::addr::Addr`].
    pub source: [u64; 2],
    /// Destination address.
    pub destination: [u64; 2],
    /// Interface index.
    pub ifindex: u32,
    /// Bytes on the wire.
    pub length: u32,
    /// Violations of this kind since the last event, on this CPU.
    pub weight: u32,
    /// Outermost VLAN tag, as in [`crate::packet::Packet::vlan`].
    pub vlan: u32,
    /// Host order.
    pub source_port: u16,
    /// Host order.
    pub destination_port: u16,
    /// EtherType.
    pub ethertype: u16,
    /// [`crate::reason::Reason`].
    pub reason: u8,
    /// IP protocol.
    pub protocol: u8,
    /// ICMP type, or [`crate::packet::Malformed`].
    pub detail: u8,
    /// 1 = IPv6.
    pub v6: u8,
    /// [`crate::reason::Direction`].
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
    assert!(size_of::<Knocks>() == 512);
    assert!(size_of::<Pace>() == 32);
    assert!(size_of::<Host6>() == 24);
    assert!(size_of::<Step>() == 32);
    assert!(size_of::<Facts>() == 64 + 24);
    assert!(size_of::<Event>() == 72 + EVENT_HEAD);
    assert!(core::mem::offset_of!(Event, head) == 72 && EVENT_HEAD.is_multiple_of(8));
    assert!(Key::END.is_multiple_of(CHUNK_KEYS));
};

#[cfg(test)]
mod tests {
    use super::{Pace, SPARSE};

    #[test]
    fn the_first_of_a_unit_are_looked_at_and_of_the_others_one_in_so_many() {
        let mut pace = Pace::default();
        let mut looks = |violations: u32, at: u64| -> (u32, u32) {
            let mut looks = 0;
            let mut stand = 0;
            for _ in 0..violations {
                let stands = pace.next(at, || 256, || SPARSE);
                looks += u32::from(stands > 0);
                stand += stands;
            }
            (looks, stand)
        };
        assert_eq!(looks(64, 1), (64, 64));
        assert_eq!(looks(SPARSE - 1, 256), (0, 0));
        assert_eq!(looks(1, 256), (1, SPARSE), "it stands for those before it");
        assert_eq!(looks(10 * SPARSE + 5, 256), (10, 10 * SPARSE));
        // The next unit starts afresh at its first violation, and as long after it as a unit is.
        assert_eq!(looks(3, 257), (3, 3));
        assert_eq!(looks(64, 512), (61, 61));
        assert_eq!(looks(2, 513), (2, 2));
    }

    #[test]
    fn packets_at_equal_distances_get_their_share() {
        let mut pace = Pace::default();
        let mut random = 0x9e37_79b9_u32;
        let mut shares = [0_u32; 4];
        for step in 0..400_000 {
            let stands = pace.next(
                1,
                || 256,
                || {
                    random ^= random << 13;
                    random ^= random >> 17;
                    random ^= random << 5;
                    random
                },
            );
            shares[step % 4] += stands;
        }
        for share in shares {
            assert!((85_000..115_000).contains(&share), "{shares:?}");
        }
    }
}
