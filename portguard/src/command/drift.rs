//! `portguard drift`: documented x listening x seen.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;

use clap::Args;
use serde::Serialize;

use super::catalogs;
use super::explain::accept;
use super::selection::{Resolving, SelectionArgs, USUAL_SITE};
use super::table::Column::{Number, Prose, Spare, SpareWhole, Whole};
use super::table::{Grid, hanging, wrapped};
use crate::fold::width;
use crate::stderr::stderr;
use crate::stdout::{print, print_json};
use portguard_kernel::host::listeners::{Listener, elsewhere};
use portguard_kernel::host::nat::{self, Unread, World};
use portguard_observe::drift::{Drift, Item, Portless, Sight, State, Views};
use portguard_observe::findings::Sockets;
use portguard_observe::observe::{self, Observed};
use portguard_policy::catalog::Catalog;
use portguard_policy::error::{Exit, Fault};
use portguard_policy::explain::LeftOut;
use portguard_policy::human::{count, grouped, plain, time};
use portguard_policy::policy::{Omitted, Policy};

/// Compare what is documented, what listens and what was seen
///
/// Without a site or a role, compares the policies in force on this host. Findings are violations by their cause, as in every
/// other view; mismatches are ports that documents and services do not agree about, though no violation was seen. Exit code 1
/// on either.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  portguard drift  what is in force, against what listens and what was seen
  portguard drift --findings  only what somebody should do something about
  portguard drift -c site.toml --json  a site file that is not loaded")]
pub struct DriftArgs {
    #[command(flatten)]
    selection: SelectionArgs,
    /// Only traffic seen on this interface
    #[arg(short, long, value_name = "IF")]
    interface: Option<String>,
    /// Only findings and mismatches
    #[arg(long)]
    findings: bool,
    /// Show at most N undocumented ports without a listener; JSON has all
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = super::at_least_one)]
    top: usize,
    /// Write JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Answer {
    roles: Vec<String>,
    digest: String,
    interfaces: Vec<String>,
    /// The latest moment that any of them counts from.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[serde(serialize_with = "portguard_policy::human::seconds::maybe::serialize")]
    since: Option<u64>,
    /// From when each of them counts: sums over several are of these windows.
    windows: Vec<Window>,
    /// Violations by their cause, as every view counts them.
    findings: usize,
    /// Ports that documents and services do not agree about, without any violation.
    mismatches: usize,
    /// Rules of the packet filter that were not understood: what they hand on is not among the items.
    unread: Vec<Unread>,
    states: BTreeMap<&'static str, usize>,
    items: Vec<Item>,
    /// Undocumented traffic that no port is behind; each is a finding.
    portless: Vec<Portless>,
}

/// From when an interface counts.
#[derive(Debug, Serialize)]
struct Window {
    interface: String,
    /// Seconds since the Unix epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[serde(serialize_with = "portguard_policy::human::seconds::maybe::serialize")]
    since: Option<u64>,
    /// Whether that is a reset, or else the first load.
    reset: bool,
}

/// Compares.
///
/// # Errors
/// If there is neither a policy nor a guard, and what the system refuses.
pub fn run(args: &DriftArgs) -> anyhow::Result<Exit> {
    let observed = observe::interfaces(args.interface.as_deref())?;
    let in_force = catalogs::in_force(observed.iter().map(|one| &one.live.meta))?;
    let (policy, selected, digest) = policy(args, &observed)?;
    let here = observe::listeners()?;
    let sights = sights(&observed, &here.1, &in_force, false);
    let drift = gather(
        &policy,
        selected.as_ref().unwrap_or(&in_force),
        here,
        &sights,
    );
    let (findings, mismatches) = (drift.findings(), drift.mismatches());
    let Drift {
        mut items,
        portless,
        unread,
    } = drift;
    warn(&unread);
    let seen = || sights.iter().map(|sight| &sight.report);
    for report in seen() {
        for warning in &report.warnings {
            let _ = writeln!(
                stderr(),
                "warning: {}: {}",
                plain(&report.name),
                plain(warning)
            );
        }
    }
    if args.findings {
        items.retain(Item::is_to_act_on);
    }
    let mut states = BTreeMap::new();
    for item in &items {
        *states.entry(item.state.name()).or_default() += 1;
    }
    let answer = Answer {
        roles: policy.roles.clone(),
        digest,
        interfaces: seen().map(|report| report.name.clone()).collect(),
        since: seen().filter_map(|report| report.since).max(),
        windows: seen()
            .map(|report| Window {
                interface: report.name.clone(),
                since: report.since,
                reset: report.reset.is_some(),
            })
            .collect(),
        findings,
        mismatches,
        unread,
        states,
        items,
        portless,
    };
    if args.json {
        print_json(&answer)?;
    } else {
        print(|out| text(out, &answer, args.top))?;
    }
    // A rule that nobody understood may hand anything on.
    let is_blind = answer.unread.iter().any(Unread::is_rule);
    Ok(if findings + mismatches > 0 || is_blind {
        Exit::Findings
    } else {
        Exit::Ok
    })
}

/// Says on standard error what of the packet filter was not understood.
pub(super) fn warn(unread: &[Unread]) {
    let mut err = stderr();
    for one in unread {
        let _ = writeln!(
            err,
            "warning: not read, may hand ports on: {}: {}",
            plain(&one.rule.to_string()),
            plain(&one.why)
        );
    }
}

/// Compares a policy with this host: with the listeners by which what was `seen` was told, too.
pub(super) fn gather(
    policy: &Policy,
    catalog: &Catalog,
    (listeners, sockets): (Vec<Listener>, Sockets),
    seen: &[Sight],
) -> Drift {
    let names = seen.iter().map(|sight| sight.report.name.clone());
    let guarded: Vec<String> = names.collect();
    let nat::Reading { published, unread } = nat::read(&World::here(&guarded));
    let places = listeners.iter().map(|one| (one.transport, one.port));
    let left_out = LeftOut::new(policy, catalog);
    let left_out = places.filter_map(|place| {
        let rows = left_out.at(place);
        (!rows.is_empty()).then_some((place, rows))
    });
    let views = Views {
        left_out: left_out.collect(),
        listeners,
        // Who is at the other end matters only where something is handed on, and takes a look at every process.
        elsewhere: if published.iter().all(|one| one.is_host) {
            Vec::new()
        } else {
            elsewhere()
        },
        published,
        seen,
        ephemeral: sockets.client_ports,
        clients: sockets.clients,
    };
    Drift::new(policy, &views, unread)
}

/// What each interface saw, since the last reset or (`raw`) the first load.
pub(super) fn sights(
    observed: &[Observed],
    sockets: &Sockets,
    catalog: &Catalog,
    raw: bool,
) -> Vec<Sight> {
    let each = observed.iter();
    each.map(|one| one.sight(sockets, Some(catalog), raw))
        .collect()
}

/// The policy that was asked for, with its catalog, or those in force taken together; and the digest that it is known by.
fn policy(
    args: &DriftArgs,
    observed: &[Observed],
) -> anyhow::Result<(Policy, Option<Catalog>, String)> {
    let selection = &args.selection;
    let is_asked =
        selection.config.is_some() || selection.host.is_some() || !selection.roles.is_empty();
    if !is_asked && let Some((first, others)) = observed.split_first() {
        let policy = in_force(observed);
        let own = &first.live.meta.digest;
        // One policy on all interfaces has its digest; several taken together have one of their own.
        let is_one = others.iter().all(|one| one.live.meta.digest == *own);
        let digest = if is_one { own.clone() } else { policy.digest() };
        return Ok((policy, None, digest));
    }
    if !is_asked && !Path::new(USUAL_SITE).exists() {
        return Err(Fault::usage(
            "no interface is guarded, and no site or role is given: there is nothing to compare with",
        )
        .hint("give `--config SITE` or `--role SYSTEM/ROLE`, or guard with `portguard load --audit`")
        .into());
    }
    let selected = selection.load(Resolving::WhenTold)?;
    let policy = accept(selected.compile(None))?;
    let digest = policy.digest();
    Ok((policy, Some(selected.catalog), digest))
}

/// The policies of all interfaces as one: a port is documented if it is on any of them.
pub(super) fn in_force(observed: &[Observed]) -> Policy {
    let mut all = Policy::default();
    for one in observed {
        let policy = &one.live.meta.policy;
        all.host = all.host.or_else(|| policy.host.clone());
        all.roles.extend(policy.roles.iter().cloned());
        all.systems.extend(policy.systems.iter().cloned());
        // Peers are numbered by policy: who they are is not what is compared.
        all.inbound.extend(policy.inbound.iter().cloned());
        all.outbound.extend(policy.outbound.iter().cloned());
        for facts in &policy.rows {
            if !all.rows.contains(facts) {
                all.rows.push(facts.clone());
            }
        }
        // Whom a row that opens nothing is for is not asked.
        let left_out = policy.omitted.iter().map(|omitted| Omitted {
            peers: None,
            ..omitted.clone()
        });
        for omitted in left_out {
            if !all.omitted.contains(&omitted) {
                all.omitted.push(omitted);
            }
        }
    }
    for list in [&mut all.roles, &mut all.systems] {
        list.sort();
        list.dedup();
    }
    all
}

fn text(out: &mut dyn Write, answer: &Answer, top: usize) -> io::Result<()> {
    if answer.interfaces.is_empty() {
        writeln!(
            out,
            "no guard counts here: what was seen is unknown; `portguard load --audit` finds out\n"
        )?;
    }
    for window in &answer.windows {
        let Some(since) = window.since else { continue };
        let from = if window.reset {
            "the last reset"
        } else {
            "the first load"
        };
        let name = plain(&window.interface);
        writeln!(out, "{name}: counted since {from}, {}", time(since))?;
    }
    if !answer.windows.is_empty() {
        writeln!(out)?;
    }
    let is_several = answer.interfaces.len() > 1;
    let mut left_out = 0;
    for &state in State::ALL {
        let mut of: Vec<&Item> = answer
            .items
            .iter()
            .filter(|item| item.state == state)
            .collect();
        if of.is_empty() {
            continue;
        }
        let is_traffic = state.is_traffic();
        if is_traffic {
            of.sort_by_key(|item| std::cmp::Reverse(item.violations));
            left_out = of.len().saturating_sub(top);
            of.truncate(top);
        }
        let mark = if state.is_to_act_on() { "! " } else { "" };
        let words = format!("{mark}{}: {}", state.name(), state.meaning());
        for line in wrapped(&words, width().unwrap_or(usize::MAX)) {
            writeln!(out, "{line}")?;
        }
        writeln!(out, "{}", lines(&of, is_several))?;
        if is_traffic && left_out > 0 {
            writeln!(
                out,
                "  and {left_out} more; `--top` or `--json` shows them\n"
            )?;
        }
    }
    if !answer.portless.is_empty() {
        writeln!(
            out,
            "! without-port: no document opens this, and it has no port\n{}",
            without_port(&answer.portless, is_several)
        )?;
    }
    if !answer.unread.is_empty() {
        writeln!(
            out,
            "the packet filter was not read completely: see the warnings"
        )?;
    }
    let of_items = answer.items.iter().flat_map(|item| &item.talkers);
    let mut talkers = of_items.chain(answer.portless.iter().flat_map(|one| &one.talkers));
    if talkers.any(|talker| talker.estimated) {
        writeln!(out, "~ is an estimate: see `portguard counters --by peer`")?;
    }
    let findings = count(answer.findings as u64, "finding");
    let without = match answer.portless.len() {
        0 => String::new(),
        without => format!(", {without} of them without a port"),
    };
    let mismatches = count(answer.mismatches as u64, "mismatch");
    let words = format!("{findings}{without}; {mismatches} between documents and services");
    hanging(out, "", &words)
}

/// Which way, and where there are several interfaces on which one.
fn side(direction: &str, interface: Option<&str>, is_several: bool) -> String {
    match interface.filter(|_| is_several) {
        Some(interface) => format!("  {direction} {}", plain(interface)),
        None => format!("  {direction}"),
    }
}

fn without_port(all: &[Portless], is_several: bool) -> Grid {
    let mut table = Grid::new(&[
        ("  ", Whole),
        ("to", Whole),
        ("violations", Number),
        ("reason", SpareWhole),
        ("who", Prose),
        ("rows", Spare),
    ]);
    for one in all {
        table.row([
            side(one.direction, Some(&one.interface), is_several),
            one.what.clone(),
            grouped(one.violations),
            one.reason.clone(),
            plain(&one.who()),
            plain(&one.rows.join(", ")),
        ]);
    }
    table
}

fn lines(items: &[&Item], is_several: bool) -> Grid {
    let mut table = Grid::new(&[
        ("  ", Whole),
        ("port", Whole),
        ("passed", Number),
        ("violations", Number),
        ("who", Prose),
        ("rows", Prose),
        ("purpose", Spare),
    ]);
    // Nothing passed or violated: nothing to show.
    let number = |count: Option<u64>| match count {
        None | Some(0) => String::new(),
        Some(count) => grouped(count),
    };
    for item in items {
        let violations = match &item.traffic {
            Some(traffic) => traffic.amount(),
            None => number(item.violations),
        };
        table.row([
            side(item.direction, item.interface.as_deref(), is_several),
            item.what(),
            number(item.passed),
            violations,
            plain(&item.who()),
            plain(&rows(item)),
            plain(&item.purposes.join("; ")),
        ]);
    }
    table
}

/// The rows that document it, or those that would and why they do not.
fn rows(item: &Item) -> String {
    let left_out = item.left_out.iter().map(|near| match &near.left_out {
        Some(why) => format!("{} ({why})", near.row),
        None => near.row.clone(),
    });
    let all: Vec<String> = item.rows.iter().cloned().chain(left_out).collect();
    all.join(", ")
}
