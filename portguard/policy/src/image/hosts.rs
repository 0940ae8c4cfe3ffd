//! The table of IPv6 hosts: open addressing, each host within [`HOST_PROBES`] cells of where its hash points.

use portguard_common::abi::Block;
use portguard_common::classes::host_hash;
use portguard_common::tables::{HOST_PROBES, Host6, Step};

/// What a host may cost that stands among the prefixes instead: a block, and a step to it.
const AMONG_PREFIXES: usize = size_of::<Block>() + size_of::<Step>();

/// A host and its address class.
pub(super) type Host = (u128, u32);

/// Cells of a table with any host at all: room for more of them later without another mask.
const FEWEST: usize = 64;

/// Places hosts. Those that found no room within reach are the second half of the answer: to be kept as prefixes, which
/// say the same, only slower.
///
/// The table has at least twice as many cells as there are hosts, and grows as long as that saves memory; so its size is
/// bounded by the number of hosts, whatever their hashes.
pub(super) fn place(hosts: &[Host]) -> (Vec<Host6>, Vec<Host>) {
    let mut size = match hosts {
        [] => 1,
        _ => (hosts.len() * 2).next_power_of_two().max(FEWEST),
    };
    loop {
        let (table, left) = try_place(hosts, size);
        if left.len() * AMONG_PREFIXES <= size * size_of::<Host6>() {
            return (table, left);
        }
        size *= 2;
    }
}

/// A cell that is asked for by a host far from home is given up by one nearer to its own ("Robin Hood"): the longest
/// way stays short in tables that are half full. Cells never become empty, so that a search may end at an empty one.
fn try_place(hosts: &[Host], size: usize) -> (Vec<Host6>, Vec<Host>) {
    let mut table = vec![Host6::default(); size];
    let mut left = Vec::new();
    for &(address, class) in hosts {
        let mut host = cell(address, class);
        let mut way = 0;
        loop {
            if way == HOST_PROBES {
                left.push(host_of(&host));
                break;
            }
            let index = home(&host).wrapping_add(way) as usize & (size - 1);
            let Some(there) = table.get_mut(index) else {
                break;
            };
            if there.class == 0 {
                *there = host;
                break;
            }
            let its_way = way_of(there, index, size);
            if its_way < way {
                std::mem::swap(there, &mut host);
                way = its_way;
            }
            way += 1;
        }
    }
    (table, left)
}

#[expect(clippy::cast_possible_truncation, reason = "takes the two halves")]
const fn cell(address: u128, class: u32) -> Host6 {
    Host6 {
        high: (address >> 64) as u64,
        low: address as u64,
        class: class + 1,
        reserved: 0,
    }
}

const fn host_of(cell: &Host6) -> Host {
    let address = (cell.high as u128) << 64 | cell.low as u128;
    (address, cell.class - 1)
}

const fn home(cell: &Host6) -> u32 {
    host_hash(cell.high, cell.low)
}

/// How far from home a cell's host is.
fn way_of(cell: &Host6, index: usize, size: usize) -> u32 {
    let way = index.wrapping_sub(home(cell) as usize) & (size - 1);
    u32::try_from(way).unwrap_or(HOST_PROBES)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use fastrand::Rng;
    use portguard_common::tables::HOST_PROBES;

    use super::{Host, home, host_of, place};

    /// What a search finds.
    fn find(table: &[portguard_common::tables::Host6], address: u128) -> Option<u32> {
        let start = home(&super::cell(address, 0));
        for way in 0..HOST_PROBES {
            let cell = &table[start.wrapping_add(way) as usize & (table.len() - 1)];
            if cell.class == 0 {
                return None;
            }
            if host_of(cell).0 == address {
                return Some(cell.class - 1);
            }
        }
        None
    }

    #[test]
    fn every_host_is_found_or_left() {
        let mut rng = Rng::with_seed(1);
        for count in [0, 1, 2, 7, 100, 5000, 100_000] {
            let hosts: BTreeMap<u128, u32> =
                (0..count).map(|class| (rng.u128(..), class)).collect();
            let hosts: Vec<Host> = hosts.into_iter().collect();
            let (table, left) = place(&hosts);
            assert!(table.len().is_power_of_two());
            assert!(
                table.len() <= (8 * hosts.len()).next_power_of_two().max(super::FEWEST),
                "{} cells for {count}",
                table.len()
            );
            assert!(left.len() <= hosts.len() / 1000, "{} left", left.len());
            for (address, class) in &hosts {
                let found = find(&table, *address);
                let is_left = left.contains(&(*address, *class));
                assert_eq!(found.is_none(), is_left);
                assert!(found.is_none_or(|found| found == *class));
            }
            assert_eq!(find(&table, rng.u128(..)), None);
        }
    }

    /// Hosts whose hashes are all the same neither hang the builder nor fill the memory.
    #[test]
    fn hosts_that_collide_are_left() {
        let wanted = home(&super::cell(0, 0)) & 0xffff;
        let hosts: Vec<Host> = (0u128..1 << 24)
            .filter(|address| home(&super::cell(*address, 0)) & 0xffff == wanted)
            .take(200)
            .map(|address| (address, 3))
            .collect();
        assert_eq!(hosts.len(), 200);
        let (table, left) = place(&hosts);
        assert!(table.len() <= 1 << 18, "{} cells", table.len());
        let found = hosts.iter().filter(|(a, _)| find(&table, *a) == Some(3));
        assert_eq!(found.count() + left.len(), 200);
    }
}
