//! What the tables hold, from user space.

use std::collections::BTreeSet;

use aya::maps::{Array, HashMap, Map, MapData, PerCpuArray};
use portguard_common::abi::namespace::{counter, word};
use portguard_common::abi::{Config, Set};
use portguard_common::conntrack::{Class, Hashed};

use super::Namespace;
use super::adopt::tuple;
use crate::error::Context as _;
use crate::flows::{self, Flows};
use crate::host::sessions::Known;
use crate::host::sockets::Session;

/// What became of conversations that sockets began, since there is a state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// They were not known before.
    pub created: u64,
    /// They took the cell of another that may have lived, of one that is not TCP.
    pub evicted: u64,
    /// They went to the overflow table.
    pub spilled: u64,
    /// There was no room for them.
    pub lost: u64,
    /// They ended.
    pub ended: u64,
}

/// Both tables, to be asked for one conversation after the other.
#[derive(Debug)]
pub struct Table {
    ours: Flows<MapData>,
    pub(super) theirs: Flows<MapData>,
}

impl Table {
    /// What they have of a session: what can be no reply any more is not there.
    pub fn known(&self, session: &Session) -> Known {
        let tuple = tuple(session);
        let is_theirs = || self.theirs.age(&tuple).is_ok_and(|age| age.is_some());
        if self.ours.is_known(&tuple).unwrap_or(false) {
            Known::Ours
        } else if is_theirs() {
            Known::Theirs
        } else {
            Known::Not
        }
    }

    /// What other ends began, as it is now.
    ///
    /// # Errors
    /// If the table cannot be read.
    pub fn theirs(&self) -> crate::Result<Begun> {
        Ok(Begun {
            facts: *self.theirs.facts(),
            cells: self.theirs.begun()?,
        })
    }
}

/// Conversations that other ends began: all of them at once, to be asked for many.
#[derive(Debug)]
pub struct Begun {
    facts: Config,
    /// Sets and tags.
    cells: BTreeSet<(u32, u64)>,
}

impl Begun {
    /// Whether a session is among them.
    pub fn has(&self, session: &Session) -> bool {
        let Hashed { set, tag } = tuple(session).hash(self.facts.flow_key);
        self.cells.contains(&(set & self.facts.flow_mask, tag))
    }
}

impl Namespace {
    /// Opens the tables.
    ///
    /// # Errors
    /// If they cannot be opened.
    pub fn table(&self) -> crate::Result<Table> {
        let number = |index| u32::try_from(self.word(index)).unwrap_or(u32::MAX);
        let facts = Config {
            flow_key: self.key(),
            flow_mask: number(word::MASK),
            tick_shift: self.tick_shift(),
            tcp_idle: number(word::TCP_IDLE),
            udp_idle: number(word::UDP_IDLE),
            ..Config::default()
        };
        Ok(Table {
            ours: Flows::new(self.flows()?, facts).with_spilled(self.spilled()?),
            theirs: Flows::new(self.sets_of("THEIRS")?, facts),
        })
    }

    /// The map of the host's conversations.
    ///
    /// # Errors
    /// If it cannot be opened.
    pub fn flows(&self) -> crate::Result<Array<MapData, Set>> {
        self.sets_of("FLOWS")
    }

    fn sets_of(&self, name: &str) -> crate::Result<Array<MapData, Set>> {
        let pin = self.directory().join(name);
        let map =
            MapData::from_pin(&pin).with_context(|| format!("cannot open `{}`", pin.display()))?;
        Ok(Map::Array(map).try_into()?)
    }

    /// The overflow table.
    ///
    /// # Errors
    /// If it cannot be opened.
    pub fn spilled(&self) -> crate::Result<HashMap<MapData, u64, u64>> {
        let pin = self.directory().join("SPILLED");
        let map =
            MapData::from_pin(&pin).with_context(|| format!("cannot open `{}`", pin.display()))?;
        Ok(Map::HashMap(map).try_into()?)
    }

    /// Reads the counts.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn counts(&self) -> crate::Result<Counts> {
        let pin = self.directory().join("COUNTS");
        let map =
            MapData::from_pin(&pin).with_context(|| format!("cannot open `{}`", pin.display()))?;
        let map: PerCpuArray<MapData, u64> = Map::PerCpuArray(map).try_into()?;
        let sum = |index| -> crate::Result<u64> { Ok(map.get(&index, 0)?.iter().sum()) };
        Ok(Counts {
            created: sum(counter::CREATED)?,
            evicted: sum(counter::EVICTED)?,
            spilled: sum(counter::SPILLED)?,
            lost: sum(counter::LOST)?,
            ended: sum(counter::ENDED)?,
        })
    }

    /// Cells of sockets that are at least so many units old, with their sets.
    pub(super) fn of_sockets(&self, least: u64) -> crate::Result<Vec<(u32, u64)>> {
        let flows = self.flows()?;
        let now = flows::now(self.tick_shift())?;
        let mut found = Vec::new();
        for index in 0..flows.len() {
            let set = flows.get(&index, 0).context("cannot read map `FLOWS`")?;
            let old = set.cells.into_iter().filter(|cell| {
                *cell != 0
                    && matches!(Class::of(*cell), Class::Socket)
                    && flows::age(*cell, now) >= least
            });
            found.extend(old.map(|cell| (index, cell)));
        }
        Ok(found)
    }
}
