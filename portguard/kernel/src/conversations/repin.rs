//! Gives maps whose pins are gone pins again: the programs in force hold them, so that nothing that is known is lost.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use aya::maps::{MapData, MapInfo};
use aya::programs::{ProgramInfo, loaded_programs};
use portguard_common::reason::Direction;

use super::Shape;
use super::programs::{self, LINK, OWN, PROGRAM, WRITER};
use crate::error::Context as _;
use crate::hook::attach;
use crate::object::NAMESPACE;
use crate::pins::bpffs::layouts_here;
use crate::pins::meta::Meta;
use crate::pins::programs::number_of;

/// What the socket programs need, and the guards do not hold.
pub(super) const OF_SOCKETS: [&str; 5] = ["NAMESPACE", "COUNTS", WRITER, LINK, PROGRAM];

/// What the tables of the guards in force were made with, where those are pinned and nothing else says it.
pub(super) fn in_force(directory: &Path) -> Option<Shape> {
    let is_pinned = |name: &&str| directory.join(name).exists();
    if !["FLOWS", "THEIRS", "SPILLED"].iter().all(is_pinned) {
        return None;
    }
    layouts_here().into_iter().find_map(|layout| {
        let link = attach::inspect(&layout.link(Direction::Ingress)).ok()??;
        let number = number_of(&layout, link.program, Direction::Ingress)?;
        let meta = Meta::read(&layout.generation(number).join("meta")).ok()?;
        meta.egress_hook.map(|_| Shape {
            key: meta.flow_key,
            sets: meta.flow_sets,
            shift: meta.tick_shift,
        })
    })
}

/// Names of pins that a state has to have.
pub(super) fn missing(directory: &Path) -> Vec<&'static str> {
    let names = NAMESPACE.into_iter().chain(OWN).chain([WRITER]);
    names
        .filter(|name| !directory.join(name).exists())
        .collect()
}

/// Pins what is missing and can be found. Says which.
///
/// # Errors
/// If the kernel does not let a map be pinned.
pub(super) fn repin(directory: &Path) -> crate::Result<Vec<&'static str>> {
    let mut missing = missing(directory);
    let mut done = Vec::new();
    if missing.is_empty() {
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
        fs::create_dir_all(directory)
            .with_context(|| format!("cannot make `{}`", directory.display()))?;
        let pin = directory.join(name);
        MapData::from_id(map)
            .map_err(crate::Error::from)
            .and_then(|map| Ok(map.pin(&pin)?))
            .with_context(|| format!("cannot pin `{}`", pin.display()))?;
        done.push(name);
    }
    Ok(done)
}

/// Ids of the maps that the guards of this network namespace and its socket programs use.
fn maps_in_force(directory: &Path) -> BTreeSet<u32> {
    let pins = layouts_here()
        .into_iter()
        .flat_map(|layout| [Direction::Ingress, Direction::Egress].map(|to| layout.link(to)))
        .chain(programs::links().map(|link| directory.join(link)));
    let attached = pins.filter_map(|pin| attach::inspect(&pin).ok()?);
    let writer = ProgramInfo::from_pin(directory.join(WRITER)).ok();
    let running_ids: BTreeSet<u32> = attached
        .map(|link| link.program)
        .chain(writer.map(|info| info.id()))
        .collect();
    let running = loaded_programs()
        .flatten()
        .filter(|info| running_ids.contains(&info.id()));
    running
        .filter_map(|info| info.map_ids().ok()?)
        .flatten()
        .collect()
}
