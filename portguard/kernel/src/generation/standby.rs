//! Programs kept for the next refresh of addresses: verified already, attached nowhere.
//!
//! What a refresh changes lies in tables, and nothing of it in what is frozen in the programs. So the programs that a refresh
//! replaced need not be verified again: at the next one, their tables get the newer addresses, are read back and tested, and
//! the links are swapped, as at any other load. No table is written while a program that reads it is attached. Whoever keeps
//! nothing, or finds that what it keeps will not do, loads anew; the outcome is the same.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use portguard_common::reason::Direction;

use crate::conversations::{self, Namespace};
use crate::error::Context as _;
use crate::generation::facts;
use crate::generation::pair::{Pair, Place};
use crate::generation::prepare::build;
use crate::generation::{self, Live, program_of, sweep};
use crate::host::link;
use crate::pins::bpffs::{Layout, Lock, cannot_write, layouts, remove};
use portguard_policy::policy::Outbound;

/// Pairs of programs, by the directory of their interface.
#[derive(Debug, Default)]
pub struct Standby {
    interfaces: BTreeMap<PathBuf, Kept>,
}

/// Those of one interface.
#[derive(Debug, Default)]
struct Kept {
    /// What this process put in force last.
    published: Option<Pair>,
    /// What is free to be changed, as far as this process knows.
    free: Option<Pair>,
}

impl Standby {
    /// A pair that no link runs and no generation has, if there is one.
    pub(crate) fn take(&mut self, layout: &Layout) -> Option<Pair> {
        let mut pair = self.interfaces.get_mut(&layout.directory)?.free.take()?;
        // Somebody else may have loaded, gone back and confirmed meanwhile: whatever can still be put in force, or be gone
        // back to, has a directory.
        let own = pair.loaded.ingress().ok()?.info().ok()?.id();
        let is_used = layout
            .generations()
            .into_iter()
            .any(|number| program_of(layout, number, Direction::Ingress) == Some(own));
        (!is_used).then_some(pair)
    }

    /// Keeps what was put in force; what was before, by this process, is free then.
    pub(crate) fn put(&mut self, layout: &Layout, pair: Pair) {
        let kept = self.interfaces.entry(layout.directory.clone()).or_default();
        kept.free = kept.published.take().filter(|before| before.is_like(&pair));
        kept.published = Some(pair);
    }

    /// Forgets interfaces that are no longer guarded: their programs and tables go with that.
    pub fn forget_gone(&mut self) {
        let there = layouts();
        self.interfaces
            .retain(|directory, _| there.iter().any(|layout| layout.directory == *directory));
    }

    /// Whether programs are still to be prepared for an interface.
    pub fn lacks(&self, layout: &Layout, live: &Live) -> bool {
        let has_one = |kept: &Kept| kept.free.is_some();
        !live.meta.policy.domains.sets.is_empty()
            && live.is_confirmed
            && !self.interfaces.get(&layout.directory).is_some_and(has_one)
    }

    /// Loads a pair for the next refresh of what is in force on an interface.
    ///
    /// # Errors
    /// What the kernel refuses; nothing in force depends on it.
    pub(crate) fn provide(&mut self, _lock: &Lock, layout: &Layout) -> crate::Result<()> {
        let live = generation::live(layout)?;
        let Some(live) = live.filter(|live| self.lacks(layout, live)) else {
            return Ok(());
        };
        let policy = &live.meta.policy;
        sweep(layout, &live.kept())?;
        let conversations = match policy.settings.outbound {
            Outbound::Off => None,
            Outbound::Audit | Outbound::Enforce => conversations::find(),
        };
        let start = link::start(live.meta.ifindex, &layout.interface().0)?;
        let host = facts::of_host(
            conversations.as_ref(),
            start,
            (live.meta.ifindex, live.meta.xdp_mode),
        );
        let image = build(policy, live.meta.directory.clone())?;
        let next = layout.generations().last().copied().unwrap_or_default() + 1;
        let own = layout.generation(next);
        fs::create_dir(&own).map_err(|error| cannot_write(error, &own))?;
        let place = Place {
            shared: &layout.shared(),
            namespace: conversations.as_ref().map(Namespace::directory),
            own: &own,
            room: true,
        };
        let pair = Pair::load(image, &host, place);
        remove(&own).with_context(|| format!("cannot remove `{}`", own.display()))?;
        let kept = self.interfaces.entry(layout.directory.clone()).or_default();
        kept.free = Some(pair?);
        Ok(())
    }
}
