//! Gives maps whose pins are gone pins again: the programs in force hold them, so that nothing that is known is lost.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::Context as _;
use aya::maps::{MapData, MapInfo};
use aya::programs::loaded_programs;
use portguard_common::reason::Direction;

use crate::hook::attach;
use crate::object::NAMESPACE;
use crate::pins::bpffs::layouts;

/// The maps that only the programs of this module have.
pub(super) const OWN: [&str; 2] = ["NAMESPACE", "COUNTS"];

/// Names of pins that a state has to have.
pub(super) fn missing(directory: &Path) -> Vec<&'static str> {
    let names = NAMESPACE
        .into_iter()
        .chain(OWN)
        .chain([super::programs::WRITER]);
    names
        .filter(|name| !directory.join(name).exists())
        .collect()
}

/// Pins what is missing and can be found. Says which.
///
/// # Errors
/// If the kernel does not let a map be pinned.
pub(super) fn repin(directory: &Path) -> anyhow::Result<Vec<&'static str>> {
    let mut missing = missing(directory);
    let mut done = Vec::new();
    if missing.is_empty() || !directory.exists() {
        return Ok(done);
    }
    for map in maps_in_force(directory) {
        let Ok(info) = MapInfo::from_id(map) else {
            continue;
        };
        let found = missing
            .iter()
            .position(|name| Some(*name) == info.name_as_str());
        let Some(found) = found else { continue };
        let name = missing.swap_remove(found);
        let pin = directory.join(name);
        MapData::from_id(map)
            .map_err(anyhow::Error::from)
            .and_then(|map| Ok(map.pin(&pin)?))
            .with_context(|| format!("cannot pin `{}`", pin.display()))?;
        done.push(name);
    }
    Ok(done)
}

/// Ids of the maps that the guards of this network namespace and its socket program use.
fn maps_in_force(directory: &Path) -> BTreeSet<u32> {
    let guards = layouts().into_iter().filter(|layout| layout.interface().1);
    let pins = guards
        .flat_map(|layout| [Direction::Ingress, Direction::Egress].map(|to| layout.link(to)))
        .chain([directory.join(super::programs::LINK)]);
    let attached = pins.filter_map(|pin| attach::inspect(&pin).ok()?);
    let programs: BTreeSet<u32> = attached.map(|link| link.program).collect();
    let running = loaded_programs()
        .flatten()
        .filter(|info| programs.contains(&info.id()));
    running
        .filter_map(|info| info.map_ids().ok()?)
        .flatten()
        .collect()
}
