//! Interfaces that come later: guarded as the site in force says, or said not to be.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use anyhow::{Context as _, bail};

use crate::command::selection::{Resolving, SelectionArgs};
use portguard_kernel::host::boot;
use portguard_kernel::host::links::{self, Link};
use portguard_kernel::pins::bpffs::Layout;
use portguard_kernel::pins::guarded::guarded;
use portguard_kernel::store;
use portguard_observe::observe;
use portguard_policy::human::plain;

/// What was there at the last look.
#[derive(Debug)]
pub(super) struct Newcomers {
    /// Names by index.
    known: BTreeMap<u32, String>,
    /// Interfaces that were said not to be guarded.
    said: BTreeSet<String>,
}

fn names(links: &[Link]) -> BTreeMap<u32, String> {
    let names = links.iter().map(|link| (link.index, link.name.clone()));
    names.collect()
}

impl Newcomers {
    /// What is there already is no newcomer: somebody may have unloaded its guard.
    pub(super) fn since_now() -> Self {
        Self {
            known: names(&links::all().unwrap_or_default()),
            said: BTreeSet::new(),
        }
    }

    /// Guards what has come, or was given another name, since the last look, where the site wants that; says what has no guard.
    pub(super) fn look(&mut self) {
        if let Err(error) = self.try_look() {
            tracing::warn!("{error:#}");
        }
    }

    fn try_look(&mut self) -> anyhow::Result<()> {
        let links = links::all()?;
        let before = std::mem::replace(&mut self.known, names(&links));
        let there = guarded();
        let is_new = |link: &&Link| {
            before.get(&link.index) != Some(&link.name) && !there.contains(&link.index)
        };
        let mut later = Vec::new();
        for link in links.iter().filter(is_new) {
            match guard(&link.name, before.contains_key(&link.index)) {
                Ok(Outcome::Guarded) => {
                    tracing::info!(interface = %link.name, "has come, and is guarded");
                }
                Ok(Outcome::No) => {}
                // Looked at again, as one that comes, until somebody confirms, loads or goes back.
                Ok(Outcome::Later) => later.push(link.index),
                Err(error) => {
                    tracing::error!(interface = %link.name, "cannot be guarded: {error:#}");
                }
            }
        }
        for index in later {
            self.known.remove(&index);
        }
        let there = guarded();
        if there.is_empty() {
            self.said.clear();
            return Ok(());
        }
        let open = links::unguarded(&links, &there);
        let open: BTreeSet<String> = open.into_iter().map(|link| link.name.clone()).collect();
        for interface in open.difference(&self.said) {
            tracing::warn!(%interface, "is not guarded: what arrives by it is not judged");
        }
        self.said = open;
        Ok(())
    }
}

/// What became of an interface that came.
enum Outcome {
    Guarded,
    /// Nobody said that it is to be guarded.
    No,
    /// The site names it, and nobody knows yet whether its policy stays.
    Later,
}

/// Guards an interface, if somebody said that it is to be. One that was there before under another name `is_renamed`: sessions by
/// it may live, and are not cut.
fn guard(name: &str, is_renamed: bool) -> anyhow::Result<Outcome> {
    let layout = Layout::of(name);
    if store::is_off(&layout) {
        return Ok(Outcome::No);
    }
    if boot::is_enabled(name) && store::is_stored(&layout) {
        return load(name, &["--last-good", "--confirm-within", "0"]).map(|()| Outcome::Guarded);
    }
    for guard in observe::guards(None)? {
        let meta = &guard.live.meta;
        let (Some(path), Some(host)) = (&meta.sources.site, &meta.policy.host) else {
            continue;
        };
        let selection = SelectionArgs {
            config: Some(path.into()),
            host: Some(host.clone()),
            ..SelectionArgs::default()
        };
        let site = selection.load(Resolving::Always)?;
        let key = site.named(name);
        let own = site.site.host(host);
        if !own.is_some_and(|own| own.interfaces.contains_key(key)) {
            continue;
        }
        // What gave way, or still may, does so for good reasons: nobody here knows better.
        if !guard.live.is_confirmed || !guard.live.effective.is_as_meant() {
            return Ok(Outcome::Later);
        }
        let digest = site.compile_alone(Some(key)).policy.digest();
        if meta.sources.digests.get(key) != Some(&digest) {
            bail!(
                "`{}` has another policy for it than when `{}` was loaded: run `portguard load`",
                plain(path),
                plain(&guard.name)
            );
        }
        let xdp_mode = meta.xdp_mode.name();
        let site = ["-c", path, "--host", host, "--xdp-mode", xdp_mode];
        let mut args = [&site[..], &["--confirm-within", "0"]].concat();
        if !is_renamed {
            // Who has a session by it does not keep it open: nobody is there to answer.
            args.push("--force");
        }
        return load(name, &args).map(|()| Outcome::Guarded);
    }
    Ok(Outcome::No)
}

/// A process of its own: what it prints belongs to one line of the log.
fn load(name: &str, args: &[&str]) -> anyhow::Result<()> {
    let output = Command::new("/proc/self/exe")
        .args(["load", "--interface", name])
        .args(args)
        .output()
        .context("cannot start `portguard load`")?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    bail!("{}", said.trim().replace('\n', "; "))
}
