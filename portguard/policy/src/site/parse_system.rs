//! `[systems.ID]`: deployment, version, options, peers, offsets, changed ports, and settings by row.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "all other kinds are alike here"
)]

use toml::de::DeValue;

use super::read::{Reader, Value};
use super::term;
use super::values::{accepted, flag, offsets, one_or_more, ports, text, unprinted, who};
use super::{ChangedPorts, Chosen, Place, RowSite, SystemSite};

/// Whose table it is: what a cluster or a host says goes before what the system says.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Level {
    System,
    Cluster,
    Host,
}

/// Reads one system's table, or what a cluster or a host says of the system.
pub(super) fn system(
    reader: &mut Reader<'_>,
    value: Value<'_>,
    id: &str,
    place: Place,
    level: Level,
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
        site.version = accepted(reader, place, term::version(&text)).map(|parts| (parts, place));
    }
    for (key, slot) in [
        ("options", &mut site.options),
        ("without", &mut site.without),
    ] {
        if let Some(value) = fields.take(key) {
            slot.extend(reader.strings_or_none(value, key));
        }
    }
    if let Some(table) = fields
        .take("choices")
        .and_then(|v| reader.table(v, "choices"))
    {
        for (key, place, value) in table.pairs(reader) {
            if let Some(chosen) = chosen(reader, value, &key, place) {
                site.choices.insert(key, chosen);
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
    if let Some(value) = fields.take("unprinted_peers") {
        (site.unprinted_peers, site.unprinted_classes) = unprinted(reader, value);
    }
    site.offsets = offsets(reader, &mut fields);
    if level != Level::Cluster
        && let Some(value) = fields.take("cluster")
    {
        site.cluster = one_or_more(reader, value, "cluster");
    }
    if level == Level::System
        && let Some(table) = fields
            .take("clusters")
            .and_then(|v| reader.table(v, "clusters"))
    {
        for (name, place, value) in table.pairs(reader) {
            let cluster = system(reader, value, &name, place, Level::Cluster);
            site.clusters.insert(name, cluster);
        }
    }
    if let Some(table) = fields.take("ports").and_then(|v| reader.table(v, "ports")) {
        for (row, place, value) in table.pairs(reader) {
            let ports = changed_ports(reader, value, &row);
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
    let what = match level {
        Level::System => format!("[systems.{id}]"),
        Level::Cluster => format!("cluster `{id}`"),
        Level::Host => format!("what the host says of {id}"),
    };
    fields.finish(reader, &what);
    site
}

/// One value, or during a change-over `{ both = ["OLD", "NEW"], until = DATE }`.
fn chosen(reader: &mut Reader<'_>, value: Value<'_>, key: &str, place: Place) -> Option<Chosen> {
    match value.get_ref() {
        DeValue::Array(_) => {
            let message =
                format!("`choices.{key}` has several values, but they exclude each other");
            let hint = "choose one, or for the time of a change-over write \
                        `{ both = [\"OLD\", \"NEW\"], until = 2027-01-31 }`";
            reader.error(place, "exclusive-alternatives", message, hint);
            None
        }
        DeValue::Table(_) => {
            let mut fields = reader.table(value, key)?;
            let both = fields
                .take("both")
                .map(|value| reader.strings(value, "both"));
            let until = fields
                .take("until")
                .and_then(|value| reader.date(&value, "until"));
            fields.finish(reader, &format!("choice `{key}`"));
            let values: Vec<String> = both.into_iter().flatten().map(|(text, _)| text).collect();
            let twice = values
                .iter()
                .enumerate()
                .find(|(at, value)| values.iter().skip(at + 1).any(|other| other == *value));
            if let Some((_, value)) = twice {
                let message = format!(
                    "`choices.{key}` has `{}` twice: there is no transition",
                    value.escape_debug()
                );
                let hint = "name the old value and the new one, or write the one that holds";
                reader.error(place, "exclusive-alternatives", message, hint);
                return None;
            }
            if values.len() < 2 || until.is_none() {
                let message = format!("`choices.{key}` lacks two values or the last day of both");
                let hint = "write `{ both = [\"OLD\", \"NEW\"], until = 2027-01-31 }`";
                reader.error(place, "missing-key", message, hint);
                return None;
            }
            Some(Chosen {
                values,
                until,
                place,
            })
        }
        _ => reader.string(&value, key).map(|value| Chosen {
            values: vec![value],
            until: None,
            place,
        }),
    }
}

/// New ports of a row, or a table of them by the port that is printed.
fn changed_ports(reader: &mut Reader<'_>, value: Value<'_>, row: &str) -> ChangedPorts {
    if !matches!(value.get_ref(), DeValue::Table(_)) {
        return ChangedPorts::All(ports(reader, value, row));
    }
    let table = reader.table(value, row).map(|table| table.pairs(reader));
    let each = table.unwrap_or_default().into_iter();
    ChangedPorts::Each(
        each.map(|(printed, _, value)| {
            let new = ports(reader, value, &printed);
            (printed, new)
        })
        .collect(),
    )
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
