//! `portguard status`: what is in force.

use std::io::{self, Write};
use std::time::Duration;

use clap::Args;
use serde::Serialize;

use super::selection::hostname;
use super::table::hanging;
use super::unload::loads_again;
use crate::stdout::{print, print_json};
use portguard_kernel::generation::Live;
use portguard_kernel::generation::deadline;
use portguard_kernel::generation::effective::Effective;
use portguard_kernel::hook::egress::EgressHook;
use portguard_kernel::host::boot;
use portguard_kernel::host::{links, local};
use portguard_kernel::pins::guarded::guarded;
use portguard_kernel::pins::moved::{self, Moved};
use portguard_kernel::store;
use portguard_kernel::tunnels;
use portguard_observe::observe::{self, Guard};
use portguard_policy::domains::Answers;
use portguard_policy::error::Exit;
use portguard_policy::human::{bytes, count, grouped, plain, time};
use portguard_policy::policy::Outbound;

/// Show what is in force on every guarded interface
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  portguard status
  portguard status --interface eth0
  portguard status --json | jq -r \\
      '.interfaces[] | \"\\(.name) \\(.effective.inbound)\"'")]
pub struct StatusArgs {
    /// Only this interface
    #[arg(short, long, value_name = "IF")]
    interface: Option<String>,
    /// Write JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Status {
    /// Host name.
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<String>,
    interfaces: Vec<Interface>,
    /// Not guarded, and not to be by the next boot.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    stays_off: Vec<String>,
    /// Guarded from another network namespace, which they came from.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    moved_here: Vec<String>,
    /// Interfaces that are up and whose packets no guard sees, where others have one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    unguarded: Vec<Unguarded>,
}

/// An interface without a guard.
#[derive(Debug, Serialize)]
struct Unguarded {
    name: String,
    /// What `ip -d link` calls it; absent for a network card.
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<String>,
}

/// Where something is guarded, what is not.
fn unguarded() -> Vec<Unguarded> {
    let guarded = guarded();
    if guarded.is_empty() {
        return Vec::new();
    }
    let links = links::all().unwrap_or_default();
    let unguarded = links::unguarded(&links, &guarded).into_iter();
    let named = unguarded.map(|link| Unguarded {
        name: link.name.clone(),
        kind: link.kind.clone(),
    });
    named.collect()
}

/// What is to say beside the interfaces that are guarded; nothing where one is asked for.
#[derive(Debug, Default)]
struct Others {
    stay_off: Vec<String>,
    moved: Vec<Moved>,
    unguarded: Vec<Unguarded>,
    has_fleet: bool,
}

impl Others {
    fn of(args: &StatusArgs) -> Self {
        if args.interface.is_some() {
            return Self::default();
        }
        Self {
            stay_off: store::all_off(),
            moved: moved::here(),
            unguarded: unguarded(),
            has_fleet: boot::has_fleet(),
        }
    }
}

#[derive(Debug, Serialize)]
struct Interface {
    name: String,
    ifindex: u32,
    /// What the policy says.
    mode: &'static str,
    /// What holds now.
    effective: Effective,
    outbound: Outbound,
    /// Whose packets are judged: all, or those for this host's own addresses.
    scope: &'static str,
    xdp_mode: &'static str,
    generation: u64,
    digest: String,
    roles: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    site: Option<String>,
    programs: Programs,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[serde(serialize_with = "portguard_policy::human::seconds::maybe::serialize")]
    confirm_deadline: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    confirm_seconds_left: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    egress_hook: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    previous: Option<u64>,
    #[serde(serialize_with = "portguard_policy::human::seconds::serialize")]
    loaded_at: u64,
    loaded_by: String,
    /// What was counted; absent where that cannot be read.
    #[serde(flatten)]
    counted: Option<Counted>,
    /// Domain names, and the addresses that are admitted for each.
    #[serde(skip_serializing_if = "Answers::is_empty")]
    domains: Answers,
    warnings: Vec<String>,
}

/// Since the first load or the last reset.
#[derive(Debug, Serialize)]
struct Counted {
    #[serde(skip_serializing_if = "Option::is_none")]
    #[serde(serialize_with = "portguard_policy::human::seconds::maybe::serialize")]
    since: Option<u64>,
    packets: u64,
    bytes: u64,
    violations: u64,
    /// Problems that these are, as `counters --violations` lists them.
    findings: usize,
}

/// What cannot be counted has its warning, and is in force all the same.
fn counted(guard: Guard) -> Option<Counted> {
    let sight = guard
        .observe()
        .ok()?
        .sight(&observe::sockets().ok()?, None, false);
    Some(Counted {
        since: sight.report.since,
        packets: sight.report.totals.packets,
        bytes: sight.report.totals.bytes,
        violations: sight.report.violations.packets,
        findings: sight.findings.len(),
    })
}

/// Names with their addresses, a line each; those without any together.
fn domains(out: &mut dyn Write, all: &Answers) -> io::Result<()> {
    let mut unknown = Vec::new();
    for (name, addresses) in all {
        if addresses.is_empty() {
            unknown.push(plain(name));
            continue;
        }
        let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        let words = format!("{}: {}", plain(name), addresses.join(", "));
        hanging(out, "  domain      ", &words)?;
    }
    if !unknown.is_empty() {
        let words = format!(
            "{} without an address when it was loaded: {}",
            count(unknown.len() as u64, "domain"),
            unknown.join(", ")
        );
        hanging(out, "  unresolved  ", &words)?;
    }
    Ok(())
}

#[derive(Debug, Serialize)]
struct Programs {
    #[serde(skip_serializing_if = "Option::is_none")]
    ingress: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    egress: Option<u32>,
}

/// Shows the status of this network namespace's guards.
///
/// # Errors
/// What the system refuses.
pub fn run(args: &StatusArgs) -> anyhow::Result<Exit> {
    let guards = observe::guards(args.interface.as_deref())?.into_iter();
    let interfaces = guards
        .map(|guard| {
            let (name, live) = (guard.name.clone(), guard.live.clone());
            describe(name, live, counted(guard))
        })
        .collect();
    if args.json {
        let others = Others::of(args);
        print_json(&Status {
            host: hostname(),
            interfaces,
            stays_off: others.stay_off,
            moved_here: others.moved.into_iter().map(|one| one.interface).collect(),
            unguarded: others.unguarded,
        })?;
    } else {
        text(&interfaces, &Others::of(args))?;
    }
    Ok(Exit::Ok)
}

/// How long somebody has to confirm what is in force; 0 = nobody did. Absent where nothing waits for that.
pub(super) fn seconds_left(live: &Live) -> Option<u64> {
    let left = || deadline::left(live.meta.deadline).ok().flatten();
    let rounded_up = |left: Duration| left.as_secs() + u64::from(left.subsec_nanos() > 0);
    (!live.is_confirmed).then(|| left().map_or(0, rounded_up))
}

/// The scope that passes what is for others, as a site writes it.
const HOST_ADDRESSES: &str = "host-addresses";

fn describe(name: String, live: Live, counted: Option<Counted>) -> Interface {
    let left = seconds_left(&live);
    let Live {
        meta,
        ingress,
        egress,
        mut warnings,
        is_confirmed,
        effective,
    } = live;
    let deadline = (!is_confirmed).then_some(meta.deadline);
    let settings = &meta.policy.settings;
    warnings.extend(tunnels::unjudged(&meta.policy));
    if settings.host_addresses.is_some() {
        warnings.extend(local::describe(&meta.local));
    }
    if meta.version != env!("CARGO_PKG_VERSION") {
        warnings.push(format!(
            "loaded by portguard {}, this is {}",
            meta.version,
            env!("CARGO_PKG_VERSION")
        ));
    }
    Interface {
        counted,
        name,
        ifindex: meta.ifindex,
        mode: if settings.enforce { "enforce" } else { "audit" },
        effective,
        outbound: settings.outbound,
        scope: if settings.host_addresses.is_some() {
            HOST_ADDRESSES
        } else {
            "all"
        },
        xdp_mode: meta.xdp_mode.name(),
        generation: meta.number,
        digest: meta.digest,
        roles: meta.policy.roles,
        site: meta.sources.site,
        programs: Programs { ingress, egress },
        confirm_deadline: deadline.and_then(|deadline| deadline::wall(deadline).ok()),
        confirm_seconds_left: left,
        egress_hook: meta.egress_hook.map(EgressHook::name),
        previous: meta.previous,
        loaded_at: meta.loaded_at,
        loaded_by: meta.version,
        domains: meta.policy.domains.names,
        warnings,
    }
}

/// What is in force, what the policy says where that is not the same, and what ends by itself.
fn in_force(out: &mut dyn Write, interface: &Interface) -> io::Result<()> {
    let now = &interface.effective;
    writeln!(
        out,
        "{}: inbound {}, outbound {}",
        plain(&interface.name),
        now.inbound,
        now.outbound
    )?;
    if !now.is_as_meant() {
        let meant = interface.outbound.name();
        let is_other = now.inbound.name() != interface.mode || now.outbound.name() != meant;
        if is_other {
            writeln!(
                out,
                "  policy      inbound {}, outbound {meant}",
                interface.mode
            )?;
        }
    }
    for ending in now.endings.iter().filter(|ending| !ending.is_over) {
        writeln!(
            out,
            "  ends        row {} at {}",
            plain(&ending.row),
            time(ending.at)
        )?;
    }
    Ok(())
}

fn text(interfaces: &[Interface], others: &Others) -> anyhow::Result<()> {
    print(|out| {
        if interfaces.is_empty() {
            writeln!(out, "no interface is guarded")?;
        }
        for name in &others.stay_off {
            let name = plain(name);
            let load = loads_again(&name);
            let text =
                format!("stays off because of `unload --stay-off`; `{load}` guards it again");
            hanging(out, &format!("{name}: "), &text)?;
        }
        for interface in interfaces {
            in_force(out, interface)?;
            if let Some(host) = hostname() {
                writeln!(out, "  host        {}", plain(&host))?;
            }
            let roles = match interface.roles.as_slice() {
                [] => "none".to_owned(),
                roles => roles.join(", "),
            };
            writeln!(out, "  roles       {roles}")?;
            if interface.scope == HOST_ADDRESSES {
                writeln!(
                    out,
                    "  scope       {HOST_ADDRESSES}: what is for others passes"
                )?;
            }
            writeln!(out, "  loaded      {}", time(interface.loaded_at))?;
            if let Some(counted) = &interface.counted {
                let since = counted
                    .since
                    .map_or(String::new(), |since| format!(" since {}", time(since)));
                writeln!(
                    out,
                    "  counted     {}, {}{since}",
                    count(counted.packets, "packet"),
                    bytes(counted.bytes)
                )?;
                writeln!(
                    out,
                    "  violations  {} in {}",
                    grouped(counted.violations),
                    count(counted.findings as u64, "finding")
                )?;
            }
            writeln!(
                out,
                "  generation  {} of policy {}{}",
                interface.generation,
                interface.digest.get(..12).unwrap_or_default(),
                // The warning says to which.
                if interface.confirm_seconds_left == Some(0) {
                    ", which gave way"
                } else {
                    ""
                }
            )?;
            writeln!(
                out,
                "  program     {} ({} XDP)",
                interface
                    .programs
                    .ingress
                    .map_or("none".to_owned(), |id| id.to_string()),
                interface.xdp_mode
            )?;
            if let (Some(hook), Some(id)) = (interface.egress_hook, interface.programs.egress) {
                writeln!(out, "  outbound    {id} ({hook})")?;
            }
            if let Some(left) = interface.confirm_seconds_left.filter(|left| *left > 0) {
                writeln!(
                    out,
                    "  unconfirmed gives way in {left} s unless `portguard confirm` comes first"
                )?;
            }
            domains(out, &interface.domains)?;
            for warning in &interface.warnings {
                hanging(out, "  warning: ", &plain(warning))?;
            }
        }
        for moved in &others.moved {
            let words = format!("{}: {}", moved.describe(), moved.todo());
            hanging(out, &format!("{}: ", plain(&moved.interface)), &words)?;
        }
        for Unguarded { name, kind } in &others.unguarded {
            let kind = kind
                .as_ref()
                .map_or(String::new(), |kind| format!(" ({kind})"));
            writeln!(out, "{}: not guarded{kind}", plain(name))?;
        }
        if others.has_fleet {
            let words = "this host is of a fleet, whose agent loads the policy; `portguard fleet status` where the fleet is published";
            hanging(out, "", words)?;
        }
        Ok(())
    })
}
