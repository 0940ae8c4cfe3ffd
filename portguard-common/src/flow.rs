//! The flow table: which conversations the host itself opened.
//!
//! A set of eight cells is one cache line. A cell holds a keyed hash of the tuple and a coarse time; only the egress
//! program and the seeding write. A frame that no flow belongs to is taken for a reply if one of the eight tags of its
//! set equals its own by chance: 8 x 2^-40 a frame at the most, for a sender who does not know the key of this boot.

use crate::addr::Addr;
use crate::packet::protocol;

/// Cells in a set.
pub const WAYS: usize = 8;

/// Bits of a cell that hold the time.
const TIME_BITS: u32 = 24;
const TIME_MASK: u64 = (1 << TIME_BITS) - 1;

/// One cache line of cells: tag in the high 40 bits, time in the low 24; 0 = empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Set {
    /// The cells.
    pub cells: [u64; WAYS],
}

/// A conversation from the host's view; both directions have the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tuple {
    /// IP protocol.
    pub protocol: u8,
    /// The host's address.
    pub local: Addr,
    /// The other end's address.
    pub remote: Addr,
    /// The host's port; 0 for protocols without.
    pub local_port: u16,
    /// The other end's port.
    pub remote_port: u16,
}

/// A hashed tuple: which set, and which tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hashed {
    /// To be masked with [`crate::tables::Facts::flow_mask`].
    pub set: u32,
    /// The tag in place: high 40 bits, never all zero.
    pub tag: u64,
}

impl Tuple {
    /// Hashes with the secret key: rounds of multiply and fold, which nobody can aim without the key.
    #[inline(always)]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "takes the low bits as the set"
    )]
    pub fn hash(&self, key: [u64; 2]) -> Hashed {
        let [first, second] = key;
        let ports = u64::from(self.protocol) << 32
            | u64::from(self.local_port) << 16
            | u64::from(self.remote_port);
        // One round for the four octets of both ends; a round for every eight otherwise.
        let hash = if self.remote.v6 {
            let hash = mix(self.remote.low ^ first, ports ^ second);
            let hash = mix(hash ^ self.local.low, first);
            let hash = mix(hash ^ self.remote.high, second);
            mix(hash ^ self.local.high, first)
        } else {
            let ends = self.remote.low << 32 | self.local.low;
            mix(ends ^ first, ports ^ second)
        };
        // The set comes from the low bits and the tag from the high ones; the lowest tag bit keeps it from being zero.
        Hashed {
            set: hash as u32,
            tag: (hash | 1 << TIME_BITS) & !TIME_MASK,
        }
    }
}

#[inline(always)]
const fn mix(word: u64, key: u64) -> u64 {
    let mut hash = (word ^ word >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15 ^ key << 1 | 1);
    hash ^= hash >> 29;
    hash = hash.wrapping_add(key).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash ^ hash >> 32
}

/// The coarse time: jiffies shifted to about a second a unit, modulo 2^24 (half a year).
#[inline(always)]
pub const fn now(jiffies: u64, tick_shift: u32) -> u64 {
    jiffies >> tick_shift & TIME_MASK
}

/// Units since a cell was refreshed.
#[inline(always)]
pub const fn age(cell: u64, now: u64) -> u64 {
    now.wrapping_sub(cell) & TIME_MASK
}

/// Whether a flow that was refreshed `age` units ago still lives.
#[inline(always)]
pub const fn is_fresh(age: u64, transport: u8, tcp_idle: u32, udp_idle: u32) -> bool {
    let idle = match transport {
        protocol::TCP | protocol::SCTP => tcp_idle,
        _ => udp_idle,
    };
    age <= idle as u64
}

/// What seeing a flow means for its set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// It stands there with this very time: nothing to write.
    Fresh,
    /// Its own cell, to be written anew.
    Own(usize),
    /// An empty cell.
    Empty(usize),
    /// The cell of another flow, refreshed so many units ago: the oldest.
    Taken(usize, u64),
}

impl Set {
    /// The first cell with this tag, if there is one.
    #[inline(always)]
    pub fn find(&self, tag: u64) -> Option<u64> {
        for cell in &self.cells {
            let cell = *cell;
            if same_flow(cell, tag) {
                return Some(cell);
            }
        }
        None
    }

    /// Where a flow goes: its own cell, else an empty one, else the oldest.
    ///
    /// Two CPUs that place two new flows into one set at a time may choose the same cell: one of them is forgotten until
    /// its next packet. A flow may so come to have two cells; the first is the one that is found and refreshed, and the
    /// other grows old.
    #[inline(always)]
    pub fn place(&self, tag: u64, now: u64) -> Place {
        let mut oldest = (0, 0);
        let mut empty = None;
        for (index, cell) in self.cells.iter().enumerate() {
            let cell = *cell;
            if cell == 0 {
                if empty.is_none() {
                    empty = Some(index);
                }
                continue;
            }
            if same_flow(cell, tag) {
                return if age(cell, now) == 0 {
                    Place::Fresh
                } else {
                    Place::Own(index)
                };
            }
            let age = age(cell, now);
            if age >= oldest.1 {
                oldest = (index, age);
            }
        }
        match empty {
            Some(index) => Place::Empty(index),
            None => Place::Taken(oldest.0, oldest.1),
        }
    }
}

/// A cell's content.
#[inline(always)]
pub const fn cell(tag: u64, now: u64) -> u64 {
    tag | now & TIME_MASK
}

/// Whether a cell holds this flow.
#[inline(always)]
pub const fn same_flow(cell: u64, tag: u64) -> bool {
    cell & !TIME_MASK == tag
}
