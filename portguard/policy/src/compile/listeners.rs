//! Which port numbers a listener has: as printed, moved by the offset of its server, or changed by the site.
//!
//! Rows that are about one listener are one setting: the same role (or the same peer), transport and printed number, or the
//! same `listener` in the catalog. Who connects uses the numbers of the host at the other end.

use std::collections::{BTreeMap, BTreeSet};

use super::changes::{Change, Ranges, merged};
use super::views::View;
use super::{Compiler, facts, facts::Fact};
use crate::catalog::{PortSpec, Role, Row, System};
use crate::diagnostic::Diagnostic;
use crate::site::names_row;

/// Ranges by when they end (seconds since the Unix epoch, `None`: never).
pub(super) type Ending = BTreeMap<Option<u64>, Ranges>;

/// Who listens.
#[derive(Clone, Copy)]
pub(super) struct Listener<'l> {
    /// Roles of one host.
    pub(super) roles: &'l [&'l str],
    /// The role that the row names, which those include.
    pub(super) named: &'l str,
    /// In the inventory.
    pub(super) host: Option<usize>,
    /// What holds there.
    pub(super) view: &'l View,
    /// The row's peers that are no role listen.
    pub(super) is_other: bool,
}

impl Listener<'_> {
    /// Whether a change is about this listener of a row.
    pub(super) fn is_changed(
        &self,
        change: &Change,
        system: &System,
        row: &Row,
        spec: &PortSpec,
    ) -> bool {
        if change.spec != *spec || !row.transports.iter().any(|t| change.transports.contains(t)) {
            return false;
        }
        if facts::is_within(&row.customisable_in, &self.view.site) == Some(false) {
            return false;
        }
        if names_row(&change.key, &system.id, &row.id) {
            return true;
        }
        if change.listener != row.listener {
            return false;
        }
        row.listener.is_some()
            || if spec.is_open() {
                false
            } else if self.is_other {
                row.peers.iter().any(|peer| change.peers.contains(peer))
            } else {
                self.roles
                    .iter()
                    .flat_map(|role| system.closure(role))
                    .any(|role| change.roles.iter().any(|own| own == role))
            }
    }
}

impl Compiler<'_, '_> {
    /// The numbers on which `at` listens for this row; the error is a number that is not known.
    pub(super) fn ports(
        &mut self,
        system: &System,
        row: &Row,
        at: &Listener<'_>,
    ) -> Result<Ending, PortSpec> {
        if let [_, _, ..] = at.roles
            && !at.is_other
        {
            // Each role is a program of its own, with numbers of its own.
            let mut all = Ending::new();
            for role in at.roles {
                let roles = &[*role];
                for (until, ranges) in self.ports(system, row, &Listener { roles, ..*at })? {
                    all.entry(until).or_default().extend(ranges);
                }
            }
            return Ok(all
                .into_iter()
                .map(|(until, ranges)| (until, merged(ranges)))
                .collect());
        }
        let own = &self.views.at(&system.id, self.subject.index).site;
        let picked = row.pick.as_ref().map(|pick| (pick, own.choices.get(pick)));
        if let Some((pick, None)) = picked {
            let fact = (system.id.clone(), Fact::Choice(pick.clone()));
            let rows = self.unsaid.entry(fact).or_default();
            if rows.last() != Some(&row.id) {
                rows.push(row.id.clone());
            }
        }
        let offsets = if row.offset {
            self.offsets(system, at)
        } else {
            BTreeSet::from([0])
        };
        let mut all = Ending::new();
        let mut open = None;
        for spec in &row.ports {
            let mut until = None;
            if let Some((_, Some(chosen))) = picked {
                let value = spec.to_string();
                if !chosen.values.contains(&value) {
                    continue;
                }
                until = chosen.end_of(&value);
            }
            let ranges = all.entry(until).or_default();
            let change = at
                .view
                .changes
                .iter()
                .find(|change| at.is_changed(change, system, row, spec));
            if let Some(change) = change {
                ranges.extend(&change.new);
                continue;
            }
            match spec {
                PortSpec::Range(first, last) => {
                    for offset in &offsets {
                        self.moved(row, (*first, *last), *offset, ranges);
                    }
                }
                PortSpec::Offset { base, role } => {
                    for theirs in self.offsets_of(system, role, at) {
                        self.moved(row, (*base, *base), theirs, ranges);
                    }
                }
                PortSpec::Dynamic | PortSpec::Random | PortSpec::Unprinted => {
                    open = Some(spec.clone());
                }
            }
        }
        all.retain(|_, ranges| !ranges.is_empty());
        match open {
            Some(spec) if all.is_empty() => Err(spec),
            _ => Ok(all
                .into_iter()
                .map(|(until, ranges)| (until, merged(ranges)))
                .collect()),
        }
    }

    /// Servers of this host that would listen on one port, since the site gives them fewer than there are.
    pub(super) fn crowded(&mut self, system: &System, row: &Row, at: &Listener<'_>) {
        if !row.offset {
            return;
        }
        for spec in &row.ports {
            let Some(change) = at
                .view
                .changes
                .iter()
                .find(|change| at.is_changed(change, system, row, spec))
            else {
                continue;
            };
            let each = at.roles.iter().flat_map(|role| {
                let roles = &[*role];
                self.offsets(system, &Listener { roles, ..*at })
                    .into_iter()
                    .map(|offset| format!("{role} at offset {offset}"))
                    .collect::<Vec<_>>()
            });
            let servers: Vec<String> = each.collect();
            let given: usize = change
                .new
                .iter()
                .map(|(first, last)| usize::from(last - first) + 1)
                .sum();
            if servers.len() > given {
                let noun = if given == 1 { "port" } else { "ports" };
                let message = format!(
                    "`{}` gives {given} {noun} to {} servers of this host: {}",
                    change.key,
                    servers.len(),
                    servers.join(", ")
                );
                let hint = format!(
                    "write a list of as many ports: `\"{}\" = [...]`",
                    change.key
                );
                let diagnostic = Diagnostic::error("one-port-for-several", message).hint(hint);
                self.diagnostics
                    .push(diagnostic.at_known(self.inputs.site.at(change.place)));
            }
        }
    }

    /// Offsets of the servers that listen.
    fn offsets(&self, system: &System, at: &Listener<'_>) -> BTreeSet<u16> {
        let roles = at.roles.iter();
        roles
            .flat_map(|role| paths(system, role, at.named))
            .flat_map(|(path, built_in)| {
                let said = self
                    .inventory
                    .offsets(&system.id, &path, at.host, &at.view.site);
                said.into_iter()
                    .map(move |offset| offset.saturating_add(built_in))
            })
            .collect()
    }

    /// Offsets of the server of another role: that of the listening host, else those of all hosts that have it.
    fn offsets_of(&self, system: &System, role: &str, at: &Listener<'_>) -> BTreeSet<u16> {
        let id = &system.id;
        let at_host = |host: usize| {
            let mut roles = self.inventory.roles_at(id, role, host);
            if roles.is_empty() {
                return Vec::new();
            }
            roles.push(role);
            let view = self.views.at(id, Some(host));
            self.inventory.offsets(id, &roles, Some(host), &view.site)
        };
        let own = at.host.map(at_host).unwrap_or_default();
        if !own.is_empty() {
            return own.into_iter().collect();
        }
        let mut offsets = BTreeSet::new();
        if at.host.is_none() {
            for host in self.inventory.related_hosts(id, role) {
                offsets.extend(at_host(host));
            }
        }
        let given = &at.view.site.peers;
        if offsets.is_empty() || given.keys().any(|key| system.closure(key).contains(role)) {
            let said = self.inventory.offsets(id, &[role], None, &at.view.site);
            offsets.extend(said);
        }
        offsets
    }

    fn moved(&mut self, row: &Row, range: (u16, u16), offset: u16, ranges: &mut Ranges) {
        if let (Some(first), Some(last)) =
            (range.0.checked_add(offset), range.1.checked_add(offset))
        {
            ranges.push((first, last));
        } else {
            let message = format!(
                "row `{}`: port {} and offset {offset} are beyond 65535",
                row.id, range.1
            );
            self.diagnostics
                .push(Diagnostic::error("port-overflow", message).hint("choose a smaller offset"));
        }
    }
}

/// How a role comes to the rows of `named`: the roles on the way, and the offset that these have built in. Numbers printed
/// for a role itself contain its own.
fn paths<'s>(system: &'s System, role: &'s str, named: &str) -> Vec<(Vec<&'s str>, u16)> {
    let Some(found) = system.roles.get(role) else {
        return vec![(vec![role], 0)];
    };
    let inner: Vec<&str> = found.includes.iter().map(String::as_str).collect();
    let inner = inner
        .into_iter()
        .filter(|inner| system.closure(inner).contains(named));
    let mut all: Vec<_> = inner
        .filter(|_| role != named)
        .flat_map(|inner| paths(system, inner, named))
        .map(|(mut path, built_in)| {
            path.insert(0, role);
            (path, built_in.saturating_add(found.built_in_offset))
        })
        .collect();
    if all.is_empty() {
        all.push((vec![role], 0));
    }
    all
}

/// The roles of a host that have a row, by id.
pub(super) fn ids<'r>(users: &[&'r Role]) -> Vec<&'r str> {
    users.iter().map(|role| role.id.as_str()).collect()
}
