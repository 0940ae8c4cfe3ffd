//! `portguard fleet plan`: compiles every host, cuts the waves, and writes what is to be signed.

mod before;
mod compile;
mod diff;
mod manifest;
mod stage;

use clap::Args;
use portguard_fleet::release::{Shard, document};
use portguard_policy::error::Exit;
use portguard_policy::human::{bytes, count, grouped};
use serde::Serialize;

pub(super) use diff::{DiffArgs, diff};

use super::project::{Project, ProjectArgs};
use super::{block_on, follow_fault, store_fault, warn_if_open};
use crate::command::selection::{Resolving, SelectionArgs};
use crate::stdout::{print, print_json};
use before::{Before, look};
use compile::{compile_all, endpoints};
use diff::differences;
use manifest::{PlannedWave, manifest, save, waves};
use stage::stage;

/// Compile every host, cut the waves, and write the release that is to be signed
///
/// Refuses what does not compile, what leaves a host out of the waves, and what would cut a host from the store or from
/// its management.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  portguard fleet plan && portguard fleet diff
  portguard fleet plan --json | jq '.waves[] | {name, hosts}'
  portguard fleet plan --repair && portguard fleet sign -s alice.key && \\
      portguard fleet apply --repair")]
pub(super) struct PlanArgs {
    /// Plan it although it cuts hosts from the store or from management: their kernels go back by themselves
    #[arg(long)]
    force: bool,
    /// Go on from the last release that this directory saw, although what the store says is published is broken or gone
    #[arg(long)]
    repair: bool,
    /// Write JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    project: ProjectArgs,
}

#[derive(Debug, Serialize)]
struct Planned {
    serial: u64,
    hosts: usize,
    enforcing: usize,
    not_enrolled: Vec<String>,
    /// Hosts of fleet.toml, and enrolled ones, that the site does not have.
    not_in_site: Vec<String>,
    changed: usize,
    added: usize,
    removed: usize,
    waves: Vec<PlannedWave>,
    rollback_to: Option<u64>,
    bytes: u64,
    compile_milliseconds: u64,
}

/// Plans.
pub(super) fn run(args: &PlanArgs) -> anyhow::Result<Exit> {
    let project = args.project.open()?;
    let before = look(&project, args.repair)?;
    let documents = stage(&project)?;
    let tree = project.draft().join("tree");
    let loaded = SelectionArgs {
        config: Some(tree.join(document::SITE)),
        frozen: Some(tree.join(document::FROZEN)),
        ..SelectionArgs::default()
    }
    .load(Resolving::WhenTold)?;
    let begun = std::time::Instant::now();
    let endpoints = endpoints(&project.address()?)?;
    let mut hosts = compile_all(&project, &loaded, &endpoints, args.force)?;
    let took = begun.elapsed();
    let waves = waves(&project, &mut hosts)?;
    let manifest = manifest(&project, before.as_ref(), &documents, hosts.clone())?;
    let size = save(&project, &manifest)?;
    project.take_draft()?;
    let (changed, added, removed) = differences(before.as_ref(), &hosts);
    let planned = Planned {
        serial: manifest.serial,
        hosts: hosts.len(),
        enforcing: hosts.values().filter(|host| host.enforce).count(),
        not_enrolled: hosts
            .iter()
            .filter(|(_, host)| host.key.is_none())
            .map(|(name, _)| name.clone())
            .collect(),
        not_in_site: not_in_site(&project, &hosts),
        changed: changed.len(),
        added: added.len(),
        removed: removed.len(),
        waves,
        rollback_to: manifest.rollback_to.as_ref().map(|to| to.serial),
        bytes: size,
        compile_milliseconds: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
    };
    if args.json {
        print_json(&planned)?;
    } else {
        text(&planned)?;
    }
    Ok(Exit::Ok)
}

fn not_in_site(project: &Project, hosts: &Shard) -> Vec<String> {
    let mut named = project.enrolled();
    named.extend(project.config.hosts.keys().cloned());
    named.retain(|name| !hosts.contains_key(name));
    named.into_iter().collect()
}

fn text(planned: &Planned) -> anyhow::Result<()> {
    print(|out| {
        writeln!(
            out,
            "release {}: {}, {} to enforce; {} changed, {} new, {} gone",
            planned.serial,
            count(planned.hosts as u64, "host"),
            grouped(planned.enforcing as u64),
            planned.changed,
            planned.added,
            planned.removed
        )?;
        for wave in &planned.waves {
            writeln!(
                out,
                "  wave {:<12} {}: {}{}",
                wave.name,
                count(wave.hosts as u64, "host"),
                wave.first.join(", "),
                if wave.hosts > wave.first.len() {
                    ", ..."
                } else {
                    ""
                }
            )?;
        }
        match planned.rollback_to {
            Some(serial) => writeln!(out, "  rollback     to release {serial}")?,
            None => writeln!(out, "  rollback     to none: there is no release before")?,
        }
        writeln!(out, "  size         {}", bytes(planned.bytes))?;
        if let Some(first) = planned.not_enrolled.first() {
            writeln!(
                out,
                "  warning: {} not enrolled and cannot report, among them {first}",
                match planned.not_enrolled.len() {
                    1 => "1 host is".to_owned(),
                    many => format!("{} hosts are", grouped(many as u64)),
                }
            )?;
        }
        if let Some(first) = planned.not_in_site.first() {
            writeln!(
                out,
                "  warning: {} in fleet.toml or enrolled and not in the site, {first} for one",
                count(planned.not_in_site.len() as u64, "host")
            )?;
        }
        writeln!(
            out,
            "next: `portguard fleet sign -s KEY`, then `portguard fleet apply`"
        )
    })
}
