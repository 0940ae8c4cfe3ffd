//! What the kernel holds for a guard: which programs run, and which are there.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use aya::maps::{MapInfo, MapType};
use aya::programs::{ProgramInfo, loaded_programs};
use portguard_common::reason::Direction;
use portguard_kernel::generation::{Live, live};
use portguard_kernel::hook::attach;
use portguard_kernel::pins;
use portguard_kernel::pins::bpffs::Layout;
use portguard_kernel::recovery::reattach::reattach;

use crate::guard::{Guarded, eventually};

/// What is in force, as the library sees it.
pub(super) fn in_force(guarded: &Guarded) -> Result<Option<Live>> {
    let name = guarded.interface();
    guarded.link.left.host.run(|| Ok(live(&Layout::of(name))?))
}

/// The programs that ingress and egress run.
pub(super) fn running(guarded: &Guarded) -> Result<[Option<u32>; 2]> {
    let layout = layout(guarded)?;
    let of = |direction| -> Result<Option<u32>> {
        Ok(attach::inspect(&layout.link(direction))?.map(|link| link.program))
    };
    Ok([of(Direction::Ingress)?, of(Direction::Egress)?])
}

pub(super) fn layout(guarded: &Guarded) -> Result<Layout> {
    let name = guarded.interface();
    guarded.link.left.host.run(|| Ok(Layout::of(name)))
}

/// What the agent does when it notices: heals.
pub(super) fn heal(guarded: &Guarded) -> Result<()> {
    guarded.link.left.host.run(|| {
        reattach(&pins::lock()?)?;
        Ok(())
    })
}

/// Sees that both attachments run one generation, that nothing is amiss, and that the kernel holds no program of this guard
/// beside the pinned generations'.
pub(crate) fn check_whole(guarded: &Guarded, after: &str) -> Result<()> {
    let live = in_force(guarded)?.with_context(|| format!("after {after}: nothing in force"))?;
    ensure!(
        live.warnings.is_empty(),
        "after {after}: {:?}",
        live.warnings
    );
    let layout = layout(guarded)?;
    ensure!(!layout.swapping().exists(), "after {after}: still marked");
    let own = |number, direction: Direction| {
        ProgramInfo::from_pin(layout.generation(number).join(direction.name()))
            .ok()
            .map(|info| info.id())
    };
    let number = live.meta.number;
    let meant = [
        own(number, Direction::Ingress),
        own(number, Direction::Egress),
    ];
    ensure!(
        running(guarded)? == meant,
        "after {after}: {:?} run, generation {number} has {meant:?}",
        running(guarded)?
    );
    let pinned: BTreeSet<u32> = layout
        .generations()
        .into_iter()
        .flat_map(|number| {
            [
                own(number, Direction::Ingress),
                own(number, Direction::Egress),
            ]
        })
        .flatten()
        .collect();
    ensure!(
        layout.generations().len() <= 2,
        "after {after}: generations {:?}",
        layout.generations()
    );
    let cells = MapInfo::from_pin(layout.shared().join("CELLS"))?.id();
    // The kernel frees what nobody holds some time later.
    eventually(&format!("after {after}: no leaked program"), || {
        Ok(users(cells) == pinned)
    })
}

/// Programs that use a map.
fn users(map: u32) -> BTreeSet<u32> {
    loaded_programs()
        .flatten()
        .filter(|info| {
            // It may end while it is looked at.
            let maps = info.map_ids().ok().flatten().unwrap_or_default();
            maps.contains(&map)
        })
        .map(|info| info.id())
        .collect()
}

/// All maps of a guard: those that its programs use, and those that are pinned.
pub(crate) fn maps(guarded: &Guarded) -> Result<BTreeSet<u32>> {
    let layout = layout(guarded)?;
    let cells = MapInfo::from_pin(layout.shared().join("CELLS"))?.id();
    let programs = users(cells);
    let mut found: BTreeSet<u32> = loaded_programs()
        .flatten()
        .filter(|info| programs.contains(&info.id()))
        .filter_map(|info| info.map_ids().ok().flatten())
        .flatten()
        .collect();
    for number in layout.generations() {
        found.insert(MapInfo::from_pin(layout.generation(number).join("meta"))?.id());
    }
    Ok(found)
}

/// Sees that the kernel holds none of these maps any more.
pub(super) fn check_gone(maps: &BTreeSet<u32>) -> Result<()> {
    let mut left = Vec::new();
    let gone = eventually("no leaked map", || {
        left = aya::maps::loaded_maps()
            .flatten()
            .filter(|info| maps.contains(&info.id()))
            // Linux keeps a table of programs for ever that is asked for by its number, as here and by `bpftool map`, while
            // it is being emptied: its work is queued twice and done once.
            .filter(|info| !matches!(info.map_type(), Ok(MapType::ProgramArray)))
            .map(|info| (info.id(), info.name_as_str().map(str::to_owned)))
            .collect();
        Ok(left.is_empty())
    });
    gone.with_context(|| format!("{left:?}"))
}
