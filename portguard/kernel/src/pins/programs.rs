//! Which generation's program hangs on a hook, by its pins.

use aya::maps::MapInfo;
use aya::programs::{ProgramInfo, loaded_programs};
use portguard_common::reason::Direction;

use crate::object::{CONTROL, EGRESS, INGRESS};
use crate::pins::bpffs::Layout;

/// The id of the program that a generation has for a direction; of a pin that is something else, none.
pub(crate) fn program_of(layout: &Layout, number: u64, direction: Direction) -> Option<u32> {
    let wanted = match direction {
        Direction::Ingress => INGRESS,
        Direction::Egress => EGRESS,
    };
    ProgramInfo::from_pin(layout.generation(number).join(direction.name()))
        .ok()
        .filter(|info| info.name_as_str() == Some(wanted))
        .map(|info| info.id())
}

/// The generation that a program is of. Where the pin of that is gone, it is told by a map that no two generations share.
pub(crate) fn number_of(layout: &Layout, program: u32, direction: Direction) -> Option<u64> {
    let numbers = layout.generations();
    let is_pinned = |number: &u64| program_of(layout, *number, direction) == Some(program);
    if let Some(number) = numbers.iter().copied().find(is_pinned) {
        return Some(number);
    }
    let info = loaded_programs()
        .flatten()
        .find(|info| info.id() == program)?;
    let maps = info.map_ids().ok()??;
    numbers.into_iter().find(|number| {
        let control = MapInfo::from_pin(layout.generation(*number).join(CONTROL));
        control.is_ok_and(|control| maps.contains(&control.id()))
    })
}
