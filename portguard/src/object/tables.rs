//! Handles of a generation's tables: to fill them and to read them back, whatever else is done with the object.

use std::collections::BTreeMap;
use std::os::fd::AsFd as _;

use anyhow::Context as _;
use aya::Ebpf;
use aya::maps::{Array, HashMap as BpfHashMap, Map, MapData};
use portguard_common::abi::{Block, Host6};

use super::TABLES;
use crate::image::Image;
use crate::kernel::memory;

/// Globals of a generation.
pub const GLOBALS: [&str; 6] = [
    ".rodata.facts",
    ".rodata.in",
    ".rodata.out",
    ".rodata.rules",
    ".rodata.root4",
    ".rodata.root6",
];

/// The tables of a generation, and its globals, by name.
#[derive(Debug)]
pub struct Tables {
    maps: BTreeMap<&'static str, Map>,
}

impl Tables {
    /// Of an object.
    pub(super) fn of(ebpf: &Ebpf) -> anyhow::Result<Self> {
        let maps = TABLES.into_iter().chain(GLOBALS).map(|name| {
            let map = ebpf
                .map(name)
                .with_context(|| format!("the embedded object has no map `{name}`"))?;
            let fd = memory::data(map)?.fd().as_fd().try_clone_to_owned()?;
            let data = MapData::from_fd(fd)?;
            let map = if name == "OWN" {
                Map::HashMap(data)
            } else {
                Map::Array(data)
            };
            Ok((name, map))
        });
        Ok(Self {
            maps: maps.collect::<anyhow::Result<_>>()?,
        })
    }

    /// One of them.
    ///
    /// # Errors
    /// If there is none of that name.
    pub fn map(&self, name: &str) -> anyhow::Result<&Map> {
        self.maps
            .get(name)
            .with_context(|| format!("there is no table `{name}`"))
    }

    fn map_mut(&mut self, name: &str) -> anyhow::Result<&mut Map> {
        self.maps
            .get_mut(name)
            .with_context(|| format!("there is no table `{name}`"))
    }

    /// Fills those that are no globals, and empty so far.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub fn fill(&mut self, image: &Image) -> anyhow::Result<()> {
        let mut blocks: Array<&mut MapData, Block> = self.map_mut("BLOCKS")?.try_into()?;
        for (block, index) in image.blocks.iter().zip(0..) {
            blocks
                .set(index, block, 0)
                .context("cannot fill map `BLOCKS`")?;
        }
        let mut hosts: Array<&mut MapData, Host6> = self.map_mut("HOSTS")?.try_into()?;
        let used = image
            .hosts
            .iter()
            .zip(0..)
            .filter(|(host, _)| host.class != 0);
        for (host, index) in used {
            hosts
                .set(index, host, 0)
                .context("cannot fill map `HOSTS`")?;
        }
        let mut admit: Array<&mut MapData, u32> = self.map_mut("ADMIT")?.try_into()?;
        for (word, index) in image.admit.iter().zip(0..).filter(|(word, _)| **word != 0) {
            admit
                .set(index, word, 0)
                .context("cannot fill map `ADMIT`")?;
        }
        let mut own: BpfHashMap<&mut MapData, [u64; 3], u32> = self.map_mut("OWN")?.try_into()?;
        for address in &image.own {
            own.insert(address.words(), 1, 0)
                .context("cannot fill map `OWN`")?;
        }
        Ok(())
    }
}
