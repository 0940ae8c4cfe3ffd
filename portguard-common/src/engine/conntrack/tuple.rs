//! The ends of a conversation, and their keyed hash.

use super::cell::{LOW_MASK, tag};
use crate::wire::addr::Addr;

/// A conversation from the host's view; both directions have the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tuple {
    /// Key space of the protocol: see [`crate::wire::packet::space`].
    pub space: u32,
    /// The host's address.
    pub local: Addr,
    /// The other end's address.
    pub remote: Addr,
    /// The host's port.
    pub local_port: u16,
    /// The other end's port.
    pub remote_port: u16,
}

/// A hashed tuple: which set, and which tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hashed {
    /// To be masked with [`crate::engine::config::Config::flow_mask`].
    pub set: u32,
    /// The tag in place: high 40 bits, never all zero.
    pub tag: u64,
}

impl Hashed {
    /// The key of the overflow table.
    #[inline(always)]
    pub const fn key(self) -> u64 {
        self.tag | self.set as u64 & LOW_MASK
    }

    /// The tuple that has this key.
    #[inline(always)]
    pub const fn of_key(key: u64) -> Self {
        Self {
            set: (key & LOW_MASK) as u32,
            tag: tag(key),
        }
    }
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
        let ports = u64::from(self.space) << 32
            | u64::from(self.local_port) << 16
            | u64::from(self.remote_port);
        // Two words a round. The host's own addresses are few and nobody's to choose, so that they go into one word.
        let hash = if self.remote.v6 {
            let hash = mix(self.remote.low ^ first, ports ^ second);
            let local = self.local.low ^ self.local.high.rotate_left(32);
            mix(hash ^ self.remote.high, local ^ first)
        } else {
            let ends = self.remote.low << 32 | self.local.low;
            mix(ends ^ first, ports ^ second)
        };
        // The set comes from the low bits and the tag from the high ones; the highest tag bit keeps it from being zero: the
        // low ones choose the home cell.
        Hashed {
            set: hash as u32,
            tag: (hash | 1 << 63) & !LOW_MASK,
        }
    }
}

#[inline(always)]
pub(crate) const fn mix(word: u64, key: u64) -> u64 {
    let mut hash = (word ^ word >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15 ^ key << 1 | 1);
    hash ^= hash >> 29;
    hash = hash.wrapping_add(key).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash ^ hash >> 32
}
