//! `portguard fleet evidence`, `counters`, `drift` and `report`: what hosts saw, each by itself and all as one.

mod page;
mod show;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use portguard_fleet::evidence::{Cause, Evidence, Seen};
use portguard_fleet::follow::{Published, published};
use portguard_fleet::publish::Revocation;
use portguard_fleet::release::{Manifest, Selector, document, unpack};
use portguard_fleet::status::{Doubt, MAX_EVIDENCE};
use portguard_fleet::store::{AnyStore, Store as _};
use portguard_fleet::{layout, now};
use portguard_policy::error::{Exit, Fault};
use portguard_policy::site::Site;
use serde::Serialize;

use super::project::{ProjectArgs, name, seconds, write};
use super::said::moment;
use super::{block_on, follow_fault, store_fault};
use crate::stderr::stderr;
use crate::stdout::{json_line, print, print_json};

/// What is older does not count: it may be a replay, or the host's last.
const OLD: u64 = 3600;

/// Show what a host saw, as the host says it: lines of JSON, one for each interface
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  portguard fleet evidence node-7 | jq '.causes[] | {what, violations, peers}'")]
pub(super) struct EvidenceArgs {
    /// Name of the host
    #[arg(value_parser = name)]
    host: String,
    /// Write JSON, as it does without
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    project: ProjectArgs,
}

/// What a host says of an interface.
#[derive(Serialize)]
#[serde(remote = "Evidence")]
struct Word {
    host: String,
    interface: String,
    serial: u64,
    #[serde(serialize_with = "portguard_policy::human::seconds::serialize")]
    at: u64,
    since: String,
    effective: String,
    watched_seconds: u64,
    reasons: BTreeMap<String, u64>,
    violations: u64,
    against: Vec<String>,
    causes: Vec<Cause>,
    listening: BTreeSet<String>,
    used: BTreeSet<String>,
    unused: BTreeSet<String>,
    left_off: u64,
}

#[derive(Debug, Serialize)]
struct Line(#[serde(serialize_with = "Word::serialize")] Evidence);

/// Add up what all hosts counted, by reason
///
/// Exit code 1: a host said nothing that counts.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  portguard fleet counters -l zone=rack-7")]
pub(super) struct CountersArgs {
    #[command(flatten)]
    which: Which,
}

/// Show what no document admits, by its cause: each once, with the hosts that have it
///
/// And undocumented services, rows that no host uses, and exceptions that expire soon. Exit code 1: there is any of the
/// first two, or a host said nothing that counts.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  portguard fleet drift -l role=wso2/api-manager --expiring 14d")]
pub(super) struct DriftArgs {
    #[command(flatten)]
    which: Which,
    /// Exceptions are shown that end within this time
    #[arg(long, value_name = "DUR", default_value = "30d", value_parser = seconds)]
    expiring: u64,
}

/// Write one page about all hosts: rollout, causes, services, rows that nobody uses, exceptions that expire
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  portguard fleet report -o fleet.html")]
pub(super) struct ReportArgs {
    #[command(flatten)]
    which: Which,
    /// Exceptions are shown that end within this time
    #[arg(long, value_name = "DUR", default_value = "30d", value_parser = seconds)]
    expiring: u64,
    /// Where to write [default: standard output]
    #[arg(short, long, value_name = "FILE", conflicts_with = "json")]
    output: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct Which {
    /// Only these hosts: `role=SYSTEM/ROLE,zone=NAME,host=NAME,LABEL=VALUE`
    #[arg(short = 'l', long = "selector", value_name = "SELECTOR")]
    selector: Option<Selector>,
    /// Write JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    project: ProjectArgs,
}

/// Everything that hosts said.
#[derive(Debug, Serialize)]
struct Said {
    fleet: String,
    serial: u64,
    /// Hosts that are selected.
    selected: usize,
    /// Those of them that said nothing that counts, and why.
    without: BTreeMap<String, String>,
    /// When the oldest of what counts was written.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "moment")]
    oldest: Option<u64>,
    #[serde(flatten)]
    seen: Seen,
    /// Rows of the site that end soon, or have.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    expiring: Vec<Expiring>,
}

/// A row of the site that ends.
#[derive(Debug, Serialize)]
struct Expiring {
    row: String,
    /// Its last day.
    expires: String,
}

/// Shows what a host saw.
pub(super) fn evidence(args: &EvidenceArgs) -> anyhow::Result<Exit> {
    let project = args.project.open()?;
    let store = project.store()?;
    let mut trust = project.trust()?;
    let all = block_on(async {
        let found = published(&store, &mut trust)
            .await
            .map_err(|error| follow_fault(&error))?;
        if !found.hosts.contains_key(&args.host) {
            return Err(Fault::usage(format!("host `{}` is not in the release", args.host)).into());
        }
        let (mut all, doubts) = gather(&store, &found, &|host| host == args.host).await?;
        if let Some(doubt) = doubts.get(&args.host).filter(|_| all.is_empty()) {
            return Err(Fault::system(format!("{}: {doubt}", args.host)).into());
        }
        all.sort_by(|a, b| a.interface.cmp(&b.interface));
        Ok(all)
    })?;
    let has_causes = all.iter().any(|one| !one.causes.is_empty());
    let lines: Vec<Line> = all.into_iter().map(Line).collect();
    print(|out| lines.iter().try_for_each(|line| json_line(out, line)))?;
    Ok(if has_causes { Exit::Findings } else { Exit::Ok })
}

/// Shows sums.
pub(super) fn counters(args: &CountersArgs) -> anyhow::Result<Exit> {
    let (said, _) = args.which.ask(None)?;
    if args.which.json {
        print_json(&said)?;
    } else {
        print(|out| show::counters(out, &said))?;
    }
    // Sums that lack hosts are not those of the fleet.
    Ok(if said.without.is_empty() {
        Exit::Ok
    } else {
        Exit::Findings
    })
}

/// Shows causes.
pub(super) fn drift(args: &DriftArgs) -> anyhow::Result<Exit> {
    let (said, _) = args.which.ask(Some(args.expiring))?;
    if args.which.json {
        print_json(&said)?;
    } else {
        print(|out| show::drift(out, &said))?;
    }
    Ok(said.exit())
}

/// Writes the page.
pub(super) fn report(args: &ReportArgs) -> anyhow::Result<Exit> {
    let (said, states) = args.which.ask(Some(args.expiring))?;
    if args.which.json {
        print_json(&said)?;
        return Ok(said.exit());
    }
    let text = page::page(&said, &states, now());
    match &args.output {
        None => print(|out| out.write_all(text.as_bytes()))?,
        Some(path) => {
            write(path, text.as_bytes())?;
            let _ = writeln!(stderr(), "wrote {}", path.display());
        }
    }
    Ok(said.exit())
}

impl Said {
    fn exit(&self) -> Exit {
        let nothing_to_do = self.seen.causes.is_empty() && self.seen.listening.is_empty();
        if nothing_to_do && self.without.is_empty() {
            Exit::Ok
        } else {
            Exit::Findings
        }
    }
}

type States = BTreeMap<&'static str, usize>;

impl Which {
    fn ask(&self, expiring: Option<u64>) -> anyhow::Result<(Said, States)> {
        let project = self.project.open()?;
        let store = project.store()?;
        let mut trust = project.trust()?;
        let asked = block_on(async {
            let found = published(&store, &mut trust)
                .await
                .map_err(|error| follow_fault(&error))?;
            let is_selected = |host: &str| {
                found.hosts.get(host).is_some_and(|entry| {
                    self.selector.as_ref().is_none_or(|selector| {
                        selector.selects(host, &entry.roles, &entry.zone, &entry.labels)
                    })
                })
            };
            let selected = found.hosts.keys().filter(|host| is_selected(host)).count();
            if selected == 0 {
                return Err(Fault::usage("no host is selected").into());
            }
            let (all, without) = gather(&store, &found, &is_selected).await?;
            let seen = portguard_fleet::follow::view(&store, &found, now())
                .await
                .map_err(|error| store_fault(&error))?;
            let mut states = States::new();
            for (_, host) in seen.iter().filter(|(host, _)| is_selected(host)) {
                *states.entry(host.state.name()).or_default() += 1;
            }
            let expiring = match expiring {
                Some(within) => ending(&store, &found.manifest, within).await?,
                None => Vec::new(),
            };
            let said = Said {
                fleet: found.manifest.fleet.clone(),
                serial: found.manifest.serial,
                selected,
                without,
                oldest: all.iter().map(|one| one.at).min(),
                seen: Seen::of(&all),
                expiring,
            };
            Ok((said, states))
        })?;
        project.keep_trust(&trust);
        Ok(asked)
    }
}

/// What hosts said that counts; and of those that said nothing, why it does not.
async fn gather(
    store: &AnyStore,
    found: &Published,
    is_wanted: &(dyn Fn(&str) -> bool + Sync),
) -> anyhow::Result<(Vec<Evidence>, BTreeMap<String, String>)> {
    let host_of = |key: &str| -> Option<(String, String)> {
        let (host, interface) = key.strip_prefix(layout::EVIDENCE)?.split_once('/')?;
        Some((host.to_owned(), interface.to_owned()))
    };
    let entries = store
        .pick(layout::EVIDENCE, MAX_EVIDENCE, |key| {
            host_of(key).is_some_and(|(host, interface)| {
                let entry = found.hosts.get(&host);
                let digests = entry.map(|entry| &entry.digests);
                is_wanted(&host) && digests.is_some_and(|all| all.contains_key(&interface))
            })
        })
        .await
        .map_err(|error| store_fault(&error))?;
    let revoked = store
        .list(layout::REVOKED)
        .await
        .map_err(|error| store_fault(&error))?;
    let why_revoked = |host: &str, key: &str| {
        let mut all = revoked.iter();
        let there = all.find(|entry| entry.key == layout::revoked(host))?;
        Revocation::of(&there.value, key)
    };
    let (mut all, mut without) = (Vec::new(), BTreeMap::new());
    for host in found.hosts.keys().filter(|host| is_wanted(host)) {
        without.insert(host.clone(), "it has sent nothing yet".to_owned());
    }
    for entry in &entries {
        let Some((host, interface)) = host_of(&entry.key) else {
            continue;
        };
        let signed = found.hosts.get(&host);
        let key = signed.and_then(|signed| signed.key.as_deref());
        if let Some(because) = key.and_then(|key| why_revoked(&host, key)) {
            without.insert(host, Doubt::Revoked(because).to_string());
            continue;
        }
        match Evidence::read(&found.manifest.fleet, &host, &interface, key, &entry.value) {
            Ok(evidence) if now() > evidence.at.saturating_add(OLD) => {
                without.insert(host, "its last report is more than an hour old".to_owned());
            }
            Ok(evidence) => all.push(evidence),
            Err(doubt) => {
                without.insert(host, doubt.to_string());
            }
        }
    }
    for one in &all {
        without.remove(&one.host);
    }
    Ok((all, without))
}

/// Rows of the published site that end within so many seconds, or have ended.
async fn ending(
    store: &AnyStore,
    manifest: &Manifest,
    within: u64,
) -> anyhow::Result<Vec<Expiring>> {
    let object = manifest
        .objects
        .get(document::SITE)
        .context("the release has no site")?;
    let mut chunks = Vec::new();
    for hash in &object.chunks {
        let entry = store
            .get(&layout::object(hash))
            .await
            .map_err(|error| store_fault(&error))?;
        chunks.push(
            entry
                .context("a chunk of the site is not in the store")?
                .value,
        );
    }
    let site = unpack(object, &chunks).map_err(|refused| Fault::system(refused.to_string()))?;
    let site = Site::parse(document::SITE, &site)?;
    let last = portguard_policy::human::time(now().saturating_add(within));
    let last = last.get(..10).unwrap_or_default();
    let mut ending: Vec<Expiring> = site
        .rows
        .iter()
        .filter_map(|row| {
            let expires = row.expires.as_deref().filter(|expires| *expires <= last)?;
            Some(Expiring {
                row: row.name.clone(),
                expires: expires.to_owned(),
            })
        })
        .collect();
    ending.sort_by(|a, b| (&a.expires, &a.row).cmp(&(&b.expires, &b.row)));
    Ok(ending)
}
