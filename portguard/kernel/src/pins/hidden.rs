//! Guards whose pins this process cannot see: it sees their programs on the hooks all the same, and never takes such an
//! interface for one that is not guarded, nor portguard's own program for somebody else's.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use portguard_common::reason::Direction;

use super::bpffs::{self, Layout, check_readable, layouts_of_all_versions};
use super::mounts::{MOUNT, is_private};
use super::moved;
use crate::error::{Error, Kind};
use crate::hook::attach;
use crate::host::holder::{self, Holder};
use crate::host::interface::Interface;
use crate::object::INGRESS;
use portguard_policy::human::plain;

/// How long a program may be on a hook before its pin is there, or after the pin is gone.
const PATIENCE: Duration = Duration::from_millis(500);

/// Sees that every guard of this network namespace has pins that this process can see.
///
/// # Errors
/// [`Error`] that names the interface, and how to see them.
pub fn check() -> Result<(), Error> {
    let begun = Instant::now();
    let hidden = loop {
        // Hooks first: what is pinned right after it was attached is seen then.
        let hidden = find();
        // No event tells that a pin came or that the kernel let go of a program.
        if hidden.is_none() || begun.elapsed() > PATIENCE {
            break hidden;
        }
        thread::sleep(Duration::from_millis(10));
    };
    // Nobody else's pins are looked at, whatever the hooks say.
    let readable = check_readable();
    match hidden {
        Some((interface, holder)) => Err(fault(&interface, &holder, readable.as_ref().err())),
        None => readable,
    }
}

/// As [`check`] does, where pins may be hidden: a program of ours on a hook without a pin anywhere is for who wants the hook to
/// name.
///
/// # Errors
/// Those of [`check`].
pub(crate) fn check_before_changes() -> Result<(), Error> {
    if may_hide() {
        check()
    } else {
        check_readable()
    }
}

/// A program of ours that no pin explains, and its interface.
fn find() -> Option<(String, Holder)> {
    let hooks = holder::all_xdp().unwrap_or_default();
    if hooks.is_empty() {
        return None;
    }
    // Those of other namespaces need not be opened, however many they are, where none is missing.
    let here = pinned(&bpffs::layouts_here());
    if hooks.iter().all(|(_, holder)| here.contains(&holder.id)) {
        return None;
    }
    let pinned = pinned(&layouts_of_all_versions());
    hooks
        .into_iter()
        .filter(|(_, holder)| !pinned.contains(&holder.id))
        .map(|(interface, holder)| {
            let name = holder::name(holder.id);
            (interface, Holder { name, ..holder })
        })
        .find(|(_, holder)| is_ours(holder))
}

/// Ingress programs of guards.
fn pinned(layouts: &[Layout]) -> Vec<u32> {
    layouts
        .iter()
        .filter_map(|layout| attach::inspect(&layout.link(Direction::Ingress)).ok()?)
        .map(|link| link.program)
        .collect()
}

/// Whether a program is portguard's. Where the kernel does not tell its name, it may be wherever pins may be hidden.
pub fn is_ours(holder: &Holder) -> bool {
    // The kernel keeps fifteen characters, and it has no more.
    holder.name == INGRESS || (holder.name.is_empty() && may_hide())
}

/// Whether pins may be where this process does not see them.
fn may_hide() -> bool {
    !bpffs::is_mounted() || check_readable().is_err() || is_private() || is_stacked()
}

/// Whether another file system is mounted over the first BPF file system.
fn is_stacked() -> bool {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let here = mounts
        .lines()
        .filter(|line| line.split(' ').nth(4) == Some(MOUNT));
    here.count() > 1
}

/// What to say of a guard whose pins cannot be seen.
fn fault(interface: &str, holder: &Holder, unreadable: Option<&Error>) -> Error {
    let interface = plain(interface);
    let whose = if holder.name.is_empty() {
        "may be portguard's"
    } else {
        "is portguard's"
    };
    let why = if let Some(fault) = unreadable {
        fault.to_string()
    } else if !bpffs::is_mounted() {
        format!("the BPF file system is not at `{MOUNT}` here")
    } else {
        format!("another BPF file system is at `{MOUNT}` here")
    };
    let hint = unreadable.and_then(Error::todo).unwrap_or(
        "`ip netns exec` and private mounts hide the pins. `nsenter --net=/run/netns/NAME portguard ...` enters a \
         network namespace only; `nsenter --mount=/proc/1/ns/mnt portguard ...` goes back to the machine's mounts",
    );
    if let (Some(denied), true) = (unreadable, holder.name.is_empty()) {
        let what = format!("{denied}; {holder} on `{interface}` may be portguard's");
        return Error::new(Kind::PinsHidden, what).hint(hint);
    }
    Error::new(Kind::PinsHidden, format!(
        "the guard on `{interface}` cannot be seen from here: {holder} {whose}, and its pins are elsewhere: {why}"
    ))
    .hint(hint)
}

/// What to say of a program of ours on an interface that this process does not know to be guarded.
pub fn of(interface: &str, holder: &Holder) -> Error {
    if let Some(moved) = moved::of(holder) {
        return moved.fault();
    }
    fault(interface, holder, check_readable().as_ref().err())
}

/// Says who holds the hook that we want.
pub fn occupied(interface: &Interface, holder: &Holder) -> Error {
    let name = &interface.name;
    if is_ours(holder) {
        return of(name, holder);
    }
    Error::new(Kind::HookBusy, format!("another XDP program is attached to `{name}`: {holder}")).hint(format!(
        "portguard replaces nothing that it did not load; `bpftool link` and `ip link show dev {name}` show whose it is"
    ))
}
