//! Rows and flows of a catalog file, and every check of one row against the names of its file.

use std::collections::{BTreeMap, BTreeSet};

use super::cells;
use super::conditions;
use super::fields::{Fields, Text};
use super::judgements;
use super::lists::{citation, each, keys, unique};
use super::report::{Report, quoted};
use super::{Choice, Direction, Inert, Peer, PortSpec, Row, System, Transport};
use crate::diagnostic::Diagnostic;

/// Reads `[[row]]` and `[[flow]]` into the system's rows, in the order of the file.
pub(super) fn read(
    report: &mut Report<'_>,
    file: &mut Fields<'_>,
    system: &System,
    usual: Usual,
) -> Vec<Row> {
    let judgements = judgements::read(report, file);
    let mut reader = RowReader {
        system,
        usual,
        offset_roles: system.roles_with_offset(),
        ids: BTreeMap::new(),
    };
    let mut tables: Vec<_> = file
        .tables(report, "row")
        .into_iter()
        .map(|t| (false, t))
        .collect();
    tables.extend(file.tables(report, "flow").into_iter().map(|t| (true, t)));
    tables.sort_by_key(|(_, table)| table.at);
    if tables.is_empty() {
        report.add(
            file.at,
            Diagnostic::error("no-row", "the file has no rows and no flows"),
        );
    }
    let mut rows = Vec::new();
    for (is_flow, table) in tables {
        if is_flow {
            rows.extend(reader.flow(report, table));
        } else {
            rows.extend(reader.row(report, table));
        }
    }
    judgements::note(report, &judgements, &mut rows);
    let other_ends = super::ends::implied(system, &rows);
    rows.extend(other_ends);
    rows
}

/// What the head of the file says of rows that do not say it themselves.
#[derive(Clone, Copy)]
pub(super) struct Usual {
    pub(super) customisable: bool,
    pub(super) direction_printed: bool,
}

struct RowReader<'s> {
    system: &'s System,
    usual: Usual,
    offset_roles: BTreeSet<&'s str>,
    /// Ids seen, and where.
    ids: BTreeMap<String, String>,
}

impl RowReader<'_> {
    fn row(&mut self, report: &mut Report<'_>, mut table: Fields<'_>) -> Option<Row> {
        let role = table.text(report, "role");
        if let Some(role) = &role {
            self.check_role(report, role);
        }
        let direction = table.text(report, "direction").and_then(|text| {
            let directions = [Direction::In, Direction::Out, Direction::Both];
            let found = directions.into_iter().find(|d| d.to_string() == text.value);
            if found.is_none() {
                let known = ["in", "out", "both"].into_iter();
                report.add(text.at, cells::unknown("direction", &text.value, known));
            }
            found
        });
        let peers = self.peers(report, &mut table, "peers");
        let at = table.at;
        let row = self.common(report, table)?;
        let row = normal(Row {
            role: role?.value,
            direction: direction?,
            peers,
            ..row
        });
        self.check_offset(report, &row, at);
        check_class(report, &row, at);
        Some(row)
    }

    /// A line from a source to a destination: a row for every role at either end.
    fn flow(&mut self, report: &mut Report<'_>, mut table: Fields<'_>) -> Vec<Row> {
        let at = table.at;
        let from = self.peers(report, &mut table, "from");
        let to = self.peers(report, &mut table, "to");
        if from.iter().chain(&to).any(|peer| *peer == Peer::SameRole) {
            let message = "an end of a flow cannot be `same-role`";
            let hint = "name the role: `role:ID`";
            report.add(at, Diagnostic::error("bad-flow", message).hint(hint));
        }
        let Some(row) = self.common(report, table) else {
            return Vec::new();
        };
        let mut rows = Vec::new();
        let ends = [(Direction::Out, &from, &to), (Direction::In, &to, &from)];
        for (direction, own, other) in ends {
            let roles: Vec<_> = own.iter().filter_map(Peer::as_role).collect();
            for role in &roles {
                let id = match roles.len() {
                    1 => format!("{}/{direction}", row.id),
                    _ => format!("{}/{direction}-{role}", row.id),
                };
                let (role, peers) = ((*role).to_owned(), other.clone());
                let row = normal(Row {
                    id,
                    role,
                    direction,
                    peers,
                    ..row.clone()
                });
                // The number is the listening side's, and so is the offset.
                if direction == Direction::In {
                    self.check_offset(report, &row, at);
                }
                check_class(report, &row, at);
                rows.push(row);
            }
        }
        if rows.is_empty() {
            let message = "neither end of the flow is a role";
            let hint = "at least one end of a flow must be a role of the system";
            report.add(at, Diagnostic::error("bad-flow", message).hint(hint));
        }
        rows
    }

    /// What rows and flows share; role, direction and peers are for the caller to fill in.
    fn common(&mut self, report: &mut Report<'_>, mut table: Fields<'_>) -> Option<Row> {
        let at = table.at;
        let id = table.text(report, "id");
        if let Some(id) = &id {
            self.check_row_id(report, id);
        }
        let transports = transports(report, &mut table);
        let transport_printed = table.flag(report, "transport_printed").unwrap_or(true);
        let application = table.optional_text(report, "application");
        let inert = table.optional_text(report, "inert").and_then(|text| {
            cells::inert(&text.value)
                .map_err(|finding| report.add(text.at, finding))
                .ok()
        });
        let ports = self.ports(report, &mut table, inert);
        let ports_from = ports_from(report, &mut table, &ports);
        let pick = table.optional_text(report, "pick");
        if let Some(pick) = &pick {
            self.check_pick(report, pick, &ports);
        }
        let offset = table.flag(report, "offset").unwrap_or(false);
        let listener = table.optional_text(report, "listener");
        if let Some(listener) = &listener
            && let Err(finding) = cells::id(&listener.value)
        {
            report.add(listener.at, finding);
        }
        let other_roles_only = table.flag(report, "other_roles_only").unwrap_or(false);
        let class = table.optional_text(report, "class").and_then(|text| {
            cells::class(&text.value)
                .map_err(|finding| report.add(text.at, finding))
                .ok()
        });
        let condition = conditions::read(report, &mut table, self.system);
        let customisable = table
            .flag(report, "customisable")
            .unwrap_or(self.usual.customisable);
        let customisable_in = conditions::version(report, &mut table, "customisable_in");
        let direction_printed = table.flag(report, "direction_printed");
        let purpose = table.text(report, "purpose");
        let citation = citation(report, &mut table);
        let notes = table
            .texts(report, "notes")
            .into_iter()
            .map(|note| note.value)
            .collect();
        table.finish(report);
        Some(Row {
            id: format!("{}/{}", self.system.id, id?.value),
            role: String::new(),
            direction: Direction::Both,
            direction_printed: direction_printed.unwrap_or(self.usual.direction_printed),
            transports,
            transport_printed,
            application: application.map(|text| text.value),
            ports,
            ports_from,
            pick: pick.map(|text| text.value),
            offset,
            listener: listener.map(|text| text.value),
            peers: Vec::new(),
            other_roles_only,
            class,
            condition,
            customisable,
            customisable_in,
            purpose: purpose?.value,
            citation: citation?,
            notes,
            inert,
            implied: false,
            location: report.line_of(at),
        })
    }

    fn check_row_id(&mut self, report: &mut Report<'_>, id: &Text) {
        if let Err(finding) = cells::id(&id.value) {
            report.add(id.at, finding);
        } else if let Some(first) = self.ids.get(&id.value) {
            let message = format!("the row id {} is taken", quoted(&id.value));
            let hint = format!("it is first used at {first}");
            report.add(id.at, Diagnostic::error("duplicate-id", message).hint(hint));
        } else {
            self.ids.insert(id.value.clone(), report.line_of(id.at));
        }
    }

    fn ports(
        &self,
        report: &mut Report<'_>,
        table: &mut Fields<'_>,
        inert: Option<Inert>,
    ) -> Vec<PortSpec> {
        let at = table.at;
        let nothing_given = !table.has_any("ports");
        let cells = table.cells(report, "ports");
        let ports = unique(report, cells, cells::port, |report, port, at| {
            if let PortSpec::Offset { role, .. } = port {
                self.check_offset_role(report, role, at);
            }
        });
        let has_number = !ports.is_empty();
        if inert == Some(Inert::NoNumber) && has_number {
            let message = "the row is `inert = \"no-number\"` and has ports";
            report.add(
                at,
                Diagnostic::error("bad-inert", message).hint("remove one of the two"),
            );
        } else if nothing_given && inert != Some(Inert::NoNumber) {
            let hint =
                "a rule without a number is written `ports = []` and `inert = \"no-number\"`";
            report.add(
                at,
                Diagnostic::error("no-port", "the row has no port").hint(hint),
            );
        }
        ports
    }

    fn peers(
        &self,
        report: &mut Report<'_>,
        table: &mut Fields<'_>,
        key: &'static str,
    ) -> Vec<Peer> {
        let at = table.at;
        let nothing_given = !table.has_any(key);
        let cells = table.texts(report, key);
        if nothing_given {
            let message = format!("the row has nothing in `{key}`");
            let hint = "where the document prints no peer, write `unprinted`";
            report.add(at, Diagnostic::error("no-peer", message).hint(hint));
        }
        let system = self.system;
        unique(report, cells, cells::peer, |report, peer, at| match peer {
            Peer::Role(role) if !system.roles.contains_key(role) => {
                report.add(at, cells::unknown("role", role, keys(&system.roles)));
            }
            Peer::Group(group) if !system.groups.contains_key(group) => {
                report.add(at, cells::unknown("group", group, keys(&system.groups)));
            }
            Peer::Role(_)
            | Peer::SameRole
            | Peer::Group(_)
            | Peer::Prefix(_)
            | Peer::Asn(_)
            | Peer::Domain(_)
            | Peer::Itself
            | Peer::Multicast
            | Peer::Unprinted => {}
        })
    }

    fn check_role(&self, report: &mut Report<'_>, role: &Text) {
        if !self.system.roles.contains_key(&role.value) {
            report.add(
                role.at,
                cells::unknown("role", &role.value, keys(&self.system.roles)),
            );
        }
    }

    /// A row that moves with an offset needs a role that has one.
    fn check_offset(&self, report: &mut Report<'_>, row: &Row, at: usize) {
        if row.offset && self.system.roles.contains_key(&row.role) {
            self.check_offset_role(report, &row.role, at);
        }
    }

    fn check_offset_role(&self, report: &mut Report<'_>, role: &str, at: usize) {
        if !self.system.roles.contains_key(role) {
            report.add(at, cells::unknown("role", role, keys(&self.system.roles)));
        } else if !self.offset_roles.contains(role) {
            let message = format!("role `{role}` has no port offset");
            let hint = format!("write `offset = true` in `[roles.{role}]`");
            report.add(at, Diagnostic::error("no-offset", message).hint(hint));
        }
    }

    fn check_pick(&self, report: &mut Report<'_>, pick: &Text, ports: &[PortSpec]) {
        let Some(Choice { values, .. }) = self.system.choices.get(&pick.value) else {
            report.add(
                pick.at,
                cells::unknown("choice", &pick.value, keys(&self.system.choices)),
            );
            return;
        };
        let ports: BTreeSet<String> = ports.iter().map(ToString::to_string).collect();
        if !ports.iter().eq(values.keys()) {
            let list = |all: Vec<&str>| all.join(", ");
            let message = format!(
                "choice `{}` picks one of {}, the row has {}",
                pick.value,
                list(keys(values).collect()),
                list(ports.iter().map(String::as_str).collect()),
            );
            let hint = "the values of the choice are the ports of the row, as text";
            report.add(
                pick.at,
                Diagnostic::error("pick-mismatch", message).hint(hint),
            );
        }
    }
}

/// The least number that a site may give, for a row that prints none.
fn ports_from(report: &mut Report<'_>, table: &mut Fields<'_>, ports: &[PortSpec]) -> Option<u16> {
    let (number, at) = table.optional_integer(report, "ports_from")?;
    let port = u16::try_from(number).ok().filter(|port| *port > 0);
    if port.is_none() || !ports.iter().any(PortSpec::is_open) {
        let message = "`ports_from` is the lowest port that the site may choose where the document prints none";
        let hint = "write it beside `ports = [\"dynamic\"]`";
        report.add(at, Diagnostic::error("bad-port", message).hint(hint));
    }
    port
}

/// A class says who is meant where no peer is printed.
fn check_class(report: &mut Report<'_>, row: &Row, at: usize) {
    if row.class.is_some() && !row.peers.contains(&Peer::Unprinted) {
        let message = "the row has a `class` and prints its peers";
        let hint = "remove `class`, or add `unprinted` to the peers";
        report.add(at, Diagnostic::error("bad-class", message).hint(hint));
    }
}

/// A role that names itself as its peer means others of its kind.
fn normal(mut row: Row) -> Row {
    let mut seen = BTreeSet::new();
    let own = |peer: &Peer| peer.as_role() == Some(&row.role);
    row.peers = row
        .peers
        .iter()
        .map(|peer| {
            if own(peer) {
                Peer::SameRole
            } else {
                peer.clone()
            }
        })
        .collect();
    row.peers.retain(|peer| seen.insert(peer.clone()));
    row
}

fn transports(report: &mut Report<'_>, table: &mut Fields<'_>) -> Vec<Transport> {
    let at = table.at;
    if !table.has_any("transport") {
        let hint =
            "write `transport = \"tcp\"`, and `transport_printed = false` if it was inferred";
        report.add(
            at,
            Diagnostic::error("no-transport", "the row has no transport").hint(hint),
        );
    }
    each(report, table, "transport", cells::transport)
}
