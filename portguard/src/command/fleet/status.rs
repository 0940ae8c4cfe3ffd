//! `portguard fleet status`: how far it is.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use clap::Args;
use clap::builder::PossibleValuesParser;
use portguard_fleet::follow::{Published, position, published, view};
use portguard_fleet::now;
use portguard_fleet::release::Selector;
use portguard_fleet::rollout::Position;
use portguard_fleet::rollout::control::{Seen, View};
use portguard_fleet::status::{State, Status};
use portguard_fleet::store::AnyStore;
use portguard_policy::error::{Exit, Fault};
use portguard_policy::human::{duration, plain};
use serde::Serialize;

use super::project::{ProjectArgs, seconds};
use super::{block_on, follow_fault, store_fault};
use crate::command::table::{Column, Grid};
use crate::command::{print, print_json};

/// How often to look while waiting.
const EVERY: Duration = Duration::from_secs(1);

/// Show how far the rollout is, and where every host is
///
/// Exit code 1: hosts failed, went back or are silent; or what was waited for did not come in time.
#[derive(Debug, Args)]
pub(super) struct StatusArgs {
    /// Only these hosts: `role=SYSTEM/ROLE,zone=NAME,host=NAME,LABEL=VALUE`
    #[arg(short = 'l', long = "selector", value_name = "SELECTOR")]
    selector: Option<Selector>,
    /// Wait until all of them are there
    #[arg(long, value_name = "STATE", value_parser = PossibleValuesParser::new(State::ALL.map(State::name)))]
    wait: Option<String>,
    /// For how long
    #[arg(long, value_name = "DUR", default_value = "10m", value_parser = seconds)]
    timeout: u64,
    /// Write JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    project: ProjectArgs,
}

#[derive(Debug, Serialize)]
struct Report {
    schema: u32,
    fleet: String,
    serial: u64,
    valid_until: u64,
    position: Position,
    states: BTreeMap<&'static str, usize>,
    hosts: Vec<HostReport>,
}

#[derive(Debug, Serialize)]
struct HostReport {
    host: String,
    wave: String,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<Status>,
    #[serde(skip_serializing_if = "Option::is_none")]
    doubt: Option<String>,
}

/// Shows it.
pub(super) fn run(args: &StatusArgs) -> anyhow::Result<Exit> {
    let project = args.project.open()?;
    let store = project.store()?;
    let mut trust = project.trust()?;
    let wanted = args
        .wait
        .as_deref()
        .and_then(|wait| State::ALL.into_iter().find(|state| state.name() == wait));
    let begun = Instant::now();
    let (report, is_there) = block_on(async {
        loop {
            let found = published(&store, &mut trust)
                .await
                .map_err(|error| follow_fault(&error))?;
            let report = look(args, &store, &found).await?;
            let is_there = wanted
                .is_none_or(|wanted| report.hosts.iter().all(|host| host.state == wanted.name()));
            // What failed or went back does not come by waiting.
            let is_over = begun.elapsed().as_secs() >= args.timeout;
            if is_there || is_over {
                return Ok((report, is_there));
            }
            tokio::time::sleep(EVERY).await;
        }
    })?;
    project.keep_trust(&trust)?;
    let trouble = State::ALL.into_iter().filter(|state| state.is_trouble());
    let trouble: usize = trouble
        .filter(|state| Some(*state) != wanted)
        .filter_map(|state| report.states.get(state.name()))
        .sum();
    if args.json {
        print_json(&report)?;
    } else {
        text(&report)?;
    }
    Ok(if trouble == 0 && is_there {
        Exit::Ok
    } else {
        Exit::Findings
    })
}

async fn look(args: &StatusArgs, store: &AnyStore, found: &Published) -> anyhow::Result<Report> {
    let now = now();
    let manifest = &found.manifest;
    let seen: View = view(store, found, now)
        .await
        .map_err(|error| store_fault(&error))?;
    let (position, _) = position(store, manifest.serial, now)
        .await
        .map_err(|error| store_fault(&error))?;
    let mut states = BTreeMap::new();
    let mut hosts = Vec::new();
    for (
        host,
        Seen {
            state,
            status,
            doubt,
        },
    ) in seen
    {
        let Some(entry) = found.hosts.get(&host) else {
            continue;
        };
        let is_chosen = args.selector.as_ref().is_none_or(|selector| {
            selector.selects(&host, &entry.roles, &entry.zone, &entry.labels)
        });
        if !is_chosen {
            continue;
        }
        *states.entry(state.name()).or_default() += 1;
        let wave = usize::try_from(entry.wave).unwrap_or(usize::MAX);
        let wave = manifest.plan.wave.get(wave);
        hosts.push(HostReport {
            host,
            wave: wave.map_or(String::new(), |wave| wave.name.clone()),
            state: state.name(),
            status,
            doubt,
        });
    }
    if hosts.is_empty() {
        return Err(Fault::usage("no host is selected").into());
    }
    Ok(Report {
        schema: 1,
        fleet: manifest.fleet.clone(),
        serial: manifest.serial,
        valid_until: manifest.valid_until,
        position,
        states,
        hosts,
    })
}

fn text(report: &Report) -> anyhow::Result<()> {
    let position = &report.position;
    let mut rows = Grid::new(&[
        ("host", Column::Whole),
        ("wave", Column::Whole),
        ("state", Column::Whole),
        ("watched", Column::Whole),
        ("would drop", Column::Number),
        ("why", Column::Prose),
    ]);
    for host in &report.hosts {
        let said = host.status.as_ref();
        let why = said.map_or("", |said| said.why.as_str());
        rows.row([
            plain(&host.host),
            plain(&host.wave),
            host.state.to_owned(),
            said.map_or(String::new(), |said| duration(said.watched)),
            said.map_or(String::new(), |said| said.would_drop.to_string()),
            plain(host.doubt.as_deref().unwrap_or(why)),
        ]);
    }
    let states: Vec<String> = report
        .states
        .iter()
        .map(|(state, count)| format!("{count} {state}"))
        .collect();
    print(|out| {
        writeln!(
            out,
            "fleet {}, release {}: {}",
            plain(&report.fleet),
            report.serial,
            states.join(", ")
        )?;
        writeln!(
            out,
            "rollout {}: wave {}, {} hosts of it may enforce; {}: {}",
            position.phase.name(),
            position.wave + 1,
            position.open,
            plain(&position.by),
            plain(&position.why)
        )?;
        if report.valid_until <= now() {
            writeln!(
                out,
                "warning: the release is no longer valid: plan, sign and apply a new one"
            )?;
        }
        write!(out, "\n{rows}")
    })
}
