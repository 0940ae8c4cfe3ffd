//! Generations: what is in force, and what is left of those that were. [`prepare()`] makes the next.

pub(crate) mod aside;
pub mod confirm;
pub mod deadline;
pub mod effective;
pub mod endings;
pub mod facts;
pub(crate) mod marker;
pub mod migrate;
pub mod pair;
pub mod prepare;
pub mod publish;
pub mod readback;
pub mod refresh;
pub mod selftest;
pub mod standby;

use std::path::{Path, PathBuf};

use portguard_common::reason::Direction;

use crate::conversations::{self, Bound};
use crate::error::{Context as _, Error, Kind};
use crate::generation::effective::{Effective, Strictness};
use crate::generation::endings::RowEnding;
use crate::hook::attach::{self, Attached};
use crate::host::interface::Interface;
use crate::object::{CONTROL, SHARED};
use crate::pins::bpffs::{Layout, remove};
use crate::pins::meta::Meta;
use crate::pins::programs::{number_of, program_of};
use portguard_policy::human::{plain, time};

pub use crate::generation::prepare::{Occasion, Options, Prepared, prepare, takes_over};

/// What is in force on an interface.
#[derive(Debug, Clone)]
pub struct Live {
    /// Its description; the policy is the one that judges: that of the generation before where this one has given way, and
    /// without the grants that have ended.
    pub meta: Meta,
    /// Program ids of the two links, as far as they are attached.
    pub ingress: Option<u32>,
    /// See [`Self::ingress`].
    pub egress: Option<u32>,
    /// What is not as it should be.
    pub warnings: Vec<String>,
    /// Whether nothing will make it give way.
    pub is_confirmed: bool,
    /// What really happens to packets now.
    pub effective: Effective,
}

impl Live {
    /// The generation to go back to from the next one: this one, or if nobody confirmed it the one before.
    pub fn base(&self) -> Option<u64> {
        if self.is_confirmed {
            Some(self.meta.number)
        } else {
            self.meta.previous
        }
    }

    /// The generations that stay: this one, and the one to go back to.
    pub(crate) fn kept(&self) -> Vec<u64> {
        [Some(self.meta.number), self.meta.previous]
            .into_iter()
            .flatten()
            .collect()
    }
}

/// What is in force on the interface of a layout, if anything.
///
/// # Errors
/// If there is a link of ours that no generation of this version explains.
pub fn live(layout: &Layout) -> crate::Result<Option<Live>> {
    /// Swaps that may come one after the other while somebody looks.
    const TRIES: usize = 16;
    let pin = layout.link(Direction::Ingress);
    let mut tries = 0;
    loop {
        let attached = attach::inspect(&pin)?;
        let result = match attached {
            Some(attached) => live_of(layout, &pin, attached),
            None => without_ingress(layout),
        };
        // Who looks holds no lock: a swap in between has removed the generation that the link ran before.
        let program = |link: Option<Attached>| link.map(|link| link.program);
        let is_swapped = program(attach::inspect(&pin)?) != program(attached);
        tries += 1;
        if !is_swapped || tries == TRIES {
            return result;
        }
    }
}

/// The generation that runs the program of a link, if it is still that.
fn live_of(layout: &Layout, pin: &Path, attached: Attached) -> crate::Result<Option<Live>> {
    let meta = described(layout, pin, attached.program, Direction::Ingress)?;
    explained(layout, attached, meta).map(Some)
}

/// What is in force where no pin of an ingress attachment is: nothing, unless something else took that away, and the program for
/// what is sent goes on. Tools that attach, or end a guard, mark it while they do.
fn without_ingress(layout: &Layout) -> crate::Result<Option<Live>> {
    let pin = layout.link(Direction::Egress);
    let egress = attach::inspect(&pin)?.filter(|link| link.ifindex != 0);
    let Some(egress) = egress.filter(|_| !layout.swapping().exists()) else {
        return Ok(None);
    };
    let meta = described(layout, &pin, egress.program, Direction::Egress)?;
    let attached = Attached {
        program: program_of(layout, meta.number, Direction::Ingress).unwrap_or_default(),
        ifindex: 0,
    };
    explained(layout, attached, meta).map(Some)
}

/// The description of the generation that runs the program of a link.
fn described(
    layout: &Layout,
    pin: &Path,
    program: u32,
    direction: Direction,
) -> crate::Result<Meta> {
    let damaged = |what| Error::new(Kind::Damaged, what).hint(way_out(layout));
    let Some(number) = number_of(layout, program, direction) else {
        let what = format!("`{}` runs a program of no known generation", pin.display());
        return Err(damaged(what));
    };
    let meta = layout.generation(number).join("meta");
    if !meta.exists() {
        return Err(damaged(format!("`{}` is gone", meta.display())));
    }
    Meta::read(&meta)
        .map_err(|error| damaged(format!("`{}` cannot be read", meta.display())).caused_by(error))
}

/// What is done about a guard whose pins do not say what it is.
fn way_out(layout: &Layout) -> String {
    let (name, _) = layout.interface();
    format!(
        "somebody changed pins, and the guard goes on: `portguard load --allow-weaker`, with what it was loaded with, puts another in \
         its place without a gap; its counters begin anew. `portguard unload --interface {}` ends it",
        plain(&name)
    )
}

/// Whether an error is about a guard that goes on, and whose pins do not say what it is.
pub fn is_unknown(error: &Error, layout: &Layout) -> bool {
    error.kind() == Kind::Damaged
        && matches!(attach::inspect(&layout.link(Direction::Ingress)), Ok(Some(link)) if effective::runs(layout, link))
}

/// What is in force by a link, given the description of the generation that it runs.
pub(crate) fn explained(
    layout: &Layout,
    attached: Attached,
    mut meta: Meta,
) -> crate::Result<Live> {
    let mut warnings = Vec::new();
    let is_confirmed = meta.deadline == 0 || confirm::is_confirmed(layout, meta.number);
    // Whoever looks sees what the kernel does: both go by the clock as it is set now.
    let _ = endings::follow_clock_of(layout, &meta);
    let (meant, egress) = effective::egress(layout, &meta)?;
    let mut effective = effective::now(layout, attached, &meta, (meant, egress), is_confirmed)?;
    warnings.extend(effective.because.clone());
    if !is_confirmed && let Some(before) = effective::judging(layout, &meta)? {
        let _ = endings::follow_clock_of(layout, &before);
        meta.policy = before.policy;
    }
    effective.endings = endings::of(&meta.policy, endings::wall_clock());
    // What has ended opens nothing any more, whatever was loaded.
    meta.policy = meta.policy.without_ended(endings::wall_clock());
    warnings.extend(effective.endings.iter().filter(|one| one.is_over).map(
        |RowEnding { row, at, .. }| {
            format!("row `{row}` expired at {}: it opens nothing", time(*at))
        },
    ));
    let gaps = gaps(layout, &meta);
    if !gaps.is_empty() {
        warnings.push(format!(
            "pins of this guard are gone ({}): load again to recreate them",
            gaps.join(", ")
        ));
    }
    if effective.inbound == Strictness::Off {
        // Nothing more can be said of an interface that is not there.
    } else if let Some(now) = renamed(layout, attached.ifindex) {
        let (then, _) = layout.interface();
        warnings.push(format!(
            "the interface was `{then}` when it was guarded, and is now `{now}`: load or unload it by that name"
        ));
    }
    if layout.interface().1 && meta.egress_hook.is_some() {
        match conversations::find() {
            Some(namespace) => {
                warnings.extend(namespace.misfit(&meta.policy));
                warnings.extend(namespace.gaps());
                warnings.extend(namespace.weakness());
                warnings.extend(namespace.shortage());
                let bounds = namespace.bounds().unwrap_or_default();
                warnings.extend(bounds.iter().filter_map(Bound::warning));
            }
            None => warnings.push(
                "the table of conversations is gone, so the host's connections are tracked by their packets only: load again"
                    .to_owned(),
            ),
        }
    }
    Ok(Live {
        is_confirmed,
        effective,
        meta,
        ingress: Some(attached.program),
        egress,
        warnings,
    })
}

/// The name that the interface of a layout has now, if it is another one.
fn renamed(layout: &Layout, index: u32) -> Option<String> {
    let (name, is_here) = layout.interface();
    let now = is_here.then(|| Interface::name_of(index))??;
    (now != name).then_some(now)
}

/// Names of pins that a guard in force should have, and has not.
fn gaps(layout: &Layout, meta: &Meta) -> Vec<String> {
    let own = layout.generation(meta.number);
    let shared = SHARED.map(|name| layout.shared().join(name));
    let [previous_in, previous_out] = confirm::PREVIOUS;
    let maps = [CONTROL, previous_in, previous_out].map(|name| own.join(name));
    let mut gone: Vec<PathBuf> = shared.into_iter().chain(maps).collect();
    gone.retain(|path| !path.exists());
    let egress = meta.egress_hook.map(|_| Direction::Egress);
    let programs = [Some(Direction::Ingress), egress].into_iter().flatten();
    let programs = programs.filter(|one| program_of(layout, meta.number, *one).is_none());
    gone.extend(programs.map(|one| own.join(one.name())));
    let name = |path: PathBuf| {
        let short = path.strip_prefix(&layout.directory).unwrap_or(&path);
        short.display().to_string()
    };
    gone.into_iter().map(name).collect()
}

/// Removes generations that no link runs and that are not `kept`: left behind by a tool that was killed.
///
/// # Errors
/// If pins cannot be removed.
pub fn sweep(layout: &Layout, kept: &[u64]) -> crate::Result<()> {
    for number in layout
        .generations()
        .into_iter()
        .filter(|number| !kept.contains(number))
    {
        let directory = layout.generation(number);
        remove(&directory).with_context(|| format!("cannot remove `{}`", directory.display()))?;
    }
    Ok(())
}
