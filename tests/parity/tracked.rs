//! The host's own flow table: an image with what the egress program would have written by now.

use portguard_common::abi::{Config, Set};
use portguard_common::addr::Addr;
use portguard_common::conntrack as flow;
use portguard_common::packet::{Packet, Shape, Subject as _};
use portguard_common::reason::{Direction, Reason};
use portguard_common::tables::{Entry, Host6, Key, Leaf, Rule, Step, Tables};
use portguard_common::verdict::{self, Verdict};
use portguard_policy::image::Image;

/// An image and its flows. Time stands still: no test is as long as a flow lives.
pub(super) struct Tracked<'a> {
    image: &'a Image,
    facts: Config,
    sets: Vec<Set>,
    /// Flows that were new.
    pub(super) created: u64,
}

impl<'a> Tracked<'a> {
    /// With the facts that the program was loaded with.
    pub(super) fn new(image: &'a Image, facts: Config) -> Self {
        Self {
            image,
            facts,
            sets: vec![Set::default(); facts.flow_mask as usize + 1],
            created: 0,
        }
    }

    /// What the egress program does with a packet that it lets go, in the words of the specification: whatever leaves and is
    /// no answer opens or refreshes a conversation.
    pub(super) fn remember(&mut self, packet: &Packet, verdict: &Verdict) {
        let is_said_unasked = matches!(packet.shape, Shape::Ports)
            && !matches!(verdict.reason, Reason::Reply | Reason::Transit)
            && !packet.is_answering();
        if self.facts.flows == 0 || !is_said_unasked {
            return;
        }
        let hashed = verdict::tuple(packet, Direction::Egress).hash(self.facts.flow_key);
        let set = &mut self.sets[(hashed.set & self.facts.flow_mask) as usize];
        if set.find(hashed.tag).is_some() {
            return;
        }
        self.created += 1;
        let cell = set
            .cells
            .iter_mut()
            .find(|cell| **cell == 0)
            .expect("fewer flows than would fill a set");
        *cell = flow::cell(hashed.tag, 0);
    }
}

impl Tables for Tracked<'_> {
    fn config(&self) -> &Config {
        &self.facts
    }

    fn entry(&self, direction: Direction, key: Key) -> Entry {
        self.image.entry(direction, key)
    }

    fn rule(&self, index: u16) -> Rule {
        self.image.rule(index)
    }

    fn admit(&self, index: u32) -> u32 {
        self.image.admit(index)
    }

    fn root4(&self, index: u16) -> Leaf {
        self.image.root4(index)
    }

    fn root6(&self, index: u16) -> Leaf {
        self.image.root6(index)
    }

    fn step(&self, index: u32) -> Option<&Step> {
        self.image.step(index)
    }

    fn block(&self, block: u32, index: u8) -> Leaf {
        self.image.block(block, index)
    }

    fn host6(&self, cell: u32) -> Host6 {
        self.image.host6(cell)
    }

    fn own(&self, address: Addr) -> bool {
        self.image.own(address)
    }

    fn flow_set(&self, index: u32) -> Option<&Set> {
        self.sets.get(index as usize)
    }

    fn jiffies(&self) -> u64 {
        0
    }
}
