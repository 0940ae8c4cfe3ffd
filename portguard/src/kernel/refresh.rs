//! Newer addresses of the domain names of the policies in force, as swaps: nothing else about a policy changes.

use std::time::Duration;

use anyhow::Context as _;
use portguard_common::reason::Direction;

use super::generation::{self, Live, Options, live};
use super::interface::Interface;
use super::publish::publish;
use super::{attach, bpffs, deadline};
use crate::domains::Answers;

/// Swaps in the addresses, on every interface of this network namespace where they change a set. Says where it did.
///
/// # Errors
/// What the system refuses; the other interfaces are tried all the same, and what was in force still is.
pub fn refresh(answers: &Answers) -> anyhow::Result<Vec<(String, Live)>> {
    // Seen without the lock that there is nothing to do, most of the time.
    let changes = |live: &Live| live.meta.policy.with_answers(answers).is_some();
    let layouts = bpffs::layouts().into_iter();
    let mut layouts = layouts
        .filter(|layout| layout.interface().1)
        .filter(|layout| live(layout).is_ok_and(|live| live.as_ref().is_some_and(changes)))
        .peekable();
    if layouts.peek().is_none() {
        return Ok(Vec::new());
    }
    let lock = bpffs::lock()?;
    let mut swapped = Vec::new();
    let mut outcome = Ok(());
    for layout in layouts {
        let (name, _) = layout.interface();
        match one(&lock, &layout, answers) {
            Ok(Some(live)) => swapped.push((name, live)),
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
) -> anyhow::Result<Option<Live>> {
    let (name, _) = layout.interface();
    // Under the lock: somebody may have loaded another policy meanwhile.
    let Some(now) = live(layout)? else {
        return Ok(None);
    };
    let Some(policy) = now.meta.policy.with_answers(answers) else {
        return Ok(None);
    };
    let link = attach::inspect(&layout.link(Direction::Ingress))?;
    if link.is_none_or(|link| link.ifindex == 0) {
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
        site: now.meta.site.clone(),
        confirm_within,
        is_refresh: true,
    };
    let interface = Interface::find(&name)?;
    let next = generation::prepare(lock, &interface, &policy, &options)?;
    Ok(publish(vec![next])?.pop())
}
