//! What `load` makes sure of before it enforces: that nobody is cut off who is here now, and that a mistake heals.

use std::fmt::Write as _;
use std::io::Write as _;
use std::time::Duration;

use clap::Args;

use super::streams;
use crate::stderr::stderr;
use portguard_common::ethertypes;
use portguard_kernel::conversations::{self, Adopted, Passing};
use portguard_kernel::generation::{live, takes_over};
use portguard_kernel::host::arrivals::Arrivals;
use portguard_kernel::host::diversions::{diversions, doubtful, unforwarded, unrouted};
use portguard_kernel::host::interface::Interface;
use portguard_kernel::host::links::{self, Link, Speaks};
use portguard_kernel::host::local;
use portguard_kernel::host::operator;
use portguard_kernel::host::paths::Paths;
use portguard_kernel::host::sessions::{Arriving, Known, Sorted, sort};
use portguard_kernel::host::sockets::{Began, Session, sessions};
use portguard_kernel::host::translated::translated;
use portguard_kernel::pins::bpffs::Layout;
use portguard_kernel::pins::namespaces::is_forwarding;
use portguard_policy::error::Fault;
use portguard_policy::human::{count, plain};
use portguard_policy::policy::{Grant, GrantKind, Outbound, Policy, Settings};
use portguard_policy::tunnels::Carrier;

/// Deadline of those who enforce over SSH and say nothing.
const DEFAULT: Duration = Duration::from_mins(2);
/// Sessions that are listed; the rest is counted.
const SHOWN: usize = 10;

/// How careful to be.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Safety")]
#[expect(clippy::struct_excessive_bools, reason = "one a flag")]
pub(super) struct SafetyArgs {
    /// Give way to what was in force before unless `portguard confirm` comes in time; 0 = never
    /// [default: 2m when enforcing over SSH, else 0]
    #[arg(long, value_name = "DUR", value_parser = duration)]
    pub(super) confirm_within: Option<Duration>,
    /// Enforce although open sessions would be cut; your own is still looked at, and so is all else
    #[arg(long)]
    pub(super) cut_sessions: bool,
    /// Enforce whatever is said against it: sessions that would be cut, your own too, what the link needs, addresses without
    /// the guard
    #[arg(long)]
    pub(super) force: bool,
    /// Load a policy that drops less than what is in force, by whatever it is weaker
    #[arg(long)]
    pub(super) allow_weaker: bool,
    /// Take the place of another portguard version's guard, without a gap; its counters and flows end with it
    #[arg(long)]
    pub(super) migrate: bool,
}

impl SafetyArgs {
    /// Whether open sessions may be cut.
    pub(super) const fn cuts(&self) -> bool {
        self.force || self.cut_sessions
    }
}

pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    humantime::parse_duration(text).map_err(|error| format!("{error}: write it like `2m` or `90s`"))
}

/// What was found out about an interface.
#[derive(Default)]
pub(in crate::command) struct Safety {
    /// The host's own sessions by it, where it is to enforce.
    sessions: Sorted,
    /// The connections of others that pass through by it.
    passing: Sorted,
    /// Whether those that are open may not be known, since the kernel tracks no connections.
    is_blind: bool,
    /// Of both, what would be cut that is not cut already.
    cut: Vec<Arriving>,
    /// The session by which the operator is here, if it comes by it.
    operator: Option<Arriving>,
}

/// All that is asked before a policy is put in force, by whichever way: what the links need, what the scope is blind to, and who
/// would be cut.
///
/// # Errors
/// [`Fault`] by the first that speaks against it, unless forced; of open sessions, unless they may be cut (`cuts`).
pub(in crate::command) fn check(
    force: bool,
    cuts: bool,
    interfaces: &[Interface],
    policies: &[Policy],
) -> anyhow::Result<Vec<Safety>> {
    check_links(force, interfaces, policies)?;
    check_scope(force, interfaces, policies)?;
    check_sessions(force, cuts, interfaces, policies)
}

/// Looks at the open sessions of all interfaces, and refuses a policy that would cut some.
///
/// # Errors
/// [`Fault`], listing what would be cut, unless that is wanted (`cuts`); of the operator's own, unless forced.
fn check_sessions(
    force: bool,
    cuts: bool,
    interfaces: &[Interface],
    policies: &[Policy],
) -> anyhow::Result<Vec<Safety>> {
    let each: Vec<(&Interface, &Policy)> = interfaces.iter().zip(policies).collect();
    let found = look(&each)?;
    for ((interface, policy), safety) in each.into_iter().zip(&found) {
        if let Some(session) = &safety.operator {
            check_operator(force, interface, policy, session)?;
        }
        tell_doubtful(interface, &safety.sessions.doubtful);
        check_cut(cuts, interface, &safety.cut)?;
    }
    Ok(found)
}

/// Looks again, when all is ready to be put in force: somebody may have come since [`check`] looked `before`.
///
/// # Errors
/// As there, of those who have come.
pub(super) fn check_again(
    cuts: bool,
    each: &[(&Interface, &Policy)],
    before: &[&Safety],
) -> anyhow::Result<Vec<Safety>> {
    let found = look(each)?;
    for (((interface, _), safety), before) in each.iter().zip(&found).zip(before) {
        let was_there = |one: &&Arriving| {
            let mut all = before.cut.iter();
            all.any(|other| other.session.ends() == one.session.ends())
        };
        let new: Vec<Arriving> = safety
            .cut
            .iter()
            .filter(|one| !was_there(one))
            .cloned()
            .collect();
        check_cut(cuts, interface, &new)?;
    }
    Ok(found)
}

/// Looks at the open sessions of all interfaces, by the policy of each.
fn look(each: &[(&Interface, &Policy)]) -> anyhow::Result<Vec<Safety>> {
    let mut policies = each.iter().map(|(_, policy)| policy);
    let drops = policies.any(|policy| policy.settings.drops_any());
    let mut all = if drops { sessions()? } else { Vec::new() };
    let operator = operator::connection();
    // Where a guard is in force, its table says whose session is whose; it is made with the first.
    let table = conversations::find().and_then(|namespace| namespace.table().ok());
    if drops && let Some(table) = &table {
        match streams::open(table) {
            Ok(streams) => all.extend(streams),
            // A guard that cannot be read is what a load makes anew.
            Err(error) => {
                let _ = writeln!(
                    stderr(),
                    "warning: streams of datagrams that enforcing would cut are not known: {error:#}"
                );
            }
        }
    }
    let known = |session: &Session| Some(table.as_ref()?.known(session));
    let coming: Vec<u32> = each.iter().map(|(one, _)| one.index).collect();
    let paths = drops.then(Paths::here);
    let mut found = Vec::new();
    for &(interface, policy) in each {
        let mut safety = passing(interface, &coming, policy, known)?;
        if let Some(paths) = paths.as_ref().filter(|_| policy.settings.drops_any()) {
            let arrivals = Arrivals::at(interface, paths);
            let arriving = |session: &Session| Arriving::at(&arrivals, session);
            safety.operator = operator.as_ref().and_then(arriving);
            let arriving: Vec<Arriving> = all.iter().filter_map(arriving).collect();
            safety.sessions = sort(&arriving, policy, known);
            let mut cut = safety.sessions.cut.clone();
            cut.extend(safety.passing.cut.iter().cloned());
            // What is cut already is no reason to leave it at that.
            if let Some(now) = in_force(interface) {
                let before = sort(&cut, &now, known).cut;
                cut.retain(|one| !before.contains(one));
            }
            safety.cut = cut;
        }
        found.push(safety);
    }
    Ok(found)
}

/// The policy that drops at an interface now.
fn in_force(interface: &Interface) -> Option<Policy> {
    let live = live(&Layout::of(&interface.name)).ok().flatten()?;
    let mut policy = live.meta.policy;
    live.effective.apply(&mut policy.settings);
    policy.settings.drops_any().then_some(policy)
}

/// What becomes of the connections of others that pass through.
fn passing(
    interface: &Interface,
    coming: &[u32],
    policy: &Policy,
    known: impl Fn(&Session) -> Option<Known>,
) -> anyhow::Result<Safety> {
    let now = live(&Layout::of(&interface.name)).ok().flatten();
    let takes_over = takes_over(now.as_ref());
    let settings = &policy.settings;
    if settings.outbound == Outbound::Off || !settings.drops_any() && !takes_over {
        return Ok(Safety::default());
    }
    let Passing {
        inside,
        outside,
        unclear,
        is_tracked,
        translated: _,
    } = conversations::passing(interface.index, coming, policy)?;
    let arriving: Vec<Arriving> = inside
        .into_iter()
        .chain(outside)
        .chain(unclear)
        .map(Arriving::from)
        .collect();
    let known = |session: &Session| if takes_over { None } else { known(session) };
    Ok(Safety {
        passing: sort(&arriving, policy, known),
        is_blind: !is_tracked && is_forwarding(),
        ..Safety::default()
    })
}

/// Refuses to drop what holds a bond or a bridge together.
///
/// # Errors
/// [`Fault`] that names it, unless forced, or nothing is dropped.
fn check_links(force: bool, interfaces: &[Interface], policies: &[Policy]) -> Result<(), Fault> {
    let links = links::all().unwrap_or_default();
    for (interface, policy) in interfaces.iter().zip(policies) {
        let settings = &policy.settings;
        for (of, name) in dropped(&links, interface.index, settings) {
            let fault = Fault::usage(format!(
                "`{}` needs {name}, which `strict_ethertypes` drops on `{}`",
                plain(of),
                plain(&interface.name)
            ))
            .hint(format!(
                "add \"{name}\" to `allowed_ethertypes`, or use `--force`"
            ));
            if force || !settings.drops_any() {
                warn(&fault);
            } else {
                return Err(fault);
            }
        }
    }
    Ok(())
}

/// What an interface, or that of which it is a part, speaks below IP and the settings drop: each by who speaks it.
fn dropped<'a>(
    links: &'a [Link],
    interface: u32,
    settings: &Settings,
) -> Vec<(&'a str, &'static str)> {
    let link = links.iter().find(|link| link.index == interface);
    let master = link.and_then(|link| links.iter().find(|one| Some(one.index) == link.master));
    let on = [link, master].into_iter().flatten();
    on.filter_map(|one| {
        let (number, name) = match one.speaks? {
            Speaks::Lacp => (ethertypes::LACP, "lacp"),
            Speaks::Stp => (ethertypes::STP, "stp"),
        };
        let passes = settings.ethertypes >> ethertypes::index(number) & 1 == 1;
        (settings.strict_ethertypes && !passes).then_some((one.name.as_str(), name))
    })
    .collect()
}

/// Refuses to pass what is for others where something takes it to this host's own sockets: nobody would judge it then.
///
/// # Errors
/// [`Fault`] that names it, unless forced, or nothing is dropped.
fn check_scope(force: bool, interfaces: &[Interface], policies: &[Policy]) -> Result<(), Fault> {
    for (interface, policy) in interfaces.iter().zip(policies) {
        if policy.settings.host_addresses.is_none() {
            continue;
        }
        check_forwarding(force || !policy.settings.drops_any(), interface)?;
        let kept = local::describe(&local::prefixes().unwrap_or_default());
        let unrouted = unrouted(&interface.name);
        for one in doubtful(&interface.name)
            .into_iter()
            .chain(kept)
            .chain(unrouted)
        {
            let _ = writeln!(stderr(), "warning: {}: {one}", plain(&interface.name));
        }
        let mut found = diversions(&interface.name);
        found.extend(translated(&interface.name));
        if found.is_empty() {
            continue;
        }
        let listed: Vec<String> = found.iter().map(|one| format!("\n  {one}")).collect();
        let fault = Fault::usage(format!(
            "`scope = \"host-addresses\"` on `{}` passes what is for others unjudged, and some of that comes to this host \
             all the same:{}",
            plain(&interface.name),
            listed.concat()
        ))
        .hint(
            "write `scope = \"all\"`, with rows for what passes through; or take the rules away, or narrow them to this \
             host's addresses; `--force` loads it as it is",
        );
        if force || !policy.settings.drops_any() {
            warn(&fault);
        } else {
            return Err(fault);
        }
    }
    Ok(())
}

/// Refuses to judge, and drop, what only passes through.
fn check_forwarding(only_warns: bool, interface: &Interface) -> Result<(), Fault> {
    let found = unforwarded(&interface.name);
    if found.is_empty() {
        return Ok(());
    }
    let listed: Vec<String> = found.iter().map(|(one, _)| format!("\n  {one}")).collect();
    let settings: Vec<String> = found.iter().map(|(_, one)| format!("{one}=1")).collect();
    let fault = Fault::usage(format!(
        "`scope = \"host-addresses\"` on `{}` would drop what is for others:{}",
        plain(&interface.name),
        listed.concat()
    ))
    .hint(format!(
        "`sysctl -w {}`(on a bridge port, only the guard reads it), or `--force` if nothing passes through",
        settings.join(" ")
    ));
    if only_warns {
        warn(&fault);
        return Ok(());
    }
    Err(fault)
}

/// Says what would be refused.
fn warn(fault: &Fault) {
    let mut err = stderr();
    let _ = writeln!(err, "warning: {fault}");
    if let Some(hint) = &fault.hint {
        let _ = writeln!(err, "  hint: {hint}");
    }
}

fn check_operator(
    force: bool,
    interface: &Interface,
    policy: &Policy,
    arriving: &Arriving,
) -> Result<(), Fault> {
    let session = &arriving.session;
    let mut err = stderr();
    if arriving.is_granted(policy) {
        let _ = writeln!(
            err,
            "{}: your own SSH connection from {} stays open",
            plain(&interface.name),
            session.remote.ip()
        );
        return Ok(());
    }
    let fault = Fault::usage(format!(
        "enforcing on `{}` would cut your own SSH connection: {arriving}",
        interface.name
    ))
    .hint(way_in(policy, arriving));
    if force || arriving.is_doubtful && arriving.inside.is_none() {
        let _ = writeln!(err, "warning: {fault}");
        return Ok(());
    }
    Err(fault)
}

/// How to let an operator in.
fn way_in(policy: &Policy, arriving: &Arriving) -> String {
    let (entries, protocols): (Vec<String>, Vec<String>) = match &arriving.inside {
        None => {
            let from = arriving.session.remote.ip();
            let ports = arriving.ports.iter();
            (
                ports.map(|port| format!("tcp/{port}={from}")).collect(),
                Vec::new(),
            )
        }
        Some(outer) => {
            let peers = outer
                .remote
                .map_or_else(|| "\"any\"".to_owned(), |one| format!("[\"{one}\"]"));
            let mut found = (Vec::new(), Vec::new());
            for carrier in &outer.carriers {
                match carrier {
                    Carrier::Port(..) => found.0.push(match outer.remote {
                        Some(remote) => format!("{carrier}={remote}"),
                        None => carrier.to_string(),
                    }),
                    Carrier::Protocol(number) => found.1.push(format!(
                        "{{ number = {number}, peers = {peers}, reason = \"{}\" }}",
                        plain(&outer.name)
                    )),
                }
            }
            found
        }
    };
    let mut ways = Vec::new();
    if !protocols.is_empty() {
        ways.push(format!(
            "write `protocols = [{}]` in the site file",
            protocols.join(", ")
        ));
    }
    if !entries.is_empty() {
        ways.push(management(policy, &entries));
    }
    if ways.is_empty() {
        ways.push("write a row for what carries the tunnel".to_owned());
    }
    format!("{}; or say `--force`", ways.join("; or "))
}

/// How to allow management access. Flags take the place of what a site file allows: alone they are no way where it allows
/// others.
fn management(policy: &Policy, entries: &[String]) -> String {
    let flags: Vec<String> = entries
        .iter()
        .map(|entry| format!("`--management {entry}`"))
        .collect();
    let flags = flags.join(" ");
    let is_management = |grant: &Grant| grant.kind == GrantKind::Management;
    if !policy.inbound.iter().any(is_management) {
        return format!("allow it with {flags}");
    }
    let entries: Vec<String> = entries.iter().map(|entry| format!("\"{entry}\"")).collect();
    format!(
        "add {} to `allow` in `[management]` of the site file, or give {flags} beside flags for all others that are to stay \
         allowed, since flags take the place of `[management]`",
        entries.join(", ")
    )
}

/// Says which sessions would be cut if they arrive here, where nothing tells.
fn tell_doubtful(interface: &Interface, doubtful: &[Arriving]) {
    if !doubtful.is_empty() {
        let _ = writeln!(
            stderr(),
            "warning: {}: {} would be cut if packets arrive here, which is not known:{}",
            plain(&interface.name),
            count(doubtful.len() as u64, "open session"),
            listed(doubtful)
        );
    }
}

/// A line each, up to a number.
fn listed(sessions: &[Arriving]) -> String {
    let shown = sessions.iter().take(SHOWN);
    let mut lines = shown.fold(String::new(), |lines, one| format!("{lines}\n  {one}"));
    if sessions.len() > SHOWN {
        let _ = write!(lines, "\n  and {} more", sessions.len() - SHOWN);
    }
    lines
}

fn check_cut(is_wanted: bool, interface: &Interface, cut: &[Arriving]) -> Result<(), Fault> {
    let number = cut.len();
    if number == 0 {
        return Ok(());
    }
    let what = format!(
        "enforcing on `{}` would cut {} that the policy does not document:{}",
        plain(&interface.name),
        count(number as u64, "open session"),
        listed(cut)
    );
    if is_wanted {
        let _ = writeln!(stderr(), "warning: {what}");
        return Ok(());
    }
    Err(Fault::usage(what).hint(
        "write rows for them in the site file, wait until they have ended, or use `--cut-sessions`",
    ))
}

/// The deadline that applies. What opens a host for a while is to close again as well: only where nothing drops, neither
/// before nor after, is there nothing to give way.
pub(super) fn confirm_within(
    args: &SafetyArgs,
    interfaces: &[Interface],
    policies: &[Policy],
) -> Duration {
    let drops_any = policies.iter().any(|policy| policy.settings.drops_any());
    match args.confirm_within {
        Some(within) if drops_any || within.is_zero() || interfaces.iter().any(drops) => within,
        Some(_) => {
            let _ = writeln!(
                stderr(),
                "note: `--confirm-within` has no effect: neither this policy nor the one before drops anything"
            );
            Duration::ZERO
        }
        None if drops_any && operator::connection().is_some() => DEFAULT,
        None => Duration::ZERO,
    }
}

/// Whether anything is dropped at an interface now.
fn drops(interface: &Interface) -> bool {
    let live = live(&Layout::of(&interface.name)).ok().flatten();
    live.is_some_and(|live| live.effective.drops_any())
}

/// Says what becomes of the open sessions, where they may be cut.
pub(super) fn tell(interface: &Interface, adopted: Option<Adopted>, safety: &Safety) {
    let mut err = stderr();
    let (sorted, passing) = (&safety.sessions, &safety.passing);
    let mut words = format!(
        "{} of the host's own seeded, {} documented, {} cut",
        sorted.seeds.len(),
        sorted.documented.len() + passing.documented.len(),
        sorted.cut.len() + passing.cut.len()
    );
    if !sorted.clients.is_empty() {
        let _ = write!(
            words,
            ", {} UDP clients answered once they ask again",
            sorted.clients.len()
        );
    }
    let _ = writeln!(err, "{}: open sessions: {words}", plain(&interface.name));
    if let Some(lost) = adopted.map(|adopted| adopted.lost).filter(|lost| *lost > 0) {
        let _ = writeln!(
            err,
            "  warning: there was no room for {lost} of them: the site's `flows` is too small"
        );
    }
}

/// Says what becomes of the connections of others that pass through this host.
pub(super) fn tell_passing(interface: &Interface, safety: &Safety) {
    let mut err = stderr();
    let name = plain(&interface.name);
    let known = safety.passing.seeds.len();
    let cut = safety.passing.cut.iter();
    let unclear = cut
        .filter(|one| one.session.began == Began::Unclear)
        .count();
    if known > 0 {
        let _ = writeln!(
            err,
            "{name}: {known} open connections of hosts behind this one go on"
        );
    }
    if unclear > 0 {
        let _ = writeln!(
            err,
            "warning: {name}: {unclear} open connections pass through, and who began them is not known: packets from outside are let in only where the policy documents them"
        );
    }
    if safety.is_blind {
        let _ = writeln!(
            err,
            "warning: {name}: this host forwards packets, but connection tracking lists no connections now: any that hosts behind it opened before the guard are not known, and packets for them are let in only where the policy documents them"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(index: u32, master: Option<u32>, speaks: Option<Speaks>) -> Link {
        let mut link = Link::default();
        link.index = index;
        link.name = format!("if{index}");
        link.master = master;
        link.speaks = speaks;
        link
    }

    /// Members and what they are part of need the same, whichever of them is guarded.
    #[test]
    fn what_a_bond_or_a_bridge_needs_is_named_on_all_that_carry_it() {
        let links = [
            link(2, Some(3), None),
            link(3, None, Some(Speaks::Lacp)),
            link(4, Some(5), None),
            link(5, None, Some(Speaks::Stp)),
            link(6, Some(7), None),
            link(7, None, None),
        ];
        let bit = |number| 1 << ethertypes::index(number);
        let settings = |strict, list| Settings {
            strict_ethertypes: strict,
            ethertypes: list,
            ..Settings::default()
        };
        for (interface, of, name, number) in [
            (2, "if3", "lacp", ethertypes::LACP),
            (3, "if3", "lacp", ethertypes::LACP),
            (4, "if5", "stp", ethertypes::STP),
            (5, "if5", "stp", ethertypes::STP),
        ] {
            let others = u32::MAX ^ bit(number);
            assert_eq!(
                dropped(&links, interface, &settings(true, others)),
                [(of, name)]
            );
            assert!(dropped(&links, interface, &settings(true, bit(number))).is_empty());
            assert!(dropped(&links, interface, &settings(false, 0)).is_empty());
        }
        for interface in [6, 7, 8] {
            assert!(dropped(&links, interface, &settings(true, 0)).is_empty());
        }
    }
}
