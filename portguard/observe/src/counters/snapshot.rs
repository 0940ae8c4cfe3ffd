//! Sums over all CPUs at one moment, read from the shared maps.

use std::collections::BTreeMap;
use std::iter;
use std::path::Path;

use aya::maps::{Map, MapData, PerCpuArray, PerCpuHashMap};
use portguard_common::abi::{CELLS_A_CHUNK, CHUNK_KEYS, CHUNKS, Cells, Counter, SLOTS, Violations};
use portguard_common::reason::Reason;
use portguard_common::tables::Key;
use portguard_kernel::error::Context as _;
use serde::{Deserialize, Serialize};

/// Sums over all CPUs at one moment, by number.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Grants by cell number less one.
    pub cells: Vec<Counter>,
    /// Violations by direction (egress = true) and key.
    pub violations: BTreeMap<(bool, Key), u64>,
    /// Violations by direction and reason.
    pub totals: BTreeMap<(bool, Keyed), Counter>,
    /// By slot.
    pub slots: Vec<Counter>,
}

/// The reasons whose totals are kept beside the keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Keyed {
    /// [`Reason::UndocumentedPort`].
    Port,
    /// [`Reason::UndocumentedProtocol`].
    Protocol,
    /// [`Reason::UndocumentedPeer`].
    Peer,
}

impl Keyed {
    pub(super) fn reason(self) -> Reason {
        match self {
            Self::Port => Reason::UndocumentedPort,
            Self::Protocol => Reason::UndocumentedProtocol,
            Self::Peer => Reason::UndocumentedPeer,
        }
    }
}

fn add(sum: &mut Counter, counter: Counter) {
    sum.packets = sum.packets.wrapping_add(counter.packets);
    sum.bytes = sum.bytes.wrapping_add(counter.bytes);
}

fn less(now: Counter, before: Counter) -> Counter {
    Counter {
        packets: now.packets.saturating_sub(before.packets),
        bytes: now.bytes.saturating_sub(before.bytes),
    }
}

fn open(directory: &Path, name: &str) -> portguard_kernel::Result<MapData> {
    let path = directory.join(name);
    MapData::from_pin(&path).with_context(|| format!("cannot read `{}`", path.display()))
}

impl Snapshot {
    /// Reads the shared maps pinned in `shared`; `cells` is how many cells were given out.
    ///
    /// # Errors
    /// If a map is missing or cannot be read.
    pub fn read(shared: &Path, cells: usize) -> portguard_kernel::Result<Self> {
        let mut snapshot = Self {
            cells: vec![Counter::default(); cells],
            ..Self::default()
        };
        snapshot.read_cells(shared)?;
        snapshot.read_violations(shared)?;
        let slots: PerCpuArray<_, Counter> = Map::PerCpuArray(open(shared, "SLOTS")?).try_into()?;
        for index in 0..SLOTS {
            let mut sum = Counter::default();
            slots
                .get(&index, 0)?
                .iter()
                .for_each(|share| add(&mut sum, *share));
            snapshot.slots.push(sum);
        }
        Ok(snapshot)
    }

    /// What was counted since an earlier snapshot of the same maps.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let each = |now: &[Counter], before: &[Counter]| {
            let before = before
                .iter()
                .copied()
                .chain(iter::repeat(Counter::default()));
            now.iter()
                .zip(before)
                .map(|(now, before)| less(*now, before))
                .collect()
        };
        Self {
            cells: each(&self.cells, &earlier.cells),
            violations: self
                .violations
                .iter()
                .map(|(place, now)| {
                    let before = earlier.violations.get(place).copied().unwrap_or(0);
                    (*place, now.saturating_sub(before))
                })
                .filter(|(_, count)| *count > 0)
                .collect(),
            totals: self
                .totals
                .iter()
                .map(|(place, now)| {
                    let before = earlier.totals.get(place).copied().unwrap_or_default();
                    (*place, less(*now, before))
                })
                .collect(),
            slots: each(&self.slots, &earlier.slots),
        }
    }

    /// One slot.
    pub fn slot(&self, index: u32) -> Counter {
        self.slots.get(index as usize).copied().unwrap_or_default()
    }

    fn read_cells(&mut self, shared: &Path) -> portguard_kernel::Result<()> {
        let map: PerCpuArray<_, Cells> = Map::PerCpuArray(open(shared, "CELLS")?).try_into()?;
        // Cell 0 is nobody's, so that number `n` stands at index `n - 1` here.
        let last = u32::try_from(self.cells.len())?;
        for chunk in 0..=last / CELLS_A_CHUNK {
            for share in map.get(&chunk, 0)?.iter() {
                let first = (chunk * CELLS_A_CHUNK) as usize;
                for (counter, number) in share
                    .cells
                    .iter()
                    .zip(first..)
                    .filter(|(_, number)| *number > 0)
                {
                    if let Some(sum) = self.cells.get_mut(number - 1) {
                        add(sum, *counter);
                    }
                }
            }
        }
        Ok(())
    }

    fn read_violations(&mut self, shared: &Path) -> portguard_kernel::Result<()> {
        let map: PerCpuArray<_, Violations> =
            Map::PerCpuArray(open(shared, "VIOLATIONS")?).try_into()?;
        for index in 0..2 * CHUNKS {
            let (egress, chunk) = (index >= CHUNKS, index % CHUNKS);
            let first = chunk * CHUNK_KEYS;
            let closed = if first >= 3 << 16 {
                Keyed::Protocol
            } else {
                Keyed::Port
            };
            for share in map.get(&index, 0)?.iter() {
                add(
                    self.totals.entry((egress, closed)).or_default(),
                    share.closed,
                );
                add(
                    self.totals.entry((egress, Keyed::Peer)).or_default(),
                    share.peer,
                );
                // Nearly all of them: what counts by key counts here first.
                if share.closed.packets == 0 && share.peer.packets == 0 {
                    continue;
                }
                for (count, key) in share
                    .counts
                    .iter()
                    .zip(first..)
                    .filter(|(count, _)| **count > 0)
                {
                    *self.violations.entry((egress, Key(key))).or_default() += u64::from(*count);
                }
            }
        }
        let carry: PerCpuHashMap<_, u32, u64> =
            Map::PerCpuHashMap(open(shared, "CARRY")?).try_into()?;
        for item in &carry {
            let (key, wraps) = item?;
            let place = (key >= Key::COUNT, Key(key % Key::COUNT));
            let wraps: u64 = wraps.iter().sum();
            *self.violations.entry(place).or_default() += wraps << 32;
        }
        Ok(())
    }
}
