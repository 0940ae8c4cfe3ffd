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

use std::path::Path;

use aya::programs::ProgramInfo;
use portguard_common::reason::Direction;

use crate::conversations::{self, Bound};
use crate::error::{Context as _, Error, Kind};
use crate::generation::effective::{Effective, Strictness};
use crate::generation::endings::RowEnding;
use crate::hook::attach::{self, Attached};
use crate::host::interface::Interface;
use crate::pins::bpffs::{Layout, remove};
use crate::pins::meta::Meta;
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
        let Some(attached) = attach::inspect(&pin)? else {
            return Ok(None);
        };
        let program = attached.program;
        let result = live_of(layout, &pin, attached);
        // Who looks holds no lock: a swap in between has removed the generation that the link ran before.
        let is_swapped = attach::inspect(&pin)?.is_none_or(|link| link.program != program);
        tries += 1;
        if !is_swapped || tries == TRIES {
            return result;
        }
    }
}

/// The generation that runs the program of a link, if it is still that.
fn live_of(layout: &Layout, pin: &Path, attached: Attached) -> crate::Result<Option<Live>> {
    let number = layout
        .generations()
        .into_iter()
        .find(|number| program_of(layout, *number, Direction::Ingress) == Some(attached.program));
    let Some(number) = number else {
        let fault = Error::new(
            Kind::Damaged,
            format!("`{}` runs a program of no known generation", pin.display()),
        )
        .hint(way_out(layout));
        return Err(fault);
    };
    let meta = layout.generation(number).join("meta");
    if !meta.exists() {
        let what = format!("`{}` is gone", meta.display());
        return Err(Error::new(Kind::Damaged, what).hint(way_out(layout)));
    }
    let meta = Meta::read(&meta)?;
    explained(layout, attached, meta).map(Some)
}

/// What is done about a guard whose pins do not say what it is.
fn way_out(layout: &Layout) -> String {
    let (name, _) = layout.interface();
    format!(
        "somebody removed pins, and the guard goes on: `portguard unload --interface {}` ends it, then load again",
        plain(&name)
    )
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

/// The id of the program that a generation has for a direction.
pub(crate) fn program_of(layout: &Layout, number: u64, direction: Direction) -> Option<u32> {
    ProgramInfo::from_pin(layout.generation(number).join(direction.name()))
        .ok()
        .map(|info| info.id())
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
