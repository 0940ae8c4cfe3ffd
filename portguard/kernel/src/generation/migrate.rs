//! From the pins of another version of portguard to this one's, without a gap: the other version's attachments are made to
//! run the new programs, each in one step, and are then renamed into this version's directory.
//!
//! Tables are not taken along: their layouts differ, that is what versions are about. What holds for every version is where
//! the pins of links and programs are.

use std::fs;
use std::path::Path;

use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::tc::SchedClassifierLink;
use aya::programs::{SchedClassifier, Xdp};
use aya_obj::programs::XdpAttachType;
use portguard_common::reason::Direction;

use crate::error::{Context as _, Error, Kind};
use crate::fault::step;
use crate::hook::attach::{self, Attached};
use crate::host::holder;
use crate::host::interface::Interface;
use crate::object;
use crate::pins::bpffs::{Layout, remove};
use crate::pins::programs::program_of;

/// Another version's guard of the same interface.
#[derive(Debug, Clone)]
pub struct Other {
    /// Its pins.
    pub layout: Layout,
    /// Its ingress attachment.
    pub ingress: Attached,
}

/// Another version's guard that is attached to an interface, if there is one.
///
/// # Errors
/// If its pins cannot be looked at.
pub fn other(layout: &Layout, interface: &Interface) -> crate::Result<Option<Other>> {
    for other in layout.of_other_versions() {
        let link = attach::inspect(&other.link(Direction::Ingress))?;
        let is_it = |link: &Attached| {
            link.ifindex == interface.index
                && holder::xdp_programs(interface.index)
                    .is_ok_and(|programs| programs.contains(&link.program))
        };
        if let Some(ingress) = link.filter(is_it) {
            return Ok(Some(Other {
                layout: other,
                ingress,
            }));
        }
    }
    Ok(None)
}

/// Refuses an interface that another version of portguard guards.
///
/// # Errors
/// [`Error`], with all differences and what migrates.
pub fn refuse(layout: &Layout, interface: &Interface) -> crate::Result<()> {
    let Some(other) = other(layout, interface)? else {
        return Ok(());
    };
    let name = &interface.name;
    let differences = differences(&other.layout)?;
    let listed: Vec<String> = differences
        .iter()
        .map(|line| format!("\n  {line}"))
        .collect();
    Err(Error::new(Kind::OtherVersion, format!(
        "`{name}` is guarded by another version of portguard: its tables are of version {}, this program's of version {}{}",
        other.layout.version(),
        layout.version(),
        listed.concat()
    ))
    .hint(format!(
        "`portguard load --migrate` with the same policy puts this version in its place without a gap (its counters and \
         flows end with it); `portguard unload --interface {name}` removes it"
    )))
}

/// What this version expects of the shared maps and the other one has otherwise.
fn differences(other: &Layout) -> crate::Result<Vec<String>> {
    let shared = other.shared();
    let mut found = Vec::new();
    let shapes = object::shared_shapes()?;
    for (name, shape) in &shapes {
        let path = shared.join(name);
        if path.exists() {
            found.extend(shape.differences(name, &path));
        } else {
            found.push(format!("{name}: is not there"));
        }
    }
    let mut strange: Vec<String> = fs::read_dir(&shared)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| shapes.iter().all(|(known, _)| known != name))
        .collect();
    strange.sort();
    found.extend(
        strange
            .iter()
            .map(|name| format!("{name}: is not known here")),
    );
    if found.is_empty() {
        found.push("the same tables, whose numbers mean something else".to_owned());
    }
    Ok(found)
}

/// Makes a pinned TCX link run another program, atomically.
pub(crate) fn replace_egress(program: &mut SchedClassifier, pin: &Path) -> crate::Result<()> {
    let link = PinnedLink::from_pin(pin)
        .with_context(|| format!("cannot open the link `{}`", pin.display()))?;
    program.attach_to_link(SchedClassifierLink::try_from(FdLink::from(link))?)?;
    Ok(())
}

/// Takes another version's links over, which run programs of this version by now, and removes the rest of it.
///
/// # Errors
/// If pins cannot be moved; the guard is in force all the same, and the next tool goes on.
pub(crate) fn take_over(layout: &Layout, other: &Layout) -> crate::Result<()> {
    for direction in [Direction::Egress, Direction::Ingress] {
        let (from, to) = (other.link(direction), layout.link(direction));
        if from.exists() && !to.exists() {
            fs::rename(&from, &to).with_context(|| {
                format!("cannot move `{}` to `{}`", from.display(), to.display())
            })?;
        }
        step("migrated-link")?;
    }
    remove(&other.directory)
        .with_context(|| format!("cannot remove `{}`", other.directory.display()))
}

/// Puts the other version's programs back in force, ingress first.
///
/// # Errors
/// If they are gone, and what the kernel refuses.
pub(crate) fn undo(other: &Other) -> crate::Result<()> {
    let number = other.layout.generations().into_iter().find(|number| {
        program_of(&other.layout, *number, Direction::Ingress) == Some(other.ingress.program)
    });
    let number = number.context("the other version's program is gone")?;
    let path = other
        .layout
        .generation(number)
        .join(Direction::Ingress.name());
    let mut program = Xdp::from_pin(&path, XdpAttachType::Interface)?;
    attach::replace_xdp(&mut program, &other.layout.link(Direction::Ingress))?;
    give_back(&other.layout, Some(other.ingress))
}

/// Ends what a tool began that died while it migrated: goes on if ingress runs this version's program, goes back if only
/// egress does.
///
/// # Errors
/// What the kernel refuses.
pub(crate) fn resume(layout: &Layout) -> crate::Result<()> {
    for other in layout.of_other_versions() {
        let ingress = attach::inspect(&other.link(Direction::Ingress))?;
        let runs = |link: Option<Attached>, of: &Layout, direction| {
            link.is_some_and(|link| {
                of.generations()
                    .into_iter()
                    .any(|number| program_of(of, number, direction) == Some(link.program))
            })
        };
        if runs(ingress, layout, Direction::Ingress)
            || (ingress.is_none() && layout.link(Direction::Ingress).exists())
        {
            take_over(layout, &other)?;
            continue;
        }
        let pin = other.link(Direction::Egress);
        if runs(attach::inspect(&pin)?, layout, Direction::Egress) {
            give_back(&other, ingress)?;
        }
    }
    Ok(())
}

/// Makes egress run the other version's program that belongs to the one that ingress runs; if there is none, nothing.
pub(crate) fn give_back(other: &Layout, ingress: Option<Attached>) -> crate::Result<()> {
    let number = other.generations().into_iter().find(|number| {
        ingress.is_some_and(|link| {
            program_of(other, *number, Direction::Ingress) == Some(link.program)
        })
    });
    let program = number.map(|number| other.generation(number).join(Direction::Egress.name()));
    let pin = other.link(Direction::Egress);
    match program.filter(|path| path.exists()) {
        Some(path) => replace_egress(&mut SchedClassifier::from_pin(path)?, &pin),
        None => attach::detach(&pin).map(drop),
    }
}
