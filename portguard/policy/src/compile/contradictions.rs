//! Facts of a site that cannot go together on this host, and settings that come to nothing here.

use std::collections::BTreeMap;

use super::changes::{Change, Ranges};
use super::listeners::Listener;
use super::narrow::base;
use super::{Compiler, facts, listeners::ids, some_of};
use crate::catalog::{Conflict, Direction, PortSpec, Role, Row, System};
use crate::diagnostic::{Diagnostic, Level};
use crate::policy::{Grant, GrantKind, Peers};
use crate::site::{Place, names_row};
use ipnet::IpNet;

/// Ranges of more ports say little about one of them.
const FEW: u16 = 16;

impl<'a> Compiler<'a, '_> {
    pub(super) fn contradictions(&mut self) {
        for (system, roles) in self.systems() {
            for conflict in &system.conflicts {
                if self.is_met(system, &roles, conflict) {
                    let diagnostic = Diagnostic::warning("contradiction", conflict.message.clone());
                    let place = self.said_at(system);
                    self.diagnostics
                        .push(diagnostic.at(place).hint(conflict.hint.clone()));
                }
            }
            self.over(system);
            self.left_open(system, &roles);
            self.beside(system, &roles);
            self.collisions(system);
            self.same_offset(system, &roles);
        }
    }

    fn said_at(&self, system: &System) -> String {
        let said = self.inputs.site.systems.get(&system.id);
        let place = said.and_then(|said| self.inputs.site.at(said.place));
        place.unwrap_or_else(|| system.id.clone())
    }

    fn is_met(&self, system: &'a System, roles: &[&'a Role], conflict: &Conflict) -> bool {
        let view = self.views.at(&system.id, self.subject.index);
        let has = |wanted: &str| {
            let mut all = roles.iter();
            all.any(|role| system.closure(&role.id).contains(wanted))
        };
        let holds = match facts::judge(conflict.condition.as_ref(), system, &view.site) {
            facts::Truth::Holds => true,
            facts::Truth::Fails(_) | facts::Truth::Unsaid(_) => false,
        };
        holds
            && conflict.same_host.iter().all(|role| has(role))
            && conflict.role.as_ref().is_none_or(|role| has(role))
            && conflict.lacks.as_ref().is_none_or(|role| !has(role))
            && conflict.several.as_ref().is_none_or(|role| {
                has(role) && self.inventory.related_hosts(&system.id, role).len() > 1
            })
            && conflict.lacks_protocol.is_none_or(|number| {
                let mut listed = self.inputs.site.baseline.protocols.iter();
                !listed.any(|protocol| protocol.number == number)
            })
            && conflict
                .offset_other_than
                .as_ref()
                .is_none_or(|(role, offset)| {
                    let known = self.inventory.related_hosts(&system.id, role);
                    let is_given = has(role) || view.site.peers.contains_key(role);
                    let unknown = (known.is_empty() && is_given).then(|| {
                        self.inventory
                            .offsets(&system.id, &[role], None, &view.site)
                    });
                    let known = known.into_iter().map(|host| {
                        let mut roles = self.inventory.roles_at(&system.id, role, host);
                        roles.push(role);
                        let said = &self.views.at(&system.id, Some(host)).site;
                        self.inventory.offsets(&system.id, &roles, Some(host), said)
                    });
                    let mut all = known.chain(unknown).flatten();
                    let row = conflict.port_of.as_deref();
                    let changes = row.and_then(|row| changed_number(system, row, &view.changes));
                    all.any(|known| match changes {
                        None => known != *offset,
                        Some((printed, new)) => {
                            let listens =
                                i32::from(printed) + i32::from(known) - i32::from(*offset);
                            !new.iter().any(|(first, last)| {
                                (i32::from(*first)..=i32::from(*last)).contains(&listens)
                            })
                        }
                    })
                })
    }

    /// Change-overs whose last day has passed.
    fn over(&mut self, system: &System) {
        let view = &self.views.at(&system.id, self.subject.index).site;
        for (choice, chosen) in &view.choices {
            let Some((until, last)) = chosen.until.as_ref().zip(chosen.values.last()) else {
                continue;
            };
            if chosen.values.len() == 1 {
                let message =
                    format!("the change-over of `{choice}` ended on {until}: only {last} holds");
                let hint = format!("write `{choice} = \"{last}\"`");
                let diagnostic = Diagnostic::warning("change-over-ended", message).hint(hint);
                self.diagnostics
                    .push(diagnostic.at_known(self.inputs.site.at(chosen.place)));
            }
        }
    }

    /// Printed numbers that the site changed, and that other rows of this host still open.
    fn left_open(&mut self, system: &'a System, roles: &[&'a Role]) {
        let view = self.views.at(&system.id, self.subject.index);
        let own = ids(roles);
        let mut found: BTreeMap<(String, Place), (String, Vec<String>)> = BTreeMap::new();
        for change in &view.changes {
            let PortSpec::Range(first, last) = change.spec else {
                continue;
            };
            for row in &system.rows {
                let at = Listener {
                    roles: &own,
                    named: &row.role,
                    host: self.subject.index,
                    view,
                    is_other: false,
                };
                let moved = at.is_changed(change, system, row, &change.spec);
                // Another transport, or another host's listener, is another program.
                let is_ours = own
                    .iter()
                    .flat_map(|role| system.closure(role))
                    .any(|role| change.roles.iter().any(|listening| listening == role));
                let is_named = row.listener.is_some() && row.listener == change.listener;
                let is_left = row.direction != Direction::Out
                    && row.ports.contains(&change.spec)
                    && row.transports.iter().any(|t| change.transports.contains(t))
                    && (is_ours || is_named);
                let is_open = self.policy.inbound.iter().any(|grant| {
                    grant.kind == GrantKind::Documented
                        && grant.row == row.id
                        && grant.first <= last
                        && first <= grant.last
                });
                if is_left && is_open && !moved {
                    let key = (change.key.clone(), change.place);
                    let entry = found.entry(key);
                    let (_, rows) = entry.or_insert_with(|| (change.spec.to_string(), Vec::new()));
                    if !rows.contains(&row.id) {
                        rows.push(row.id.clone());
                    }
                }
            }
        }
        for ((key, place), (port, rows)) in found {
            let message = format!(
                "`{key}` is changed, and {port} stays open for other listeners: rows {}",
                some_of(&rows)
            );
            let hint = "change these rows as well if they are about the same program";
            let diagnostic = Diagnostic::new(Level::Note, "port-stays-open", message).hint(hint);
            self.diagnostics
                .push(diagnostic.at_known(self.inputs.site.at(place)));
        }
    }

    /// Rows that the site switches off or narrows, and whose ports other rows of this host keep open: rows of one listener
    /// are one program.
    fn beside(&mut self, system: &'a System, roles: &[&'a Role]) {
        let view = self.views.at(&system.id, self.subject.index);
        let own = ids(roles);
        let mut found = Vec::new();
        for row in system
            .rows
            .iter()
            .filter(|row| row.inert.is_none() && row.direction != Direction::Out)
        {
            let is_had = own
                .iter()
                .any(|role| system.closure(role).contains(row.role.as_str()));
            let fails = matches!(
                facts::judge_row(row, system, &view.site),
                facts::Truth::Fails(_)
            );
            let is_off = view.site.off(&system.id, &row.id).is_some();
            let of_row = view.site.of_row(&system.id, &row.id, |settings| {
                (settings.off.is_some() || settings.only.is_some()).then_some(settings.place)
            });
            let Some(place) = of_row.filter(|_| is_had && !fails) else {
                continue;
            };
            let at = Listener {
                roles: &own,
                named: &row.role,
                host: self.subject.index,
                view,
                is_other: false,
            };
            let Ok(ports) = self.ports(system, row, &at) else {
                continue;
            };
            let inbound = self.policy.inbound.iter();
            let own_nets: Vec<IpNet> = inbound
                .filter(|grant| grant.row == row.id)
                .flat_map(|grant| self.peers.sets.prefixes(grant.peers))
                .collect();
            // To whom the narrowed row is open anyway, no other row keeps it open.
            let is_wider = |grant: &Grant| {
                let mut theirs = self.peers.sets.prefixes(grant.peers).into_iter();
                grant.peers == Peers::Any
                    || theirs.any(|net| !own_nets.iter().any(|own| own.contains(&net)))
            };
            let is_same = |grant: &&Grant| {
                grant.kind == GrantKind::Documented
                    && (is_off || is_wider(grant))
                    && base(&grant.row) != base(&row.id)
                    && row.transports.contains(&grant.transport)
                    && ports
                        .values()
                        .flatten()
                        .any(|(first, last)| grant.first <= *last && *first <= grant.last)
            };
            let mut others: Vec<String> = self
                .policy
                .inbound
                .iter()
                .filter(is_same)
                .map(|grant| grant.row.clone())
                .collect();
            others.dedup();
            if !others.is_empty() {
                let (level, done) = if is_off {
                    (Level::Warning, "switched off")
                } else {
                    (Level::Note, "narrowed")
                };
                let message = format!(
                    "row `{}` is {done}, and its ports stay open by other rows: {}",
                    row.id,
                    some_of(&others)
                );
                found.push((place, level, message));
            }
        }
        for (place, level, message) in found {
            let hint = "do the same for these rows if one program listens for all of them";
            let diagnostic = Diagnostic::new(level, "port-stays-open", message).hint(hint);
            self.diagnostics
                .push(diagnostic.at_known(self.inputs.site.at(place)));
        }
    }

    /// Numbers that a change or an offset moves a row to, and on which something else listens already.
    fn collisions(&mut self, system: &'a System) {
        let prints = |row: &Row, grant: &Grant| {
            row.ports.iter().any(|spec| match spec {
                PortSpec::Range(first, last) => *first <= grant.first && grant.last <= *last,
                // It is the number of another server, whatever that is.
                PortSpec::Offset { .. } => true,
                PortSpec::Dynamic | PortSpec::Random | PortSpec::Unprinted => false,
            })
        };
        let rows: BTreeMap<&str, &Row> = system
            .rows
            .iter()
            .map(|row| (row.id.as_str(), row))
            .collect();
        let mut found: BTreeMap<(crate::catalog::Transport, u16), (String, String)> =
            BTreeMap::new();
        for moved in self
            .policy
            .inbound
            .iter()
            .filter(|grant| grant.last - grant.first <= FEW)
        {
            let Some(row) = rows
                .get(moved.row.as_str())
                .filter(|row| !prints(row, moved))
            else {
                continue;
            };
            for other in &self.policy.inbound {
                let is_same = other.transport == moved.transport
                    && other.first <= moved.last
                    && moved.first <= other.last;
                let is_one_listener = |other: &&Row| {
                    other.ports.iter().any(|spec| row.ports.contains(spec))
                        || (row.listener.is_some() && row.listener == other.listener)
                };
                let known = rows.get(other.row.as_str());
                // Wide rows are not about this port, and other systems have a lint of their own.
                let is_program = known.is_some() || other.kind != GrantKind::Documented;
                if is_same
                    && is_program
                    && other.last - other.first <= FEW
                    && !known.is_some_and(is_one_listener)
                {
                    let port = moved.first.max(other.first);
                    found
                        .entry((moved.transport, port))
                        .or_insert_with(|| (moved.row.clone(), other.row.clone()));
                }
            }
        }
        for ((transport, port), (row, other)) in found {
            let message = format!(
                "{transport}/{port} is the new port of row `{row}`, and row `{other}` already listens on it"
            );
            let hint = "give one of the two another port or offset";
            let diagnostic = Diagnostic::warning("port-conflict", message).at(row);
            self.diagnostics.push(diagnostic.hint(hint));
        }
    }

    /// Servers of one system on one host that move together: their offsets must differ.
    fn same_offset(&mut self, system: &System, roles: &[&Role]) {
        let view = self.views.at(&system.id, self.subject.index);
        let mut servers: BTreeMap<u16, Vec<&str>> = BTreeMap::new();
        for role in roles.iter().filter(|role| role.has_offset) {
            let host = self.subject.index;
            let offsets = self
                .inventory
                .offsets(&system.id, &[&role.id], host, &view.site);
            for offset in offsets {
                let offset = offset.saturating_add(role.built_in_offset);
                servers.entry(offset).or_default().push(&role.id);
            }
        }
        for (offset, roles) in servers {
            if roles.len() > 1 {
                let message = format!(
                    "{}: roles {} have the same port offset {offset} on one host",
                    system.id,
                    roles.join(" and ")
                );
                let hint = "give all but one an offset of its own with `offsets`";
                self.diagnostics
                    .push(Diagnostic::warning("role-conflict", message).hint(hint));
            }
        }
    }
}

/// The printed number of a row, and what the site puts in its place.
fn changed_number<'v>(
    system: &System,
    row: &str,
    changes: &'v [Change],
) -> Option<(u16, &'v Ranges)> {
    let row = format!("{}/{row}/in", system.id);
    changes.iter().find_map(|change| {
        let PortSpec::Range(first, _) = change.spec else {
            return None;
        };
        names_row(&change.key, &system.id, &row).then_some((first, &change.new))
    })
}
