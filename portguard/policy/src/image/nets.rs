//! The table of IPv6 networks of 64 bits in which anything is named that is no shorter: open addressing, each network within
//! [`NET_PROBES`] cells of where its hash points, and a filter of a bit or so for each in front.

use std::collections::BTreeMap;

use portguard_common::classes::net_hash;
use portguard_common::tables::{NET_PROBES, Net6};

use super::tree::{HALF, Prefix, Tree};

/// Cells of a table with any network at all: room for more of them later without another mask.
const FEWEST: usize = 64;
/// Bits of the filter for each cell of a table that is half full: one in some thirty of other networks is not kept away.
const BITS_A_CELL: usize = 16;

/// How often a table may be as large as one that is half full, so that the longest way in it is short enough.
const MOST_GROWTH: usize = 16;

/// The tables of IPv6.
pub(super) struct Nets {
    /// By the first 16 bits: what is shorter than 64.
    pub(super) root: Vec<u32>,
    pub(super) table: Vec<Net6>,
    pub(super) filter: Vec<u64>,
    pub(super) has_any: bool,
}

/// What is named in a network of 64 bits.
#[derive(Default)]
struct Named {
    prefixes: Vec<Prefix>,
    hosts: Vec<u128>,
}

/// Places prefixes, and the networks of hosts; both sorted. `None` if there is no room: more than [`NET_PROBES`] networks have
/// the same hash, as they never have by chance.
pub(super) fn place(tree: &mut Tree, prefixes: &[Prefix], hosts: &[u128]) -> Option<Nets> {
    let mut networks: BTreeMap<u64, Named> = BTreeMap::new();
    let (short, long): (Vec<Prefix>, Vec<Prefix>) =
        prefixes.iter().partition(|prefix| prefix.length < HALF);
    for prefix in long {
        let named = networks.entry(high(prefix.address)).or_default();
        named.prefixes.push(prefix);
    }
    for host in hosts {
        networks.entry(high(*host)).or_default().hosts.push(*host);
    }
    let root = tree.root(&short);
    let mut around = Around::of(&short);
    let cells: Vec<Net6> = networks
        .into_iter()
        .map(|(high, named)| {
            let class = around.class(u128::from(high) << HALF);
            Net6 {
                high,
                leaf: tree.network(class, &named.prefixes, &named.hosts),
                reserved: 0,
            }
        })
        .collect();
    let mut size = match cells.as_slice() {
        [] => 1,
        some => (some.len() * 2).next_power_of_two().max(FEWEST),
    };
    let largest = size * MOST_GROWTH;
    let table = loop {
        match try_place(&cells, size) {
            Some(table) => break table,
            None if size == largest => return None,
            None => size *= 2,
        }
    };
    let bits = ((cells.len() * 2).next_power_of_two() * BITS_A_CELL / 2).max(64);
    let mut filter = vec![0u64; bits / 64];
    for cell in &cells {
        let bit = net_hash(cell.high) as usize & (bits - 1);
        if let Some(word) = filter.get_mut(bit / 64) {
            *word |= 1 << (bit % 64);
        }
    }
    Some(Nets {
        root,
        table,
        filter,
        has_any: !cells.is_empty(),
    })
}

const fn high(address: u128) -> u64 {
    (address >> HALF) as u64
}

/// The shortest ways first: one that is far from home takes the place of one nearer to its own. `None` if one of them would be
/// too far.
fn try_place(cells: &[Net6], size: usize) -> Option<Vec<Net6>> {
    let home = |cell: &Net6| net_hash(cell.high) as usize & (size - 1);
    let mut table = vec![Net6::default(); size];
    for cell in cells {
        let mut cell = *cell;
        let mut way = 0;
        loop {
            if way == NET_PROBES as usize {
                return None;
            }
            let index = (home(&cell) + way) & (size - 1);
            let there = table.get_mut(index)?;
            if there.leaf == 0 {
                *there = cell;
                break;
            }
            let its_way = index.wrapping_sub(home(there)) & (size - 1);
            if its_way < way {
                std::mem::swap(there, &mut cell);
                way = its_way;
            }
            way += 1;
        }
    }
    Some(table)
}

/// The classes of shorter prefixes, for addresses in ascending order.
struct Around<'a> {
    /// Those that contain the address at hand.
    open: Vec<Prefix>,
    rest: &'a [Prefix],
}

impl<'a> Around<'a> {
    const fn of(prefixes: &'a [Prefix]) -> Self {
        Self {
            open: Vec::new(),
            rest: prefixes,
        }
    }

    fn class(&mut self, address: u128) -> u32 {
        let contains = |prefix: &Prefix, address: u128| {
            let kept = (!0u128).checked_shl(128 - prefix.length).unwrap_or(0);
            prefix.address == address & kept
        };
        while let [first, rest @ ..] = self.rest
            && first.address <= address
        {
            self.open.retain(|outer| contains(outer, first.address));
            self.open.push(*first);
            self.rest = rest;
        }
        self.open.retain(|outer| contains(outer, address));
        self.open.last().map_or(0, |prefix| prefix.class)
    }
}

#[cfg(test)]
mod tests {
    use super::{HALF, Prefix, Tree, place};

    /// Different networks of the same hash: what it multiplies with has an inverse.
    fn alike(count: u64) -> Vec<Prefix> {
        let factor = 0x9e37_79b9_7f4a_7c15_u64;
        let mut inverse = factor;
        for _ in 0..6 {
            inverse = inverse.wrapping_mul(2_u64.wrapping_sub(factor.wrapping_mul(inverse)));
        }
        let mut all: Vec<Prefix> = (0..count)
            .map(|low| {
                let folded = (7 << 32 | low).wrapping_mul(inverse);
                Prefix {
                    address: u128::from(folded ^ folded >> 32) << HALF,
                    length: 64,
                    class: 1,
                }
            })
            .collect();
        all.sort();
        all
    }

    #[test]
    fn networks_that_collide_are_refused_and_do_not_fill_the_memory() {
        assert!(place(&mut Tree::default(), &alike(8), &[]).is_some());
        assert!(place(&mut Tree::default(), &alike(9), &[]).is_none());
    }
}
