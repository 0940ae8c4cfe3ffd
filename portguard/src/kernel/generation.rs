//! Generations: look at what is in force, and prepare what shall be.
//!
//! [`prepare`] does everything that can fail without touching what is in force: load, fill, read back, test, pin beside
//! the others. [`super::publish`] then swaps the links.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use aya::programs::ProgramInfo;
use portguard_common::reason::Direction;

use super::attach;
use super::bpffs::{Layout, Lock, remove};
use super::egress::EgressHook;
use super::facts;
use super::fault::step;
use super::interface::Interface;
use super::meta::{Meta, XdpModeName};
use super::pair::Pair;
use super::publish::unload;
use super::{confirm, deadline, holder, migrate, pair, selftest};
use crate::cells::Directory;
use crate::error::Fault;
use crate::image::Image;
use crate::object::{self, HostFacts, Loaded};
use crate::policy::Policy;

/// Flows in a set.
const WAYS: u32 = 8;

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
    /// Whether nothing will make it give way.
    pub is_confirmed: bool,
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
    pub(super) fn kept(&self) -> Vec<u64> {
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
pub fn live(layout: &Layout) -> anyhow::Result<Option<Live>> {
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
        if result.is_ok() || !is_swapped || tries == TRIES {
            return result;
        }
    }
}

/// The generation that runs the program of a link, if it is still that.
fn live_of(
    layout: &Layout,
    pin: &Path,
    attached: attach::Attached,
) -> anyhow::Result<Option<Live>> {
    let mut warnings = Vec::new();
    if attached.ifindex == 0 {
        warnings.push(
            "the interface that this guard was attached to is gone: load again where it is back"
                .to_owned(),
        );
    } else if let Some(now) = renamed(layout, attached.ifindex) {
        warnings.push(format!(
            "the interface is called `{now}` now: load or unload it by that name"
        ));
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
    let meant = program_of(layout, number, Direction::Egress);
    let egress = match meta.egress_hook {
        // A filter has no pin to be asked; it is what was put there.
        Some(EgressHook::Clsact) => meant,
        _ => attach::inspect(&layout.link(Direction::Egress))?.map(|link| link.program),
    };
    if egress != meant {
        warnings.push("ingress and egress run different generations: load again".to_owned());
    }
    let wanted = (meta.policy.settings.flows / WAYS)
        .next_power_of_two()
        .max(1);
    if meta.egress_hook.is_some() && wanted != meta.flow_sets {
        warnings.push(format!(
            "the flow table keeps its {} cells: `unload` and `load` make it {}, and forget the flows",
            meta.flow_sets * WAYS,
            wanted * WAYS
        ));
    }
    let is_confirmed = meta.deadline == 0 || confirm::is_confirmed(layout, number);
    Ok(Some(Live {
        is_confirmed,
        meta,
        ingress: Some(attached.program),
        egress,
        warnings,
    }))
}

/// The name that the interface of a layout has now, if it is another one.
fn renamed(layout: &Layout, index: u32) -> Option<String> {
    let (name, is_here) = layout.interface();
    let now = is_here.then(|| Interface::name_of(index))??;
    (now != name).then_some(now)
}

/// The id of the program that a generation has for a direction.
pub(super) fn program_of(layout: &Layout, number: u64, direction: Direction) -> Option<u32> {
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
    /// How long the generation may wait to be confirmed; zero = it needs no confirmation.
    pub confirm_within: Duration,
    /// Take the place of another version's guard.
    pub migrate: bool,
    /// The same policy with newer addresses of its domain names: what `rollback` goes back to stays what it was.
    pub is_refresh: bool,
}

/// A generation that is ready: in the kernel, pinned, attached to nothing.
#[derive(Debug)]
pub struct Prepared {
    pub(super) interface: Interface,
    pub(super) layout: Layout,
    pub(super) loaded: Loaded,
    pub(super) meta: Meta,
    pub(super) previous: Option<Live>,
    /// Another version's guard, whose place it takes.
    pub(super) other: Option<migrate::Other>,
    /// Whether the swap replaced a program, rather than attached one where there was none.
    pub(super) replaces: bool,
}

impl Prepared {
    /// What is to be published.
    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    /// What is in force until then.
    pub fn previous(&self) -> Option<&Live> {
        self.previous.as_ref()
    }

    /// Removes what was prepared.
    pub fn withdraw(&self) {
        discard(&self.layout, self.meta.number, self.previous.is_none());
    }
}

/// Removes a generation that is not in force, and everything else where none is. Best effort: it follows an error that
/// says more than one about the clean-up would, and the next tool removes what this leaves.
pub(super) fn discard(layout: &Layout, number: u64, is_first: bool) {
    let _ = if is_first {
        remove(&layout.directory)
    } else {
        remove(&layout.generation(number))
    };
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
    step("locked")?;
    if !options.migrate {
        migrate::refuse(&layout, interface)?;
    }
    let other = migrate::other(&layout, interface)?;
    let previous = live(&layout)?;
    let number = if let Some(live) = &previous {
        sweep(&layout, &live.kept())?;
        layout.generations().last().copied().unwrap_or_default() + 1
    } else {
        // What is there without an attached ingress program is half a load, of a tool that was killed.
        unload(lock, &layout)?;
        if other.is_none() {
            refuse_foreign(interface)?;
        }
        1
    };
    step("swept")?;
    let is_first = previous.is_none();
    let result = prepare_next(&layout, interface, policy, options, previous, number);
    if result.is_err() {
        discard(&layout, number, is_first);
    }
    result.map(|prepared| Prepared { other, ..prepared })
}

/// Refuses an interface whose hook another program holds, before anything is loaded.
fn refuse_foreign(interface: &Interface) -> anyhow::Result<()> {
    // Where the kernel does not say, attaching will tell.
    let holders = holder::xdp(interface.index).unwrap_or_default();
    match holders.first() {
        None => Ok(()),
        Some(holder) => Err(attach::occupied(interface, holder).into()),
    }
}

fn prepare_next(
    layout: &Layout,
    interface: &Interface,
    policy: &Policy,
    options: &Options,
    previous: Option<Live>,
    number: u64,
) -> anyhow::Result<Prepared> {
    let shared = layout.shared();
    fs::create_dir_all(&shared).map_err(|error| cannot_write(error, &shared))?;
    check_shapes(layout)?;
    step("shared")?;
    let enforce = policy.settings.enforce;
    let (directory, host) = match &previous {
        Some(live) => (
            live.meta.directory.clone(),
            facts::of_host(Some(&live.meta), enforce)?,
        ),
        None => (Directory::default(), facts::of_host(None, enforce)?),
    };
    let deadline = if options.confirm_within.is_zero() {
        0
    } else {
        deadline::after(options.confirm_within)?
    };
    let host = HostFacts { deadline, ..host };
    let image = Image::build(policy, directory).map_err(|error| {
        Fault::usage(error.to_string())
            .hint("narrow the site's own rows, or merge peers that are treated alike")
    })?;
    let directory = layout.generation(number);
    fs::create_dir(&directory).map_err(|error| cannot_write(error, &directory))?;
    let Pair {
        mut loaded,
        mut twin,
    } = pair::load(&image, &host, &shared, &directory)?;
    step("loaded")?;
    step("read-back")?;
    selftest::run(&mut loaded, &mut twin, policy)?;
    step("tested")?;
    let base = previous.as_ref().and_then(|live| {
        if options.is_refresh {
            live.meta.previous
        } else {
            live.base()
        }
    });
    if let Some(base) = base
        && deadline != 0
    {
        confirm::name_previous(&mut loaded, &layout.generation(base))?;
    }
    let meta = Meta {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        number,
        previous: base,
        ifindex: interface.index,
        xdp_mode: options.xdp_mode,
        digest: policy.digest(),
        loaded_at: SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs()),
        deadline,
        egress_hook: (loaded.facts.flows != 0).then(|| EgressHook::of(interface)),
        flow_key: host.flow_key,
        tick_shift: host.tick_shift,
        flow_sets: loaded.facts.flow_mask + 1,
        site: options.site.clone(),
        policy: policy.clone(),
        directory: image.directory,
    };
    pin(&directory, &mut loaded, &meta)?;
    Ok(Prepared {
        interface: interface.clone(),
        layout: layout.clone(),
        loaded,
        meta,
        previous,
        other: None,
        replaces: false,
    })
}

/// Says what it means that nothing can be written to bpffs.
pub(super) fn cannot_write(error: std::io::Error, path: &Path) -> anyhow::Error {
    let fault = Fault::system(format!("cannot make `{}`", path.display()));
    let fault = match error.raw_os_error() {
        Some(libc::ENOSPC | libc::ENOMEM) => {
            fault.hint("the BPF file system or the kernel's memory is full: `portguard doctor`")
        }
        Some(libc::EPERM | libc::EACCES) => fault.hint("run as root: `sudo portguard ...`"),
        Some(libc::EROFS) => fault.hint("the BPF file system is mounted read-only: remount it"),
        _ => fault,
    };
    anyhow::Error::new(error).context(fault)
}

/// Refuses to reuse shared maps of another shape.
fn check_shapes(layout: &Layout) -> anyhow::Result<()> {
    let shared = layout.shared();
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
        "{}\n`portguard unload --interface {}` removes it, counters included; then load again",
        differences.join("\n"),
        layout.interface().0
    ))
    .into())
}

/// Pins a generation: programs and maps that a later tool asks for, its description last.
fn pin(directory: &Path, loaded: &mut Loaded, meta: &Meta) -> anyhow::Result<()> {
    let failed = |path: &Path| format!("cannot pin `{}`", path.display());
    let path = directory.join(Direction::Ingress.name());
    loaded
        .ingress()?
        .pin(&path)
        .with_context(|| failed(&path))?;
    if meta.egress_hook.is_some() {
        let path = directory.join(Direction::Egress.name());
        loaded.egress()?.pin(&path).with_context(|| failed(&path))?;
    }
    // The kernel empties a table of programs that no file and no process holds any more.
    let [previous_in, previous_out] = confirm::PREVIOUS;
    for name in [confirm::CONTROL, previous_in, previous_out] {
        let path = directory.join(name);
        loaded
            .map(name)?
            .pin(&path)
            .with_context(|| failed(&path))?;
    }
    step("pinned")?;
    meta.pin(&directory.join("meta"))?;
    step("described")
}
