//! Site TOML to [`Site`]. Collects every fault it can see before it gives up.

use std::collections::BTreeMap;

use portguard_common::ethertypes;
use toml::de::DeTable;

use super::read::{Fields, Reader, Value};
use super::term;
use super::values::{accepted, flag, mode, terms, unprinted, who, word};
use super::{
    Access, Baseline, Group, MAX_BYTES, Management, Place, Protocol, Site, Timeouts, Unresolved,
    UnresolvedPorts, parse_host, parse_system,
};
use crate::diagnostic::{Diagnostic, Rejected};
use crate::policy::Outbound;

impl Site {
    /// Reads a site file's bytes; `file` is its name in messages.
    pub fn parse(file: &str, bytes: &[u8]) -> Result<Self, Rejected> {
        if bytes.len() > MAX_BYTES {
            let message = format!("the file has {} bytes, more than {MAX_BYTES}", bytes.len());
            let hint =
                "put long lists of prefixes into files of their own and name them `file:PATH`";
            return Err(Rejected(vec![
                Diagnostic::error("too-large", message).at(file).hint(hint),
            ]));
        }
        let text = match std::str::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) => {
                let line = 1 + bytes
                    .iter()
                    .take(error.valid_up_to())
                    .filter(|b| **b == b'\n')
                    .count();
                let message = format!("byte {} is not UTF-8", error.valid_up_to());
                let diagnostic = Diagnostic::error("invalid-utf8", message)
                    .at(format!("{file}:{line}"))
                    .hint("save the file as UTF-8");
                return Err(Rejected(vec![diagnostic]));
            }
        };
        let mut reader = Reader::new(file, text);
        let table = match DeTable::parse(text) {
            Ok(table) => table.into_inner(),
            Err(error) => {
                let place = reader.place(error.span().map_or(0, |span| span.start));
                let message = format!("not TOML: {}", error.message().replace('\n', ", "));
                reader.error(place, "syntax", message, "");
                return Err(Rejected(reader.messages));
            }
        };
        let mut site = read_site(
            &mut reader,
            Fields::new(table, Place { line: 1, column: 1 }),
        );
        file.clone_into(&mut site.file);
        if reader.messages.is_empty() {
            Ok(site)
        } else {
            Err(Rejected(reader.messages))
        }
    }
}

fn read_site(reader: &mut Reader<'_>, mut fields: Fields<'_>) -> Site {
    let mut site = Site::default();
    match fields.take("schema") {
        Some(value) => {
            reader.number(&value, "schema", 1, 1);
        }
        None => reader.error(
            fields.place,
            "missing-key",
            "a site file begins with its schema".to_owned(),
            "write `schema = 1` on the first line",
        ),
    }
    if let Some(value) = fields.take("mode") {
        site.mode = mode(reader, &value).unwrap_or_default();
        site.mode_said = Some((site.mode, reader.place_of(&value)));
    }
    if let Some(value) = fields.take("outbound") {
        let words = [
            ("off", Outbound::Off),
            ("audit", Outbound::Audit),
            ("enforce", Outbound::Enforce),
        ];
        site.outbound = word(reader, &value, "outbound", &words).unwrap_or_default();
        site.outbound_place = Some(reader.place_of(&value));
    }
    if let Some(value) = fields.take("unprinted_peers") {
        (site.unprinted_peers, site.unprinted_classes) = unprinted(reader, value);
    }
    if let Some(value) = fields.take("unresolved_ports") {
        let words = [
            ("refuse", UnresolvedPorts::Refuse),
            ("none", UnresolvedPorts::None),
        ];
        site.unresolved_ports = word(reader, &value, "unresolved_ports", &words);
    }
    if let Some(value) = fields.take("unresolved_peers") {
        let words = [
            ("refuse", Unresolved::Refuse),
            ("any", Unresolved::Any),
            ("none", Unresolved::None),
        ];
        site.unresolved_peers = word(reader, &value, "unresolved_peers", &words);
    }
    site.strict_fragments = flag(reader, &mut fields, "strict_fragments");
    (site.strict_ethertypes, site.allowed_ethertypes) = strict_ethertypes(reader, &mut fields);
    if let Some(value) = fields.take("scope") {
        let words = [("all", false), ("host-addresses", true)];
        site.host_addresses_only = word(reader, &value, "scope", &words).unwrap_or_default();
    }
    if let Some(value) = fields.take("catalogs") {
        site.catalogs = reader
            .strings_or_none(value, "catalogs")
            .into_iter()
            .map(|(path, _)| path)
            .collect();
    }
    site.groups = groups(reader, fields.take("groups"));
    site.management = fields
        .take("management")
        .and_then(|value| management(reader, value));
    if let Some(value) = fields.take("baseline") {
        site.baseline = baseline(reader, value);
    }
    if let Some(value) = fields.take("timeouts") {
        site.timeouts = timeouts(reader, value);
    }
    if let Some(systems) = fields
        .take("systems")
        .and_then(|v| reader.table(v, "systems"))
    {
        for (id, place, value) in systems.pairs(reader) {
            let level = parse_system::Level::System;
            let system = parse_system::system(reader, value, &id, place, level);
            site.systems.insert(id, system);
        }
    }
    if let Some(value) = fields.take("row") {
        site.rows = parse_host::rows(reader, value);
    }
    if let Some(value) = fields.take("host") {
        site.hosts = parse_host::hosts(reader, value);
    }
    fields.finish(reader, "the site");
    for (role, place) in &site.baseline.profiles {
        let system = role.split('/').next().unwrap_or_default();
        for host in &mut site.hosts {
            let has = |(own, _): &(String, Place)| own.split('/').next() == Some(system);
            if !host.roles.iter().any(has) {
                host.roles.push((role.clone(), *place));
            }
        }
    }
    site
}

/// `strict_ethertypes`, and what passes all the same.
fn strict_ethertypes(
    reader: &mut Reader<'_>,
    fields: &mut Fields<'_>,
) -> (bool, Option<Vec<String>>) {
    let is_said = fields.place_of("strict_ethertypes", reader).is_some();
    let is_strict = flag(reader, fields, "strict_ethertypes");
    let allowed = fields.take("allowed_ethertypes").map(|value| {
        if !is_said {
            let place = reader.place_of(&value);
            let message = "`allowed_ethertypes` has no effect: all of them pass".to_owned();
            let hint = "write `strict_ethertypes = true`, or remove it";
            reader.error(place, "no-effect", message, hint);
        }
        ethertypes(reader, value)
    });
    (is_strict, allowed)
}

/// Names of non-IP protocols.
fn ethertypes(reader: &mut Reader<'_>, value: Value<'_>) -> Vec<String> {
    let mut known: Vec<&str> = ethertypes::ALL.iter().map(|one| one.name).collect();
    known.dedup();
    let named = reader.strings_or_none(value, "allowed_ethertypes");
    for (name, place) in &named {
        if !known.contains(&name.as_str()) {
            let message = format!("`{name}` is not a non-IP protocol that portguard knows");
            let hint = format!("write some of: {}", known.join(", "));
            reader.error(*place, "ethertype", message, &hint);
        }
    }
    named.into_iter().map(|(name, _)| name).collect()
}

fn groups(reader: &mut Reader<'_>, value: Option<Value<'_>>) -> BTreeMap<String, Group> {
    let mut groups = BTreeMap::new();
    let Some(table) = value.and_then(|value| reader.table(value, "groups")) else {
        return groups;
    };
    for (name, place, value) in table.pairs(reader) {
        let shown = name.escape_debug();
        if !term::is_name(&name) || name == "any" || name == "none" || starts_with_digit(&name) {
            let message = format!("`{shown}` cannot name a group");
            let hint =
                "letters, digits, `-`, `_` and `.`, beginning with a letter; not `any` or `none`";
            reader.error(place, "bad-name", message, hint);
            continue;
        }
        let before = reader.messages.len();
        let members = terms(reader, value, &format!("groups.{name}"));
        if members.0.is_empty() && reader.messages.len() == before {
            let hint = "remove it, or list its members";
            reader.error(
                place,
                "empty-group",
                format!("group `{shown}` has no members"),
                hint,
            );
        }
        groups.insert(name, Group { members, place });
    }
    groups
}

fn starts_with_digit(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_digit())
}

fn management(reader: &mut Reader<'_>, value: Value<'_>) -> Option<Management> {
    let mut fields = reader.table(value, "management")?;
    let place = fields.place;
    let none = flag(reader, &mut fields, "none");
    let listed = fields
        .take("allow")
        .map(|value| reader.strings_or_none(value, "management.allow"));
    fields.finish(reader, "[management]");
    let listed = listed.unwrap_or_default();
    let is_listed = !listed.is_empty();
    let allow: Vec<Access> = listed
        .into_iter()
        .filter_map(|(text, place)| accepted(reader, place, term::access(&text, place)))
        .collect();
    // What is listed and not understood is reported where it stands.
    if none == allow.is_empty() || (is_listed && allow.is_empty()) {
        return Some(Management { allow, place });
    }
    let message = if none {
        "management has both `none` and `allow`"
    } else {
        "management allows nothing"
    };
    let hint = "write `allow = [\"tcp/22=GROUP\"]`, or `none = true` alone to go without";
    reader.error(place, "management", message.to_owned(), hint);
    None
}

fn baseline(reader: &mut Reader<'_>, value: Value<'_>) -> Baseline {
    let mut baseline = Baseline::default();
    let Some(mut fields) = reader.table(value, "baseline") else {
        return baseline;
    };
    for (key, slot) in [
        ("dhcp", &mut baseline.dhcp),
        ("echo", &mut baseline.echo),
        ("dns", &mut baseline.dns),
        ("ntp", &mut baseline.ntp),
    ] {
        if let Some(found) = fields.take(key).and_then(|value| who(reader, value, key)) {
            *slot = found;
        }
    }
    if let Some(value) = fields.take("protocols") {
        for item in reader.list_or_none(value, "protocols") {
            if let Some(protocol) = protocol(reader, item) {
                baseline.protocols.push(protocol);
            }
        }
    }
    if let Some(value) = fields.take("profiles") {
        baseline.profiles = reader.strings_or_none(value, "profiles");
        for (role, place) in &baseline.profiles {
            parse_host::check_role(reader, role, *place);
        }
    }
    fields.finish(reader, "[baseline]");
    baseline
}

fn protocol(reader: &mut Reader<'_>, value: Value<'_>) -> Option<Protocol> {
    let mut fields = reader.table(value, "protocols")?;
    let place = fields.place;
    let number = fields
        .take("number")
        .and_then(|value| reader.number(&value, "number", 0, 255));
    let peers = fields
        .take("peers")
        .and_then(|value| who(reader, value, "peers"));
    let reason = fields
        .take("reason")
        .and_then(|value| reader.string(&value, "reason"));
    fields.finish(reader, "a protocol");
    let (Some(number), Some(peers)) = (number, peers) else {
        let hint = "write e.g. `{ number = 50, peers = [\"10.0.0.0/24\"] }`";
        reader.error(
            place,
            "missing-key",
            "a protocol needs `number` and `peers`".to_owned(),
            hint,
        );
        return None;
    };
    let number = u8::try_from(number).ok()?;
    if [1, 6, 17, 58, 132].contains(&number) {
        let message = format!("protocol {number} is judged by its ports or types");
        reader.error(
            place,
            "bad-protocol",
            message,
            "TCP, UDP and SCTP ports are opened by `[[row]]`",
        );
        return None;
    }
    Some(Protocol {
        number,
        peers,
        reason,
        place,
    })
}

fn timeouts(reader: &mut Reader<'_>, value: Value<'_>) -> Timeouts {
    let mut timeouts = Timeouts::default();
    let Some(mut fields) = reader.table(value, "timeouts") else {
        return timeouts;
    };
    for (key, slot) in [
        ("tcp_idle", &mut timeouts.tcp_idle),
        ("udp_idle", &mut timeouts.udp_idle),
    ] {
        if let Some(value) = fields.take(key) {
            let place = reader.place_of(&value);
            *slot = reader
                .string(&value, key)
                .and_then(|text| accepted(reader, place, term::duration(&text)));
        }
    }
    if let Some(value) = fields.take("flows") {
        timeouts.flows = reader.number(&value, "flows", 1024, 16 << 20);
    }
    fields.finish(reader, "[timeouts]");
    timeouts
}
