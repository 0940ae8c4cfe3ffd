//! Values of a site file that several of its tables have: words, flags, ports, peers.

use std::collections::BTreeMap;

use toml::de::DeValue;

use super::read::{Fields, Reader, Value};
use super::term::Fault;
use super::{Mode, Place, Ports, Term, Terms, Who};
use crate::catalog::PeerClass;

/// One of several words.
pub(super) fn word<T: Copy>(
    reader: &mut Reader<'_>,
    value: &Value<'_>,
    what: &str,
    words: &[(&str, T)],
) -> Option<T> {
    let place = reader.place_of(value);
    let text = reader.string(value, what)?;
    let found = words
        .iter()
        .find(|(word, _)| *word == text)
        .map(|(_, meaning)| *meaning);
    if found.is_none() {
        let known: Vec<_> = words.iter().map(|(word, _)| format!("`{word}`")).collect();
        let message = format!("`{what}` is `{}`", text.escape_debug());
        reader.error(
            place,
            "unknown-word",
            message,
            &format!("write {}", known.join(" or ")),
        );
    }
    found
}

/// A mode.
pub(super) fn mode(reader: &mut Reader<'_>, value: &Value<'_>) -> Option<Mode> {
    word(
        reader,
        value,
        "mode",
        &[("audit", Mode::Audit), ("enforce", Mode::Enforce)],
    )
}

/// `true` or `false`; absent is `false`.
pub(super) fn flag(reader: &mut Reader<'_>, fields: &mut Fields<'_>, key: &'static str) -> bool {
    fields
        .take(key)
        .and_then(|value| reader.boolean(&value, key))
        .unwrap_or_default()
}

/// What was read, or `None` and a message that says what is wrong.
pub(super) fn accepted<T>(
    reader: &mut Reader<'_>,
    place: Place,
    result: Result<T, Fault>,
) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(fault) => {
            reader.error(place, fault.code, fault.message, &fault.hint);
            None
        }
    }
}

/// `"any"`, `"none"` or a list of terms.
pub(super) fn who(reader: &mut Reader<'_>, value: Value<'_>, what: &str) -> Option<Who> {
    let place = reader.place_of(&value);
    if matches!(value.get_ref(), DeValue::Array(_)) {
        let terms = terms(reader, value, what);
        if terms.0.is_empty() {
            reader.error(
                place,
                "empty-list",
                format!("`{what}` names nobody"),
                "write \"none\" if that is what you mean",
            );
            return None;
        }
        return Some(Who::These(terms));
    }
    if let DeValue::String(text) = value.get_ref() {
        match text.as_ref() {
            "any" => return Some(Who::Any),
            "none" => return Some(Who::None),
            _ => {}
        }
    }
    let message = format!("`{what}` must be \"any\", \"none\" or a list of peers");
    reader.error(
        place,
        "wrong-type",
        message,
        "e.g. `[\"admins\", \"10.0.0.0/24\"]`",
    );
    None
}

/// `unprinted_peers`: one answer for all rows, or a table of answers by class (`default` for the rest).
pub(super) fn unprinted(
    reader: &mut Reader<'_>,
    value: Value<'_>,
) -> (Option<Who>, BTreeMap<PeerClass, (Who, Place)>) {
    let mut classes = BTreeMap::new();
    if !matches!(value.get_ref(), DeValue::Table(_)) {
        return (who(reader, value, "unprinted_peers"), classes);
    }
    let mut general = None;
    let Some(mut fields) = reader.table(value, "unprinted_peers") else {
        return (general, classes);
    };
    if let Some(value) = fields.take("default") {
        general = who(reader, value, "default");
    }
    for &class in PeerClass::ALL {
        if let Some(value) = fields.take(class.as_str()) {
            let place = reader.place_of(&value);
            if let Some(found) = who(reader, value, class.as_str()) {
                classes.insert(class, (found, place));
            }
        }
    }
    fields.finish(reader, "unprinted_peers");
    (general, classes)
}

/// A list of peers.
pub(super) fn terms(reader: &mut Reader<'_>, value: Value<'_>, what: &str) -> Terms {
    let words = reader.strings_or_none(value, what);
    let terms = words.into_iter().filter_map(|(text, place)| {
        accepted(reader, place, Term::parse(&text)).map(|term| (term, place))
    });
    Terms(terms.collect())
}

/// `"prod"` or `["prod", "test"]`.
pub(super) fn one_or_more(
    reader: &mut Reader<'_>,
    value: Value<'_>,
    what: &str,
) -> Vec<(String, Place)> {
    if matches!(value.get_ref(), DeValue::Array(_)) {
        return reader.strings(value, what);
    }
    let place = reader.place_of(&value);
    let text = reader.string(&value, what);
    text.map(|text| (text, place)).into_iter().collect()
}

/// `offsets = { ROLE = N }`, or a list of them for as many servers of the role.
pub(super) fn offsets(
    reader: &mut Reader<'_>,
    fields: &mut Fields<'_>,
) -> BTreeMap<String, (Vec<u16>, Place)> {
    let mut offsets = BTreeMap::new();
    if let Some(table) = fields
        .take("offsets")
        .and_then(|v| reader.table(v, "offsets"))
    {
        for (role, place, value) in table.pairs(reader) {
            let several = matches!(value.get_ref(), DeValue::Array(_));
            let items = if several {
                reader.list(value, &role)
            } else {
                vec![value]
            };
            let mut found = Vec::new();
            for item in &items {
                let number = reader.number(item, &role, 0, 65_535);
                found.extend(number.and_then(|number| u16::try_from(number).ok()));
            }
            if !found.is_empty() {
                offsets.insert(role, (found, place));
            }
        }
    }
    offsets
}

/// `443`, `"8000-8010"`, or a list of such.
pub(super) fn ports(reader: &mut Reader<'_>, value: Value<'_>, what: &str) -> Vec<Ports> {
    let listed = matches!(value.get_ref(), DeValue::Array(_));
    let items = if listed {
        reader.list(value, what)
    } else {
        vec![value]
    };
    let mut ports: Vec<Ports> = Vec::new();
    for item in items {
        let place = reader.place_of(&item);
        let found = if matches!(item.get_ref(), DeValue::Integer(_)) {
            let number = reader.number(&item, what, 1, 65_535);
            let port = number.and_then(|port| u16::try_from(port).ok());
            port.map(|port| Ports {
                first: port,
                last: port,
            })
        } else {
            let text = reader.string(&item, what);
            text.and_then(|text| accepted(reader, place, Ports::parse(&text)))
        };
        let Some(found) = found else { continue };
        if let Some(other) = ports
            .iter()
            .find(|o| o.first <= found.last && found.first <= o.last)
        {
            let message = format!("{found} and {other} overlap");
            reader.error(place, "overlapping-ranges", message, "list each port once");
        }
        ports.push(found);
    }
    ports
}

/// A string and its place.
pub(super) fn text(
    reader: &mut Reader<'_>,
    fields: &mut Fields<'_>,
    key: &'static str,
) -> Option<(String, Place)> {
    let value = fields.take(key)?;
    let place = reader.place_of(&value);
    reader.string(&value, key).map(|text| (text, place))
}
