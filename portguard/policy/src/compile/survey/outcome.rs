//! What a site makes of a host, in a form that two sites can be compared by.

use std::collections::BTreeSet;

use ipnet::IpNet;

use crate::catalog::Transport;
use crate::compile::select::{Selection, Subject};
use crate::compile::views::Views;
use crate::compile::{Compiler, Inputs, inventory};
use crate::diagnostic::Diagnostic;
use crate::matrix::sweep;
use crate::policy::{Outbound, Policy};
use crate::site::{Mode, Site};

/// One host, on one of its interfaces if the site tells them apart.
#[derive(Debug, Clone)]
pub(super) struct Candidate {
    pub(super) selection: Selection,
    /// In the inventory.
    pub(super) index: Option<usize>,
    pub(super) interface: Option<String>,
    /// `SYSTEM/ROLE`.
    pub(super) roles: Vec<String>,
}

impl Candidate {
    /// All hosts of the site, and the one that is asked for if it is in no inventory.
    pub(super) fn all(inputs: &Inputs<'_>) -> Vec<Self> {
        let mut all = Vec::new();
        if let Selection::Roles(roles) = &inputs.host {
            all.push(Self {
                selection: inputs.host.clone(),
                index: None,
                interface: None,
                roles: roles.clone(),
            });
        }
        for (index, host) in inputs.site.hosts.iter().enumerate() {
            let one = |interface: Option<&String>| Self {
                selection: Selection::Name(host.name.clone()),
                index: Some(index),
                interface: interface.cloned(),
                roles: inventory::roles_of(host)
                    .map(|(role, _)| role.clone())
                    .collect(),
            };
            if host.interfaces.is_empty() {
                all.push(one(None));
            }
            all.extend(host.interfaces.keys().map(|name| one(Some(name))));
        }
        all
    }

    pub(super) fn is_of(&self, system: &str) -> bool {
        let mut roles = self.roles.iter().filter_map(|id| id.split_once('/'));
        roles.any(|(of, _)| of == system)
    }
}

/// The site with everything judged, so that whatever matters shows.
pub(super) fn enforcing(site: &Site) -> Site {
    let mut site = site.clone();
    site.mode = Mode::Enforce;
    site.outbound = Outbound::Enforce;
    for host in &mut site.hosts {
        host.mode = None;
        for interface in host.interfaces.values_mut() {
            interface.mode = None;
        }
    }
    site
}

#[cfg(test)]
thread_local! {
    /// Policies that were compiled.
    pub(in crate::compile) static COMPILED: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// A host's policy; `system`: of this one's rows only. What is wrong with it goes to `reported`.
pub(super) fn policy(
    inputs: &Inputs<'_>,
    views: &Views,
    candidate: &Candidate,
    system: Option<&'_ str>,
    reported: &mut Vec<Diagnostic>,
) -> Policy {
    #[cfg(test)]
    COMPILED.with(|count| count.set(count.get() + 1));
    let inputs = Inputs {
        host: candidate.selection.clone(),
        interface: candidate.interface.as_deref(),
        ..inputs.clone()
    };
    let Some(subject) = Subject::select(&inputs, reported) else {
        return Policy::default();
    };
    let mut compiler = Compiler::new(&inputs, &subject, views, reported);
    compiler.system = system;
    compiler.run()
}

/// Open ports: whether outbound, transport, first and last, to whom (`None`: any), until when, and whether counted only.
type Open = (
    bool,
    Transport,
    u16,
    u16,
    Option<Vec<IpNet>>,
    Option<u64>,
    bool,
);

/// What can be compared.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) open: Vec<Open>,
    /// What is reported, without places: a setting that is gone moves none.
    pub(super) reported: BTreeSet<(&'static str, String)>,
    /// Rows that open something.
    pub(super) rows: BTreeSet<String>,
}

impl Outcome {
    pub(super) fn of(
        inputs: &Inputs<'_>,
        views: &Views,
        candidate: &Candidate,
        system: &str,
    ) -> Self {
        let mut reported = Vec::new();
        let policy = policy(inputs, views, candidate, Some(system), &mut reported);
        let audited: BTreeSet<&str> = policy
            .rows
            .iter()
            .filter(|facts| facts.audit)
            .map(|facts| facts.id.as_str())
            .collect();
        let mut open: Vec<Open> = Vec::new();
        for (is_outbound, grants) in [(false, &policy.inbound), (true, &policy.outbound)] {
            for entry in sweep(grants) {
                let mut grants = entry.grants.iter();
                let is_audited = grants.all(|grant| audited.contains(grant.row.as_str()));
                let untils = entry.grants.iter().map(|grant| grant.until);
                let until = untils.max_by_key(|until| until.unwrap_or(u64::MAX));
                let mut prefixes = entry.prefixes(&policy);
                if let Some(nets) = &mut prefixes {
                    nets.sort_unstable();
                }
                let next = (
                    is_outbound,
                    entry.transport,
                    entry.first,
                    entry.last,
                    prefixes,
                    until.flatten(),
                    is_audited,
                );
                match open.last_mut() {
                    Some(last)
                        if (last.0, last.1) == (next.0, next.1)
                            && u32::from(last.3) + 1 == u32::from(next.2)
                            && (&last.4, last.5, last.6) == (&next.4, next.5, next.6) =>
                    {
                        last.3 = next.3;
                    }
                    _ => open.push(next),
                }
            }
        }
        let grants = policy.inbound.iter().chain(&policy.outbound);
        Self {
            open,
            reported: reported
                .into_iter()
                .map(|one| (one.code, one.message))
                .collect(),
            rows: grants.map(|grant| grant.row.clone()).collect(),
        }
    }
}
