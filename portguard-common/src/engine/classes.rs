//! The address class of an address: a table by its first 16 bits, then blocks by eight more, and steps over what needs no
//! table; of IPv6, networks of 64 bits and hosts by hash.
//!
//! What is named below 64 bits is behind a hash, and in front of that a filter: of an address that nothing so long is named
//! near, a bit says so, and what is left are tables so few that they stay in the caches.

use crate::engine::tables::{HOST_PROBES, Host6, Leaf, NET_PROBES, Net6, Tables};
use crate::wire::addr::Addr;

/// Blocks and steps on the longest way below the first 16 bits of an IPv4 address.
const ROUNDS4: u64 = 2;
/// The same for the first half of an IPv6 address: six octets.
const ROUNDS_HIGH: u64 = 6;
/// The same for the second: eight octets.
const ROUNDS_LOW: u64 = 8;

/// The class of an address, below 2^30; 0 is the class of those that no grant names.
#[inline(always)]
pub fn class<T: Tables + ?Sized>(tables: &T, address: Addr) -> u32 {
    if address.v6 {
        class6(tables, address)
    } else {
        class4(tables, address.as_v4())
    }
}

#[inline(always)]
fn class4<T: Tables + ?Sized>(tables: &T, address: u32) -> u32 {
    let root = tables.root4((address >> 16) as u16);
    let half = u64::from(address) << 32;
    walk::<T, ROUNDS4>(tables, root.0, half, half.rotate_left(16)) & Leaf::VALUE
}

#[inline(always)]
fn class6<T: Tables + ?Sized>(tables: &T, address: Addr) -> u32 {
    let Addr { high, low, .. } = address;
    let near = if tables.config().nets == 0 {
        0
    } else {
        network(tables, high)
    };
    if near == 0 {
        let root = tables.root6((high >> 48) as u16);
        let leaf = walk::<T, ROUNDS_HIGH>(tables, root.0, high, high.rotate_left(16));
        return leaf & Leaf::VALUE;
    }
    let leaf = walk::<T, ROUNDS_LOW>(tables, near, low, low);
    if tables.config().hosts != 0 && leaf & Leaf::HOSTS != 0 {
        let class = host(tables, address);
        if class != 0 {
            return class - 1;
        }
    }
    leaf & Leaf::VALUE
}

/// The word of the network of 64 bits that an address is in, or 0 if nothing so long is named there.
#[inline(always)]
fn network<T: Tables + ?Sized>(tables: &T, high: u64) -> u32 {
    let config = tables.config();
    let hash = net_hash(high);
    let bit = hash & config.filter_mask;
    if tables.filter6(bit >> 6) >> (bit & 63) & 1 == 0 {
        return 0;
    }
    let mut probe = 0;
    while probe < NET_PROBES {
        let Net6 {
            high: there, leaf, ..
        } = tables.net6(hash.wrapping_add(probe) & config.net_mask);
        if leaf == 0 || there == high {
            return leaf;
        }
        probe += 1;
    }
    0
}

/// Where the probing for a network starts, and which bit of the filter is its own.
#[inline(always)]
pub const fn net_hash(high: u64) -> u32 {
    let mixed = (high ^ high >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 32) as u32
}

/// From a word down to a class, by a half of an address.
///
/// What is left of it stands at the top of `rest`, and is rotated rather than shifted: to verifiers it is the same unknown
/// number on all ways through a round.
#[inline(always)]
#[expect(
    clippy::cast_possible_truncation,
    reason = "takes an octet, or a word out of 64 bits"
)]
fn walk<T: Tables + ?Sized, const ROUNDS: u64>(
    tables: &T,
    word: u32,
    half: u64,
    mut rest: u64,
) -> u32 {
    // Words in 64 bits: of 32, BPF would have to clear the upper half at every comparison.
    let (more, other, value) = (
        u64::from(Leaf::MORE),
        u64::from(Leaf::OTHER),
        u64::from(Leaf::VALUE),
    );
    let mut leaf = u64::from(word);
    let mut round = 0;
    while round < ROUNDS && leaf & more != 0 {
        let index = (leaf & value) as u32;
        if leaf & other == 0 {
            leaf = tables.block(index, (rest >> 56) as u8).0.into();
            rest = rest.rotate_left(8);
        } else {
            let Some(step) = tables.step(index) else {
                return 0;
            };
            if half & step.mask != step.bits {
                return step.miss;
            }
            leaf = step.next.into();
            rest = half.rotate_left(step.rotate);
        }
        round += 1;
    }
    leaf as u32
}

/// Class plus one of a host that stands in the host table, else 0.
#[inline(always)]
fn host<T: Tables + ?Sized>(tables: &T, address: Addr) -> u32 {
    let start = host_hash(address.high, address.low);
    let mask = tables.config().host_mask;
    let mut probe = 0;
    while probe < HOST_PROBES {
        let Host6 {
            high,
            low,
            class,
            reserved: _,
        } = tables.host6(start.wrapping_add(probe) & mask);
        if class == 0 {
            return 0;
        }
        if low == address.low && high == address.high {
            return class;
        }
        probe += 1;
    }
    0
}

/// Where the probing for a host starts. No secret: the network cannot put anything into this table.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "folds to 32 bits")]
pub const fn host_hash(high: u64, low: u64) -> u32 {
    let mixed = (high ^ low.rotate_left(32)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
        ^ low.wrapping_mul(0xc2b2_ae3d_27d4_eb4f);
    (mixed ^ mixed >> 32) as u32
}
