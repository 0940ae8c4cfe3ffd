//! Guarding interfaces again that were deleted and are back: the kernel dropped their guard with them.

use std::time::Duration;

use portguard_common::reason::Direction;

use crate::conversations;
use crate::error::Context as _;
use crate::generation::deadline;
use crate::generation::effective;
use crate::generation::marker;
use crate::generation::publish::publish;
use crate::generation::{self, Live, Occasion, Options, live};
use crate::hook::attach;
use crate::host::interface::Interface;
use crate::pins::bpffs::{self, Lock};
use crate::recovery::reconcile::reconcile;

/// Loads anew, by what their pins say, the guards of this network namespace whose interfaces were gone and are back.
/// Says which.
///
/// # Errors
/// What the system refuses; the other interfaces are tried all the same.
pub fn reattach(lock: &Lock) -> crate::Result<Vec<String>> {
    reconcile(lock)?;
    let mut reattached = Vec::new();
    let mut outcome = Ok(());
    for layout in bpffs::layouts_here() {
        let (name, _) = layout.interface();
        let link = attach::inspect(&layout.link(Direction::Ingress))?;
        // Gone, taken off by force, or in another network namespace: what has the name here has no guard.
        if link.is_some_and(|link| effective::runs(&layout, link)) {
            continue;
        }
        let Ok(interface) = Interface::find(&name) else {
            continue;
        };
        let Some(lost) = live(&layout)? else { continue };
        match again(lock, &interface, &lost) {
            Ok(()) => reattached.push(name),
            Err(error) => {
                outcome = Err(error).with_context(|| format!("cannot guard `{name}` again"));
            }
        }
    }
    // A bridge or a tunnel may have come over a guarded interface: what it forwards is no word of this host's.
    conversations::follow_interfaces().context("cannot tell which interfaces are outside")?;
    outcome.map(|()| reattached)
}

fn again(lock: &Lock, interface: &Interface, lost: &Live) -> crate::Result<()> {
    // Who had to confirm still has to, in the time that is left; nobody gets a second chance by an interface's return.
    let confirm_within = if lost.is_confirmed {
        Duration::ZERO
    } else {
        deadline::left(lost.meta.deadline)?.unwrap_or(Duration::from_nanos(1))
    };
    let options = Options {
        xdp_mode: lost.meta.xdp_mode,
        sources: lost.meta.sources.clone(),
        confirm_within,
        migrate: false,
        occasion: Occasion::Return,
        over_unknown: false,
        together: Vec::new(),
    };
    let next = generation::prepare(lock, interface, &lost.meta.policy, &options)?;
    publish(vec![next]).map(drop)
}

/// Whether a tool died, or is at work, between the attachments of a guard of this network namespace: cheap to ask often.
pub fn is_torn() -> bool {
    marker::is_any_open()
}
