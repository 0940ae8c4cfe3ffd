//! The embedded matrices hold what their documents print: rows counted by section, and the places that are easy to get wrong.

mod asi;
mod ibm_api_connect;
mod nexthink;
mod thoughtspot;
mod wso2;

use crate::catalog::{Catalog, Direction, Peer, PortSpec, Row, System};

fn system(id: &str) -> System {
    let mut catalog = Catalog::embedded().unwrap();
    catalog.systems.remove(id).unwrap()
}

/// Sections in the order of the file, with the number of rows that cite each; flows count once for each end.
fn sections(system: &System) -> Vec<(&str, usize)> {
    let mut counts: Vec<(&str, usize)> = Vec::new();
    for row in system.rows.iter().filter(|row| !row.implied) {
        let section = row.citation.section.as_str();
        match counts.iter_mut().find(|(name, _)| *name == section) {
            Some((_, count)) => *count += 1,
            None => counts.push((section, 1)),
        }
    }
    counts
}

fn row<'s>(system: &'s System, id: &str) -> &'s Row {
    let id = format!("{}/{id}", system.id);
    system.rows.iter().find(|row| row.id == id).unwrap()
}

fn opens(system: &System, role: &str, port: u16) -> bool {
    let listens = |row: &&Row| row.direction != Direction::Out && row.inert.is_none();
    let covers = |spec: &PortSpec| spec.range().is_some_and(|range| range.contains(&port));
    system
        .rows_of(role)
        .filter(listens)
        .any(|row| row.ports.iter().any(covers))
}

fn peers(row: &Row) -> Vec<String> {
    row.peers.iter().map(ToString::to_string).collect()
}

fn condition(row: &Row) -> String {
    row.condition
        .as_ref()
        .map(ToString::to_string)
        .unwrap_or_default()
}

#[test]
fn nothing_is_declared_in_vain() {
    for (id, system) in &Catalog::embedded().unwrap().systems {
        for role in system.host_roles() {
            assert!(
                system.rows_of(&role.id).next().is_some(),
                "{id}/{}",
                role.id
            );
        }
        let conditions: Vec<_> = system
            .rows
            .iter()
            .filter_map(|r| r.condition.as_ref())
            .collect();
        for option in system.options.keys() {
            assert!(
                conditions.iter().any(|c| c.options.contains(option)),
                "{id}: option {option}"
            );
        }
        for choice in system.choices.keys() {
            let picks = |row: &Row| row.pick.as_ref() == Some(choice);
            assert!(
                conditions.iter().any(|c| c.choices.contains_key(choice))
                    || system.rows.iter().any(picks),
                "{id}: choice {choice}"
            );
        }
        for group in system.groups.keys() {
            let peer = Peer::Group(group.clone());
            assert!(
                system.rows.iter().any(|row| row.peers.contains(&peer)),
                "{id}: group {group}"
            );
        }
        for row in &system.rows {
            assert!(row.inert.is_none() || !row.notes.is_empty(), "{}", row.id);
        }
    }
}

/// What must tell the reader of a judgement on a row: the kind of row, and words of its notes.
#[test]
fn every_judgement_is_a_note() {
    let mut unreported = Vec::new();
    for system in Catalog::embedded().unwrap().systems.values() {
        for row in &system.rows {
            let has = |words: &str| {
                let mut notes = row.notes.iter().map(|note| note.to_lowercase());
                notes.any(|note| note.contains(words))
            };
            let mut wants = |kind: &str, is_of: bool, words: &[&str]| {
                let is_reported = words.iter().any(|words| has(words));
                if is_of && !is_reported {
                    unreported.push(format!("{} is {kind}, and no note says so", row.id));
                }
            };
            let version = row.condition.iter().flat_map(|own| &own.version);
            let bounds: Vec<String> = version.map(|bound| dotted(&bound.version)).collect();
            let bounds: Vec<&str> = bounds.iter().map(String::as_str).collect();
            let is_unprinted = row.peers.contains(&Peer::Unprinted) && row.inert.is_none();
            let has_number = row.ports.iter().all(|port| !port.is_open()) && !row.ports.is_empty();
            wants(
                "of an inferred direction",
                !row.direction_printed,
                &["direction"],
            );
            wants(
                "of an inferred transport",
                !row.transport_printed,
                &["transport"],
            );
            wants(
                "without a printed peer",
                is_unprinted,
                &["no peer is printed"],
            );
            wants(
                "without a number",
                !has_number,
                &["number", "announces ports"],
            );
            wants(
                "for a group",
                row.peers.contains(&Peer::Multicast),
                &["multicast group"],
            );
            wants("of some versions only", !bounds.is_empty(), &bounds);
            wants(
                "another row's other end",
                row.implied,
                &["this is its other end"],
            );
            wants("closed", row.inert.is_some(), &[""]);
            wants("moved by an offset", row.offset, &["offset 0"]);
            wants(
                "one of two numbers",
                row.pick.is_some(),
                &["one of the two"],
            );
            wants(
                "not for one's own kind",
                row.other_roles_only,
                &["same subsystem"],
            );
        }
    }
    assert_eq!(unreported, Vec::<String>::new());
}

fn dotted(version: &[u32]) -> String {
    let parts: Vec<_> = version.iter().map(u32::to_string).collect();
    parts.join(".")
}
