//! Facts of a site that cannot go together on this host, and settings that come to nothing here.

use std::collections::BTreeMap;

use super::listeners::Listener;
use super::{Compiler, facts, listeners::ids, some_of};
use crate::catalog::{Conflict, Direction, PortSpec, Role, Row, System};
use crate::diagnostic::{Diagnostic, Level};
use crate::policy::GrantKind;
use crate::site::Place;

impl<'a> Compiler<'a, '_> {
    pub(super) fn contradictions(&mut self) {
        for (system, roles) in self.subject.systems() {
            for conflict in &system.conflicts {
                if self.is_met(system, &roles, conflict) {
                    let diagnostic = Diagnostic::warning("contradiction", conflict.message.clone());
                    let place = self.said_at(system);
                    self.diagnostics
                        .push(diagnostic.at(place).hint(conflict.hint.clone()));
                }
            }
            self.without_effect(system, &roles);
            self.over(system);
            self.left_open(system, &roles);
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
                    all.any(|known| known != *offset)
                })
    }

    /// Options and alternatives of which every row of this host fails for another reason.
    fn without_effect(&mut self, system: &'a System, roles: &[&'a Role]) {
        let view = &self.views.at(&system.id, self.subject.index).site;
        let is_used = |row: &&Row| {
            let mut all = roles.iter();
            all.any(|role| system.closure(&role.id).contains(row.role.as_str()))
        };
        let rows: Vec<&Row> = system.rows.iter().filter(is_used).collect();
        let mut found = Vec::new();
        let mut check = |what: String, place: Place, wants: &dyn Fn(&Row) -> bool| {
            let mut wanting = rows.iter().filter(|row| wants(row)).peekable();
            let Some(first) = wanting.peek().copied() else {
                return;
            };
            let is_failing =
                |row: &&&Row| matches!(facts::judge_row(row, system, view), facts::Truth::Fails(_));
            if !wanting.all(|row| is_failing(&row)) {
                return;
            }
            if let facts::Truth::Fails(why) = facts::judge_row(first, system, view) {
                let message = format!(
                    "{what} of {} opens nothing here: row `{}` {why}",
                    system.id, first.id
                );
                found.push((place, message));
            }
        };
        for (option, place) in &view.options {
            check(format!("option {option}"), *place, &|row| {
                let condition = row.condition.as_ref();
                condition.is_some_and(|condition| condition.options.contains(option))
            });
        }
        for (choice, chosen) in &view.choices {
            for value in &chosen.values {
                check(format!("{choice} = {value}"), chosen.place, &|row| {
                    let condition = row.condition.as_ref();
                    condition.is_some_and(|condition| condition.choices.get(choice) == Some(value))
                });
            }
        }
        for (option, place) in &view.without {
            if facts::required(option, system, view) == Some(true) {
                let message = format!(
                    "{} is not without option {option}: its document requires it in this version",
                    system.id
                );
                found.push((*place, message));
            }
        }
        for (place, message) in found {
            let place = self.inputs.site.at(place);
            let hint = "change one of the two facts";
            let diagnostic = Diagnostic::warning("no-effect", message).hint(hint);
            self.diagnostics.push(match place {
                Some(place) => diagnostic.at(place),
                None => diagnostic,
            });
        }
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
                let place = self.inputs.site.at(chosen.place);
                self.diagnostics.push(match place {
                    Some(place) => diagnostic.at(place),
                    None => diagnostic,
                });
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
                let is_left = row.direction != Direction::Out && row.ports.contains(&change.spec);
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
            let hint = "change these rows, too, if they are about the same program";
            let diagnostic = Diagnostic::new(Level::Note, "port-stays-open", message).hint(hint);
            let place = self.inputs.site.at(place);
            self.diagnostics.push(match place {
                Some(place) => diagnostic.at(place),
                None => diagnostic,
            });
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
