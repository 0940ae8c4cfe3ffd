//! Address classes: which sets an address is in, as one small number, found by strides.

use std::collections::BTreeMap;

use ipnet::IpNet;
use portguard_common::abi::Block;
use portguard_common::tables::{Host6, Leaf};

use super::hosts;
use super::share::share;
use crate::policy::PeerSet;

/// The address tables, and which sets each class is in.
pub(super) struct Classes {
    pub(super) root4: Vec<u32>,
    pub(super) root6: Vec<u32>,
    pub(super) blocks: Vec<Block>,
    pub(super) hosts: Vec<Host6>,
    pub(super) has_hosts: bool,
    /// By class: the sets that its addresses are in, sorted. Class 0 is in none.
    pub(super) members: Vec<Vec<u32>>,
}

impl Classes {
    /// Classifies all addresses by the sets that they are in.
    pub(super) fn build(sets: &[PeerSet]) -> Self {
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
        let mut this = Self {
            root4: vec![0; 65_536],
            root6: vec![0; 65_536],
            blocks: Vec::new(),
            hosts: vec![Host6::default()],
            has_hosts: false,
            members: vec![Vec::new()],
        };
        let mut known: BTreeMap<Vec<u32>, u32> = BTreeMap::from([(Vec::new(), 0)]);
        let mut hosts = Vec::new();
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
            let class = *known.entry(members.clone()).or_insert_with(|| {
                this.members.push(members.clone());
                u32::try_from(this.members.len() - 1).unwrap_or(Leaf::VALUE)
            });
            let (v6, address, length) = prefix;
            match (v6, length) {
                (true, 128) => hosts.push((address, class)),
                (true, _) => this.paint(true, address, length, class),
                (false, _) => this.paint(false, address << 96, length, class),
            }
            ancestors.push((prefix, members));
        }
        this.has_hosts = !hosts.is_empty();
        let (table, left) = hosts::place(&hosts);
        this.hosts = table;
        for (address, class) in left {
            this.paint(true, address, 128, class);
        }
        let blocks = std::mem::take(&mut this.blocks);
        this.blocks = share([&mut this.root4, &mut this.root6], blocks);
        if this.blocks.is_empty() {
            this.blocks.push(Block { leaves: [0; 256] });
        }
        this
    }

    /// Gives all addresses of a prefix a class; longer prefixes within it come later and paint over it.
    ///
    /// `address` is left-aligned in 128 bits for both families.
    fn paint(&mut self, v6: bool, address: u128, length: u8, class: u32) {
        let mut at = Place::Root(v6, (address >> 112) as usize);
        let mut bits = 16u8;
        while length > bits {
            let word = self.word(at);
            let block = if word & Leaf::BLOCK != 0 {
                word & Leaf::VALUE
            } else {
                self.blocks.push(Block {
                    leaves: [word; 256],
                });
                let block = u32::try_from(self.blocks.len() - 1).unwrap_or(Leaf::VALUE);
                self.set(at, Leaf::BLOCK | block);
                block
            };
            bits += 8;
            at = Place::Block(
                block as usize,
                (address >> (128 - u32::from(bits)) & 0xff) as usize,
            );
        }
        for step in 0..1usize << (bits - length) {
            let place = match at {
                Place::Root(v6, index) => Place::Root(v6, index + step),
                Place::Block(block, index) => Place::Block(block, index + step),
            };
            self.set(place, class);
        }
    }

    fn word(&self, place: Place) -> u32 {
        match place {
            Place::Root(false, index) => self.root4.get(index),
            Place::Root(true, index) => self.root6.get(index),
            Place::Block(block, index) => self.blocks.get(block).and_then(|b| b.leaves.get(index)),
        }
        .copied()
        .unwrap_or(0)
    }

    fn set(&mut self, place: Place, value: u32) {
        let word = match place {
            Place::Root(false, index) => self.root4.get_mut(index),
            Place::Root(true, index) => self.root6.get_mut(index),
            Place::Block(block, index) => self
                .blocks
                .get_mut(block)
                .and_then(|b| b.leaves.get_mut(index)),
        };
        if let Some(word) = word {
            *word = value;
        }
    }
}

#[derive(Clone, Copy)]
enum Place {
    Root(bool, usize),
    Block(usize, usize),
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
