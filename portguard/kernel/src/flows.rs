//! The table of the host's conversations, read: whether one is known, and how full the table is.

use std::borrow::Borrow;
use std::collections::BTreeSet;
use std::fmt;

use aya::maps::{Array, HashMap, MapData};
use nix::time::{ClockId, clock_getres, clock_gettime};
use portguard_common::abi::{Config, Set};
use portguard_common::conntrack::{self as flow, Class, Hashed, Tuple};

use crate::error::Context as _;

/// Units of time by which the clock of user space and the kernel's ticks may differ.
const MARGIN: u64 = 8;

/// Ticks of the kernel in a second: the resolution of its coarse clock is one tick.
pub fn hertz() -> u32 {
    let tick = clock_getres(ClockId::CLOCK_MONOTONIC_COARSE)
        .map_or(4_000_000, |resolution| resolution.tv_nsec())
        .max(1);
    // Rounded: a tick of 3,333,333 ns is one of 300 a second.
    u32::try_from((1_000_000_000 + tick / 2) / tick).unwrap_or(250)
}

/// The time as cells have it, within a few units.
///
/// The kernel's ticks follow the monotonic clock, and start five minutes before their low word overflows.
///
/// # Errors
/// If there is no such clock.
pub fn now(tick_shift: u32) -> crate::Result<u64> {
    let hertz = u128::from(hertz());
    let clock = clock_gettime(ClockId::CLOCK_MONOTONIC).context("cannot read the clock")?;
    let nanoseconds = u128::try_from(clock.tv_sec()).unwrap_or(0) * 1_000_000_000
        + u128::try_from(clock.tv_nsec()).unwrap_or(0);
    let ticks = (1 << 32) - 300 * hertz + nanoseconds * hertz / 1_000_000_000;
    Ok(flow::now(
        u64::try_from(ticks).unwrap_or(u64::MAX),
        tick_shift,
    ))
}

/// Seconds as cells count them, rounded down.
pub fn units(seconds: u32, tick_shift: u32) -> u32 {
    u32::try_from((u64::from(seconds) * u64::from(hertz())) >> tick_shift).unwrap_or(u32::MAX)
}

/// The flow table of one interface.
pub struct Flows<T> {
    sets: Array<T, Set>,
    spilled: Option<HashMap<T, u64, u64>>,
    facts: Config,
}

/// How full the table is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Occupancy {
    /// Cells there are.
    pub capacity: u64,
    /// Conversations that live.
    pub live: u64,
    /// Of them, TCP connections that a socket of this host has.
    pub sockets: u64,
    /// Of them, connections that closed a moment ago.
    pub closing: u64,
    /// Cells of conversations that are over.
    pub stale: u64,
    /// Sets of live conversations only.
    pub full_sets: u64,
    /// Sets that had no room for one: it is in the overflow table.
    pub spilled_sets: u64,
    /// Live conversations by age: begun (those of sockets) or refreshed within the last minute, ten minutes, hour, and longer ago.
    pub ages: [u64; 4],
}

impl<T> Flows<T> {
    /// From the map `FLOWS`, and the facts that its programs were loaded with: key, clock, size and lifetimes.
    pub const fn new(sets: Array<T, Set>, facts: Config) -> Self {
        Self {
            sets,
            spilled: None,
            facts,
        }
    }

    /// With the overflow table, too.
    #[must_use]
    pub fn with_spilled(self, spilled: HashMap<T, u64, u64>) -> Self {
        Self {
            spilled: Some(spilled),
            ..self
        }
    }
}

impl<T: Borrow<MapData>> Flows<T> {
    /// Seconds since a conversation was last refreshed, if the data plane would take a packet of it for a reply.
    ///
    /// # Errors
    /// If the map cannot be read.
    pub fn age(&self, tuple: &Tuple) -> crate::Result<Option<u64>> {
        let now = now(self.facts.tick_shift)?;
        let found = self.find(tuple.hash(self.facts.flow_key))?;
        Ok(found
            .filter(|cell| self.is_live(*cell, now))
            .map(|cell| self.seconds(age(cell, now))))
    }

    /// Whether packets of a conversation are replies, or will be as soon as the host says more.
    pub(crate) fn is_known(&self, tuple: &Tuple) -> crate::Result<bool> {
        let now = now(self.facts.tick_shift)?;
        let found = self.find(tuple.hash(self.facts.flow_key))?;
        Ok(found.is_some_and(|cell| {
            self.is_live(cell, now) || matches!(Class::of(cell), Class::Packets)
        }))
    }

    /// Of a table of what other ends began: sets and tags of what lives, but for what this host said first.
    ///
    /// # Errors
    /// If the map cannot be read.
    pub(crate) fn begun(&self) -> crate::Result<BTreeSet<(u32, u64)>> {
        let now = now(self.facts.tick_shift)?;
        let mut found = BTreeSet::new();
        for index in 0..self.sets.len() {
            let cells = self.set(index)?.cells.into_iter();
            let live = cells.filter(|cell| {
                *cell != 0
                    && !matches!(Class::of(*cell), Class::Closing)
                    && self.is_live(*cell, now)
            });
            found.extend(live.map(|cell| (index, flow::tag(cell))));
        }
        Ok(found)
    }

    /// What its programs were loaded with.
    pub(crate) const fn facts(&self) -> &Config {
        &self.facts
    }

    fn find(&self, hashed: Hashed) -> crate::Result<Option<u64>> {
        let set = self.set(hashed.set & self.facts.flow_mask)?;
        Ok(match set.find(hashed.tag) {
            None if set.spilled != 0 => self
                .spilled
                .as_ref()
                .and_then(|spilled| spilled.get(&hashed.key(), 0).ok()),
            found => found,
        })
    }

    fn is_live(&self, cell: u64, now: u64) -> bool {
        flow::is_live(cell, self.facts.lifetimes(), || {
            cell.wrapping_add(age(cell, now))
        })
    }

    /// Counts the whole table.
    ///
    /// # Errors
    /// If the map cannot be read.
    pub fn occupancy(&self) -> crate::Result<Occupancy> {
        self.occupancy_of(1)
    }

    /// Counts every so-manieth set.
    ///
    /// # Errors
    /// If the map cannot be read.
    pub(crate) fn occupancy_of(&self, every: usize) -> crate::Result<Occupancy> {
        let now = now(self.facts.tick_shift)?;
        let mut found = Occupancy::default();
        for index in (0..self.sets.len()).step_by(every.max(1)) {
            let mut live = 0;
            let set = self.set(index)?;
            found.spilled_sets += u64::from(set.spilled != 0);
            for cell in set.cells {
                found.capacity += 1;
                if cell == 0 {
                    continue;
                }
                if !self.is_live(cell, now) {
                    found.stale += 1;
                    continue;
                }
                live += 1;
                match Class::of(cell) {
                    Class::Socket => found.sockets += 1,
                    Class::Closing => found.closing += 1,
                    Class::Datagrams
                    | Class::Forwarded
                    | Class::Opening
                    | Class::Packets
                    | Class::HalfClosed => {}
                }
                let [minute, ten, hour, longer] = &mut found.ages;
                *match self.seconds(age(cell, now)) {
                    0..60 => minute,
                    60..600 => ten,
                    600..3600 => hour,
                    _ => longer,
                } += 1;
            }
            found.live += live;
            found.full_sets += u64::from(live == flow::WAYS as u64);
        }
        Ok(found)
    }

    fn set(&self, index: u32) -> crate::Result<Set> {
        self.sets
            .get(&index, 0)
            .with_context(|| format!("cannot read set {index} of map `FLOWS`"))
    }

    fn seconds(&self, units: u64) -> u64 {
        (units << self.facts.tick_shift) / u64::from(hertz())
    }
}

impl<T> fmt::Debug for Flows<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flows").finish_non_exhaustive()
    }
}

/// As [`flow::age`], for a clock that may be a little behind the one that wrote the cell.
pub(crate) fn age(cell: u64, now: u64) -> u64 {
    flow::age(cell, now.wrapping_add(MARGIN)).saturating_sub(MARGIN)
}
