//! `portguard fleet status`: how far it is.

mod wait;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use clap::Args;
use clap::builder::PossibleValuesParser;
use portguard_fleet::follow::{FollowError, Published, position, published, view};
use portguard_fleet::now;
use portguard_fleet::release::{Selector, Trust};
use portguard_fleet::rollout::control::{Seen, View, Who, step};
use portguard_fleet::rollout::{Phase, Position};
use portguard_fleet::status::{State, Status};
use portguard_fleet::store::{AnyStore, StoreError};
use portguard_policy::error::{Exit, Fault};
use portguard_policy::human::{duration, plain};
use serde::Serialize;

use super::project::{ProjectArgs, seconds};
use super::said::{Said, folded, wave};
use super::{block_on, follow_fault};
use crate::command::interrupted;
use crate::command::table::{Column, Grid};
use crate::stderr::say;
use crate::stdout::{Versioned, json_line, print, print_json};
use wait::{Wait, Waited};

/// How often to look while waiting.
const EVERY: Duration = Duration::from_secs(1);

/// Show how far the rollout is, and where every host is
///
/// `pending`: the host reports, but not yet about this release. `silent`: it does not report. docs/fleet.md has all
/// states. Exit code 1: hosts failed, went back by themselves or are silent; or what was waited for did not come, because the time is up or
/// because it no longer can. Hosts that are further on count: `--wait audit` counts those that enforce.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  portguard fleet status -l zone=rack-7
  portguard fleet status --wait confirmed --timeout 4d
      ends at once where the rollout halts or a host goes back
  portguard fleet status --wait ready --json | jq -r .waited.result
  portguard fleet status --watch")]
pub(super) struct StatusArgs {
    /// Only these hosts: `role=SYSTEM/ROLE,zone=NAME,host=NAME,LABEL=VALUE`
    #[arg(short = 'l', long = "selector", value_name = "SELECTOR")]
    selector: Option<Selector>,
    /// Wait until all of them are there, or cannot come there
    #[arg(long, value_name = "STATE", value_parser = PossibleValuesParser::new(State::ALL.iter().map(|one| one.name())))]
    wait: Option<String>,
    /// For how long
    #[arg(long, value_name = "DUR", default_value = "10m", value_parser = seconds)]
    timeout: u64,
    /// Show it again whenever it changes, until interrupted
    #[arg(long, conflicts_with = "wait")]
    watch: bool,
    /// Write JSON; with `--watch`, one object a line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    project: ProjectArgs,
}

#[derive(Debug, Serialize)]
struct Report {
    fleet: String,
    serial: u64,
    #[serde(serialize_with = "portguard_policy::human::seconds::serialize")]
    valid_until: u64,
    position: Versioned<Said>,
    /// What a rollout that is under way waits for.
    #[serde(skip_serializing_if = "Option::is_none")]
    waits: Option<String>,
    states: BTreeMap<&'static str, usize>,
    hosts: Vec<HostReport>,
    #[serde(skip_serializing_if = "Option::is_none")]
    waited: Option<Waited>,
    #[serde(skip)]
    at: Position,
    /// Names of the release's waves.
    #[serde(skip)]
    waves: Vec<String>,
}

#[derive(Debug, Serialize)]
struct HostReport {
    host: String,
    wave: String,
    state: &'static str,
    /// What the host says, unless that does not count.
    #[serde(flatten)]
    said: Option<HostSaid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    doubt: Option<String>,
    #[serde(skip)]
    is: State,
}

/// What a host says of itself.
#[derive(Debug, Serialize)]
struct HostSaid {
    #[serde(serialize_with = "portguard_policy::human::seconds::serialize")]
    since: u64,
    #[serde(serialize_with = "portguard_policy::human::seconds::serialize")]
    at: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    in_force: Option<u64>,
    enforces: bool,
    /// While it watches; what was seen then says nothing of later.
    #[serde(flatten)]
    watching: Option<Watching>,
    violations: u64,
    tool: String,
    why: String,
}

/// What it sees of the release before it enforces it.
#[derive(Debug, Serialize)]
struct Watching {
    watched_seconds: u64,
    packets: u64,
    would_drop: u64,
}

impl From<Status> for HostSaid {
    fn from(said: Status) -> Self {
        let is_watching = matches!(said.state, State::Audit | State::Ready);
        Self {
            watching: is_watching.then_some(Watching {
                watched_seconds: said.watched,
                packets: said.packets,
                would_drop: said.would_drop,
            }),
            since: said.since,
            at: said.at,
            in_force: said.in_force,
            enforces: said.enforces,
            violations: said.violations,
            tool: said.tool,
            why: said.why,
        }
    }
}

impl HostSaid {
    /// `4 enforce`: the release, and what it does; `none` where no release is in force, and nothing is dropped.
    fn in_force(&self) -> String {
        match (self.in_force, self.enforces) {
            (Some(serial), true) => format!("{serial} enforce"),
            (Some(serial), false) => format!("{serial} audit"),
            (None, true) => "enforce".to_owned(),
            (None, false) => "none".to_owned(),
        }
    }
}

/// Shows it.
pub(super) fn run(args: &StatusArgs) -> anyhow::Result<Exit> {
    let project = args.project.open()?;
    let store = project.store()?;
    let mut trust = project.trust()?;
    if args.watch {
        block_on(watch(args, &store, &mut trust))?;
        project.keep_trust(&trust);
        return Ok(Exit::Ok);
    }
    let wanted = args.wait.as_deref().and_then(wait::state);
    let report = block_on(async {
        let Some(wanted) = wanted else {
            return look(args, &store, &mut trust)
                .await
                .map_err(|error| error.fault().into());
        };
        until(args, &store, &mut trust, wanted).await
    })?;
    project.keep_trust(&trust);
    let trouble = State::ALL
        .iter()
        .copied()
        .filter(|state| state.is_trouble());
    // Who went back because the publishers wanted it is no trouble.
    let is_asked = |state| state == State::Reverted && report.at.phase.is_back();
    let trouble: usize = trouble
        .filter(|state| Some(*state) != wanted && !is_asked(*state))
        .filter_map(|state| report.states.get(state.name()))
        .sum();
    show(args, &report)?;
    let is_there = report.waited.as_ref().is_none_or(Waited::is_reached);
    Ok(if trouble == 0 && is_there {
        Exit::Ok
    } else {
        Exit::Findings
    })
}

fn show(args: &StatusArgs, report: &Report) -> anyhow::Result<()> {
    if args.json && args.watch {
        return print(|out| json_line(out, report));
    }
    if args.json {
        return print_json(report);
    }
    text(report)?;
    if let Some(why) = report.waited.as_ref().and_then(Waited::complaint) {
        say(&plain(&why));
    }
    Ok(())
}

/// Until all are there, cannot come there, or the time is up. A store that is away for a moment ends nothing.
async fn until(
    args: &StatusArgs,
    store: &AnyStore,
    trust: &mut Trust,
    wanted: State,
) -> anyhow::Result<Report> {
    let end = Instant::now() + Duration::from_secs(args.timeout);
    let mut waiting = Wait::new(wanted);
    loop {
        let is_late = Instant::now() >= end;
        match look(args, store, trust).await {
            Ok(mut report) => {
                let hosts = report.hosts.iter();
                let hosts = hosts.map(|host| (host.host.as_str(), host.is));
                report.waited = waiting.judge(hosts, &report.at, is_late, Instant::now());
                if report.waited.is_some() {
                    return Ok(report);
                }
            }
            Err(error) if is_late || !error.may_pass() => return Err(error.fault().into()),
            Err(_) => {}
        }
        tokio::time::sleep(EVERY).await;
    }
}

async fn watch(args: &StatusArgs, store: &AnyStore, trust: &mut Trust) -> anyhow::Result<()> {
    let mut stop = std::pin::pin!(interrupted()?);
    let mut last = String::new();
    loop {
        match look(args, store, trust).await {
            Ok(report) => {
                let hosts = report.hosts.iter();
                let hosts = hosts.map(|host| (&host.host, host.is, &host.doubt));
                let now = format!("{:?} {:?}", report.at, hosts.collect::<Vec<_>>());
                if now != last {
                    show(args, &report)?;
                }
                last = now;
            }
            Err(error) if !error.may_pass() => return Err(error.fault().into()),
            Err(error) => say(&error.fault().to_string()),
        }
        tokio::select! {
            () = &mut stop => return Ok(()),
            () = tokio::time::sleep(EVERY) => {}
        }
    }
}

/// Why there is nothing to show.
enum Blind {
    Store(FollowError),
    Nobody,
}

impl Blind {
    fn may_pass(&self) -> bool {
        matches!(
            self,
            Self::Store(
                FollowError::Store(StoreError::Unreachable(_))
                    | FollowError::Refused(_)
                    | FollowError::Lost(_)
            )
        )
    }

    fn fault(&self) -> Fault {
        match self {
            Self::Store(error) => follow_fault(error),
            Self::Nobody => Fault::usage("no host is selected"),
        }
    }
}

impl From<FollowError> for Blind {
    fn from(error: FollowError) -> Self {
        Self::Store(error)
    }
}

impl From<StoreError> for Blind {
    fn from(error: StoreError) -> Self {
        Self::Store(error.into())
    }
}

async fn look(args: &StatusArgs, store: &AnyStore, trust: &mut Trust) -> Result<Report, Blind> {
    let now = now();
    let found: Published = published(store, trust).await?;
    let manifest = &found.manifest;
    let seen = view(store, &found, now).await?;
    let (position, _) = position(store, manifest.serial, now).await?;
    let waits = waits(&found, &position, &seen, now);
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
            said: status.map(HostSaid::from),
            doubt,
            is: state,
        });
    }
    if hosts.is_empty() {
        return Err(Blind::Nobody);
    }
    let waves = manifest.plan.wave.iter();
    let names: Vec<String> = waves.map(|wave| wave.name.clone()).collect();
    Ok(Report {
        fleet: manifest.fleet.clone(),
        serial: manifest.serial,
        valid_until: manifest.valid_until,
        position: Versioned::of(Said::of(&position, &names)),
        waits,
        states,
        hosts,
        waited: None,
        at: position,
        waves: names,
    })
}

/// Why the controller takes no step now, as it sees it itself.
fn waits(found: &Published, position: &Position, seen: &View, now: u64) -> Option<String> {
    let is_under_way = matches!(position.phase, Phase::Running | Phase::RollingBack);
    let who = Who {
        by: "",
        at: now,
        why: "",
    };
    let step = step(&found.rollout, position, seen, &who);
    step.err().filter(|_| is_under_way)
}

fn text(report: &Report) -> anyhow::Result<()> {
    let position = &report.at;
    let mut rows = Grid::new(&[
        ("host", Column::Whole),
        ("wave", Column::Whole),
        ("state", Column::Whole),
        ("in force", Column::Whole),
        ("watched", Column::SpareWhole),
        ("would drop", Column::Number),
        ("why", Column::Prose),
    ]);
    for host in &report.hosts {
        let said = host.said.as_ref();
        let why = said.map_or("", |said| said.why.as_str());
        let watching = said.and_then(|said| said.watching.as_ref());
        rows.row([
            plain(&host.host),
            plain(&host.wave),
            host.state.to_owned(),
            said.map_or(String::new(), HostSaid::in_force),
            watching.map_or(String::new(), |said| duration(said.watched_seconds)),
            watching.map_or(String::new(), |said| said.would_drop.to_string()),
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
        let rollout = format!(
            "rollout {}: {}; {}: {}",
            position.phase.name(),
            wave(position, &report.waves),
            plain(&position.by),
            plain(&position.why)
        );
        writeln!(out, "{}", folded(&rollout))?;
        if let Some(why) = &report.waits {
            writeln!(out, "{}", folded(&format!("it waits: {}", plain(why))))?;
        }
        if report.valid_until <= now() {
            writeln!(
                out,
                "warning: the release is no longer valid: plan, sign and apply a new one"
            )?;
        }
        write!(out, "\n{rows}")
    })
}
