//! Handles of a generation's tables: to fill them, to read them back and to give them other addresses, whatever else is done
//! with the object.

use std::collections::BTreeMap;
use std::os::fd::AsFd as _;

use aya::maps::{Array, Map, MapData};
use aya::{Ebpf, Pod};

use super::TABLES;
use crate::error::Context as _;
use crate::object::memory;
use portguard_policy::image::Image;

/// Globals of a generation.
pub const GLOBALS: [&str; 6] = [
    ".rodata.config",
    ".rodata.in",
    ".rodata.out",
    ".rodata.rules",
    ".data.root4",
    ".data.root6",
];

/// The first level of the address tables.
const ROOTS: [&str; 2] = [".data.root4", ".data.root6"];

/// The tables of a generation, and its globals, by name.
#[derive(Debug)]
pub struct Tables {
    maps: BTreeMap<&'static str, Map>,
}

impl Tables {
    /// Of an object.
    pub(super) fn of(ebpf: &Ebpf) -> crate::Result<Self> {
        let maps = TABLES.into_iter().chain(GLOBALS).map(|name| {
            let map = ebpf
                .map(name)
                .with_context(|| format!("the embedded object has no map `{name}`"))?;
            let fd = memory::data(map)?.fd().as_fd().try_clone_to_owned()?;
            let data = MapData::from_fd(fd)?;
            Ok((name, Map::Array(data)))
        });
        Ok(Self {
            maps: maps.collect::<crate::Result<_>>()?,
        })
    }

    /// One of them.
    ///
    /// # Errors
    /// If there is none of that name.
    pub fn map(&self, name: &str) -> crate::Result<&Map> {
        self.maps
            .get(name)
            .with_context(|| format!("there is no table `{name}`"))
    }

    fn map_mut(&mut self, name: &str) -> crate::Result<&mut Map> {
        self.maps
            .get_mut(name)
            .with_context(|| format!("there is no table `{name}`"))
    }

    /// Fills those that are no globals, and empty so far.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub fn fill(&mut self, image: &Image) -> crate::Result<()> {
        self.write(None, image)
    }

    /// Writes what an image has in the arrays, but for what is there: of the image `now`, or, where there was none, zeros.
    fn write(&mut self, now: Option<&Image>, next: &Image) -> crate::Result<()> {
        self.array("BLOCKS", now.map(|now| &*now.blocks), &next.blocks)?;
        self.array("STEPS", now.map(|now| &*now.steps), &next.steps)?;
        self.array("FILTER", now.map(|now| &*now.filter), &next.filter)?;
        self.array("NETS", now.map(|now| &*now.nets), &next.nets)?;
        self.array("HOSTS", now.map(|now| &*now.hosts), &next.hosts)?;
        self.array("ADMIT", now.map(|now| &*now.admit), &next.admit)?;
        self.array("ENDINGS", now.map(|now| &*now.endings), &next.endings)
    }

    fn array<V: Pod + PartialEq + Default>(
        &mut self,
        name: &str,
        now: Option<&[V]>,
        next: &[V],
    ) -> crate::Result<()> {
        let zero = V::default();
        let mut array: Array<&mut MapData, V> = self.map_mut(name)?.try_into()?;
        for (index, value) in (0..).zip(next) {
            let there = match now {
                Some(now) => now.get(index as usize),
                None => Some(&zero),
            };
            if there != Some(value) {
                array
                    .set(index, value, 0)
                    .with_context(|| format!("cannot write map `{name}`"))?;
            }
        }
        Ok(())
    }

    /// Whether the tables have room for an image, and what is frozen is the same in it: then [`Self::change`] will do.
    ///
    /// # Errors
    /// If the kernel does not say how large they are.
    pub fn can_become(&self, now: &Image, next: &Image) -> crate::Result<bool> {
        let has_room = |name: &str, count: usize| -> crate::Result<bool> {
            let there = memory::data(self.map(name)?)?.info()?.max_entries();
            Ok(u32::try_from(count).is_ok_and(|count| count <= there))
        };
        Ok(now.inbound == next.inbound
            && now.outbound == next.outbound
            && now.rules == next.rules
            && now.filter.len() == next.filter.len()
            && now.nets.len() == next.nets.len()
            && now.hosts.len() == next.hosts.len()
            && now.endings.len() == next.endings.len()
            && has_room("BLOCKS", next.blocks.len())?
            && has_room("STEPS", next.steps.len())?
            && has_room("ADMIT", next.admit.len())?)
    }

    /// Gives the tables what another image has in them. No program that reads them may be attached: the writes come one
    /// after the other.
    ///
    /// # Errors
    /// What the kernel refuses; the tables are of no use then.
    pub fn change(&mut self, now: &Image, next: &Image) -> crate::Result<()> {
        self.change_roots(now, next)?;
        self.write(Some(now), next)
    }

    /// The first level alone: each object has one of its own.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub fn change_roots(&mut self, now: &Image, next: &Image) -> crate::Result<()> {
        let roots = [
            (&now.root4, &next.root4, ROOTS[0]),
            (&now.root6, &next.root6, ROOTS[1]),
        ];
        for (now, next, name) in roots {
            if now == next {
                continue;
            }
            let words: Box<[u32; 65_536]> = next
                .clone()
                .into_boxed_slice()
                .try_into()
                .ok()
                .context("a root of another size")?;
            let mut root: Array<&mut MapData, [u32; 65_536]> = self.map_mut(name)?.try_into()?;
            root.set(0, words.as_ref(), 0)
                .with_context(|| format!("cannot change map `{name}`"))?;
        }
        Ok(())
    }
}
