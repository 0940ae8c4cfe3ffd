//! What is done about pins before any other change: follow renamed interfaces, recover what a dead tool left, and remove what
//! nothing can come back to.

use std::fs;
use std::path::{Path, PathBuf};

use portguard_common::reason::Direction;

use crate::conversations;
use crate::error::Context as _;
use crate::generation::aside;
use crate::generation::effective;
use crate::hook::attach;
use crate::host::interface::Interface;
use crate::notice;
use crate::pins::bpffs::{self, Layout, Lock};
use crate::pins::namespaces;
use crate::recovery::swaps;

/// All of it.
///
/// # Errors
/// If pins cannot be changed.
pub fn reconcile(lock: &Lock) -> crate::Result<()> {
    follow_renames(lock)?;
    swaps::recover(lock)?;
    for directory in sweep_stale(lock, false)? {
        notice::say(&format!(
            "removed `{directory}`: its network namespace is gone"
        ));
    }
    conversations::remove_unused().context("cannot remove the table of conversations")
}

/// Gives the pins of interfaces of this network namespace the names that the interfaces have now, and says so.
///
/// # Errors
/// If pins cannot be renamed.
fn follow_renames(_lock: &Lock) -> crate::Result<()> {
    let mut moves = Vec::new();
    for layout in bpffs::layouts_here() {
        let (name, _) = layout.interface();
        let link = attach::inspect(&layout.link(Direction::Ingress))?;
        let Some(link) = link.filter(|link| effective::runs(&layout, *link)) else {
            continue;
        };
        match Interface::name_of(link.ifindex) {
            Some(now) if now != name => moves.push((layout, name, now)),
            _ => {}
        }
    }
    // Two interfaces may have swapped their names: all move aside first. A tool that dies in between leaves directories
    // whose names no interface has, and the next one moves them on.
    let mut aside: Vec<(PathBuf, String, String)> = Vec::new();
    for (number, (layout, name, now)) in moves.into_iter().enumerate() {
        let between = Layout::of(&format!("{now} moving {number}")).directory;
        rename(&layout.directory, &between)?;
        aside.push((between, name, now));
    }
    for (between, name, now) in aside {
        let target = Layout::of(&now).directory;
        aside::make_room(&Layout::of(&now))?;
        if target.exists() {
            // The pins of an interface that had the name before and is gone: they guard nothing.
            bpffs::remove(&target)
                .with_context(|| format!("cannot remove `{}`", target.display()))?;
        }
        rename(&between, &target)?;
        notice::say(&format!(
            "{now}: this interface was called `{name}` when it was guarded; the guard follows it"
        ));
    }
    Ok(())
}

fn rename(from: &Path, to: &Path) -> crate::Result<()> {
    fs::rename(from, to)
        .with_context(|| format!("cannot rename `{}` to `{}`", from.display(), to.display()))
}

/// Removes pins of network namespaces that nobody is in any more: what they guarded is gone with them. Says which. With
/// `all`, also those of interfaces that are gone from this namespace, and of namespaces of which it cannot be told.
///
/// # Errors
/// If pins cannot be removed.
pub fn sweep_stale(_lock: &Lock, all: bool) -> crate::Result<Vec<String>> {
    let mut swept = Vec::new();
    let mut idle = bpffs::layouts();
    // What cannot be opened is not known to be stale.
    idle.retain(|layout| {
        attach::inspect(&layout.link(Direction::Ingress))
            .is_ok_and(|link| link.is_none_or(|link| link.ifindex == 0))
    });
    let locks = bpffs::foreign_locks();
    let here: Vec<bool> = idle.iter().map(|layout| layout.interface().1).collect();
    let others = idle.iter().zip(&here).filter(|(_, is_here)| !**is_here);
    let others = others.filter_map(|(layout, _)| layout.namespace());
    let locked = locks.iter().map(|(namespace, _)| *namespace);
    let alive = namespaces::alive(&others.chain(locked).collect());
    for (layout, is_here) in idle.into_iter().zip(here) {
        let is_stale = match layout.namespace() {
            // Nothing comes back by such a name.
            _ if is_here && aside::is_aside(&layout) => true,
            _ if is_here => all && Interface::find(&layout.interface().0).is_err(),
            Some(namespace) => match alive.get(&namespace).copied().flatten() {
                Some(alive) => !alive,
                None => all,
            },
            None => false,
        };
        if is_stale {
            bpffs::remove(&layout.directory)
                .with_context(|| format!("cannot remove `{}`", layout.directory.display()))?;
            swept.push(layout.directory.display().to_string());
        }
    }
    for (namespace, lock) in locks {
        if alive.get(&namespace) == Some(&Some(false)) {
            // Nobody can be waiting for it; whoever removes it first does.
            let _ = bpffs::remove(&lock);
        }
    }
    Ok(swept)
}
