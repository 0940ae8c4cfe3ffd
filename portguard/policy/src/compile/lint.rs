//! Lints over the site before anything is compiled: names that nobody knows, groups within themselves.

pub(super) mod names;
mod shared;

use std::collections::BTreeSet;

use super::select::suggest;
use super::{Inputs, facts, inventory};
use crate::catalog::{PortSpec, System};
use crate::diagnostic::Diagnostic;
use crate::site::{Place, Site, SystemSite, Term, has_peer, names_row};

/// More messages about the inventory help nobody.
const MAX_HOSTS: usize = 20;

pub(super) fn site(inputs: &Inputs<'_>, diagnostics: &mut Vec<Diagnostic>) {
    let mut lint = Lint {
        inputs,
        site: inputs.site,
        diagnostics,
    };
    lint.groups();
    lint.terms();
    lint.unused_groups();
    lint.profiles();
    lint.hosts();
    lint.shared_addresses();
    lint.own_rows();
    for (id, site) in &inputs.site.systems {
        if let Some(system) = inputs.catalog.systems.get(id) {
            lint.system(system, site);
            for (name, cluster) in &site.clusters {
                lint.cluster(system, name, cluster.place);
                lint.system(system, cluster);
            }
        } else if let Err(diagnostic) = inputs.catalog.system(id) {
            lint.push(site.place, diagnostic, "");
        }
    }
}

pub(super) struct Lint<'a, 'd> {
    pub(super) inputs: &'a Inputs<'a>,
    pub(super) site: &'a Site,
    diagnostics: &'d mut Vec<Diagnostic>,
}

impl<'a> Lint<'a, '_> {
    pub(super) fn error(
        &mut self,
        place: Place,
        code: &'static str,
        message: String,
        hint: impl Into<String>,
    ) {
        self.push(place, Diagnostic::error(code, message), hint);
    }

    pub(super) fn push(&mut self, place: Place, diagnostic: Diagnostic, hint: impl Into<String>) {
        let place = self
            .site
            .at(place)
            .unwrap_or_else(|| "command line".to_owned());
        let hint = hint.into();
        let diagnostic = diagnostic.at(place);
        self.diagnostics.push(if hint.is_empty() {
            diagnostic
        } else {
            diagnostic.hint(hint)
        });
    }

    /// Depth first; each cycle is reported once, at its first group.
    fn groups(&mut self) {
        let mut done = BTreeSet::new();
        for name in self.site.groups.keys() {
            let mut stack: Vec<(&str, usize)> = vec![(name, 0)];
            while let Some((name, at)) = stack.pop() {
                if done.contains(name) {
                    continue;
                }
                let Some(group) = self.site.groups.get(name) else {
                    continue;
                };
                let next =
                    group
                        .members
                        .0
                        .iter()
                        .enumerate()
                        .skip(at)
                        .find_map(|(i, (term, place))| match term {
                            Term::Group(inner) => Some((i, inner.as_str(), *place)),
                            Term::Prefix(_)
                            | Term::Role(_)
                            | Term::Host(_)
                            | Term::Domain(_)
                            | Term::File(_) => None,
                        });
                let Some((i, inner, place)) = next else {
                    done.insert(name);
                    continue;
                };
                stack.push((name, i + 1));
                if let Some(start) = stack.iter().position(|(above, _)| *above == inner) {
                    let path: Vec<_> = stack.iter().skip(start).map(|(name, _)| *name).collect();
                    let message = format!(
                        "group `{inner}` contains itself: {} -> {inner}",
                        path.join(" -> ")
                    );
                    self.error(
                        place,
                        "cyclic-group",
                        message,
                        "remove one of these references",
                    );
                } else {
                    stack.push((inner, 0));
                }
            }
        }
    }

    fn profiles(&mut self) {
        let site = self.site;
        for (id, place) in &site.baseline.profiles {
            self.any_role(id, *place);
            // Whoever has it from here has it with this place.
            let mut roles = site.hosts.iter().flat_map(|host| &host.roles);
            if !site.hosts.is_empty() && !roles.any(|(own, at)| own == id && at == place) {
                let system = id.split('/').next().unwrap_or(id);
                let message = format!(
                    "no host takes the profile `{}`: each has a role of {system} of its own",
                    id.escape_debug()
                );
                self.error(*place, "no-effect", message, "remove it");
            }
        }
    }

    fn unused_groups(&mut self) {
        let used: BTreeSet<&str> = self
            .site
            .terms()
            .filter_map(|(term, _)| {
                if let Term::Group(name) = term {
                    Some(name.as_str())
                } else {
                    None
                }
            })
            .collect();
        for (name, group) in self
            .site
            .groups
            .iter()
            .filter(|(name, _)| !used.contains(name.as_str()))
        {
            let message = format!("no row or setting uses the group `{}`", name.escape_debug());
            self.push(
                group.place,
                Diagnostic::warning("no-effect", message),
                "remove it, or use it",
            );
        }
    }

    fn hosts(&mut self) {
        let mut known: BTreeSet<&'a str> = BTreeSet::new();
        let mut reported = 0;
        for host in &self.site.hosts {
            for (id, place) in inventory::roles_of(host) {
                if reported < MAX_HOSTS
                    && !known.contains(id.as_str())
                    && let Err(diagnostic) = self.inputs.catalog.role(id)
                {
                    self.push(*place, diagnostic, "");
                    reported += 1;
                } else {
                    known.insert(id);
                }
            }
            for (id, (_, place)) in &host.offsets {
                self.any_role(id, *place);
            }
            for (id, place) in &host.audit_roles {
                self.any_role(id, *place);
            }
            self.host_settings(host);
            if reported < MAX_HOSTS && host.addresses.is_empty() {
                let message = format!(
                    "host `{}` has no address: as a peer it matches nobody",
                    host.name
                );
                self.push(
                    host.place,
                    Diagnostic::warning("host-without-address", message),
                    "write `addresses = [...]`",
                );
                reported += 1;
            }
        }
    }

    fn own_rows(&mut self) {
        for row in &self.site.rows {
            for (id, place) in &row.roles {
                self.any_role(id, *place);
                let is_had = |own: &str| {
                    id.split_once('/').zip(own.split_once('/')).is_some_and(
                        |((of, role), (system, own))| {
                            let known = self.inputs.catalog.systems.get(of);
                            of == system
                                && known.is_some_and(|known| known.closure(own).contains(role))
                        },
                    )
                };
                let mut hosts = self.site.hosts.iter().flat_map(inventory::roles_of);
                if !self.site.hosts.is_empty() && !hosts.any(|(own, _)| is_had(own)) {
                    let message = format!(
                        "row `{}` is for hosts with the role `{id}`, and no host has it",
                        row.name
                    );
                    self.error(
                        *place,
                        "no-effect",
                        message,
                        "remove it, or give a host the role",
                    );
                }
            }
            for (name, place) in &row.hosts {
                if self.site.host(name).is_none() {
                    let known: Vec<_> = self
                        .site
                        .hosts
                        .iter()
                        .map(|host| host.name.as_str())
                        .collect();
                    let message = format!("there is no host `{}`", name.escape_debug());
                    self.error(*place, "unknown-host", message, suggest(name, &known));
                }
            }
        }
    }

    pub(super) fn system(&mut self, system: &'a System, site: &'a SystemSite) {
        if let Some((deployment, place)) = &site.deployment
            && !system.deployments.contains_key(deployment)
        {
            let known: Vec<_> = system.deployments.keys().map(String::as_str).collect();
            self.unknown(
                *place,
                "unknown-deployment",
                system,
                "deployment",
                deployment,
                &known,
            );
        }
        let options: Vec<_> = system.options.keys().map(String::as_str).collect();
        for (option, place) in site.options.iter().chain(&site.without) {
            if !system.options.contains_key(option) {
                self.unknown(*place, "unknown-option", system, "option", option, &options);
            }
        }
        for (option, place) in &site.options {
            if site.without.contains_key(option) {
                let message = format!("option `{option}` of {} is both on and off", system.id);
                self.error(
                    *place,
                    "contradiction",
                    message,
                    "name it in only one of `options` and `without`",
                );
            }
        }
        self.choices(system, site);
        self.effect(system, site);
        for (key, (_, place)) in &site.peers {
            if !has_peer(system, key) {
                let known: Vec<_> = system
                    .groups
                    .keys()
                    .chain(system.roles.keys())
                    .map(String::as_str)
                    .collect();
                self.unknown(*place, "unknown-peer", system, "peer", key, &known);
            }
        }
        for (role, (_, place)) in &site.offsets {
            let known: Vec<_> = system.roles.keys().map(String::as_str).collect();
            if !system.roles.contains_key(role) {
                self.unknown(*place, "unknown-role", system, "role", role, &known);
            }
        }
        self.rows(system, site);
    }

    fn choices(&mut self, system: &System, site: &SystemSite) {
        for (choice, chosen) in &site.choices {
            let place = &chosen.place;
            let Some(known) = system.choices.get(choice) else {
                let known: Vec<_> = system.choices.keys().map(String::as_str).collect();
                self.unknown(*place, "unknown-choice", system, "choice", choice, &known);
                continue;
            };
            for value in chosen
                .values
                .iter()
                .filter(|value| !known.values.contains_key(*value))
            {
                let values: Vec<_> = known.values.keys().map(String::as_str).collect();
                self.unknown(
                    *place,
                    "unknown-choice",
                    system,
                    &format!("{choice} of"),
                    value,
                    &values,
                );
            }
        }
    }

    fn rows(&mut self, system: &System, site: &SystemSite) {
        let local: Vec<_> = system
            .rows
            .iter()
            .filter_map(|row| row.id.split_once('/'))
            .map(|(_, id)| id)
            .collect();
        let ports = site.ports.iter().map(|(key, (_, place))| (key, *place));
        let rows = site.rows.iter().map(|(key, row)| (key, row.place));
        for (key, place) in ports.chain(rows) {
            if !system
                .rows
                .iter()
                .any(|row| names_row(key, &system.id, &row.id))
            {
                let whole = key.split('/').next().unwrap_or(key);
                if local.contains(&whole) {
                    let message = format!(
                        "{} has no row `{}`: `{whole}` has no ends of its own",
                        system.id,
                        key.escape_debug()
                    );
                    let hint = format!("write `{whole}`");
                    self.error(place, "unknown-row", message, hint);
                    continue;
                }
                self.unknown(place, "unknown-row", system, "row", key, &local);
            }
        }
        for (key, (_, place)) in &site.ports {
            for row in system
                .rows
                .iter()
                .filter(|row| names_row(key, &system.id, &row.id))
            {
                let free = row.ports.iter().any(PortSpec::is_open);
                if !row.customisable && !free && row.inert.is_none() {
                    let message = format!(
                        "the document does not allow the ports of row `{}` to be changed",
                        row.id
                    );
                    self.error(
                        *place,
                        "fixed-ports",
                        message,
                        "switch the row `off` and write a `[[row]]` of your own",
                    );
                }
            }
        }
        for row in &system.rows {
            let why = row
                .condition
                .as_ref()
                .and_then(|condition| facts::never(condition, system));
            if let Some(why) = why {
                let message = format!("row `{}` can never hold: {why}", row.id);
                self.diagnostics
                    .push(Diagnostic::warning("never-holds", message).at(row.location.clone()));
            }
        }
    }

    fn unknown(
        &mut self,
        place: Place,
        code: &'static str,
        system: &System,
        what: &str,
        word: &str,
        known: &[&str],
    ) {
        let message = format!("{} has no {what} `{}`", system.id, word.escape_debug());
        self.error(place, code, message, suggest(word, known));
    }
}
