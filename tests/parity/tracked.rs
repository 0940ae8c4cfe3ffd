//! The host's own tables of conversations: an image with what the programs would have written by now.

use std::cell::RefCell;

use portguard_common::abi::{Config, Set};
use portguard_common::addr::Addr;
use portguard_common::conntrack::{self as flow, Class, Hashed, Tuple};
use portguard_common::packet::Packet;
use portguard_common::question;
use portguard_common::reason::Direction;
use portguard_common::tables::{Ending, Entry, Host6, Key, Leaf, Net6, Rule, Step, Tables};
use portguard_common::track::{self, Conversations, Opening, Sender, Theirs};
use portguard_common::verdict::Verdict;
use portguard_policy::image::Image;

/// An image and its conversations. Time stands still: no test is as long as one lives.
pub(super) struct Tracked<'a> {
    image: &'a Image,
    facts: Config,
    sets: Vec<Set>,
    theirs: Vec<Set>,
    /// What is to be written once the packet at hand is done with.
    pending: RefCell<Vec<Write>>,
    /// Conversations that were new.
    pub(super) created: u64,
}

struct Write {
    is_theirs: bool,
    set: usize,
    own: Option<u64>,
    cell: u64,
}

impl<'a> Tracked<'a> {
    /// With the facts that the program was loaded with.
    pub(super) fn new(image: &'a Image, facts: Config) -> Self {
        let sets = vec![Set::default(); facts.flow_mask as usize + 1];
        Self {
            image,
            facts,
            theirs: sets.clone(),
            sets,
            pending: RefCell::default(),
            created: 0,
        }
    }

    /// What the egress program does with a packet that it lets go.
    pub(super) fn sent(&mut self, packet: &Packet, verdict: &Verdict, frame: &[u8]) {
        let sender = Packets {
            tables: self,
            frame,
        };
        track::sent(self, packet, verdict.reason, &sender);
        self.apply();
    }

    /// What the ingress program does with one that it lets in.
    pub(super) fn received(&mut self, packet: &Packet, verdict: &Verdict) {
        track::received(self, packet, verdict.reason);
        self.apply();
    }

    fn apply(&mut self) {
        for write in self.pending.take() {
            let sets = if write.is_theirs {
                &mut self.theirs
            } else {
                self.created += u64::from(write.own.is_none());
                &mut self.sets
            };
            let old = write.own.unwrap_or(0);
            let cells = &mut sets[write.set].cells;
            let cell = cells.iter_mut().find(|cell| **cell == old);
            *cell.expect("fewer flows than would fill a set") = write.cell;
        }
    }

    fn index(&self, hashed: Hashed) -> usize {
        (hashed.set & self.facts.flow_mask) as usize
    }

    fn write(&self, is_theirs: bool, hashed: Hashed, own: Option<u64>, class: Class) {
        self.pending.borrow_mut().push(Write {
            is_theirs,
            set: self.index(hashed),
            own,
            cell: flow::cell(hashed.tag, class, 0),
        });
    }
}

/// Packets that no socket sends: the port says whether the kernel picked it.
struct Packets<'a> {
    tables: &'a Tracked<'a>,
    frame: &'a [u8],
}

impl Sender for Packets<'_> {
    fn is_forwarded(&self) -> bool {
        false
    }

    fn may_end(&self, is_reset: bool) -> bool {
        !is_reset
    }

    fn goes_on(&self, hashed: Hashed, own: u64) {
        track::goes_on(self.tables, hashed, own, self);
    }

    fn is_finishing(&self) -> bool {
        false
    }

    fn is_followed(&self) -> bool {
        false
    }

    fn opens(&self, opening: &Opening) {
        track::opens(self.tables, opening, self);
    }

    fn is_foreign(&self, _tuple: &Tuple) -> bool {
        // The destination's group bit.
        self.frame.first().is_some_and(|first| first & 1 != 0)
    }

    fn tracked(&self) -> u32 {
        track::tracked::NO
    }

    fn owner(&self, _tuple: &Tuple) -> u32 {
        0
    }

    fn note_service(&self, _tuple: &Tuple) {}

    fn is_question(&self, tuple: &Tuple) -> bool {
        /// Where this hook's test run takes the IP header to be, tagged or not.
        const NETWORK: usize = 14;
        question::asks(tuple.space, tuple.remote_port, tuple.local.v6, |at| {
            let bytes = self.frame.get(NETWORK + at as usize..);
            let bytes = bytes.and_then(<[u8]>::first_chunk);
            bytes.map_or(0, |bytes| u64::from_be_bytes(*bytes))
        })
    }
}

impl Theirs for Tracked<'_> {
    fn theirs(&self, hashed: Hashed) -> Option<u64> {
        self.theirs[self.index(hashed)].find(hashed.tag)
    }

    fn write_theirs(&self, hashed: Hashed, own: Option<u64>) {
        self.write(true, hashed, own, Class::Datagrams);
    }

    fn write_first(&self, hashed: Hashed, own: Option<u64>) {
        self.write(true, hashed, own, Class::Closing);
    }

    fn mark_asked(&self, hashed: Hashed, own: u64) {
        self.write(true, hashed, Some(own), Class::Forwarded);
    }
}

impl Conversations for Tracked<'_> {
    fn renew(&self, hashed: Hashed, own: u64, class: Class) {
        self.write(false, hashed, Some(own), class);
    }

    fn begin(&self, hashed: Hashed, class: Class) {
        self.write(false, hashed, None, class);
    }

    fn note_theirs(&self, hashed: Hashed) -> bool {
        track::note(self, hashed)
    }

    fn end_closed(&self, hashed: Hashed) {
        if let Some(cell) = track::closed(self, hashed) {
            self.pending.borrow_mut().push(Write {
                is_theirs: false,
                set: self.index(hashed),
                own: Some(cell),
                cell: 0,
            });
        }
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

    fn ending(&self, cell: u32) -> Ending {
        self.image.ending(cell)
    }

    fn wall_time(&self) -> u64 {
        self.image.wall_time()
    }

    fn root4(&self, index: u16) -> Leaf {
        self.image.root4(index)
    }

    fn root6(&self, index: u16) -> Leaf {
        self.image.root6(index)
    }

    fn filter6(&self, word: u32) -> u64 {
        self.image.filter6(word)
    }

    fn net6(&self, cell: u32) -> Net6 {
        self.image.net6(cell)
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

    fn is_forwarded(&self, direction: Direction, source: Addr, destination: Addr) -> bool {
        self.image.is_forwarded(direction, source, destination)
    }

    fn flow_set(&self, index: u32) -> Option<&Set> {
        self.sets.get(index as usize)
    }

    fn spilled(&self, _key: u64) -> Option<u64> {
        None
    }

    fn jiffies(&self) -> u64 {
        0
    }
}
