//! What tools left that died between two attachments: whoever finds the swap marker without its tool (the lock is free
//! then) makes both sides one generation again, the one that ingress runs.

use aya::programs::SchedClassifier;
use portguard_common::reason::Direction;

use crate::error::Context as _;
use crate::fault::step;
use crate::generation::effective;
use crate::generation::publish::unload;
use crate::generation::{live, sweep};
use crate::generation::{marker, migrate};
use crate::hook::attach;
use crate::hook::egress::{self, EgressHook};
use crate::host::interface::Interface;
use crate::notice;
use crate::pins::bpffs::{self, Layout, Lock};
use crate::pins::programs::{number_of, program_of};

/// Recovers what tools left that died: half swaps, half loads, half removals. Says what it did.
///
/// # Errors
/// What the kernel refuses.
pub(crate) fn recover(lock: &Lock) -> crate::Result<()> {
    for layout in bpffs::layouts_here() {
        let (name, _) = layout.interface();
        if recover_one(lock, &layout, &name).with_context(|| format!("cannot recover `{name}`"))? {
            notice::say(&format!(
                "{name}: a tool died while changing the guard; what it left is repaired"
            ));
        }
    }
    Ok(())
}

fn recover_one(lock: &Lock, layout: &Layout, name: &str) -> crate::Result<bool> {
    migrate::resume(layout)?;
    let Some(ingress) = attach::inspect(&layout.link(Direction::Ingress))? else {
        // Something else took it away, and what is sent is judged on: that is put right by who attaches.
        if live(layout).ok().flatten().is_some() {
            return Ok(false);
        }
        // Ingress is attached last and detached first: without it there is nothing but remains.
        return unload(lock, layout);
    };
    if !effective::runs(layout, ingress) {
        return Ok(false);
    }
    let is_marked = layout.swapping().exists();
    let number = number_of(layout, ingress.program, Direction::Ingress);
    // What no generation explains is named by whoever looks for the generation in force.
    let (Some(number), Some(live)) = (number, live(layout).ok().flatten()) else {
        return Ok(false);
    };
    let pin = layout.link(Direction::Egress);
    let there = attach::inspect(&pin)?.map(|link| link.program);
    let meant = program_of(layout, number, Direction::Egress);
    let is_torn = match live.meta.egress_hook {
        // Without a pin there is nothing to put there.
        Some(EgressHook::Tcx) => meant.is_some() && there != meant,
        // A filter cannot be asked by a pin.
        Some(EgressHook::Clsact) => is_marked,
        None => there.is_some() || is_marked,
    };
    if is_torn {
        let interface = Interface::find(name)?;
        match live.meta.egress_hook {
            Some(hook) => {
                let program = layout.generation(number).join(Direction::Egress.name());
                let mut program = SchedClassifier::from_pin(program)?;
                egress::set(&mut program, &interface, hook, &pin)?;
            }
            None => {
                egress::clear(&interface, Some(EgressHook::of(&interface)), &pin)?;
            }
        }
        step("healed")?;
    }
    if is_marked {
        marker::end(layout)?;
    }
    // Prepared and never put in force, or replaced and not yet removed.
    sweep(layout, &live.kept())?;
    Ok(is_torn)
}
