//! `[systems.ID]`: deployment, version, options, peers, offsets, changed ports, and settings by row.

use std::collections::BTreeMap;

use toml::de::DeValue;

use super::parse::{flag, heed, who};
use super::read::{Fields, Reader, Value};
use super::term;
use super::{Place, Ports, RowSite, SystemSite};

/// Reads one system's table.
pub(super) fn system(
    reader: &mut Reader<'_>,
    value: Value<'_>,
    id: &str,
    place: Place,
) -> SystemSite {
    let mut site = SystemSite {
        place,
        ..SystemSite::default()
    };
    let Some(mut fields) = reader.table(value, id) else {
        return site;
    };
    site.deployment = text(reader, &mut fields, "deployment");
    if let Some((text, place)) = text(reader, &mut fields, "version") {
        site.version = heed(reader, place, term::version(&text)).map(|parts| (parts, place));
    }
    for (key, slot) in [
        ("options", &mut site.options),
        ("without", &mut site.without),
    ] {
        if let Some(value) = fields.take(key) {
            slot.extend(reader.strings(value, key));
        }
    }
    if let Some(table) = fields
        .take("choices")
        .and_then(|v| reader.table(v, "choices"))
    {
        for (key, place, value) in table.pairs(reader) {
            if matches!(value.get_ref(), DeValue::Array(_)) {
                let message =
                    format!("`choices.{key}` has several values, but they exclude each other");
                reader.error(place, "exclusive-alternatives", message, "choose one");
            } else if let Some(value) = reader.string(&value, &key) {
                site.choices.insert(key, (value, place));
            }
        }
    }
    if let Some(table) = fields.take("peers").and_then(|v| reader.table(v, "peers")) {
        for (key, place, value) in table.pairs(reader) {
            if let Some(who) = who(reader, value, &key) {
                site.peers.insert(key, (who, place));
            }
        }
    }
    site.unprinted_peers = fields
        .take("unprinted_peers")
        .and_then(|v| who(reader, v, "unprinted_peers"));
    site.offsets = offsets(reader, &mut fields);
    if let Some(table) = fields.take("ports").and_then(|v| reader.table(v, "ports")) {
        for (row, place, value) in table.pairs(reader) {
            let ports = ports(reader, value, &row);
            site.ports.insert(row, (ports, place));
        }
    }
    if let Some(table) = fields.take("rows").and_then(|v| reader.table(v, "rows")) {
        for (id, place, value) in table.pairs(reader) {
            if let Some(row) = row(reader, value, &id, place) {
                site.rows.insert(id, row);
            }
        }
    }
    fields.finish(reader, &format!("[systems.{id}]"));
    site
}

/// `offsets = { ROLE = N }`.
pub(super) fn offsets(
    reader: &mut Reader<'_>,
    fields: &mut Fields<'_>,
) -> BTreeMap<String, (u16, Place)> {
    let mut offsets = BTreeMap::new();
    if let Some(table) = fields
        .take("offsets")
        .and_then(|v| reader.table(v, "offsets"))
    {
        for (role, place, value) in table.pairs(reader) {
            let number = reader.number(&value, &role, 0, 65_535);
            if let Some(offset) = number.and_then(|number| u16::try_from(number).ok()) {
                offsets.insert(role, (offset, place));
            }
        }
    }
    offsets
}

/// `443`, `"8000-8010"`, or a list of such.
pub(super) fn ports(reader: &mut Reader<'_>, value: Value<'_>, what: &str) -> Vec<Ports> {
    let place = reader.place_of(&value);
    let listed = matches!(value.get_ref(), DeValue::Array(_));
    let items = if listed {
        reader.list(value, what)
    } else {
        vec![value]
    };
    let empty = items.is_empty();
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
            text.and_then(|text| heed(reader, place, Ports::parse(&text)))
        };
        let Some(found) = found else { continue };
        if let Some(other) = ports
            .iter()
            .find(|o| o.first <= found.last && found.first <= o.last)
        {
            let message = format!("{found} and {other} overlap");
            reader.error(place, "overlapping-ranges", message, "say each port once");
        }
        ports.push(found);
    }
    if empty {
        reader.error(place, "empty-list", format!("`{what}` has no port"), "");
    }
    ports
}

fn row(reader: &mut Reader<'_>, value: Value<'_>, id: &str, place: Place) -> Option<RowSite> {
    let mut fields = reader.table(value, id)?;
    let mut row = RowSite {
        place,
        ..RowSite::default()
    };
    row.only = fields
        .take("only")
        .and_then(|value| who(reader, value, "only"));
    row.unprinted_peers = fields
        .take("unprinted_peers")
        .and_then(|v| who(reader, v, "unprinted_peers"));
    row.audit = flag(reader, &mut fields, "audit");
    let off = flag(reader, &mut fields, "off");
    let reason = text(reader, &mut fields, "reason");
    fields.finish(reader, &format!("the settings of row `{id}`"));
    match (off, reason) {
        (true, Some((reason, _))) => row.off = Some(reason),
        (true, None) => {
            let message = format!("row `{id}` is switched off without a reason");
            reader.error(
                place,
                "missing-key",
                message,
                "write `reason = \"...\"` beside `off`",
            );
        }
        (false, _) => {}
    }
    Some(row)
}

pub(super) fn text(
    reader: &mut Reader<'_>,
    fields: &mut Fields<'_>,
    key: &'static str,
) -> Option<(String, Place)> {
    let value = fields.take(key)?;
    let place = reader.place_of(&value);
    reader.string(&value, key).map(|text| (text, place))
}
