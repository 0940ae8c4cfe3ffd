//! What a policy would drop less than what is in force: that takes a word.

use std::collections::BTreeSet;
use std::fmt;

use portguard_common::ethertypes;
use portguard_common::reason::Direction;
use portguard_kernel::generation::Live;
use portguard_kernel::generation::effective::{Effective, Strictness};
use portguard_policy::error::Fault;
use portguard_policy::human::plain;
use portguard_policy::policy::Policy;
use portguard_policy::site::{Mode, Place, Site};

use crate::command::load::LoadArgs;

/// By what a policy is weaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    Inbound,
    Outbound,
    AuditPorts,
    AuditRows,
    Fragments,
    Ethertypes,
    ListedEthertypes,
    Scope,
}

/// One of the ways in which a policy is weaker than what is in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::command) struct Weaker {
    what: What,
    words: String,
}

impl fmt::Display for Weaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words)
    }
}

/// Compares what is in force with what would be. A guard that gave way, or that is attached to nothing, drops nothing that
/// could be lost.
pub(in crate::command) fn weaker(before: &Live, next: &Policy) -> Vec<Weaker> {
    let mut found = Vec::new();
    let mut add = |what, words: String| found.push(Weaker { what, words });
    let (now, then) = (&before.effective, Effective::of(&next.settings));
    for (what, name, now, then) in [
        (What::Inbound, "inbound", now.inbound, then.inbound),
        (What::Outbound, "outbound", now.outbound, then.outbound),
    ] {
        if now == Strictness::Enforce && then < now {
            add(what, format!("{name}: {now} -> {then}"));
        }
    }
    let (old, new) = (&before.meta.policy, next);
    let still = |direction| now.drops(direction) && next.settings.drops(direction);
    if still(Direction::Ingress) {
        let is_audited = |policy: &Policy, transport, port| {
            let mut ranges = policy.settings.audit_ports.iter();
            ranges.any(|(of, first, last)| *of == transport && (*first..=*last).contains(&port))
        };
        for (transport, first, last) in &new.settings.audit_ports {
            let more = (*first..=*last).find(|port| !is_audited(old, *transport, *port));
            if more.is_some() {
                add(
                    What::AuditPorts,
                    format!("ports that are only audited: {transport}/{first}-{last}"),
                );
            }
        }
    }
    if still(Direction::Ingress) || still(Direction::Egress) {
        let audited = |policy: &Policy| -> BTreeSet<String> {
            let rows = policy.rows.iter().filter(|row| row.audit);
            rows.map(|row| row.id.clone()).collect()
        };
        let mut rows = &audited(new) - &audited(old);
        // What is opened only where nothing is dropped is not lost.
        rows.retain(|id| {
            let has = |direction| new.grants(direction).iter().any(|grant| grant.row == *id);
            let (inwards, outwards) = (has(Direction::Ingress), has(Direction::Egress));
            !(inwards || outwards)
                || inwards && still(Direction::Ingress)
                || outwards && still(Direction::Egress)
        });
        if !rows.is_empty() {
            let rows: Vec<String> = rows.into_iter().collect();
            add(
                What::AuditRows,
                format!("rows that are only audited: {}", rows.join(", ")),
            );
        }
        let (old, new) = (&old.settings, &new.settings);
        if old.strict_fragments && !new.strict_fragments {
            add(What::Fragments, "later fragments pass".to_owned());
        }
        if old.strict_ethertypes && !new.strict_ethertypes {
            add(What::Ethertypes, "other EtherTypes pass".to_owned());
        }
        let more = new.ethertypes & !old.ethertypes;
        if old.strict_ethertypes && new.strict_ethertypes && more != 0 {
            let names: BTreeSet<&str> = (0..)
                .zip(ethertypes::ALL)
                .filter(|(index, _)| more >> index & 1 == 1)
                .map(|(_, one)| one.name)
                .collect();
            let names: Vec<&str> = names.into_iter().collect();
            let words = format!("EtherTypes that pass: {}", names.join(", "));
            add(What::ListedEthertypes, words);
        }
        if old.host_addresses.is_none() && new.host_addresses.is_some() {
            add(
                What::Scope,
                "what is for others passes unjudged: scope all -> host-addresses".to_owned(),
            );
        }
    }
    found
}

/// Which words somebody gave, and where the site file says otherwise.
#[derive(Debug, Clone, Default)]
pub(super) struct Words {
    /// By whatever it is weaker.
    pub(super) all: bool,
    outbound: bool,
    /// The site file says audit.
    is_audit: bool,
    /// What to write so that nothing is weaker.
    mode: String,
    outbound_mode: String,
    others: String,
}

impl Words {
    /// Of a command line, and of a site for a host and an interface of it.
    pub(super) fn of(
        args: &LoadArgs,
        site: Option<(&Site, Option<&str>)>,
        interface: &str,
    ) -> Self {
        let file = |site: &Site| plain(&site.file);
        let line = |site: &Site, place: Option<Place>, text: &str| match place {
            Some(place) => format!("write `{text}` in {}:{}", file(site), place.line),
            None => format!("write `{text}` below `schema` in {}", file(site)),
        };
        let site = site.filter(|(site, _)| !site.file.is_empty());
        let (mode, outbound_mode, others) = match site {
            Some((site, host)) => (
                line(
                    site,
                    site.mode_said(host, interface).map(|(_, place)| place),
                    "mode = \"enforce\"",
                ),
                line(site, site.outbound_place, "outbound = \"enforce\""),
                match host.and_then(|host| site.host(host)) {
                    Some(host) => format!("change the host in {}:{}", file(site), host.place.line),
                    None => format!("change {}", file(site)),
                },
            ),
            None => (
                "say `--enforce`".to_owned(),
                "use `--outbound enforce`".to_owned(),
                "say what was said before".to_owned(),
            ),
        };
        Self {
            all: args.selection.audit || args.safety.allow_weaker,
            outbound: args.selection.outbound.is_some(),
            is_audit: site.is_some_and(|(site, host)| {
                let said = site.mode_said(host, interface);
                said.is_none_or(|(mode, _)| mode == Mode::Audit)
            }),
            mode,
            outbound_mode,
            others,
        }
    }

    /// What to change in the site file, if it does not say that what was loaded enforces.
    pub(super) fn differs(&self, loaded: &Policy) -> Option<String> {
        (loaded.settings.enforce && self.is_audit).then(|| {
            format!(
                "the site file still says audit: {}, or the next `portguard load` is refused",
                self.mode
            )
        })
    }

    /// Refuses what is weaker and was not asked for.
    ///
    /// # Errors
    /// [`Fault`] with all of it, and what to write.
    pub(super) fn check(&self, interface: &str, before: &Live, next: &Policy) -> Result<(), Fault> {
        let found: Vec<Weaker> = weaker(before, next)
            .into_iter()
            .filter(|one| !(self.all || (self.outbound && one.what == What::Outbound)))
            .collect();
        if found.is_empty() {
            return Ok(());
        }
        let listed: Vec<String> = found.iter().map(|one| format!("\n  {one}")).collect();
        let mut hints = Vec::new();
        for one in &found {
            let (keep, weaken) = match one.what {
                What::Inbound => (&self.mode, "--audit"),
                What::Outbound => (&self.outbound_mode, "--outbound audit"),
                What::AuditPorts
                | What::AuditRows
                | What::Fragments
                | What::Ethertypes
                | What::ListedEthertypes
                | What::Scope => (&self.others, "--allow-weaker"),
            };
            let hint = format!("{keep} to keep the policy in force, or use `{weaken}`");
            if !hints.contains(&hint) {
                hints.push(hint);
            }
        }
        Err(Fault::usage(format!(
            "on `{}` less would be dropped than now (generation {}); nothing was changed{}",
            plain(interface),
            before.meta.number,
            listed.concat()
        ))
        .hint(hints.join("\n")))
    }
}
