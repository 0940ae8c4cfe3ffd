//! `portguard fleet hold` and `unhold`: hosts that stay as they are.

use clap::Args;
use portguard_fleet::follow::published;
use portguard_fleet::rollout::Hold;
use portguard_fleet::store::Store as _;
use portguard_fleet::{layout, now, publish};
use portguard_observe::evidence::accept::who;
use portguard_policy::error::{Exit, Fault};
use portguard_policy::human::plain;
use serde::Serialize;

use super::project::{ProjectArgs, name, seconds};
use super::said::moment;
use super::{block_on, follow_fault, store_fault};
use crate::stderr::say;
use crate::stdout::print_json;

/// Leave a host as it is
///
/// It keeps what it enforces, takes no new release, and does not count as reporting. Takes a publisher's certificate.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  portguard fleet hold node-7 --because \"migration, ticket 4711\" --for 2d
  portguard fleet status -l host=node-7")]
pub(super) struct HoldArgs {
    /// Name of the host
    #[arg(value_parser = name)]
    host: String,
    /// Why
    #[arg(long, value_name = "REASON")]
    because: String,
    /// For how long [default: until `unhold`]
    #[arg(long = "for", value_name = "DUR", value_parser = seconds)]
    span: Option<u64>,
    /// Write JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    project: ProjectArgs,
}

/// Let a host go on
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  portguard fleet unhold node-7")]
pub(super) struct UnholdArgs {
    /// Name of the host
    #[arg(value_parser = name)]
    host: String,
    /// Write JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    project: ProjectArgs,
}

/// How a host is held now.
#[derive(Debug, Serialize)]
struct Answer {
    host: String,
    held: bool,
    /// Whether this verb changed anything.
    changed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    because: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    by: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "moment")]
    until: Option<u64>,
}

/// Holds.
pub(super) fn hold(args: &HoldArgs) -> anyhow::Result<Exit> {
    let now = now();
    let hold = Hold {
        because: args.because.clone(),
        by: who(),
        at: now,
        until: args.span.map(|span| now.saturating_add(span)),
    };
    set(&args.project, &args.host, Some(&hold), args.json)
}

/// Lets go on.
pub(super) fn unhold(args: &UnholdArgs) -> anyhow::Result<Exit> {
    set(&args.project, &args.host, None, args.json)
}

fn set(project: &ProjectArgs, host: &str, hold: Option<&Hold>, json: bool) -> anyhow::Result<Exit> {
    let project = project.open()?;
    let store = project.store()?;
    let mut trust = project.trust()?;
    let changed = block_on(async {
        let found = published(&store, &mut trust)
            .await
            .map_err(|error| follow_fault(&error))?;
        let key = layout::hold(host);
        let there = store.get(&key).await.map_err(|error| store_fault(&error))?;
        // One that a release named, and this one does not, can still be let go.
        let is_known = found.hosts.contains_key(host) || (hold.is_none() && there.is_some());
        if !is_known {
            let serial = found.manifest.serial;
            return Err(
                Fault::usage(format!("release {serial} has no host `{host}`"))
                    .hint("`portguard fleet status` shows its hosts")
                    .into(),
            );
        }
        publish::hold(&store, host, hold)
            .await
            .map_err(|error| store_fault(&error))?;
        Ok(hold.is_some() || there.is_some())
    })?;
    project.keep_trust(&trust);
    if json {
        print_json(&Answer {
            host: host.to_owned(),
            held: hold.is_some(),
            changed,
            because: hold.map(|hold| hold.because.clone()),
            by: hold.map(|hold| hold.by.clone()),
            until: hold.and_then(|hold| hold.until),
        })?;
        return Ok(Exit::Ok);
    }
    say(&match hold {
        Some(hold) => format!("{host}: held by {}", plain(&hold.words())),
        None if changed => format!("{host}: goes on"),
        None => format!("{host}: was not held"),
    });
    Ok(Exit::Ok)
}
