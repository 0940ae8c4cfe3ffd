//! The address class of an address: 16-8-8 strides for IPv4, 16 and then 8 bits a level for IPv6, hosts by hash.

use crate::addr::Addr;
use crate::tables::{HOST_PROBES, Host6, Leaf, Tables};

/// The class of an address, below 2^31; 0 is the class of those that no grant names.
#[inline(always)]
pub fn class<T: Tables + ?Sized>(tables: &T, address: Addr) -> u32 {
    if address.v6 {
        class6(tables, address)
    } else {
        class4(tables, address.as_v4())
    }
}

#[inline(always)]
#[expect(
    clippy::cast_possible_truncation,
    reason = "takes octets out of an address"
)]
fn class4<T: Tables + ?Sized>(tables: &T, address: u32) -> u32 {
    let mut leaf = tables.root4((address >> 16) as u16).0;
    if leaf & Leaf::BLOCK != 0 {
        leaf = tables.block(leaf & Leaf::VALUE, (address >> 8) as u8).0;
        if leaf & Leaf::BLOCK != 0 {
            leaf = tables.block(leaf & Leaf::VALUE, address as u8).0;
        }
    }
    leaf & Leaf::VALUE
}

#[inline(always)]
#[expect(
    clippy::cast_possible_truncation,
    reason = "takes octets out of an address"
)]
fn class6<T: Tables + ?Sized>(tables: &T, address: Addr) -> u32 {
    if tables.facts().hosts != 0 {
        let class = host(tables, address);
        if class != 0 {
            return class - 1;
        }
    }
    let mut leaf = tables.root6((address.high >> 48) as u16).0;
    // Two loops rather than one: each takes its octets from one word, by constant shifts.
    let mut shift = 40;
    for _ in 0..6 {
        if leaf & Leaf::BLOCK == 0 {
            return leaf & Leaf::VALUE;
        }
        leaf = tables
            .block(leaf & Leaf::VALUE, (address.high >> shift) as u8)
            .0;
        shift -= 8;
    }
    let mut shift = 56;
    for _ in 0..8 {
        if leaf & Leaf::BLOCK == 0 {
            return leaf & Leaf::VALUE;
        }
        leaf = tables
            .block(leaf & Leaf::VALUE, (address.low >> shift) as u8)
            .0;
        shift -= 8;
    }
    leaf & Leaf::VALUE
}

/// Class plus one of a host that stands in the host table, else 0.
#[inline(always)]
fn host<T: Tables + ?Sized>(tables: &T, address: Addr) -> u32 {
    let start = host_hash(address.high, address.low);
    let mask = tables.facts().host_mask;
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
