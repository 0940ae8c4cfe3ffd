//! The table of keys against the reader, and the schema against files.

use std::collections::BTreeSet;

use serde_json::Value;
use toml::{Table as Toml, Value as Item};

use super::keys::{Key, Kind, Level, Table};
use super::{keys, schema};
use crate::catalog::Catalog;
use crate::diagnostic::Rejected;
use crate::site::Site;

const UNKNOWN: &str = "zzzzzzzzzzzz";

/// A value of each kind that the reader takes.
fn sample(kind: &Kind) -> Item {
    let text = |text: &str| Item::String(text.to_owned());
    match kind {
        Kind::Format => Item::Integer(1),
        Kind::Word(words) => text(words.first().unwrap()),
        Kind::Flag => Item::Boolean(true),
        Kind::Number(least, _) => Item::Integer((*least).into()),
        Kind::Text => text("sample"),
        Kind::Texts(of, least) => {
            // Different ones: some lists refuse what is listed twice.
            let one = sample(of);
            let other = one
                .as_str()
                .map_or(one.clone(), |word| text(&format!("{word}-2")));
            Item::Array([one, other].into_iter().take((*least).max(1)).collect())
        }
        Kind::Either(one, _) => sample(one),
        Kind::Shaped(_, example) => text(example),
        Kind::Peers => text("any"),
        Kind::Peer => text("192.0.2.1"),
        Kind::Role => text("acme/server"),
        Kind::Ports => Item::Integer(443),
        Kind::Date => Item::Datetime("2027-01-31".parse().unwrap()),
        Kind::Table(inner) => {
            let mut table = required(inner);
            // Of management something has to be said.
            if inner.0.iter().any(|key| key.name == "none") {
                table.insert("none".to_owned(), Item::Boolean(true));
            }
            Item::Table(table)
        }
        Kind::Tables(inner, _) => Item::Array(vec![Item::Table(required(inner))]),
        Kind::Named(of) => Item::Table([("named".to_owned(), sample(of))].into_iter().collect()),
        Kind::Systems(level) => {
            let system = Item::Table(required(&keys::system(*level)));
            Item::Table([("acme".to_owned(), system)].into_iter().collect())
        }
    }
}

/// The keys of a table that must be there.
fn required(Table(keys): &Table) -> Toml {
    let keys = keys.iter().filter(|key| key.is_required);
    keys.map(|key| (key.name.to_owned(), sample(&key.kind)))
        .collect()
}

/// Puts a table where it belongs in a file.
type Place<'p> = &'p dyn Fn(Toml) -> Toml;
/// Sees a table, and where it belongs.
type See<'s> = &'s mut dyn FnMut(&Table, Place<'_>);

/// Calls `see` with every table that a file may have, and with what puts one where it belongs.
fn each(table: &Table, place: Place<'_>, see: See<'_>) {
    see(table, place);
    for key in &table.0 {
        let put = |item: Item| {
            let mut around = required(table);
            around.insert(key.name.to_owned(), item);
            place(around)
        };
        within(&key.kind, &put, see);
    }
}

fn within(kind: &Kind, put: &dyn Fn(Item) -> Toml, see: See<'_>) {
    let named =
        |name: &str, item: Item| Item::Table([(name.to_owned(), item)].into_iter().collect());
    match kind {
        Kind::Table(inner) => each(inner, &|table| put(Item::Table(table)), see),
        Kind::Tables(inner, _) => {
            each(
                inner,
                &|table| put(Item::Array(vec![Item::Table(table)])),
                see,
            );
        }
        Kind::Named(of) => within(of, &|item| put(named("named", item)), see),
        Kind::Either(one, other) => {
            within(one, put, see);
            within(other, put, see);
        }
        Kind::Systems(level) => {
            let of = keys::system(*level);
            each(&of, &|table| put(named("acme", Item::Table(table))), see);
        }
        Kind::Format
        | Kind::Word(_)
        | Kind::Flag
        | Kind::Number(..)
        | Kind::Text
        | Kind::Texts(..)
        | Kind::Shaped(..)
        | Kind::Peers
        | Kind::Peer
        | Kind::Role
        | Kind::Ports
        | Kind::Date => {}
    }
}

fn faults(file: &Toml) -> Vec<crate::diagnostic::Diagnostic> {
    match Site::parse("f", file.to_string().as_bytes()) {
        Ok(_) => Vec::new(),
        Err(Rejected(faults)) => faults,
    }
}

#[test]
fn the_keys_are_those_that_the_reader_takes() {
    let mut tables = 0;
    each(&keys::site(), &|table| table, &mut |table, place| {
        tables += 1;
        let mut file = required(table);
        file.insert(UNKNOWN.to_owned(), Item::Integer(1));
        let faults = faults(&place(file.clone()));
        let unknown = faults.iter().find(|one| one.code == "unknown-key");
        let hint = unknown
            .and_then(|one| one.hint.clone())
            .unwrap_or_else(|| panic!("{file}: {faults:?}"));
        let taken: BTreeSet<&str> = hint
            .strip_prefix("known here: ")
            .unwrap()
            .split(", ")
            .collect();
        let listed: BTreeSet<&str> = table.0.iter().map(|key| key.name).collect();
        assert_eq!(taken, listed, "{}", place(required(table)));
    });
    assert!(tables > 20, "{tables}");
}

/// What else has to be there, so that a key means something.
fn company(key: &str) -> &'static [(&'static str, &'static str)] {
    match key {
        "allowed_ethertypes" => &[("strict_ethertypes", "true")],
        "off" => &[("reason", "\"why\"")],
        _ => &[],
    }
}

fn with(table: &Table, key: &Key, item: Item) -> Toml {
    let mut file = required(table);
    for (name, value) in company(key.name) {
        let value: Toml = format!("v = {value}").parse().unwrap();
        file.insert((*name).to_owned(), value["v"].clone());
    }
    file.insert(key.name.to_owned(), item);
    file
}

#[test]
fn each_key_takes_what_is_listed_and_no_other_word() {
    each(&keys::site(), &|table| table, &mut |table, place| {
        for key in &table.0 {
            let file = place(with(table, key, sample(&key.kind)));
            assert!(faults(&file).is_empty(), "{file}: {:?}", faults(&file));
            if let Kind::Word(words) = &key.kind {
                for word in words {
                    let file = place(with(table, key, Item::String((*word).to_owned())));
                    assert!(faults(&file).is_empty(), "{file}: {:?}", faults(&file));
                }
                let file = place(with(table, key, Item::String(UNKNOWN.to_owned())));
                let said = faults(&file);
                let hint = said
                    .iter()
                    .find_map(|one| one.hint.clone())
                    .unwrap_or_default();
                for word in words {
                    assert!(hint.contains(&format!("`{word}`")), "{word}: {said:?}");
                }
                assert_eq!(hint.matches('`').count(), 2 * words.len(), "{hint}");
            }
        }
    });
}

/// As an editor sees a file: dates are texts.
fn json(item: &Item) -> Value {
    match item {
        Item::Datetime(when) => Value::String(when.to_string()),
        Item::Array(items) => items.iter().map(json).collect(),
        Item::Table(table) => table
            .iter()
            .map(|(key, item)| (key.clone(), json(item)))
            .collect::<serde_json::Map<_, _>>()
            .into(),
        Item::String(_) | Item::Integer(_) | Item::Float(_) | Item::Boolean(_) => {
            serde_json::to_value(item).unwrap()
        }
    }
}

/// What the reader takes an editor has nothing against: every key with values of all kinds.
#[test]
fn an_editor_has_nothing_against_what_the_reader_takes() {
    let catalog = Catalog::embedded().unwrap();
    let validator = jsonschema::validator_for(&schema(&catalog)).unwrap();
    let date = Item::Datetime("2027-01-31T18:00:00Z".parse().unwrap());
    let text = |text: &str| Item::String(text.to_owned());
    let mut all = vec![
        Item::Boolean(false),
        Item::Float(1.5),
        date,
        Item::Array(Vec::new()),
        Item::Table(Toml::new()),
        Item::Array(vec![Item::Integer(80), text("90-91")]),
    ];
    all.extend([0, 1, 443, 70_000, 1 << 20].map(Item::Integer));
    let words = [
        "",
        "any",
        "none",
        "audit",
        "1s",
        "a/b",
        "tcp/1",
        "192.0.2.1",
        "1.2",
        "80 - 90",
        "group",
        "tcp/22=a,b",
    ];
    all.extend(words.map(text));
    all.extend(words.map(|word| Item::Array(vec![text(word)])));
    let (mut taken, mut refused) = (0, 0);
    each(&keys::site(), &|table| table, &mut |table, place| {
        for key in &table.0 {
            for item in all.iter().cloned().chain([sample(&key.kind)]) {
                let file = place(with(table, key, item));
                let value = json(&Item::Table(file.clone()));
                if faults(&file).is_empty() {
                    taken += 1;
                    let fault = validator.validate(&value).err();
                    assert!(fault.is_none(), "{file}: {fault:?}");
                } else if !validator.is_valid(&value) {
                    refused += 1;
                }
            }
        }
    });
    assert!(taken > 500 && refused > 1000, "{taken} {refused}");
}

#[test]
fn what_a_document_does_not_have_is_marked() {
    let catalog = Catalog::embedded().unwrap();
    let validator = jsonschema::validator_for(&schema(&catalog)).unwrap();
    let is_valid = |text: &str| {
        let file: Toml = format!("schema = 1\n{text}").parse().unwrap();
        validator.is_valid(&json(&Item::Table(file)))
    };
    assert!(is_valid("systems.nexthink.deployment = \"on-premises\""));
    assert!(!is_valid("systems.nexthink.deployment = \"elsewhere\""));
    assert!(is_valid(
        "systems.nexthink.choices.portal-access = \"secure\""
    ));
    assert!(!is_valid(
        "systems.nexthink.choices.portal-access = \"sure\""
    ));
    assert!(!is_valid("systems.wso2.options = [\"clusterin\"]"));
    assert!(is_valid("systems.acme.deployment = \"elsewhere\""));
    assert!(!is_valid("modes = \"audit\""));
    assert!(!is_valid(
        "[[host]]\nname = \"a\"\nsystems.wso2.clusters = {}"
    ));
}

#[test]
fn levels_have_names_of_their_own() {
    let names = [Level::System, Level::Cluster, Level::Host].map(super::name_of);
    assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), 3);
}
