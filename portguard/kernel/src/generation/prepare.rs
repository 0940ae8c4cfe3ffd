//! Preparing a generation: everything that can fail, without touching what is in force. It is loaded, filled, read back,
//! tested and pinned beside the others. [`crate::generation::publish`] then swaps the links.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use portguard_common::abi::control;
use portguard_common::reason::Direction;

use crate::conversations::{self, Adopted, Namespace};
use crate::error::{Context as _, Error, Kind};
use crate::fault::step;
use crate::generation::aside;
use crate::generation::confirm;
use crate::generation::deadline;
use crate::generation::endings;
use crate::generation::facts;
use crate::generation::migrate;
use crate::generation::pair::{Pair, Place};
use crate::generation::publish::unload;
use crate::generation::{Live, is_unknown, live, sweep};
use crate::hook::attach::Found;
use crate::hook::egress::EgressHook;
use crate::host::holder;
use crate::host::interface::Interface;
use crate::host::link;
use crate::notice;
use crate::object::{self, HostFacts, Loaded};
use crate::pins::bpffs::{Layout, Lock, cannot_write, remove};
use crate::pins::hidden;
use crate::pins::meta::{Meta, Sources, XdpModeName};
use portguard_policy::cells::Directory;
use portguard_policy::image::{Image, TooLarge};
use portguard_policy::policy::{Outbound, Policy};

/// Why a policy is loaded. Unless it is another one, what `rollback` goes back to stays what it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Occasion {
    /// Somebody wants it.
    Load,
    /// Its domain names have newer addresses.
    Refresh,
    /// Its interface was gone, and is back.
    Return,
}

/// How to load.
#[derive(Debug, Clone)]
pub struct Options {
    /// XDP mode.
    pub xdp_mode: XdpModeName,
    /// What it was compiled from.
    pub sources: Sources,
    /// How long the generation may wait to be confirmed; zero = it needs no confirmation.
    pub confirm_within: Duration,
    /// Take the place of another version's guard.
    pub migrate: bool,
    /// Why it is loaded.
    pub occasion: Occasion,
    /// Take the place of a guard whose pins do not say what it is: see [`crate::generation::is_unknown`].
    pub over_unknown: bool,
    /// Indices of the interfaces that get a guard at the same time.
    pub together: Vec<u32>,
}

impl Options {
    fn is_refresh(&self) -> bool {
        self.occasion == Occasion::Refresh
    }

    /// The interfaces that are about to be guarded, with this one.
    fn coming(&self, interface: &Interface) -> Vec<u32> {
        let mut all = self.together.clone();
        all.push(interface.index);
        all
    }
}

/// A generation that is ready: in the kernel, pinned, attached to nothing.
#[derive(Debug)]
pub struct Prepared {
    pub(crate) interface: Interface,
    pub(crate) layout: Layout,
    pub(crate) pair: Pair,
    pub(crate) meta: Meta,
    pub(crate) previous: Option<Live>,
    /// Whether what is in force until then cannot be read.
    pub(crate) is_over_unknown: bool,
    /// Another version's guard, whose place it takes.
    pub(crate) other: Option<migrate::Other>,
    /// What the swap found on the hook.
    pub(crate) found: Found,
    /// What was taken over, where this is the first guard of its network namespace.
    adopted: Option<Adopted>,
    /// The guard that had its name, and goes on in another network namespace.
    aside: Option<Layout>,
}

impl Prepared {
    /// What is to be published.
    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    /// What was taken over of the sessions that were open, where this is the first guard of its network namespace.
    pub fn adopted(&self) -> Option<Adopted> {
        self.adopted
    }

    /// What is in force until then.
    pub fn previous(&self) -> Option<&Live> {
        self.previous.as_ref()
    }

    /// Removes what was prepared.
    pub fn withdraw(&self) {
        let is_first = self.previous.is_none() && !self.is_over_unknown;
        discard(&self.layout, self.meta.number, is_first);
        if let Some(aside) = &self.aside {
            aside::put_back(&self.layout, aside);
        }
    }
}

/// Removes a generation that is not in force, and everything else where none is. Best effort: it follows an error that
/// says more than one about the clean-up would, and the next tool removes what this leaves.
pub(crate) fn discard(layout: &Layout, number: u64, is_first: bool) {
    if is_first {
        let _ = remove(&layout.directory);
        let _ = conversations::remove_unused();
    } else {
        let _ = remove(&layout.generation(number));
    }
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
) -> crate::Result<Prepared> {
    prepare_from(lock, interface, policy, options, None)
}

/// As [`prepare`] does, from a standby pair of programs if that will do; it must be in force nowhere.
///
/// # Errors
/// Those of [`prepare`].
pub(crate) fn prepare_from(
    lock: &Lock,
    interface: &Interface,
    policy: &Policy,
    options: &Options,
    standby: Option<Pair>,
) -> crate::Result<Prepared> {
    let layout = Layout::of(&interface.name);
    step("locked")?;
    if !options.migrate {
        migrate::refuse(&layout, interface)?;
    }
    let other = migrate::other(&layout, interface)?;
    let aside = aside::make_room(&layout)?;
    let (previous, is_over_unknown) = match live(&layout) {
        Err(error) if options.over_unknown && is_unknown(&error, &layout) => (None, true),
        found => (found?, false),
    };
    let next = || layout.generations().last().copied().unwrap_or_default() + 1;
    let number = if let Some(live) = &previous {
        sweep(&layout, &live.kept())?;
        next()
    } else if is_over_unknown {
        // What its counters mean is not known any more.
        remove(&layout.shared()).context("cannot remove the counters")?;
        next()
    } else {
        // What is there without an attached ingress program is half a load, of a tool that was killed.
        unload(lock, &layout)?;
        if other.is_none() {
            refuse_foreign(interface)?;
        }
        1
    };
    step("swept")?;
    let is_first = previous.is_none() && !is_over_unknown;
    let result = prepare_next(
        lock,
        &layout,
        interface,
        policy,
        options,
        previous,
        (number, standby),
    );
    if result.is_err() {
        discard(&layout, number, is_first);
        if let Some(aside) = &aside {
            aside::put_back(&layout, aside);
        }
    }
    result.map(|prepared| Prepared {
        is_over_unknown,
        other,
        aside,
        ..prepared
    })
}

/// Whether nothing noted so far what others behind this host send by an interface, so that it has to be taken over: what is in
/// force there judges nothing that is sent.
pub fn takes_over(in_force: Option<&Live>) -> bool {
    in_force.is_none_or(|live| live.egress.is_none())
}

/// Refuses an interface whose hook another program holds, before anything is loaded.
fn refuse_foreign(interface: &Interface) -> crate::Result<()> {
    // Where the kernel does not say, attaching will tell.
    let holders = holder::xdp(interface.index).unwrap_or_default();
    match holders.first() {
        None => Ok(()),
        Some(holder) => Err(hidden::occupied(interface, holder)),
    }
}

/// Refuses a generation with a deadline that would take away the egress program which it may have to give way to.
fn refuse_unjudged(previous: Option<&Live>, name: &str) -> Result<(), Error> {
    if previous.is_none_or(|live| live.meta.egress_hook.is_none()) {
        return Ok(());
    }
    Err(Error::new(Kind::Unsuitable, format!(
        "`outbound = \"off\"` on `{name}` cannot give way to the policy in force, which judges outbound packets"
    ))
    .hint("use `--confirm-within 0`, or `--outbound audit` until it is confirmed"))
}

/// When it gives way; 0 for never.
fn deadline_of(options: &Options) -> crate::Result<u64> {
    if options.confirm_within.is_zero() {
        return Ok(0);
    }
    deadline::after(options.confirm_within)
}

/// The state of conversations, with what passes by the interface, unless that `is_known`.
fn state(
    lock: &Lock,
    interface: &Interface,
    policy: &Policy,
    options: &Options,
    is_known: bool,
) -> crate::Result<Namespace> {
    let namespace = conversations::ensure(lock, policy)?;
    if !is_known || namespace.adopted().is_some() {
        conversations::take_over(&namespace, &options.coming(interface), policy)?;
    }
    if !options.is_refresh()
        && let Some(misfit) = namespace.misfit(policy)
    {
        notice::warn(&misfit);
    }
    Ok(namespace)
}

fn prepare_next(
    lock: &Lock,
    layout: &Layout,
    interface: &Interface,
    policy: &Policy,
    options: &Options,
    previous: Option<Live>,
    (number, standby): (u64, Option<Pair>),
) -> crate::Result<Prepared> {
    let shared = layout.shared();
    fs::create_dir_all(&shared).map_err(|error| cannot_write(error, &shared))?;
    check_shapes(layout)?;
    step("shared")?;
    let start = link::start(interface.index, &interface.name)?;
    let mut conversations = match policy.settings.outbound {
        Outbound::Off => None,
        Outbound::Audit | Outbound::Enforce => {
            let is_known = !takes_over(previous.as_ref());
            Some(state(lock, interface, policy, options, is_known)?)
        }
    };
    step("conversations")?;
    let directory = previous
        .as_ref()
        .map(|live| live.meta.directory.clone())
        .unwrap_or_default();
    let base = previous.as_ref().and_then(|live| {
        if options.occasion == Occasion::Load {
            live.base()
        } else {
            live.meta.previous
        }
    });
    let deadline = deadline_of(options)?;
    if deadline != 0 && conversations.is_none() {
        refuse_unjudged(previous.as_ref(), &interface.name)?;
    }
    let at = (interface.index, options.xdp_mode);
    let host = HostFacts {
        deadline,
        ..facts::of_host(conversations.as_ref(), start, at)
    };
    let left = policy.without_ended(endings::wall_clock());
    let image = build(&left, directory)?;
    let directory = layout.generation(number);
    fs::create_dir(&directory).map_err(|error| cannot_write(error, &directory))?;
    let place = Place {
        shared: &shared,
        namespace: conversations.as_ref().map(Namespace::directory),
        own: &directory,
        room: !policy.domains.sets.is_empty(),
    };
    let mut pair = pair(standby, image, &host, place)?;
    if let Some(namespace) = &mut conversations {
        conversations::expect_interfaces(&options.coming(interface))?;
        // New addresses of names are no reason to think otherwise of a socket that asks.
        if !options.is_refresh() {
            let from = previous.as_ref().map(|live| &live.meta.policy);
            conversations::note_services(from, policy, Some(namespace.take_sockets()))?;
        }
    }
    step("loaded")?;
    step("read-back")?;
    pair.test(&left)?;
    step("tested")?;
    if left.ending().next().is_some() {
        pair.loaded
            .set_control(control::WALL, endings::wall_offset()?)?;
    }
    if let Some(base) = base
        && deadline != 0
    {
        confirm::name_previous(&mut pair.loaded, &layout.generation(base))?;
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
        egress_hook: (pair.loaded.facts.flows != 0).then(|| EgressHook::of(interface)),
        flow_key: host.flow_key,
        tick_shift: host.tick_shift,
        flow_sets: pair.loaded.facts.flow_mask + 1,
        sources: options.sources.clone(),
        local: pair.loaded.local.clone(),
        policy: policy.clone(),
        directory: pair.directory()?.clone(),
    };
    if !options.is_refresh() {
        pair.shed();
    }
    pin(&directory, &mut pair.loaded, &meta)?;
    Ok(Prepared {
        adopted: conversations.and_then(|one| one.adopted()),
        interface: interface.clone(),
        layout: layout.clone(),
        pair,
        meta,
        previous,
        is_over_unknown: false,
        other: None,
        aside: None,
        found: Found::Nothing,
    })
}

/// Standby programs, given this image, if they will do; others that are loaded for it.
fn pair(
    standby: Option<Pair>,
    image: Image,
    host: &HostFacts,
    place: Place<'_>,
) -> crate::Result<Pair> {
    if let Some(mut standby) = standby
        && standby.can_become(&image, host, (place.shared, place.namespace))?
    {
        standby.change(image)?;
        return Ok(standby);
    }
    Pair::load(image, host, place)
}

/// The image of a policy, with the counters that earlier ones have.
pub(crate) fn build(policy: &Policy, directory: Directory) -> crate::Result<Image> {
    let kept = directory.cells.len();
    Image::build(policy, directory).map_err(|error| {
        let refused = |what| Error::new(Kind::TooLarge, what);
        if kept > 0 && error == TooLarge::Cells && Image::build(policy, Directory::default()).is_ok() {
            return refused(format!(
                "{error}, since {kept} count what this policy and earlier ones opened: counts are kept from policy to policy"
            ))
            .hint("`portguard unload --interface NAME` gives their counters back; then load again");
        }
        refused(error.to_string()).hint("`portguard check` says which row needs most")
    })
}

/// Refuses to reuse shared maps of another shape.
fn check_shapes(layout: &Layout) -> crate::Result<()> {
    let shared = layout.shared();
    let differences: Vec<String> = object::shared_shapes()?
        .iter()
        .flat_map(|(name, shape)| shape.differences(name, &shared.join(name)))
        .collect();
    if differences.is_empty() {
        return Ok(());
    }
    Err(Error::new(
        Kind::OtherVersion,
        format!(
            "`{}` is of another version of portguard, or somebody else's",
            shared.display()
        ),
    )
    .hint(format!(
        "{}\n`rm -r {}` gives up the counters, and the guard goes on; then load again",
        differences.join("\n"),
        shared.display()
    )))
}

/// Pins a generation: programs and maps that a later tool asks for, its description last.
fn pin(directory: &Path, loaded: &mut Loaded, meta: &Meta) -> crate::Result<()> {
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
