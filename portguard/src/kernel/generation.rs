//! Generations: prepare, publish, look at, remove.
//!
//! [`prepare`] does everything that can fail without touching what is in force: load, fill, pin beside the others.
//! [`Prepared::publish`] then swaps the links, ingress last. Until the first link is swapped a failure changes nothing;
//! after it, the links are swapped back.

use std::fs;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use aya::programs::ProgramInfo;
use portguard_common::reason::Direction;

use super::attach;
use super::bpffs::{Layout, Lock, remove};
use super::interface::Interface;
use super::meta::{Meta, XdpModeName};
use crate::cells::Directory;
use crate::error::Fault;
use crate::image::Image;
use crate::object::{self, HostFacts, Loaded};
use crate::policy::{Outbound, Policy};

/// What is in force on an interface.
#[derive(Debug, Clone)]
pub struct Live {
    /// Its description.
    pub meta: Meta,
    /// Program ids of the two links, as far as they are attached.
    pub ingress: Option<u32>,
    /// See [`Self::ingress`].
    pub egress: Option<u32>,
    /// What is not as it should be.
    pub warnings: Vec<String>,
}

/// What is in force on the interface of a layout, if anything.
///
/// # Errors
/// If there is a link of ours that no generation of this version explains.
pub fn live(layout: &Layout) -> anyhow::Result<Option<Live>> {
    let pin = layout.link(Direction::Ingress);
    let Some(attached) = attach::inspect(&pin)? else {
        return Ok(None);
    };
    let mut warnings = Vec::new();
    if attached.ifindex == 0 {
        warnings.push("the interface that this guard was attached to is gone".to_owned());
    }
    let number = layout
        .generations()
        .into_iter()
        .find(|number| program_of(layout, *number, Direction::Ingress) == Some(attached.program));
    let Some(number) = number else {
        let fault = Fault::system(format!(
            "`{}` runs a program that no generation explains",
            pin.display()
        ))
        .hint("`portguard unload --interface IF` removes it");
        return Err(fault.into());
    };
    let meta = Meta::read(&layout.generation(number).join("meta"))?;
    let egress = attach::inspect(&layout.link(Direction::Egress))?.map(|link| link.program);
    if meta.policy.settings.outbound != Outbound::Off
        && egress != program_of(layout, number, Direction::Egress)
    {
        warnings.push("ingress and egress run different generations: load again".to_owned());
    }
    Ok(Some(Live {
        meta,
        ingress: Some(attached.program),
        egress,
        warnings,
    }))
}

fn program_of(layout: &Layout, number: u64, direction: Direction) -> Option<u32> {
    ProgramInfo::from_pin(layout.generation(number).join(direction.name()))
        .ok()
        .map(|info| info.id())
}

/// Removes generations that no link runs and that are not `kept`: left behind by a tool that was killed.
///
/// # Errors
/// If pins cannot be removed.
pub fn sweep(layout: &Layout, kept: &[u64]) -> anyhow::Result<()> {
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

/// How to load.
#[derive(Debug, Clone)]
pub struct Options {
    /// XDP mode.
    pub xdp_mode: XdpModeName,
    /// The site file's path, to be shown.
    pub site: Option<String>,
    /// Boot-time clock, nanoseconds; 0 = none.
    pub deadline: u64,
}

/// A generation that is ready: in the kernel, pinned, attached to nothing.
#[derive(Debug)]
pub struct Prepared {
    interface: Interface,
    layout: Layout,
    loaded: Loaded,
    meta: Meta,
    previous: Option<Live>,
    is_first: bool,
}

/// Loads a policy for an interface, beside what is in force there.
///
/// # Errors
/// Everything that can go wrong before the swap; nothing is left behind then.
pub fn prepare(
    lock: &Lock,
    interface: &Interface,
    policy: &Policy,
    options: &Options,
) -> anyhow::Result<Prepared> {
    let layout = Layout::of(&interface.name);
    let is_first = !layout.directory.exists();
    let result = prepare_in(lock, &layout, interface, policy, options, is_first);
    if result.is_err() && is_first {
        // Best effort: the error at hand says more than one about the clean-up would.
        let _ = remove(&layout.directory);
    }
    result
}

fn prepare_in(
    _lock: &Lock,
    layout: &Layout,
    interface: &Interface,
    policy: &Policy,
    options: &Options,
    is_first: bool,
) -> anyhow::Result<Prepared> {
    let previous = live(layout)?;
    let kept: Vec<u64> = previous.iter().map(|live| live.meta.number).collect();
    sweep(layout, &kept)?;
    let shared = layout.shared();
    fs::create_dir_all(&shared).with_context(|| format!("cannot make `{}`", shared.display()))?;
    check_shapes(&shared)?;
    let (directory, number, host) = match &previous {
        Some(live) => (
            live.meta.directory.clone(),
            live.meta.number + 1,
            host_facts(Some(&live.meta))?,
        ),
        None => (Directory::default(), 1, host_facts(None)?),
    };
    let host = HostFacts {
        deadline: options.deadline,
        ..host
    };
    let image = Image::build(policy, directory).map_err(|error| {
        Fault::usage(error.to_string())
            .hint("narrow the site's own rows, or merge peers that are treated alike")
    })?;
    let mut loaded = object::load(&image, &host, Some(&shared))?;
    let meta = Meta {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        number,
        ifindex: interface.index,
        xdp_mode: options.xdp_mode,
        digest: policy.digest(),
        loaded_at: SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs()),
        deadline: options.deadline,
        flow_key: host.flow_key,
        tick_shift: host.tick_shift,
        flow_sets: loaded.facts.flow_mask + 1,
        site: options.site.clone(),
        policy: policy.clone(),
        directory: image.directory,
    };
    let directory = layout.generation(number);
    let pinned = pin(&directory, &mut loaded, &meta);
    if pinned.is_err() {
        let _ = remove(&directory);
    }
    pinned?;
    Ok(Prepared {
        interface: interface.clone(),
        layout: layout.clone(),
        loaded,
        meta,
        previous,
        is_first,
    })
}

/// Refuses to reuse shared maps of another shape.
fn check_shapes(shared: &Path) -> anyhow::Result<()> {
    let differences: Vec<String> = object::shared_shapes()?
        .iter()
        .flat_map(|(name, shape)| shape.differences(name, &shared.join(name)))
        .collect();
    if differences.is_empty() {
        return Ok(());
    }
    Err(Fault::system(format!(
        "`{}` is of another version of portguard",
        shared.display()
    ))
    .hint(format!(
        "{}\n`portguard unload` removes it, counters included; then load again",
        differences.join("\n")
    ))
    .into())
}

fn host_facts(previous: Option<&Meta>) -> anyhow::Result<HostFacts> {
    let mut facts = HostFacts {
        tick_shift: tick_shift(),
        ..HostFacts::default()
    };
    if let Some(meta) = previous {
        // The flow table outlives generations, and is only of use with the key and the clock that filled it.
        facts.flow_key = meta.flow_key;
        facts.tick_shift = meta.tick_shift;
    } else {
        let mut halves = [[0; 8]; 2];
        let mut random = fs::File::open("/dev/urandom").context("cannot open `/dev/urandom`")?;
        for half in &mut halves {
            std::io::Read::read_exact(&mut random, half)?;
        }
        facts.flow_key = halves.map(u64::from_le_bytes);
    }
    Ok(facts)
}

/// How far to shift jiffies right for units of about a second: the coarse clock's resolution is one jiffy.
fn tick_shift() -> u32 {
    let tick = nix::time::clock_getres(nix::time::ClockId::CLOCK_MONOTONIC_COARSE)
        .map_or(4_000_000, |resolution| resolution.tv_nsec());
    let hertz = u32::try_from(1_000_000_000 / tick.max(1)).unwrap_or(250);
    hertz.max(1).ilog2()
}

/// Pins a generation: programs and maps that a later tool asks for, its description last.
fn pin(directory: &Path, loaded: &mut Loaded, meta: &Meta) -> anyhow::Result<()> {
    fs::create_dir(directory).with_context(|| format!("cannot make `{}`", directory.display()))?;
    let failed = |path: &Path| format!("cannot pin `{}`", path.display());
    let path = directory.join(Direction::Ingress.name());
    loaded
        .ingress()?
        .pin(&path)
        .with_context(|| failed(&path))?;
    meta.pin(&directory.join("meta"))
}

impl Prepared {
    /// Number and digest of what is to be published.
    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    /// What is in force until then.
    pub fn previous(&self) -> Option<&Live> {
        self.previous.as_ref()
    }

    /// The loaded object, for tests before the swap.
    pub fn loaded(&mut self) -> &mut Loaded {
        &mut self.loaded
    }

    /// Puts the generation in force, and removes what it replaces.
    ///
    /// # Errors
    /// What the kernel refuses; what was in force then still is.
    pub fn publish(mut self) -> anyhow::Result<Live> {
        let result = self.swap();
        if let Err(error) = result {
            self.withdraw();
            return Err(error);
        }
        let kept: Vec<u64> = [
            Some(self.meta.number),
            self.previous.as_ref().map(|live| live.meta.number),
        ]
        .into_iter()
        .flatten()
        .collect();
        sweep(&self.layout, &kept)?;
        live(&self.layout)?.context("the generation was published, and yet is not in force")
    }

    fn swap(&mut self) -> anyhow::Result<()> {
        let pin = self.layout.link(Direction::Ingress);
        let index = self.interface.index;
        let attached = attach::inspect(&pin)?;
        // A link whose interface is gone, or that holds another interface which had the name before, guards nothing here.
        let is_stale = attached.is_some_and(|link| link.ifindex != index);
        let is_same_mode = self
            .previous
            .as_ref()
            .is_none_or(|live| live.meta.xdp_mode == self.meta.xdp_mode);
        if attached.is_some() && !is_stale && !is_same_mode {
            return Err(
                Fault::usage("the XDP mode cannot be changed while the guard is loaded")
                    .hint(format!(
                        "`portguard unload --interface {}` first",
                        self.interface.name
                    ))
                    .into(),
            );
        }
        if is_stale {
            attach::detach(&pin)?;
        }
        let program = self.loaded.ingress()?;
        if attached.is_some() && !is_stale {
            attach::replace_xdp(program, &pin)
        } else {
            attach::attach_xdp(program, &self.interface, self.meta.xdp_mode, &pin)
        }
    }

    /// Removes what was prepared.
    pub fn withdraw(&self) {
        // Best effort: the next tool removes what this leaves.
        let _ = remove(&self.layout.generation(self.meta.number));
        if self.is_first {
            let _ = remove(&self.layout.directory);
        }
    }
}

/// Removes everything of ours from an interface: attachments first. Says whether there was anything.
///
/// # Errors
/// If pins cannot be removed.
pub fn unload(_lock: &Lock, layout: &Layout) -> anyhow::Result<bool> {
    let mut found = attach::detach(&layout.link(Direction::Ingress))?;
    found |= attach::detach(&layout.link(Direction::Egress))?;
    found |= layout.directory.exists();
    remove(&layout.directory)
        .with_context(|| format!("cannot remove `{}`", layout.directory.display()))?;
    Ok(found)
}
