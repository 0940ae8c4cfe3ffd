//! Newer addresses of the domain names of the policies in force, as swaps: nothing else about a policy changes.

use std::time::Duration;

use portguard_common::reason::Direction;

use crate::error::Context as _;
use crate::generation::deadline;
use crate::generation::effective;
use crate::generation::prepare::prepare_from;
use crate::generation::publish::publish_and_keep;
use crate::generation::standby::Standby;
use crate::generation::{Live, Occasion, Options, live};
use crate::hook::attach;
use crate::host::interface::Interface;
use crate::pins::{self, bpffs};
use portguard_policy::domains::Answers;

/// An interface whose addresses were swapped in.
#[derive(Debug)]
pub struct Refreshed {
    /// Its name.
    pub interface: String,
    /// What is in force now.
    pub live: Live,
    /// Whether its programs were there already, and only tables were written.
    pub from_standby: bool,
}

/// Swaps in the addresses, on every interface of this network namespace where they change a set. Says where it did.
///
/// With a standby pair of programs nothing has to be verified, which takes milliseconds; without, it is a load like any other.
///
/// # Errors
/// What the system refuses; the other interfaces are tried all the same, and the policy in force stays.
pub fn refresh(answers: &Answers, standby: &mut Standby) -> crate::Result<Vec<Refreshed>> {
    // Seen without the lock that there is nothing to do, most of the time.
    let changes = |live: &Live| live.meta.policy.with_answers(answers).is_some();
    let layouts = bpffs::layouts_here().into_iter();
    let mut layouts = layouts
        .filter(|layout| live(layout).is_ok_and(|live| live.as_ref().is_some_and(changes)))
        .peekable();
    if layouts.peek().is_none() {
        return Ok(Vec::new());
    }
    let lock = pins::lock()?;
    let mut swapped = Vec::new();
    let mut outcome = Ok(());
    for layout in layouts {
        let (name, _) = layout.interface();
        match one(&lock, &layout, answers, standby) {
            Ok(Some((live, from_standby))) => swapped.push(Refreshed {
                interface: name,
                live,
                from_standby,
            }),
            Ok(None) => {}
            Err(error) => {
                outcome = Err(error).with_context(|| format!("cannot refresh `{name}`"));
            }
        }
    }
    match outcome {
        Err(error) if swapped.is_empty() => Err(error),
        _ => Ok(swapped),
    }
}

fn one(
    lock: &bpffs::Lock,
    layout: &bpffs::Layout,
    answers: &Answers,
    standby: &mut Standby,
) -> crate::Result<Option<(Live, bool)>> {
    let (name, _) = layout.interface();
    // Under the lock: somebody may have loaded another policy meanwhile.
    let Some(now) = live(layout)? else {
        return Ok(None);
    };
    let Some(policy) = now.meta.policy.with_answers(answers) else {
        return Ok(None);
    };
    let link = attach::inspect(&layout.link(Direction::Ingress))?;
    if !link.is_some_and(|link| effective::runs(layout, link)) {
        // The interface is gone; what is mended later is refreshed then.
        return Ok(None);
    }
    let confirm_within = if now.is_confirmed {
        Duration::ZERO
    } else {
        match deadline::left(now.meta.deadline)? {
            Some(left) => left,
            // It has given way: somebody decides what comes next, not a name server.
            None => return Ok(None),
        }
    };
    let options = Options {
        migrate: false,
        xdp_mode: now.meta.xdp_mode,
        sources: now.meta.sources.clone(),
        confirm_within,
        occasion: Occasion::Refresh,
        over_unknown: false,
        together: Vec::new(),
    };
    let interface = Interface::find(&name)?;
    let free = standby.take(layout);
    let next = prepare_from(lock, &interface, &policy, &options, free)?;
    Ok(publish_and_keep(vec![next])?.pop().map(|(live, pair)| {
        let from_standby = pair.is_changed;
        standby.put(layout, pair);
        (live, from_standby)
    }))
}

/// Loads standby programs for interfaces whose policies have domain names, so that their next refresh takes milliseconds.
///
/// # Errors
/// What the system refuses: the next refresh takes longer then.
pub fn provide(standby: &mut Standby) -> crate::Result<()> {
    for layout in bpffs::layouts_here() {
        if !live(&layout)?.is_some_and(|live| standby.lacks(&layout, &live)) {
            continue;
        }
        let (name, _) = layout.interface();
        let lock = pins::lock()?;
        standby
            .provide(&lock, &layout)
            .with_context(|| format!("cannot load standby programs for `{name}`"))?;
    }
    Ok(())
}
