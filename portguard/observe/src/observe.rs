//! What is in force and what it counted, interface by interface: where every view of a running guard begins.

use std::fs;
use std::path::Path;
use std::time::UNIX_EPOCH;

use portguard_common::reason::Direction;
use portguard_kernel::error::{Context as _, Error, Kind};

use crate::counters::{Report, Snapshot, totals};
use crate::drift::Sight;
use crate::events::stream::booted;
use crate::findings::{Finding, Sockets, findings, name_left_out};
use crate::resets::Resets;
use crate::scope;
use crate::talkers::{Talkers, TopTalkers};
use portguard_kernel::generation::{self, Live};
use portguard_kernel::hook::attach;
use portguard_kernel::host::clients::clients;
use portguard_kernel::host::interface::{Interface, canonical};
use portguard_kernel::host::listeners::{self, Listener, listening};
use portguard_kernel::host::owners::ephemeral;
use portguard_kernel::pins::bpffs::{self, Layout};
use portguard_kernel::pins::{hidden, moved};
use portguard_policy::catalog::Catalog;
use portguard_policy::human::plain;

/// How often counters are read for a moment in which no packet came between two looks.
const LOOKS: u32 = 3;
/// Packets that may have: more are for want of looking at each.
const BETWEEN: u64 = 64;

/// A guarded interface and what is in force on it.
#[derive(Debug, Clone)]
pub struct Guard {
    /// The name that the interface has now.
    pub name: String,
    /// Its pins.
    pub layout: Layout,
    /// What is in force.
    pub live: Live,
}

/// A guarded interface at one moment.
#[derive(Debug)]
pub struct Observed {
    /// The name that it has now. Its pins and its files have the one that it had when it was guarded.
    pub name: String,
    /// Its pins.
    pub layout: Layout,
    /// What is in force.
    pub live: Live,
    /// The counters since the first load.
    pub raw: Snapshot,
    /// The causes of violations since the first load, of the same moment.
    pub talkers: Talkers,
    /// Resets, if there were any.
    pub resets: Option<Resets>,
}

/// The guarded interfaces of this network namespace, or the one that is named.
///
/// # Errors
/// If one is named that is not guarded, or this process may not look.
pub fn layouts(only: Option<&str>) -> Result<Vec<Layout>, Error> {
    hidden::check()?;
    let here = bpffs::layouts_here();
    // Nobody is to think that nothing is guarded here.
    if here.is_empty()
        && let Some(moved) = moved::here().first()
    {
        return Err(moved.fault());
    }
    let Some(name) = only else {
        return Ok(here);
    };
    // Who has been given another name is known by it; one that is gone, by its last.
    let name = &canonical(name);
    let is_called = |layout: &&Layout| called(layout) == *name;
    let is_pinned = |layout: &&Layout| layout.interface().0 == *name;
    let found = here
        .iter()
        .find(is_called)
        .or_else(|| here.iter().find(is_pinned));
    match found {
        Some(layout) => Ok(vec![layout.clone()]),
        None => Err(not_guarded(name)),
    }
}

/// What the interface of a layout is called now.
fn called(layout: &Layout) -> String {
    let attached = attach::inspect(&layout.link(Direction::Ingress));
    let now = attached.ok().flatten().map(|attached| attached.ifindex);
    now.and_then(Interface::name_of)
        .unwrap_or_else(|| layout.interface().0)
}

/// What is in force on all guarded interfaces of this network namespace, or on the one that is named.
///
/// # Errors
/// See [`layouts`], and if there is something in force that cannot be read.
pub fn guards(only: Option<&str>) -> portguard_kernel::Result<Vec<Guard>> {
    let mut found = Vec::new();
    for layout in layouts(only)? {
        let name = called(&layout);
        if let Some(mut live) = generation::live(&layout)? {
            live.warnings.extend(scope::doubts(&name, &live.meta));
            found.push(Guard { name, layout, live });
        }
    }
    Ok(found)
}

/// For who names an interface that is not guarded.
pub fn not_guarded(name: &str) -> Error {
    Error::new(Kind::NotThere, format!("`{}` is not guarded", plain(name)))
        .hint("`portguard status` lists the guarded interfaces")
}

/// Looks at all guarded interfaces of this network namespace, or at the one that is named.
///
/// # Errors
/// If one is named that is not guarded, and what the system refuses.
pub fn interfaces(only: Option<&str>) -> portguard_kernel::Result<Vec<Observed>> {
    guards(only)?.into_iter().map(Guard::observe).collect()
}

impl Guard {
    /// Looks at what it counted.
    ///
    /// # Errors
    /// If that cannot be read.
    pub fn observe(self) -> portguard_kernel::Result<Observed> {
        let Self { name, layout, live } = self;
        let shared = layout.shared();
        let (raw, talkers) = look(&name, &live, &shared)?;
        let resets = Resets::read(&shared)?;
        Ok(Observed {
            name,
            layout,
            live,
            raw,
            talkers,
            resets,
        })
    }
}

/// The counters, and the talkers, of one moment: they are two maps, and packets come between two looks.
fn look(name: &str, live: &Live, shared: &Path) -> portguard_kernel::Result<(Snapshot, Talkers)> {
    let booted = booted();
    let mut tries = LOOKS;
    loop {
        tries -= 1;
        let talkers = Talkers::read(shared, booted)
            .with_context(|| format!("cannot read the top talkers of `{name}`"))
            .map_err(is_made_again)?;
        let raw = Snapshot::read(shared, live.meta.directory.cells.len())
            .with_context(|| format!("cannot read the counters of `{name}`"))
            .map_err(is_made_again)?;
        let (_, violations) = totals(&live.meta, &raw);
        // What is missing is more than may have come between, or nothing.
        let missing = violations.packets.saturating_sub(talkers.attributed);
        if tries == 0 || !(1..=BETWEEN).contains(&missing) {
            return Ok((raw, talkers));
        }
    }
}

/// What to do where pins are gone.
fn is_made_again(error: Error) -> Error {
    if error.todo().is_some() {
        return error;
    }
    error.hint("the guard goes on; `portguard load` makes pins again that are gone, and what they counted begins anew")
}

/// What the sockets of this network namespace say about ports.
///
/// # Errors
/// If the kernel does not tell what listens.
pub fn sockets() -> portguard_kernel::Result<Sockets> {
    Ok(Sockets {
        listening: listening().context("cannot read what listens")?,
        client_ports: ephemeral(),
        clients: clients(),
    })
}

/// What listens in this network namespace and whose it is, and the same as [`sockets`] has it: of one moment.
///
/// # Errors
/// If the kernel does not tell what listens.
pub fn listeners() -> portguard_kernel::Result<(Vec<Listener>, Sockets)> {
    let all = listeners::listeners().context("cannot read what listens")?;
    let reached = all.iter().filter(|one| !one.is_loopback());
    let sockets = Sockets {
        listening: reached.map(|one| (one.transport, one.port)).collect(),
        client_ports: ephemeral(),
        clients: clients(),
    };
    Ok((all, sockets))
}

impl Observed {
    /// The counters since the last reset, or since the first load.
    pub fn counted(&self) -> Snapshot {
        match &self.resets {
            Some(resets) if !resets.record.is_empty() => self.raw.since(&resets.snapshot),
            _ => self.raw.clone(),
        }
    }

    /// A report since the last reset, or (`raw`) since the first load.
    pub fn report(&self, raw: bool) -> Report {
        let last = self
            .resets
            .as_ref()
            .and_then(|resets| resets.record.last())
            .filter(|_| !raw);
        let mut report = if raw {
            Report::new(&self.name, &self.live.meta, &self.raw)
        } else {
            Report::new(&self.name, &self.live.meta, &self.counted())
        };
        report.since = last.map(|reset| reset.at).or_else(|| self.first_load());
        report.reset = last.cloned();
        report.warnings.clone_from(&self.live.warnings);
        report.effective.clone_from(&self.live.effective);
        report
    }

    /// Top talkers: the `most` heaviest causes of violations, since the last reset or (`raw`) since the first load, with
    /// the rows of a catalog that come near.
    pub fn top_talkers(&self, catalog: Option<&Catalog>, most: usize, raw: bool) -> TopTalkers {
        let report = self.report(raw);
        let near = catalog.map(|catalog| (&self.live.meta.policy, catalog));
        let talkers = match (&report.reset, &self.resets) {
            (Some(reset), Some(resets)) => {
                let at = reset.at.saturating_mul(1_000_000_000);
                &self.talkers.since(resets.mark.as_ref(), at)
            }
            _ => &self.talkers,
        };
        TopTalkers::new(talkers, &report, near, most)
    }

    /// Findings, since the last reset or (`raw`) since the first load.
    pub fn findings(&self, sockets: &Sockets, raw: bool) -> Vec<Finding> {
        self.sight(sockets, None, raw).findings
    }

    /// Counters, talkers and findings, since the last reset or (`raw`) since the first load, with the rows of a catalog that
    /// come near.
    pub fn sight(&self, sockets: &Sockets, catalog: Option<&Catalog>, raw: bool) -> Sight {
        let report = self.report(raw);
        let talkers = self.top_talkers(catalog, usize::MAX, raw).talkers;
        let policy = &self.live.meta.policy;
        let mut findings = findings(policy, std::slice::from_ref(&report), &talkers, sockets);
        if let Some(catalog) = catalog {
            name_left_out(&mut findings, policy, catalog);
        }
        Sight {
            report,
            talkers,
            findings,
        }
    }

    /// The name that its files have: that of its pins.
    pub fn pinned_name(&self) -> String {
        self.layout.interface().0
    }

    /// When the counters were made, in seconds since the Unix epoch: they are older than the generation in force.
    pub fn first_load(&self) -> Option<u64> {
        self.counters_made().map(|made| made / 1_000_000_000)
    }

    /// The same in nanoseconds, which tells two loads within a second apart.
    pub fn counters_made(&self) -> Option<u64> {
        let pin = fs::metadata(self.layout.shared().join("CELLS")).ok()?;
        let made = pin.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
        u64::try_from(made.as_nanos()).ok()
    }
}
