//! Lints over the finished grants: what is opened too wide, and which rows fight over a port.

use std::collections::BTreeMap;

use crate::catalog::Transport;
use crate::diagnostic::Diagnostic;
use crate::policy::{Grant, GrantKind, Peers, Policy};
use crate::tunnels;

/// Where Linux takes ports for outgoing connections from, unless its settings say otherwise.
const EPHEMERAL: (u16, u16) = (32_768, 60_999);
/// A row that opens more of these to anybody opens them all, for all purposes.
const MANY: u16 = 1_000;

pub(super) fn policy(policy: &Policy, diagnostics: &mut Vec<Diagnostic>) {
    for grant in &policy.inbound {
        let first = grant.first.max(EPHEMERAL.0);
        let last = grant.last.min(EPHEMERAL.1);
        if grant.peers == Peers::Any && last.saturating_sub(first) >= MANY {
            let message = format!(
                "row `{}` opens {}/{}-{} to any: most of the ports of the host's own connections",
                grant.row, grant.transport, grant.first, grant.last
            );
            let hint = "narrow the row with `only`, or give it fewer ports";
            diagnostics.push(
                Diagnostic::warning("ephemeral-any", message)
                    .at(policy.place_of(&grant.row))
                    .hint(hint),
            );
        }
    }
    if policy.settings.drops_any() {
        for set in &policy.sets {
            if set.prefixes.iter().any(|net| net.prefix_len() == 0) {
                let message = format!(
                    "the peers `{}` have a prefix of length 0, which means everybody",
                    set.name
                );
                let hint = "write \"any\" if that is what you mean";
                diagnostics.push(Diagnostic::warning("default-route", message).hint(hint));
            }
        }
    }
    tunnels(policy, diagnostics);
    conflicts(policy, diagnostics);
}

/// A row that is for a tunnel lets in whatever is inside.
fn tunnels(policy: &Policy, diagnostics: &mut Vec<Diagnostic>) {
    for one in tunnels::open(policy).into_iter().filter(|one| one.is_meant) {
        let message = format!(
            "row `{}` lets in {} ({}): packets inside the tunnel are not judged where it passes",
            one.row, one.carrier, one.kind.name
        );
        let hint = "open it to the tunnel's other ends only, and guard the interface on which the tunnel ends by its own name";
        diagnostics.push(
            Diagnostic::warning("tunnel", message)
                .at(policy.place_of(&one.row))
                .hint(hint),
        );
    }
}

/// One port, listened on by programs of different systems: only one of them can have it.
fn conflicts(policy: &Policy, diagnostics: &mut Vec<Diagnostic>) {
    let mut single: BTreeMap<(Transport, u16), Vec<&Grant>> = BTreeMap::new();
    let documented = policy
        .inbound
        .iter()
        .filter(|grant| grant.kind == GrantKind::Documented);
    for grant in documented.filter(|grant| grant.first == grant.last) {
        single
            .entry((grant.transport, grant.first))
            .or_default()
            .push(grant);
    }
    let system = |row: &str| row.split('/').next().unwrap_or_default().to_owned();
    for ((transport, port), grants) in single {
        let Some((first, rest)) = grants.split_first() else {
            continue;
        };
        if let Some(other) = rest
            .iter()
            .find(|grant| system(&grant.row) != system(&first.row))
        {
            let message = format!(
                "{transport}/{port} is listened on by two systems: rows `{}` and `{}`",
                first.row, other.row
            );
            let hint = "change the port of one, or give the roles to different hosts";
            diagnostics.push(
                Diagnostic::warning("role-conflict", message)
                    .at(first.row.clone())
                    .hint(hint),
            );
        }
    }
}
