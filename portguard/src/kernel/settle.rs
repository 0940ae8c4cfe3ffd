//! What is done about pins before any other change: follow renamed interfaces, and keep off other versions' pins.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use portguard_common::reason::Direction;

use super::attach;
use super::bpffs::{self, Layout, Lock};
use super::interface::Interface;
use crate::error::Fault;

/// Gives the pins of interfaces of this network namespace the names that the interfaces have now, and says so.
///
/// # Errors
/// If pins cannot be renamed.
pub fn follow_renames(_lock: &Lock) -> anyhow::Result<()> {
    let mut moves = Vec::new();
    for layout in bpffs::layouts() {
        let (name, is_here) = layout.interface();
        let link = attach::inspect(&layout.link(Direction::Ingress))?;
        let Some(link) = link.filter(|link| is_here && link.ifindex != 0) else {
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
        if target.exists() {
            // The pins of an interface that had the name before and is gone: they guard nothing.
            bpffs::remove(&target)
                .with_context(|| format!("cannot remove `{}`", target.display()))?;
        }
        rename(&between, &target)?;
        let _ = writeln!(
            io::stderr().lock(),
            "{now}: this interface was called `{name}` when it was guarded; the guard follows it"
        );
    }
    Ok(())
}

fn rename(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::rename(from, to)
        .with_context(|| format!("cannot rename `{}` to `{}`", from.display(), to.display()))
}

/// Refuses an interface that a version of portguard with other tables guards.
///
/// # Errors
/// [`Fault`], naming the pins and what removes them.
pub fn refuse_other_versions(layout: &Layout) -> Result<(), Fault> {
    let others = layout.of_other_versions();
    let Some(other) = others.first() else {
        return Ok(());
    };
    let (name, _) = layout.interface();
    Err(Fault::system(format!(
        "`{name}` is guarded by another version of portguard, whose tables differ: `{}`, this version's are `{}`",
        other.directory.display(),
        layout.directory.display()
    ))
    .hint(format!(
        "`portguard unload --interface {name}` removes that guard, counters included; then load again"
    )))
}
