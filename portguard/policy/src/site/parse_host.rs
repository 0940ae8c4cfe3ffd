//! `[[host]]`: the inventory; `[[row]]`: rows of the site's own.

use std::collections::BTreeMap;

use toml::de::DeValue;

use super::parse_system::{Level, system};
use super::read::{Fields, Reader, Value};
use super::term::{self, is_name};
use super::values::{accepted, flag, mode, offsets, one_or_more, ports, text, who, word};
use super::{Host, Interface, OwnRow, Place};
use crate::catalog::{Direction, Transport};

/// Reads every `[[host]]`; names and addresses belong to one host each.
pub(super) fn hosts(reader: &mut Reader<'_>, value: Value<'_>) -> Vec<Host> {
    let mut hosts = Vec::new();
    let mut names: BTreeMap<String, Place> = BTreeMap::new();
    let mut addresses = BTreeMap::new();
    for item in reader.list(value, "host") {
        let Some(host) = host(reader, item) else {
            continue;
        };
        if let Some(first) = names.get(&host.name) {
            let message = format!("host `{}` is listed twice", host.name.escape_debug());
            let hint = format!("the first is on line {}", first.line);
            reader.error(host.place, "duplicate-host", message, &hint);
        }
        names.entry(host.name.clone()).or_insert(host.place);
        for (address, place) in &host.addresses {
            if let Some((owner, first)) = addresses.insert(*address, (hosts.len(), *place)) {
                let message = if owner == hosts.len() {
                    format!("address `{address}` is listed twice")
                } else {
                    format!("address `{address}` belongs to two hosts")
                };
                let hint = format!(
                    "the first is on line {}; an address that several hosts own or that moves between them is written in \
                     `shared_addresses` of each",
                    first.line
                );
                reader.error(*place, "duplicate-address", message, &hint);
            }
        }
        hosts.push(host);
    }
    for host in &hosts {
        for (address, place) in &host.shared_addresses {
            if let Some((_, first)) = addresses.get(address) {
                let message = format!("address `{address}` is shared, and a host's own as well");
                let hint = format!(
                    "its own on line {}: write it in `shared_addresses` there, too",
                    first.line
                );
                reader.error(*place, "duplicate-address", message, &hint);
            }
        }
    }
    hosts
}

fn host(reader: &mut Reader<'_>, value: Value<'_>) -> Option<Host> {
    let mut fields = reader.table(value, "host")?;
    let mut host = Host {
        place: fields.place,
        ..Host::default()
    };
    host.name = name(reader, &mut fields, "host")?;
    for (key, slot) in [
        ("addresses", &mut host.addresses),
        ("shared_addresses", &mut host.shared_addresses),
    ] {
        let Some(value) = fields.take(key) else {
            continue;
        };
        for (text, place) in reader.strings_or_none(value, key) {
            if let Ok(address) = text.parse() {
                slot.push((term::plain(address), place));
            } else {
                let message = format!("`{}` is not an address", text.escape_debug());
                let hint = "a host has addresses without a length, e.g. `10.0.0.1` or `fd00::1`";
                reader.error(place, "bad-address", message, hint);
            }
        }
    }
    if let Some(value) = fields.take("cluster") {
        host.cluster = one_or_more(reader, value, "cluster");
    }
    if let Some(table) = fields
        .take("systems")
        .and_then(|v| reader.table(v, "systems"))
    {
        for (id, place, value) in table.pairs(reader) {
            let said = system(reader, value, &id, place, Level::Host);
            host.systems.insert(id, said);
        }
    }
    host.roles = roles(reader, &mut fields);
    host.offsets = offsets(reader, &mut fields);
    if let Some(value) = fields.take("mode") {
        host.mode = mode(reader, &value);
        host.mode_said = host.mode.map(|mode| (mode, reader.place_of(&value)));
    }
    if let Some(value) = fields.take("audit_roles") {
        for (role, place) in reader.strings_or_none(value, "audit_roles") {
            check_role(reader, &role, place);
            host.audit_roles.insert(role, place);
        }
    }
    if let Some(value) = fields.take("audit_ports") {
        for (text, place) in reader.strings_or_none(value, "audit_ports") {
            if let Some((transport, ports)) = accepted(reader, place, term::transport_ports(&text))
            {
                host.audit_ports.push((transport, ports.first, ports.last));
            }
        }
    }
    if let Some(table) = fields
        .take("interfaces")
        .and_then(|v| reader.table(v, "interfaces"))
    {
        for (name, _, value) in table.pairs(reader) {
            let Some(mut fields) = reader.table(value, &name) else {
                continue;
            };
            // Without roles of its own an interface serves the host's: an empty list would be read as the opposite.
            let place = fields.place_of("roles", reader);
            let mut interface = Interface {
                roles: roles(reader, &mut fields),
                ..Interface::default()
            };
            if let Some(place) = place.filter(|_| interface.roles.is_empty()) {
                let message =
                    format!("`{name}` names no role, and so would serve all of the host's");
                let hint = "remove `roles`; to serve nothing here, give the host's roles to its other interfaces";
                reader.error(place, "empty-list", message, hint);
            }
            for (key, slot) in [
                ("rows", &mut interface.rows),
                ("without_rows", &mut interface.without_rows),
            ] {
                if let Some(value) = fields.take(key) {
                    *slot = if key == "rows" {
                        reader.strings(value, key)
                    } else {
                        reader.strings_or_none(value, key)
                    };
                }
            }
            if let Some(value) = fields.take("mode") {
                interface.mode = mode(reader, &value);
                interface.mode_said = interface.mode.map(|mode| (mode, reader.place_of(&value)));
            }
            fields.finish(reader, &format!("interface `{name}`"));
            host.interfaces.insert(name, interface);
        }
    }
    fields.finish(reader, "a host");
    Some(host)
}

fn name(reader: &mut Reader<'_>, fields: &mut Fields<'_>, what: &str) -> Option<String> {
    let Some((name, place)) = text(reader, fields, "name") else {
        let message = format!("a {what} needs a name");
        reader.error(
            fields.place,
            "missing-key",
            message,
            "write `name = \"...\"`",
        );
        return None;
    };
    if !is_name(&name) {
        let message = format!("`{}` cannot name a {what}", name.escape_debug());
        reader.error(
            place,
            "bad-name",
            message,
            "letters, digits, `-`, `_` and `.`",
        );
        return None;
    }
    Some(name)
}

fn roles(reader: &mut Reader<'_>, fields: &mut Fields<'_>) -> Vec<(String, Place)> {
    let Some(value) = fields.take("roles") else {
        return Vec::new();
    };
    let roles = reader.strings_or_none(value, "roles");
    for (role, place) in &roles {
        check_role(reader, role, *place);
    }
    roles
}

pub(super) fn check_role(reader: &mut Reader<'_>, role: &str, place: Place) {
    if role.split('/').count() != 2 || role.split('/').any(str::is_empty) {
        let message = format!("`{}` is not in the form SYSTEM/ROLE", role.escape_debug());
        reader.error(place, "bad-role", message, "e.g. `wso2/api-manager`");
    }
}

/// Reads every `[[row]]`.
pub(super) fn rows(reader: &mut Reader<'_>, value: Value<'_>) -> Vec<OwnRow> {
    let mut rows: Vec<OwnRow> = Vec::new();
    for item in reader.list(value, "row") {
        let Some(row) = own_row(reader, item) else {
            continue;
        };
        if rows.iter().any(|other| other.name == row.name) {
            let message = format!("row `{}` is listed twice", row.name);
            reader.error(
                row.place,
                "duplicate-row",
                message,
                "give each row a name of its own",
            );
        }
        rows.push(row);
    }
    rows
}

fn own_row(reader: &mut Reader<'_>, value: Value<'_>) -> Option<OwnRow> {
    let mut fields = reader.table(value, "row")?;
    let place = fields.place;
    let name = name(reader, &mut fields, "row")?;
    let directions = [("in", Direction::In), ("out", Direction::Out)];
    let direction = fields
        .take("direction")
        .and_then(|value| word(reader, &value, "direction", &directions));
    let transports = fields
        .take("transport")
        .map(|value| transports(reader, value));
    let ports = fields
        .take("ports")
        .map(|value| ports(reader, value, "ports"));
    let peers = fields
        .take("peers")
        .map(|value| who(reader, value, "peers"));
    let reason = text(reader, &mut fields, "reason").map(|(reason, _)| reason);
    let expires = fields
        .take("expires")
        .and_then(|value| reader.date(&value, "expires"));
    let mut lists = [Vec::new(), Vec::new()];
    for (key, list) in ["hosts", "roles"].into_iter().zip(&mut lists) {
        if let Some(value) = fields.take(key) {
            *list = reader.strings(value, key);
        }
    }
    let [hosts, roles] = lists;
    for (role, place) in &roles {
        check_role(reader, role, *place);
    }
    let audit = flag(reader, &mut fields, "audit");
    fields.finish(reader, "a row");
    let missing = [
        ("direction", direction.is_none()),
        ("transport", transports.is_none()),
        ("ports", ports.is_none()),
        ("peers", peers.is_none()),
        (
            "reason",
            reason.as_deref().unwrap_or_default().trim().is_empty(),
        ),
    ];
    let missing: Vec<_> = missing
        .iter()
        .filter(|(_, is)| *is)
        .map(|(key, _)| *key)
        .collect();
    if !missing.is_empty() {
        let message = format!("row `{name}` lacks `{}`", missing.join("`, `"));
        reader.error(
            place,
            "missing-key",
            message,
            "a row says what it opens, to whom, and why",
        );
    }
    Some(OwnRow {
        name,
        direction: direction?,
        transports: transports?,
        ports: ports?,
        peers: peers??,
        reason: reason?,
        expires,
        hosts,
        roles,
        audit,
        place,
    })
}

fn transports(reader: &mut Reader<'_>, value: Value<'_>) -> Vec<Transport> {
    let place = reader.place_of(&value);
    let names = if matches!(value.get_ref(), DeValue::Array(_)) {
        reader.strings(value, "transport")
    } else {
        reader
            .string(&value, "transport")
            .map(|name| (name, place))
            .into_iter()
            .collect()
    };
    let mut found = Vec::new();
    for (name, place) in names {
        if let Some(transport) = accepted(reader, place, term::transport(&name)) {
            found.push(transport);
        }
    }
    found
}
