//! The flow table from user space: seeding what the host has open, and saying how full the table is.
//!
//! Only the egress program and this file write it. Both store whole sets or whole cells; a cell that is lost to a race is
//! written again by the next packet of its flow.

use std::borrow::{Borrow, BorrowMut};
use std::{fmt, iter};

use anyhow::Context as _;
use aya::maps::{Array, MapData};
use nix::time::{ClockId, clock_getres, clock_gettime};
use portguard_common::abi::{Config, Set};
use portguard_common::conntrack::{self as flow, Place, Tuple};

/// Units of time that a seeded flow is older than it might be. The clock of user space and the kernel's ticks may differ by
/// a few of them, and a flow from the future would be no flow.
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
pub fn now(tick_shift: u32) -> anyhow::Result<u64> {
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
    facts: Config,
}

/// What a flow's insertion did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inserted {
    /// It was there.
    Known,
    /// It has a cell that was empty or of a dead flow.
    New,
    /// It has the cell of a flow that may still have been alive: the set was full.
    Evicted,
}

/// How full the table is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Occupancy {
    /// Cells there are.
    pub capacity: u64,
    /// Flows refreshed within the longer of the two timeouts; cells do not say which of them is theirs.
    pub live: u64,
    /// Cells of flows that are dead by either.
    pub stale: u64,
    /// Sets of live flows only: a new flow evicts one there.
    pub full_sets: u64,
    /// Live flows by age: refreshed within the last minute, ten minutes, hour, and longer ago.
    pub ages: [u64; 4],
}

impl<T> Flows<T> {
    /// From the map `FLOWS`, and the facts that its programs were loaded with.
    pub const fn new(sets: Array<T, Set>, facts: Config) -> Self {
        Self { sets, facts }
    }
}

impl<T: Borrow<MapData>> Flows<T> {
    /// Seconds since a conversation was last refreshed, if the data plane would take a packet of it for a reply.
    ///
    /// # Errors
    /// If the map cannot be read.
    pub fn age(&self, tuple: &Tuple) -> anyhow::Result<Option<u64>> {
        let hashed = tuple.hash(self.facts.flow_key);
        let now = now(self.facts.tick_shift)?;
        let set = self.set(hashed.set & self.facts.flow_mask)?;
        Ok(set.find(hashed.tag).and_then(|cell| {
            let age = age(cell, now);
            flow::is_fresh(age, tuple.space, self.facts.tcp_idle, self.facts.udp_idle)
                .then(|| self.seconds(age))
        }))
    }

    /// Counts the whole table.
    ///
    /// # Errors
    /// If the map cannot be read.
    pub fn occupancy(&self) -> anyhow::Result<Occupancy> {
        let now = now(self.facts.tick_shift)?;
        let idle = u64::from(self.facts.tcp_idle.max(self.facts.udp_idle));
        let mut found = Occupancy::default();
        for index in 0..self.sets.len() {
            let mut live = 0;
            for cell in self.set(index)?.cells {
                found.capacity += 1;
                if cell == 0 {
                    continue;
                }
                let age = age(cell, now);
                if age > idle {
                    found.stale += 1;
                    continue;
                }
                live += 1;
                let [minute, ten, hour, longer] = &mut found.ages;
                *match self.seconds(age) {
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

    fn set(&self, index: u32) -> anyhow::Result<Set> {
        self.sets
            .get(&index, 0)
            .with_context(|| format!("cannot read set {index} of map `FLOWS`"))
    }

    fn seconds(&self, units: u64) -> u64 {
        (units << self.facts.tick_shift) / u64::from(hertz())
    }
}

impl<T: BorrowMut<MapData>> Flows<T> {
    /// Seeds a conversation that the host has open.
    ///
    /// Reads and writes a whole set, so that a flow which the data plane adds in between may be lost until its next packet.
    ///
    /// # Errors
    /// If the map cannot be read or written.
    pub fn insert(&mut self, tuple: &Tuple) -> anyhow::Result<Inserted> {
        let hashed = tuple.hash(self.facts.flow_key);
        let now = now(self.facts.tick_shift)?;
        let index = hashed.set & self.facts.flow_mask;
        let mut set = self.set(index)?;
        let place = set.place(hashed.tag, now);
        let Some(old) = place.replaces() else {
            return Ok(Inserted::Known);
        };
        let ways = iter::once(flow::home(hashed.tag)).chain(0..flow::WAYS);
        let mut free = ways.filter(|way| set.cells.get(*way) == Some(&old));
        if let Some(cell) = free.next().and_then(|way| set.cells.get_mut(way)) {
            *cell = flow::cell(hashed.tag, now.wrapping_sub(MARGIN));
        }
        self.sets
            .set(index, set, 0)
            .with_context(|| format!("cannot write set {index} of map `FLOWS`"))?;
        Ok(match place {
            Place::Fresh | Place::Own(_) => Inserted::Known,
            Place::Taken(_, age) if age <= u64::from(self.facts.tcp_idle) => Inserted::Evicted,
            Place::Empty | Place::Taken(..) => Inserted::New,
        })
    }
}

impl<T> fmt::Debug for Flows<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flows").finish_non_exhaustive()
    }
}

/// As [`flow::age`], for a clock that may be a little behind the one that wrote the cell.
fn age(cell: u64, now: u64) -> u64 {
    flow::age(cell, now.wrapping_add(MARGIN)).saturating_sub(MARGIN)
}
