//! The address class of an address: a table by its first 16 bits, then blocks by eight more, and steps over what needs no
//! table; IPv6 hosts by hash.

use crate::engine::tables::{HOST_PROBES, Host6, Leaf, Tables};
use crate::wire::addr::Addr;

/// Blocks and steps on the longest way below the first 16 bits of an IPv4 address.
const ROUNDS4: u64 = 2;
/// The same for IPv6: fourteen octets, and a step from one half to the other.
const ROUNDS6: u64 = 15;

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
    walk::<T, ROUNDS4>(tables, root, u64::from(address) << 32, 0) & Leaf::VALUE
}

#[inline(always)]
fn class6<T: Tables + ?Sized>(tables: &T, address: Addr) -> u32 {
    let Addr { high, low, .. } = address;
    let root = tables.root6((high >> 48) as u16);
    let leaf = walk::<T, ROUNDS6>(tables, root, high, low);
    if tables.config().hosts != 0 && leaf & Leaf::HOSTS != 0 {
        let class = host(tables, address);
        if class != 0 {
            return class - 1;
        }
    }
    leaf & Leaf::VALUE
}

/// From a word of the first table down to a class.
///
/// What is left of the address stands at the top of `rest`, and is rotated rather than shifted: to verifiers it is the same
/// unknown number on all ways through a round.
#[inline(always)]
#[expect(
    clippy::cast_possible_truncation,
    reason = "takes an octet, or a word out of 64 bits"
)]
fn walk<T: Tables + ?Sized, const ROUNDS: u64>(tables: &T, root: Leaf, high: u64, low: u64) -> u32 {
    // Words in 64 bits: of 32, BPF would have to clear the upper half at every comparison.
    let (more, other, value) = (
        u64::from(Leaf::MORE),
        u64::from(Leaf::OTHER),
        u64::from(Leaf::VALUE),
    );
    let mut leaf = u64::from(root.0);
    let mut rest = high.rotate_left(16);
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
            let half = if ROUNDS == ROUNDS6 {
                high ^ (high ^ low) & u64::from(step.half).wrapping_neg()
            } else {
                high
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
