//! `portguard fleet diff`: which hosts the planned release changes.

use clap::Args;
use portguard_fleet::release::{HostEntry, Shard, unpack_small};
use portguard_policy::error::{Exit, Fault};
use serde::Serialize;

use super::super::project::ProjectArgs;
use super::super::sign::{CHUNKS, read_manifest};
use super::stage::read;
use super::{Before, look};
use crate::stdout::{print, print_json};

/// Show which hosts the planned release changes
///
/// Exit code 1: it changes some.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  portguard fleet diff                   ~ changed, + new, - gone")]
pub(in crate::command::fleet) struct DiffArgs {
    /// Write JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    project: ProjectArgs,
}

pub(super) fn differences<'a>(
    before: Option<&'a Before>,
    hosts: &'a Shard,
) -> (Vec<&'a str>, Vec<&'a str>, Vec<&'a str>) {
    let old = |name: &str| before.and_then(|before| before.hosts.get(name));
    let is_changed =
        |name: &str, entry: &HostEntry| old(name).is_some_and(|one| one.digests != entry.digests);
    let changed = hosts.iter().filter(|(name, entry)| is_changed(name, entry));
    let added = hosts.keys().filter(|name| old(name).is_none());
    let gone = before.into_iter().flat_map(|before| before.hosts.keys());
    let gone = gone.filter(|name| !hosts.contains_key(*name));
    (
        changed.map(|(name, _)| name.as_str()).collect(),
        added.map(String::as_str).collect(),
        gone.map(String::as_str).collect(),
    )
}

#[derive(Debug, Serialize)]
struct Differences {
    from: Option<u64>,
    to: u64,
    changed: Vec<String>,
    added: Vec<String>,
    removed: Vec<String>,
}

/// Shows what the planned release changes.
pub(in crate::command::fleet) fn diff(args: &DiffArgs) -> anyhow::Result<Exit> {
    let project = args.project.open()?;
    let manifest = read_manifest(&project)?;
    let before = look(&project, false)?;
    let mut hosts = Shard::new();
    for hash in &manifest.hosts {
        let path = project.next().join(CHUNKS).join(hash.as_str());
        let piece = unpack_small(hash, &read(&path)?)
            .map_err(|refused| Fault::usage(refused.to_string()))?;
        hosts.extend(serde_json::from_slice::<Shard>(&piece)?);
    }
    let own = |names: Vec<&str>| names.into_iter().map(str::to_owned).collect::<Vec<_>>();
    let (changed, added, removed) = differences(before.as_ref(), &hosts);
    let found = Differences {
        from: before.as_ref().map(|before| before.serial),
        to: manifest.serial,
        changed: own(changed),
        added: own(added),
        removed: own(removed),
    };
    let is_same = found.changed.is_empty() && found.added.is_empty() && found.removed.is_empty();
    if args.json {
        print_json(&found)?;
    } else {
        print(|out| {
            for (sign, names) in [
                ("~", &found.changed),
                ("+", &found.added),
                ("-", &found.removed),
            ] {
                for name in names {
                    writeln!(out, "{sign} {name}")?;
                }
            }
            Ok(())
        })?;
    }
    Ok(if is_same { Exit::Ok } else { Exit::Findings })
}
