//! The address tables of [`portguard_common::classes`]: a table by the first 16 bits, blocks by eight more, and steps over
//! bits that all prefixes below have in common.
//!
//! A prefix that stands alone costs a step of 32 bytes; blocks are only where prefixes part. Equal blocks are kept once. IPv6 is a
//! tree of prefixes below 64 bits, and one for each network of 64 bits: no step goes over the border.

use std::collections::HashMap;
use std::ops::Range;

use portguard_common::abi::Block;
use portguard_common::tables::{Leaf, Step};

/// A prefix and the address class that holds in it, but for longer prefixes within.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Prefix {
    /// First address, left-aligned in 128 bits for both families.
    pub(super) address: u128,
    /// Bits.
    pub(super) length: u32,
    /// Address class.
    pub(super) class: u32,
}

/// Blocks and steps as they grow.
#[derive(Default)]
pub(super) struct Tree {
    blocks: Vec<Block>,
    known: HashMap<[u32; 256], u32>,
    steps: Vec<Step>,
}

/// Addresses that have their first `depth` bits in common.
#[derive(Clone, Copy)]
struct Part<'a> {
    depth: u32,
    /// The class of those that no prefix of the part has.
    class: u32,
    /// Longer than `depth`, sorted.
    prefixes: &'a [Prefix],
    /// Hosts of the host table, sorted.
    hosts: &'a [u128],
}

/// Where the second half of an address begins.
pub(super) const HALF: u32 = 64;

impl Tree {
    /// The first table of a family: by 16 bits. `prefixes` are sorted.
    pub(super) fn root(&mut self, prefixes: &[Prefix]) -> Vec<u32> {
        let mut root = vec![0; 1 << 16];
        let all = Part {
            depth: 0,
            class: 0,
            prefixes,
            hosts: &[],
        };
        self.fill(all, &mut root);
        root
    }

    /// The word of a network of 64 bits, whose class is that of the shorter ones around it. Both lists are of that network,
    /// and sorted.
    pub(super) fn network(&mut self, class: u32, prefixes: &[Prefix], hosts: &[u128]) -> u32 {
        let (class, prefixes) = match prefixes {
            [whole, within @ ..] if whole.length == HALF => (whole.class, within),
            within => (class, within),
        };
        self.word(Part {
            depth: HALF,
            class,
            prefixes,
            hosts,
        })
    }

    /// The blocks and the steps; at least one of each.
    pub(super) fn finish(self) -> (Vec<Block>, Vec<Step>) {
        let Self {
            mut blocks,
            mut steps,
            ..
        } = self;
        if blocks.is_empty() {
            blocks.push(Block::default());
        }
        if steps.is_empty() {
            steps.push(Step::default());
        }
        (blocks, steps)
    }

    /// Fills a table by the next bits of an address.
    fn fill(&mut self, part: Part<'_>, leaves: &mut [u32]) {
        let bits = leaves.len().ilog2();
        let end = part.depth + bits;
        let slot = |address: u128| (address << part.depth >> (128 - bits)) as usize;
        leaves.fill(part.class);
        // A prefix comes before the longer ones within it, which paint over it.
        let (short, long): (Vec<Prefix>, Vec<Prefix>) = part
            .prefixes
            .iter()
            .partition(|prefix| prefix.length <= end);
        for prefix in short {
            let first = slot(prefix.address);
            let count = 1 << (end - prefix.length);
            if let Some(slots) = leaves.get_mut(first..first + count) {
                slots.fill(prefix.class);
            }
        }
        for prefixes in long.chunk_by(|one, other| slot(one.address) == slot(other.address)) {
            let Some(leaf) = prefixes
                .first()
                .and_then(|prefix| leaves.get_mut(slot(prefix.address)))
            else {
                continue;
            };
            let hosts = Part { prefixes, ..part }.hosts_below(end);
            *leaf = self.word(Part {
                depth: end,
                class: *leaf,
                prefixes,
                hosts,
            });
        }
        for host in part.hosts {
            if let Some(leaf) = leaves.get_mut(slot(*host))
                && *leaf & Leaf::MORE == 0
            {
                *leaf |= Leaf::HOSTS;
            }
        }
    }

    /// The word that leads to all of a part.
    fn word(&mut self, part: Part<'_>) -> u32 {
        let [first, rest @ ..] = part.prefixes else {
            return leaf(part.class, !part.hosts.is_empty());
        };
        // Bits that all have in common.
        let common = rest
            .last()
            .map_or(128, |last| (first.address ^ last.address).leading_zeros());
        if rest.is_empty() || (first.length <= common && first.length % 8 == 0) {
            let next = self.word(Part {
                depth: first.length,
                class: first.class,
                prefixes: rest,
                hosts: part.hosts_below(first.length),
            });
            return self.path(part, first.length, next);
        }
        // Where the last octet begins at which none of them has ended or parted.
        let shortest = part.prefixes.iter().map(|prefix| prefix.length).min();
        let end = common.min(shortest.unwrap_or(1) - 1) & !7;
        let next = self.block(Part {
            depth: end,
            hosts: part.hosts_below(end),
            ..part
        });
        self.path(part, end, next)
    }

    /// A block for the next octet.
    fn block(&mut self, part: Part<'_>) -> u32 {
        let mut leaves = [0; 256];
        self.fill(part, &mut leaves);
        let [first, ..] = leaves;
        if first & Leaf::MORE == 0 && leaves.iter().all(|leaf| *leaf == first) {
            return first;
        }
        let number = *self.known.entry(leaves).or_insert_with(|| {
            self.blocks.push(Block { leaves });
            last(self.blocks.len())
        });
        Leaf::BLOCK | number
    }

    /// To `next` by a step over the bits from a part's depth to `end`.
    fn path(&mut self, part: Part<'_>, end: u32, next: u32) -> u32 {
        if part.depth < end {
            self.step(part, part.depth..end, next)
        } else {
            next
        }
    }

    /// A step over bits of one half.
    fn step(&mut self, part: Part<'_>, over: Range<u32>, next: u32) -> u32 {
        let half = over.start / HALF;
        let within = over.start % HALF;
        let width = over.end - over.start;
        let mask = (!0u64).checked_shl(HALF - width).unwrap_or(0) >> within;
        let address = part.prefixes.first().map_or(0, |prefix| prefix.address);
        #[expect(clippy::cast_possible_truncation, reason = "takes one of two halves")]
        let bits = (address >> (HALF * (1 - half))) as u64 & mask;
        let is_hosts = part.hosts_below(over.end).len() < part.hosts.len();
        self.steps.push(Step {
            bits,
            mask,
            miss: leaf(part.class, is_hosts),
            next,
            rotate: (within + width) % HALF,
            reserved: 0,
        });
        Leaf::STEP | last(self.steps.len())
    }
}

impl<'a> Part<'a> {
    /// Hosts that have their first `depth` bits in common with the first prefix.
    fn hosts_below(self, depth: u32) -> &'a [u128] {
        let Some(Prefix { address, .. }) = self.prefixes.first() else {
            return &[];
        };
        let kept = (!0u128).checked_shl(128 - depth).unwrap_or(0);
        let from = self
            .hosts
            .partition_point(|host| host & kept < address & kept);
        let rest = self.hosts.get(from..).unwrap_or_default();
        let count = rest.partition_point(|host| host & kept == address & kept);
        rest.get(..count).unwrap_or_default()
    }
}

fn leaf(class: u32, is_hosts: bool) -> u32 {
    if is_hosts { class | Leaf::HOSTS } else { class }
}

/// The number of the last of so many.
fn last(count: usize) -> u32 {
    u32::try_from(count - 1).unwrap_or(Leaf::VALUE)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use fastrand::Rng;
    use portguard_common::addr::Addr;
    use portguard_common::classes;
    use portguard_common::tables::Leaf;

    use super::super::Image;
    use super::super::hosts::place;
    use super::super::nets;
    use super::{Prefix, Tree};
    use crate::cells::Directory;
    use crate::policy::Policy;

    fn prefix(address: u128, length: u32, class: u32) -> Prefix {
        let kept = (!0u128).checked_shl(128 - length).unwrap_or(0);
        Prefix {
            address: address & kept,
            length,
            class,
        }
    }

    /// An image of these prefixes and hosts and of nothing else.
    fn image(four: &[Prefix], six: &[Prefix], hosts: &[(u128, u32)]) -> Image {
        let mut image = Image::build(&Policy::default(), Directory::default()).unwrap();
        let mut tree = Tree::default();
        let addresses: Vec<u128> = hosts.iter().map(|(address, _)| *address).collect();
        image.root4 = tree.root(four);
        let nets = nets::place(&mut tree, six, &addresses).expect("room");
        image.root6 = nets.root;
        (image.blocks, image.steps) = tree.finish();
        let (table, left) = place(hosts);
        assert_eq!(left, []);
        image.facts.hosts = u32::from(!hosts.is_empty());
        image.facts.host_mask = u32::try_from(table.len() - 1).unwrap();
        image.facts.nets = u32::from(nets.has_any);
        image.facts.net_mask = u32::try_from(nets.table.len() - 1).unwrap();
        image.facts.filter_mask = u32::try_from(nets.filter.len() * 64 - 1).unwrap();
        image.hosts = table;
        image.nets = nets.table;
        image.filter = nets.filter;
        image
    }

    #[expect(clippy::cast_possible_truncation, reason = "takes the halves")]
    fn v6(address: u128) -> Addr {
        Addr::v6((address >> 64) as u64, address as u64)
    }

    fn v4(address: u128) -> Addr {
        Addr::v4((address >> 96) as u32)
    }

    /// An address that has its first bits in common with one that is there already.
    fn near(rng: &mut Rng, known: &[u128], width: u32) -> u128 {
        let one = rng.choice(known).copied().unwrap_or(0);
        let kept = rng.u32(..=width);
        let random = rng.u128(..).checked_shr(kept).unwrap_or(0);
        let address = match rng.u8(..4) {
            // The next one, the one before, or all of the rest anew.
            0 => one.wrapping_add(1 << (128 - kept.max(1))),
            1 => one.wrapping_sub(1 << (128 - kept.max(1))),
            _ => one ^ random,
        };
        address & (!0u128).checked_shl(128 - width).unwrap_or(0)
    }

    /// Some hundred thousand lookups beside a scan of all prefixes. They nest, touch, and part at every bit.
    #[test]
    fn the_longest_prefix_wins() {
        let mut rng = Rng::with_seed(7);
        let mut steps = 0;
        let mut blocks = 0;
        let mut nets = 0;
        for _ in 0..250 {
            let width = if rng.bool() { 32 } else { 128 };
            let mut known = vec![rng.u128(..), 0, !0];
            let mut prefixes = BTreeMap::new();
            for class in 1..=rng.u32(1..60) {
                let address = near(&mut rng, &known, width);
                known.push(address);
                let length = match rng.u8(..3) {
                    0 => rng.u32(..=width),
                    1 => rng.u32(..=width / 8) * 8,
                    _ => (width / 2 + rng.u32(..3) - 1).min(width),
                };
                let Prefix { address, .. } = prefix(address, length, 0);
                prefixes.insert((address, length), class);
            }
            let prefixes: Vec<Prefix> = prefixes
                .into_iter()
                .map(|((address, length), class)| prefix(address, length, class))
                .collect();
            let mut hosts = BTreeMap::new();
            for class in 1..rng.u32(1..20) {
                if width == 128 {
                    hosts.insert(near(&mut rng, &known, width), 1000 + class);
                }
            }
            let hosts: Vec<(u128, u32)> = hosts.into_iter().collect();
            let image = if width == 128 {
                image(&[], &prefixes, &hosts)
            } else {
                image(&prefixes, &[], &[])
            };
            steps += image.steps.len();
            blocks += image.blocks.len();
            nets += image.nets.iter().filter(|cell| cell.leaf != 0).count();
            for _ in 0..1_500 {
                let address = match (rng.u8(..8), hosts.as_slice()) {
                    (0, [_, ..]) => rng.choice(&hosts).map_or(0, |(address, _)| *address),
                    _ => near(&mut rng, &known, width),
                };
                let host = hosts.iter().find(|(host, _)| *host == address);
                let longest = prefixes
                    .iter()
                    .filter(|one| prefix(address, one.length, 0).address == one.address)
                    .max_by_key(|one| one.length);
                let expected = host.map_or(longest.map_or(0, |one| one.class), |(_, class)| *class);
                let address = if width == 128 {
                    v6(address)
                } else {
                    v4(address)
                };
                let found = classes::class(&image, address);
                assert_eq!(found, expected, "{address:?} {prefixes:?} {hosts:?}");
            }
        }
        assert!(
            steps > 1_000 && blocks > 900 && nets > 1_000,
            "{steps} {blocks} {nets}"
        );
    }

    #[test]
    fn a_prefix_alone_is_a_step_and_no_block() {
        for length in [24, 29, 48, 61] {
            let prefixes: Vec<Prefix> = (0..500u128)
                .map(|index| prefix((0x2000 + index) << 112 | 0x1234 << 80, length, 3))
                .collect();
            let mut tree = Tree::default();
            let root = tree.root(&prefixes);
            assert!(
                root.iter()
                    .all(|leaf| *leaf == 0 || leaf & Leaf::STEP == Leaf::STEP)
            );
            assert_eq!((tree.blocks.len(), tree.steps.len()), (0, 500), "{length}");
        }
        // A network of 64 bits is a word.
        let mut tree = Tree::default();
        let network = prefix(0x2001 << 112, 64, 3);
        assert_eq!(tree.network(1, &[network], &[]), 3);
        let within = prefix(0x2001 << 112 | 1, 128, 4);
        let word = tree.network(1, &[network, within], &[]);
        assert_eq!(word & Leaf::STEP, Leaf::STEP);
        assert_eq!((tree.blocks.len(), tree.steps.len()), (0, 1));
        assert_eq!((tree.steps[0].miss, tree.steps[0].next), (3, 4));
    }

    #[test]
    fn equal_blocks_are_one_and_uniform_ones_none() {
        let pair = |first: u128, classes: [u32; 2]| {
            let [one, other] = classes;
            [
                prefix(first, 24, one),
                prefix(first + (1 << 104), 24, other),
            ]
        };
        let mut prefixes: Vec<Prefix> = pair(0x0a00 << 112, [1, 2]).to_vec();
        prefixes.extend(pair(0x0a01 << 112, [1, 2]));
        prefixes.extend(pair(0x0a02 << 112, [2, 1]));
        let whole = (0..256u128).map(|octet| prefix(0x0a03 << 112 | octet << 104, 24, 5));
        prefixes.extend(whole);
        let mut tree = Tree::default();
        let root = tree.root(&prefixes);
        assert_eq!((tree.blocks.len(), tree.steps.len()), (2, 0));
        assert_eq!(root[0x0a00], root[0x0a01]);
        assert_eq!(root[0x0a03], 5);
    }

    /// Only where there are hosts is their table asked.
    #[test]
    fn words_say_where_hosts_are() {
        let mut tree = Tree::default();
        let network = 0x2001 << 112;
        let within = prefix(network | 1 << 63, 68, 1);
        let word = tree.network(2, &[within], &[network | 9]);
        assert_eq!(word & Leaf::STEP, Leaf::STEP);
        let step = tree.steps[0];
        assert_eq!((step.next, step.miss), (1, 2 | Leaf::HOSTS));
        assert_eq!(tree.network(2, &[], &[network | 9]), 2 | Leaf::HOSTS);
    }
}
