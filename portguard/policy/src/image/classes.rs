//! Address classes: which sets an address is in, as one small number.

use std::collections::BTreeMap;

use ipnet::IpNet;
use portguard_common::abi::Block;
use portguard_common::tables::{Host6, Leaf, Net6, Step};

use super::TooLarge;
use super::hosts;
use super::nets::{self, Nets};
use super::tree::{Prefix, Tree};
use crate::policy::PeerSet;

/// The address tables, and which sets each class is in.
pub(super) struct Classes {
    pub(super) root4: Vec<u32>,
    pub(super) root6: Vec<u32>,
    pub(super) blocks: Vec<Block>,
    pub(super) steps: Vec<Step>,
    pub(super) hosts: Vec<Host6>,
    pub(super) has_hosts: bool,
    pub(super) nets: Vec<Net6>,
    pub(super) has_nets: bool,
    pub(super) filter: Vec<u64>,
    /// By class: the sets that its addresses are in, sorted. Class 0 is in none.
    pub(super) members: Vec<Vec<u32>>,
}

impl Classes {
    /// Classifies all addresses by the sets that they are in.
    ///
    /// # Errors
    /// [`TooLarge::Networks`].
    pub(super) fn build(sets: &[PeerSet]) -> Result<Self, TooLarge> {
        // Prefix to the sets that name it. The order of a `BTreeMap` over (address, length) visits every prefix before
        // the longer ones within it.
        let mut prefixes: BTreeMap<(bool, u128, u8), Vec<u32>> = BTreeMap::new();
        for (set, index) in sets.iter().zip(0..) {
            for net in &set.prefixes {
                let named = prefixes.entry(key(net)).or_default();
                if named.last() != Some(&index) {
                    named.push(index);
                }
            }
        }
        // By class: its sets. By sets: their class.
        let mut classes: Vec<Vec<u32>> = vec![Vec::new()];
        let mut known: BTreeMap<Vec<u32>, u32> = BTreeMap::from([(Vec::new(), 0)]);
        let (mut four, mut six, mut hosts) = (Vec::new(), Vec::new(), Vec::new());
        // Ancestors of the prefix at hand, with the sets that hold there.
        let mut ancestors: Vec<((bool, u128, u8), Vec<u32>)> = Vec::new();
        for (prefix, named) in prefixes {
            while ancestors
                .last()
                .is_some_and(|(outer, _)| !contains(*outer, prefix))
            {
                ancestors.pop();
            }
            let mut members = ancestors
                .last()
                .map(|(_, sets)| sets.clone())
                .unwrap_or_default();
            members.extend(named);
            members.sort_unstable();
            members.dedup();
            if ancestors.last().is_some_and(|(_, sets)| *sets == members) {
                // Nothing that the prefix around it does not say.
                continue;
            }
            let class = *known.entry(members.clone()).or_insert_with(|| {
                classes.push(members.clone());
                u32::try_from(classes.len() - 1).unwrap_or(Leaf::VALUE)
            });
            let (v6, address, length) = prefix;
            let within = |address| Prefix {
                address,
                length: u32::from(length),
                class,
            };
            match (v6, length) {
                (true, 128) => hosts.push((address, class)),
                (true, _) => six.push(within(address)),
                (false, _) => four.push(within(address << 96)),
            }
            ancestors.push((prefix, members));
        }
        let (table, left) = hosts::place(&hosts);
        six.extend(left.iter().map(|&(address, class)| Prefix {
            address,
            length: 128,
            class,
        }));
        six.sort_unstable();
        let addresses: Vec<u128> = hosts.iter().map(|(address, _)| *address).collect();
        let mut tree = Tree::default();
        let root4 = tree.root(&four);
        let Nets {
            root: root6,
            table: nets,
            filter,
            has_any: has_nets,
        } = nets::place(&mut tree, &six, &addresses).ok_or(TooLarge::Networks)?;
        let (blocks, steps) = tree.finish();
        Ok(Self {
            root4,
            root6,
            blocks,
            steps,
            hosts: table,
            has_hosts: !hosts.is_empty(),
            nets,
            has_nets,
            filter,
            members: classes,
        })
    }
}

/// Family, first address and length: IPv4 addresses in the low 32 bits.
fn key(net: &IpNet) -> (bool, u128, u8) {
    match net {
        IpNet::V4(net) => (false, u128::from(net.network().to_bits()), net.prefix_len()),
        IpNet::V6(net) => (true, net.network().to_bits(), net.prefix_len()),
    }
}

fn contains(outer: (bool, u128, u8), inner: (bool, u128, u8)) -> bool {
    let width = if outer.0 { 128 } else { 32 };
    let host_bits = width - u32::from(outer.2);
    outer.0 == inner.0
        && outer.2 <= inner.2
        && (host_bits == 128 || outer.1 >> host_bits == inner.1 >> host_bits)
}
