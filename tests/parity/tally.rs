//! All counters: as the kernel has them, and as the host says that they should be.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "all other reasons count in a slot"
)]

use std::collections::BTreeMap;

use aya::maps::{Map, MapData, PerCpuArray, PerCpuHashMap};
use portguard_common::abi::{
    CELLS_A_CHUNK, CHUNK_KEYS, CHUNKS, Cells, Counter, MAX_CELLS, SLOTS, Violations, slot,
};
use portguard_common::config::Config;
use portguard_common::packet::Packet;
use portguard_common::reason::{Direction, Reason};
use portguard_common::verdict::{self, Verdict};
use portguard_kernel::object::Loaded;
use portguard_policy::image::Image;

use super::pieces;

/// Sums over all CPUs, by where they stand.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Tally {
    /// What is not zero: packets and bytes; counts of violations have no bytes.
    counters: BTreeMap<Place, (u64, u64)>,
}

/// Where a counter stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    Cell(u32),
    Slot(u32),
    /// Chunk over both directions.
    Closed(u32),
    Peer(u32),
    /// Chunk and index within.
    Violation(u32, u32),
}

impl Tally {
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// Counts a frame that arrives where the contract says.
    pub(super) fn add(&mut self, packet: &Packet, verdict: &Verdict) {
        self.add_to(Direction::Ingress, packet, verdict);
    }

    /// Counts a frame of a direction where the contract says.
    pub(super) fn add_to(&mut self, direction: Direction, packet: &Packet, verdict: &Verdict) {
        let bytes = packet.length as u64;
        match verdict.reason {
            Reason::Granted => self.count(Place::Cell(u32::from(verdict.cell)), bytes),
            Reason::UndocumentedPort | Reason::UndocumentedProtocol | Reason::UndocumentedPeer => {
                let key = verdict.key.0;
                let chunk = direction as u32 * CHUNKS + key / CHUNK_KEYS;
                let index = key % CHUNK_KEYS;
                self.count(Place::Violation(chunk, index), 0);
                if verdict.reason == Reason::UndocumentedPeer {
                    self.count(Place::Peer(chunk), bytes);
                } else {
                    self.count(Place::Closed(chunk), bytes);
                }
            }
            reason => {
                if matches!(reason, Reason::NonIp | Reason::StrictEthertype) {
                    self.count(
                        Place::Slot(slot::ethertype(direction, packet.ethertype)),
                        bytes,
                    );
                }
                if let Some(cause) = verdict.cause {
                    self.count(Place::Slot(slot::malformed(direction, cause)), bytes);
                }
                self.count(Place::Slot(slot::reason(direction, reason)), bytes);
            }
        }
    }

    /// Counts the frame by which a runner finds out what the kernel can do.
    pub(super) fn add_probe(&mut self, image: &Image, config: &Config) {
        let (packet, _) = pieces::parse(&[0; 64], 32, config);
        self.add(&packet, &verdict::ingress(image, &packet));
    }

    fn count(&mut self, place: Place, bytes: u64) {
        self.put(place, 1, bytes);
    }

    fn put(&mut self, place: Place, packets: u64, bytes: u64) {
        if packets != 0 || bytes != 0 {
            let sum = self.counters.entry(place).or_default();
            sum.0 += packets;
            sum.1 += bytes;
        }
    }

    /// What the kernel has counted.
    pub(super) fn read(loaded: &Loaded) -> Self {
        let mut this = Self::default();
        let cells: PerCpuArray<&MapData, Cells> = map(loaded, "CELLS");
        for chunk in 0..MAX_CELLS / CELLS_A_CHUNK {
            for cpu in cells.get(&chunk, 0).expect("a chunk of cells").iter() {
                for (Counter { packets, bytes }, index) in cpu.cells.iter().zip(0..) {
                    this.put(Place::Cell(chunk * CELLS_A_CHUNK + index), *packets, *bytes);
                }
            }
        }
        let violations: PerCpuArray<&MapData, Violations> = map(loaded, "VIOLATIONS");
        for chunk in 0..2 * CHUNKS {
            for cpu in violations
                .get(&chunk, 0)
                .expect("a chunk of violations")
                .iter()
            {
                this.put(Place::Closed(chunk), cpu.closed.packets, cpu.closed.bytes);
                this.put(Place::Peer(chunk), cpu.peer.packets, cpu.peer.bytes);
                for (count, index) in cpu.counts.iter().zip(0..) {
                    this.put(Place::Violation(chunk, index), u64::from(*count), 0);
                }
            }
        }
        let slots: PerCpuArray<&MapData, Counter> = map(loaded, "SLOTS");
        for index in 0..SLOTS {
            for Counter { packets, bytes } in slots.get(&index, 0).expect("a slot").iter() {
                this.put(Place::Slot(index), *packets, *bytes);
            }
        }
        let carry: PerCpuHashMap<&MapData, u32, u64> = map(loaded, "CARRY");
        assert_eq!(carry.keys().count(), 0, "no count has wrapped");
        this
    }

    /// Leaves out what the flow table says of itself.
    pub(super) fn forget_flows(&mut self) {
        for slot in [slot::FLOWS_CREATED, slot::FLOWS_EVICTED] {
            self.counters.remove(&Place::Slot(slot));
        }
    }

    /// Fails with the places that differ.
    #[track_caller]
    pub(super) fn expect_same(&self, other: &Self) {
        let places = self.counters.keys().chain(other.counters.keys());
        let mut wrong: Vec<_> = places
            .map(|place| (place, self.counters.get(place), other.counters.get(place)))
            .filter(|(_, ours, theirs)| ours != theirs)
            .collect();
        wrong.dedup();
        assert!(
            wrong.is_empty(),
            "place, got, want: {:?}",
            &wrong[..wrong.len().min(20)]
        );
    }
}

fn map<'a, T: TryFrom<&'a Map>>(loaded: &'a Loaded, name: &str) -> T
where
    T::Error: std::fmt::Debug,
{
    let map = loaded.map(name).expect("the object has the map");
    T::try_from(map).expect("of this type")
}
