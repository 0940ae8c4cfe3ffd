//! `portguard promote`: from audit to enforce, on evidence.

mod text;

use std::time::Duration;

use clap::Args;
use serde::Serialize;

use super::load::{self, Gate, LoadArgs, LoadedInterface};
use super::selection::Loaded;
use super::traffic;
use crate::stdout::{print, print_json};
use portguard_fleet::now;
use portguard_kernel::Kind;
use portguard_kernel::generation::effective::{Effective, Strictness};
use portguard_kernel::generation::publish;
use portguard_kernel::host::interface::Interface;
use portguard_observe::evidence::accept::{self, Accepted, Flow, UNLISTED};
use portguard_observe::evidence::judge::{InForce, Judged, State, judge};
use portguard_observe::evidence::{self, Evidence};
use portguard_observe::findings::Finding;
use portguard_observe::observe;
use portguard_policy::diff::diff;
use portguard_policy::error::{Exit, Fault};
use portguard_policy::explain::Explainer;
use portguard_policy::human::{count, duration, grouped, some};
use portguard_policy::policy::Policy;

/// Seconds of a day: a window of that length has seen every hour.
const DAY: u64 = 86_400;

/// Openings that the new policy closes, of which so many are named.
const CLOSED: usize = 5;

/// Switch from audit to enforce if the evidence allows it
///
/// Refuses until the audit has lasted long enough, around the clock, and every flow that enforce would drop, and that is not
/// dropped already, is admitted by the policy or accepted. Then does the same as `load --enforce`. Exit code 1 = refused.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  portguard promote --dry-run  would it enforce, and if not, why not
  portguard promote -c site.toml --window 7d --confirm-within 5m
  portguard promote --accept tcp/8080=192.0.2.0/24 --accept scan \\
      --because \"old scanner, ticket 4711\"")]
pub struct PromoteArgs {
    #[command(flatten)]
    load: LoadArgs,
    #[command(flatten)]
    evidence: EvidenceArgs,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Evidence")]
struct EvidenceArgs {
    /// How long the audit must have lasted, without gaps; if a day or more, also at every hour of the day
    #[arg(long, value_name = "DUR", default_value = "3d", value_parser = load::safety::duration)]
    window: Duration,
    /// How many packets must have been judged
    #[arg(long, value_name = "N", default_value_t = 1000)]
    min_packets: u64,
    /// Violations that may be dropped, remembered for next time: `tcp/8080`, `out:udp/53=192.0.2.0/24`, `malformed`, `unlisted`
    #[arg(long = "accept", value_name = "WHAT[=CIDR]", value_parser = Flow::parse, requires = "because")]
    accept: Vec<Flow>,
    /// Why they may be dropped
    #[arg(long, value_name = "REASON", requires = "accept")]
    because: Option<String>,
    /// Advise on every flow, however many there are
    #[arg(short, long)]
    verbose: bool,
}

#[derive(Debug, Serialize)]
struct Answer {
    promoted: bool,
    interfaces: Vec<Case>,
    loaded: Vec<LoadedInterface>,
    /// What to change in the site file so that it says what was loaded.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    site_lines: Vec<String>,
}

/// What speaks for and against an interface.
#[derive(Debug, Serialize)]
struct Case {
    interface: String,
    /// What holds until then.
    effective: Effective,
    #[serde(serialize_with = "portguard_policy::human::seconds::serialize")]
    since: u64,
    watched_seconds: u64,
    window_seconds: u64,
    hours_of_day: usize,
    packets: u64,
    unlisted_bound: u64,
    /// Why it is refused; empty = it is not.
    against: Vec<Reason>,
    /// What was seen since the first load, as every view shows it.
    findings: Vec<Finding>,
    /// The same by peer, and what becomes of it.
    flows: Vec<Judged>,
}

/// The code of what only an audit of the new policy can answer.
const CLOSES: &str = "closes";

/// Why an interface is not promoted. The codes are stable.
#[derive(Debug, Serialize)]
struct Reason {
    code: &'static str,
    message: String,
}

impl Reason {
    fn new(code: &'static str, message: String) -> Self {
        Self { code, message }
    }
}

/// Promotes.
///
/// # Errors
/// Those of `load`, and if nothing is in force to have seen anything.
pub fn run(args: &PromoteArgs) -> anyhow::Result<Exit> {
    if args.load.selection.audit || args.load.last_good {
        return Err(
            Fault::usage("`promote` enforces, and compiles what it enforces")
                .hint("leave out `--audit` and `--last-good`")
                .into(),
        );
    }
    let mut load = args.load.clone();
    load.selection.enforce = true;
    let mut cases = Cases {
        args,
        all: Vec::new(),
    };
    let done = load::execute(&load, &mut cases)?;
    let cases = cases.all;
    let is_refused = cases.iter().any(|case| !case.against.is_empty());
    if load.json {
        print_json(&Answer {
            promoted: done.is_some(),
            interfaces: cases,
            site_lines: done
                .as_ref()
                .map(|done| done.lines.clone())
                .unwrap_or_default(),
            loaded: done.map(|done| done.interfaces).unwrap_or_default(),
        })?;
    } else {
        print(|out| {
            cases
                .iter()
                .try_for_each(|case| text::text(out, case, args.evidence.verbose))
        })?;
        if let Some(done) = &done {
            load::tell(done);
        }
    }
    Ok(if is_refused { Exit::Findings } else { Exit::Ok })
}

/// What speaks for and against each interface.
struct Cases<'a> {
    args: &'a PromoteArgs,
    all: Vec<Case>,
}

impl Gate for Cases<'_> {
    fn before(&mut self, interfaces: &[Interface]) -> anyhow::Result<()> {
        for one in interfaces {
            match observe::layouts(Some(&one.name)) {
                Err(error) if error.kind() == Kind::NotThere => {
                    return Err(not_guarded(&one.name).into());
                }
                other => drop(other?),
            }
        }
        Ok(())
    }

    fn passes(
        &mut self,
        interfaces: &[Interface],
        policies: &[Policy],
        site: &Loaded,
    ) -> anyhow::Result<bool> {
        for (interface, policy) in interfaces.iter().zip(policies) {
            self.all.push(case(self.args, interface, policy, site)?);
        }
        Ok(self.all.iter().all(|case| case.against.is_empty()))
    }
}

fn not_guarded(name: &str) -> Fault {
    Fault::usage(format!("`{name}` is not guarded"))
        .hint("`portguard load --audit` first: promote decides by what audit saw")
}

fn case(
    args: &PromoteArgs,
    interface: &Interface,
    policy: &Policy,
    site: &Loaded,
) -> anyhow::Result<Case> {
    let name = &interface.name;
    let observed = observe::interfaces(Some(name))?;
    let observed = observed.first().ok_or_else(|| not_guarded(name))?;
    let now = now();
    let evidence = evidence::gather(observed, now)?;
    let accepted = accepted(args, observed, now)?;
    let explainer =
        Explainer::new(policy, &site.catalog).map_err(|error| Fault::usage(error.to_string()))?;
    let sockets = observe::sockets()?;
    let mut findings = observed.findings(&sockets, true);
    traffic::name_left_out(&mut findings, &observed.live.meta)?;
    let policies = policies_in_force(observed)?;
    let effective = &observed.live.effective;
    let explainers = policies
        .iter()
        .map(|policy| Explainer::new(policy, &site.catalog));
    let in_force = InForce {
        inbound: effective.inbound == Strictness::Enforce,
        outbound: effective.outbound == Strictness::Enforce,
        // A policy of documents that are not at hand excuses nothing.
        policies: explainers.collect::<Result<_, _>>().unwrap_or_default(),
    };
    let flows = judge(
        &evidence.causes,
        &findings,
        policy,
        &explainer,
        &accepted,
        &sockets,
        &in_force,
    );
    let against = against(args, &evidence, policy, &flows, &accepted);
    Ok(Case {
        interface: name.clone(),
        effective: observed.live.effective.clone(),
        since: evidence.since,
        watched_seconds: evidence.watched(),
        window_seconds: args.evidence.window.as_secs(),
        hours_of_day: evidence.hours().len(),
        packets: evidence.judged(),
        unlisted_bound: evidence.bound.total(),
        against,
        findings,
        flows,
    })
}

/// The policy in force; while it is not confirmed, also the one to which the kernel goes back, or went back already.
fn policies_in_force(observed: &observe::Observed) -> anyhow::Result<Vec<Policy>> {
    let live = &observed.live;
    let mut policies = vec![live.meta.policy.clone()];
    if !live.is_confirmed {
        let before = publish::before(&observed.layout, live)?;
        policies.extend(before.map(|before| before.policy));
    }
    Ok(policies)
}

/// What was accepted before and what is now, which is kept unless nothing is to be touched.
fn accepted(
    args: &PromoteArgs,
    observed: &observe::Observed,
    now: u64,
) -> anyhow::Result<Vec<Accepted>> {
    let mut all = accept::read(&observed.layout)?;
    let Some(why) = &args.evidence.because else {
        return Ok(all);
    };
    for flow in &args.evidence.accept {
        all.retain(|known| known.flow != *flow);
        all.push(Accepted {
            flow: flow.clone(),
            by: accept::who(),
            at: now,
            why: why.clone(),
        });
    }
    if !args.load.dry_run {
        accept::keep(&observed.layout, &all)?;
    }
    Ok(all)
}

fn against(
    args: &PromoteArgs,
    evidence: &Evidence,
    policy: &Policy,
    flows: &[Judged],
    accepted: &[Accepted],
) -> Vec<Reason> {
    let mut against = Vec::new();
    let window = args.evidence.window.as_secs();
    let watched = evidence.watched();
    if watched < window {
        against.push(Reason::new(
            "window",
            format!(
                "watched for {} of {} (`--window`)",
                duration(watched),
                duration(window)
            ),
        ));
    }
    let hours = evidence.hours();
    if window >= DAY && hours.len() < 24 {
        against.push(Reason::new(
            "hours",
            format!(
                "watched in {} of the 24 hours of the day (UTC)",
                hours.len()
            ),
        ));
    }
    let judged = evidence.judged();
    if judged < args.evidence.min_packets {
        against.push(Reason::new(
            "packets",
            format!(
                "judged {} of {} (`--min-packets`)",
                count(judged, "packet"),
                grouped(args.evidence.min_packets)
            ),
        ));
    }
    // What was admitted until now was never counted as a violation, so that nobody knows who would miss it.
    let closed = diff(&evidence.policy, policy).closed;
    if !closed.is_empty() {
        let words = closed.iter().map(|change| {
            let peers = change.peers.join(", ");
            format!("{} {} of {peers}", change.direction, change.what)
        });
        against.push(Reason::new(
            CLOSES,
            format!(
                "the new policy closes ports that the audited one admits, so there is no evidence of who uses them: {}",
                some(words, CLOSED, "; ")
            ),
        ));
    }
    let unexplained = flows
        .iter()
        .filter(|flow| flow.state == State::Unexplained)
        .count();
    if unexplained > 0 {
        against.push(Reason::new(
            "flows",
            format!(
                "{} would be dropped: neither admitted by the site nor accepted",
                count(unexplained as u64, "flow")
            ),
        ));
    }
    let is_said = accepted.iter().any(|one| one.flow.what == UNLISTED);
    // Since the last boot every port is known by its counter; before it, only what the list had room for.
    let bound = evidence.bound.earlier();
    if (bound > 0 || evidence.forgotten > 0) && !is_said {
        against.push(Reason::new("unlisted", format!(
            "before the last boot there were more flows than are on record: others sent at most {} each (`--accept {UNLISTED}`)",
            count(bound, "packet")
        )));
    }
    against
}
