//! Confirming a generation, and naming the one that it gives way to.
//!
//! The program itself looks at its deadline, for each packet until it is confirmed; nothing here has to run for it.

use std::path::Path;

use aya::maps::{Array, Map, MapData, MapError, ProgramArray};
use aya::programs::{SchedClassifier, Xdp};
use aya_obj::programs::XdpAttachType;
use portguard_common::abi::control;
use portguard_common::reason::Direction;

use crate::error::{Context as _, Error, Kind};
use crate::fault::step;
use crate::generation::Live;
use crate::generation::deadline;
pub use crate::object::CONTROL;
use crate::object::Loaded;
use crate::pins::bpffs::{Layout, Lock};

/// The maps of programs that an overdue generation gives way to.
pub const PREVIOUS: [&str; 2] = ["PREVIOUS_IN", "PREVIOUS_OUT"];

fn control_of(layout: &Layout, number: u64) -> crate::Result<Array<MapData, u64>> {
    let path = layout.generation(number).join(CONTROL);
    let map =
        MapData::from_pin(&path).with_context(|| format!("cannot open `{}`", path.display()))?;
    Map::Array(map)
        .try_into()
        .with_context(|| format!("`{}` is something else: load again", path.display()))
}

/// Whether somebody has confirmed a generation.
pub(crate) fn is_confirmed(layout: &Layout, number: u64) -> bool {
    control_of(layout, number)
        .ok()
        .and_then(|control| control.get(&control::CONFIRMED, 0).ok())
        .is_some_and(|word| word != 0)
}

/// Confirms what is in force. Says whether that was needed.
///
/// # Errors
/// [`Error`] if the deadline has passed: what was dropped since then may be what the operator sees working.
pub fn confirm(_lock: &Lock, layout: &Layout, live: &Live) -> crate::Result<bool> {
    if live.is_confirmed {
        return Ok(false);
    }
    if deadline::left(live.meta.deadline)?.is_none() {
        let (name, _) = layout.interface();
        return Err(Error::new(
            Kind::TooLate,
            format!(
                "too late: generation {} on `{name}` was not confirmed in time and has given way",
                live.meta.number
            ),
        )
        .hint(if live.meta.previous.is_some() {
            format!("`portguard rollback --interface {name}` makes that final; `portguard load` tries again")
        } else {
            format!("`portguard load` tries again; `portguard unload --interface {name}` stops guarding it")
        }));
    }
    step("confirming")?;
    control_of(layout, live.meta.number)?
        .set(control::CONFIRMED, 1, 0)
        .context("cannot confirm")?;
    step("confirmed")?;
    forget_previous(layout, live.meta.number)?;
    Ok(true)
}

/// Lets go of the programs that a generation would have given way to: they would stay in the kernel for nothing.
pub(crate) fn forget_previous(layout: &Layout, number: u64) -> crate::Result<()> {
    for name in PREVIOUS {
        let path = layout.generation(number).join(name);
        let map = MapData::from_pin(&path)
            .with_context(|| format!("cannot open `{}`", path.display()))?;
        let mut programs: ProgramArray<MapData> = Map::ProgramArray(map).try_into()?;
        match programs.clear_index(&0) {
            Err(MapError::KeyNotFound) => {}
            Err(MapError::SyscallError(error))
                if error.io_error.kind() == std::io::ErrorKind::NotFound => {}
            result => result.with_context(|| format!("cannot empty `{}`", path.display()))?,
        }
    }
    Ok(())
}

/// Names the programs that a generation gives way to.
pub(crate) fn name_previous(loaded: &mut Loaded, base: &Path) -> crate::Result<()> {
    let ingress = Xdp::from_pin(
        base.join(Direction::Ingress.name()),
        XdpAttachType::Interface,
    )
    .context("the generation to go back to no longer has a program")?;
    loaded.set_previous(Direction::Ingress, ingress.fd()?)?;
    let egress = base.join(Direction::Egress.name());
    if egress.exists() {
        let egress = SchedClassifier::from_pin(egress)?;
        loaded.set_previous(Direction::Egress, egress.fd()?)?;
    }
    Ok(())
}
