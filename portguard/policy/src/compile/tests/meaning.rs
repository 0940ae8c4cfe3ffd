//! What rows mean: the compiled catalog against tables that are written by hand from the documents
//! (`portguard/catalog/expected`), in both directions, and whether a change of any field of any row would be noticed.

mod mutations;
mod table;
mod world;

use std::collections::{BTreeMap, BTreeSet};

use self::table::Table;
use self::world::{Facts, Flow, World};
use crate::catalog::{Catalog, System};

const TABLES: [(&str, &str); 5] = [
    (
        "ibm-api-connect",
        include_str!("../../../../catalog/expected/ibm-api-connect.txt"),
    ),
    (
        "interlink-asi",
        include_str!("../../../../catalog/expected/interlink-asi.txt"),
    ),
    (
        "nexthink",
        include_str!("../../../../catalog/expected/nexthink.txt"),
    ),
    (
        "thoughtspot",
        include_str!("../../../../catalog/expected/thoughtspot.txt"),
    ),
    (
        "wso2",
        include_str!("../../../../catalog/expected/wso2.txt"),
    ),
];

/// Each system with its table and the inventory that both are tried on.
fn worlds() -> Vec<World> {
    let mut systems = Catalog::embedded().unwrap().systems;
    TABLES
        .iter()
        .map(|(id, text)| World::new(systems.remove(*id).unwrap(), Table::parse(text)))
        .collect()
}

/// What one has and the other has not, as lines for a reader.
fn differences(expected: &BTreeSet<Flow>, actual: &BTreeSet<Flow>) -> Vec<String> {
    let missing = expected
        .difference(actual)
        .map(|flow| format!("missing {flow:?}"));
    let added = actual
        .difference(expected)
        .map(|flow| format!("added {flow:?}"));
    missing.chain(added).collect()
}

#[test]
fn every_row_opens_what_its_document_prints_or_is_listed_with_the_reason() {
    for world in worlds() {
        let rows = world.system.rows.iter().filter(|row| !row.implied);
        let rows: BTreeSet<String> = rows.map(|row| world::key(&world.system, &row.id)).collect();
        assert_eq!(rows, world.table.rows(), "rows of {}", world.system.id);
        let closed: BTreeMap<String, &str> = world
            .system
            .rows
            .iter()
            .filter_map(|row| Some((world::key(&world.system, &row.id), row.inert?.as_str())))
            .collect();
        let expected: BTreeMap<String, &str> = world
            .table
            .closed
            .iter()
            .map(|(row, why)| (row.clone(), why.as_str()))
            .collect();
        assert_eq!(closed, expected, "{}", world.system.id);
        for facts in world.table.facts(&world.system) {
            let expected = world.expected(&facts, None);
            let actual = world.actual(&world.system, &facts);
            let found = differences(&expected, &actual);
            assert!(
                found.is_empty(),
                "{} with {facts:?}: {} of {}\n{}",
                world.system.id,
                found.len(),
                expected.len(),
                found
                    .iter()
                    .take(20)
                    .cloned()
                    .collect::<Vec<_>>()
                    .join("\n")
            );
        }
    }
}

/// The tables of the documentation: rows that open nothing, with the reason, and rows without a number.
#[test]
fn what_opens_nothing_is_in_the_documentation_with_the_reason() {
    let page = include_str!("../../../../../docs/reference/matrices.md");
    let lines = page.lines().filter_map(|line| line.strip_prefix("| `"));
    let reported: BTreeSet<(String, String)> = lines
        .filter_map(|line| {
            let (row, rest) = line.split_once("` | ")?;
            let reason = rest
                .split(" | ")
                .nth(1)
                .and_then(|why| why.split(": ").next());
            Some((row.to_owned(), reason.unwrap_or("open number").to_owned()))
        })
        .collect();
    let mut meant = BTreeSet::new();
    for world in worlds() {
        let row = |key: &str| format!("{}/{key}", world.system.id);
        let closed = world.table.closed.iter();
        meant.extend(closed.map(|(key, why)| (row(key), why.clone())));
        let lines = world.table.lines.iter();
        let open = lines.filter(|line| line.ports.iter().any(|port| port.range.is_none()));
        meant.extend(open.map(|line| (row(&line.row), "open number".to_owned())));
    }
    assert_eq!(reported, meant);
}

/// A number that the site changes is changed at both ends of every row about the same listener, and nowhere else.
#[test]
fn a_changed_number_moves_its_listener_and_nothing_else() {
    let mut tried = 0;
    for world in worlds() {
        let all = world.table.facts(&world.system);
        for row in world.changeable() {
            // In the newest version: older ones keep some numbers.
            let holding = all.iter().filter(|facts| world.table.holds(&row, facts));
            let Some(facts) = holding.max_by_key(|facts| &facts.version) else {
                continue;
            };
            tried += 1;
            let (expected, actual) = world.changed(facts, &row);
            let found = differences(&expected, &actual);
            assert!(
                found.is_empty(),
                "{}/{row} changed, with {facts:?}:\n{}",
                world.system.id,
                found
                    .iter()
                    .take(20)
                    .cloned()
                    .collect::<Vec<_>>()
                    .join("\n")
            );
        }
    }
    assert!(tried > 150, "only {tried} rows were tried");
}

/// Tries every `step`th change of every row; those that nothing notices, and how many were tried.
fn unnoticed(step: usize) -> (Vec<String>, usize) {
    let (mut left, mut tried) = (Vec::new(), 0);
    for world in worlds() {
        let all = world.table.facts(&world.system);
        for (index, mutation) in mutations::of(&world.system).into_iter().enumerate() {
            if index % step != 0 {
                continue;
            }
            tried += 1;
            let key = world::key(&world.system, &mutation.row.id);
            let is_seen = |facts: &Facts| {
                let changed = mutation.applied(&world.system, &key);
                world.expected(facts, Some(&key)) != world.actual(&changed, facts)
            };
            // A row that holds shows most; the rest of the sites are for what does not.
            let (first, rest): (Vec<&Facts>, Vec<&Facts>) =
                all.iter().partition(|facts| world.table.holds(&key, facts));
            let closed = world.table.closed.contains_key(&key);
            let is_listed = closed != mutation.row.inert.is_some();
            if !is_listed && !first.into_iter().chain(rest).any(is_seen) {
                left.push(format!("{}/{key}: {}", world.system.id, mutation.what));
            }
        }
    }
    (left, tried)
}

/// Changes that mean the same: by row, by change, and why.
const EQUIVALENT: [(&str, &str, &str); 5] = [
    (
        "ibm-api-connect/common-443",
        "peer",
        "each pair of subsystems is printed from both of its ends, so one of the two is enough",
    ),
    (
        "ibm-api-connect/billing-",
        "role backed-up-subsystem",
        "that is the two roles which the row names",
    ),
    (
        "interlink-asi/clustered-internode-",
        "also peer same-role",
        "every module is among the peers already",
    ),
    (
        "thoughtspot/outbound-mail",
        "also port 7",
        "the choice picks one of the printed ports",
    ),
    (
        "thoughtspot/outbound-ldap",
        "also port 7",
        "the choice picks one of the printed ports",
    ),
];

fn judge_mutations(step: usize) {
    let (mut left, tried) = unnoticed(step);
    let same = |change: &String| {
        EQUIVALENT
            .iter()
            .any(|(row, what, _)| change.starts_with(row) && change.contains(what))
    };
    let equivalent = left.iter().filter(|change| same(change)).count();
    left.retain(|change| !same(change));
    println!(
        "{tried} changes, {equivalent} mean the same, {} unnoticed",
        left.len()
    );
    assert!(
        left.is_empty(),
        "{} of {tried} changes are not noticed:\n{}",
        left.len(),
        left.join("\n")
    );
    assert!(tried * step > 3_000, "only {tried} changes were tried");
}

#[test]
fn changes_of_the_catalog_are_noticed() {
    judge_mutations(29);
}

#[test]
#[ignore = "minutes: `cargo test -p portguard-policy -- --ignored every_change`"]
fn every_change_of_the_catalog_is_noticed() {
    judge_mutations(1);
}

/// Keeps `System` in the signature of helpers short.
fn with_rows(system: &System, rows: Vec<crate::catalog::Row>) -> System {
    System {
        rows,
        ..system.clone()
    }
}
