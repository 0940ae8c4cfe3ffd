//! What a site file says of one system: the answers that its document wants, as comments to uncomment.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use portguard_policy::catalog::{Peer, PeerClass, PortSpec, Row, System};

use super::Draft;

/// The table of a system, and what it may be asked.
pub(super) fn about(text: &mut String, system: &System, roles: &BTreeSet<&str>, draft: &Draft) {
    let deployment = draft.deployments.get(&system.id);
    let closure: BTreeSet<&str> = roles.iter().flat_map(|role| system.closure(role)).collect();
    let rows: Vec<&Row> = system
        .rows
        .iter()
        .filter(|row| row.inert.is_none() && closure.contains(row.role.as_str()))
        .collect();
    add(text, &format!("\n# {}", system.document));
    add(text, &format!("[systems.{}]", system.id));
    facts(text, system, &rows, deployment, roles);
    unprinted(text, system, &rows);
    let changeable: Vec<_> = rows
        .iter()
        .copied()
        .filter(|row| row.customisable && !row.ports.iter().any(PortSpec::is_open))
        .collect();
    let open = |row: &&Row| !row.implied && row.ports.iter().any(PortSpec::is_open);
    let dynamic: Vec<_> = rows.iter().copied().filter(open).collect();
    if !changeable.is_empty() {
        add(
            text,
            &format!(
                "# The document lets these be changed (`ports.\"ROW\" = NUMBER`): {}",
                local(system, &changeable)
            ),
        );
    }
    for row in &dynamic {
        add(
            text,
            &format!(
                "# ports.\"{}\" = \"FIRST-LAST\"    # {}, and closed without a range: {}",
                local_id(system, row),
                match row.ports.first() {
                    Some(PortSpec::Dynamic) => "assigned at run time",
                    Some(PortSpec::Random) => "chosen at each start",
                    _ => "not printed",
                },
                row.purpose
            ),
        );
    }
    peers(text, system, &rows, &draft.peers);
}

/// A line for each class of rows that print no peer: they are unlike questions, and want an answer each.
fn unprinted(text: &mut String, system: &System, rows: &[&Row]) {
    let of = |class: Option<PeerClass>| -> Vec<&Row> {
        let lacking = rows.iter().copied();
        lacking
            .filter(|row| row.peers.contains(&Peer::Unprinted) && row.class == class)
            .collect()
    };
    let rest = of(None);
    if !rest.is_empty() {
        let rows = local(system, &rest);
        add(
            text,
            &format!("# The document does not print the peers of: {rows}"),
        );
        add(text, "# unprinted_peers.default = [\"admins\"]");
    }
    for &class in PeerClass::ALL {
        let lacking = of(Some(class));
        if lacking.is_empty() {
            continue;
        }
        let rows = local(system, &lacking);
        add(
            text,
            &format!("# The document names no peers, {}: {rows}", class.title()),
        );
        let (example, why) = match class {
            PeerClass::PublicService => ("[\"users\"]", "or \"any\", if the service is public"),
            PeerClass::Administration => ("[\"admins\"]", "consoles and command lines"),
            PeerClass::ClusterMembers => (
                "[\"192.0.2.0/24\"]",
                "left out: the hosts of the same role and cluster",
            ),
            PeerClass::Infrastructure => ("[\"192.0.2.0/24\"]", "the servers meant, or \"none\""),
            PeerClass::Monitoring => ("\"none\"", "or the monitoring systems"),
        };
        let key = class.as_str();
        add(
            text,
            &format!("# unprinted_peers.{key} = {example}    # {why}"),
        );
    }
}

/// One line a key: what is commented may be uncommented, all of it.
fn facts(
    text: &mut String,
    system: &System,
    rows: &[&Row],
    deployment: Option<&String>,
    present: &BTreeSet<&str>,
) {
    let conditions: Vec<_> = rows
        .iter()
        .filter_map(|row| row.condition.as_ref())
        .collect();
    let depends = conditions
        .iter()
        .any(|condition| !condition.deployments.is_empty());
    let each = |all: &mut dyn Iterator<Item = (&String, &String)>| {
        let words: Vec<String> = all.map(|(id, title)| format!("{id} ({title})")).collect();
        words.join(", ")
    };
    if let Some(chosen) = deployment {
        add(text, &format!("deployment = \"{chosen}\""));
    } else if let Some(first) = system.deployments.keys().next().filter(|_| depends) {
        let all = each(&mut system.deployments.iter());
        add(
            text,
            &format!("# deployment = \"{first}\"    # one of {all}"),
        );
    }
    // Written as the document writes it.
    if let Some(bound) = conditions.iter().find_map(|one| one.version.first()) {
        let words = bound.to_string();
        let version = words.trim_start_matches(['<', '>', '=']);
        add(
            text,
            &format!("# version = \"{version}\"    # the one you run; some rows depend on it"),
        );
    }
    // An option that is all about hosts of the site is on: without it, nothing would be open towards them.
    let meant: Vec<&String> = system
        .options
        .iter()
        .filter(|(id, option)| !option.default && towards(rows, id, present))
        .map(|(id, _)| id)
        .collect();
    if !meant.is_empty() {
        let quoted: Vec<String> = meant.iter().map(|id| format!("\"{id}\"")).collect();
        add(
            text,
            &format!(
                "options = [{}]    # since the site has hosts of the roles that it is about",
                quoted.join(", ")
            ),
        );
    }
    for (key, is_on, state) in [("options", false, "off"), ("without", true, "on")] {
        if key == "options" && !meant.is_empty() {
            // One line a key: what else there is stands in `portguard catalog show`.
            continue;
        }
        let asked = system.options.iter().filter(|(id, option)| {
            option.default == is_on
                && conditions.iter().any(|condition| {
                    condition.options.contains(*id) || condition.without.contains(*id)
                })
        });
        let asked: Vec<(&String, &String)> =
            asked.map(|(id, option)| (id, &option.title)).collect();
        if let Some((first, _)) = asked.first() {
            let all = each(&mut asked.iter().copied());
            add(
                text,
                &format!("# {key} = [\"{first}\"]    # {state} by default: {all}"),
            );
        }
    }
    for (id, choice) in &system.choices {
        let asked = conditions
            .iter()
            .any(|condition| condition.choices.contains_key(id));
        if asked || rows.iter().any(|row| row.pick.as_ref() == Some(id)) {
            let all = each(&mut choice.values.iter());
            if let Some(first) = choice.values.keys().next() {
                add(
                    text,
                    &format!(
                        "# choices.{id} = \"{first}\"    # {}: one of {all}",
                        choice.title
                    ),
                );
            }
        }
    }
    if rows.iter().any(|row| row.offset) {
        add(
            text,
            "# offsets = { ROLE = 1 }    # port offsets of servers; a host may have its own",
        );
    }
}

/// Whether all rows of an option are between roles that hosts of the site have, and some row is.
fn towards(rows: &[&Row], option: &str, present: &BTreeSet<&str>) -> bool {
    let mut of_option = rows
        .iter()
        .filter(|row| {
            row.condition
                .as_ref()
                .is_some_and(|one| one.options.iter().any(|id| id == option))
        })
        .peekable();
    of_option.peek().is_some()
        && of_option.all(|row| {
            !row.peers.is_empty()
                && row.peers.iter().all(
                    |peer| matches!(peer, Peer::Role(other) if present.contains(other.as_str())),
                )
        })
}

/// Each peer that the site has to give, with the rows that need it.
fn peers(text: &mut String, system: &System, rows: &[&Row], seen: &BTreeMap<String, Vec<IpAddr>>) {
    let mut wanted: BTreeMap<(u8, String), (String, Vec<&Row>)> = BTreeMap::new();
    for row in rows {
        for peer in &row.peers {
            let (order, key, title) = match peer {
                Peer::Group(id) => (
                    0,
                    id.clone(),
                    system.groups.get(id).cloned().unwrap_or_default(),
                ),
                Peer::Asn(number) => (
                    1,
                    format!("asn:{number}"),
                    "prefixes of the autonomous system".to_owned(),
                ),
                Peer::Domain(name) => (
                    2,
                    format!("domain:{name}"),
                    "resolved, unless given here".to_owned(),
                ),
                Peer::Role(id) => (
                    3,
                    id.clone(),
                    "role; hosts of the inventory have it, or give addresses".to_owned(),
                ),
                Peer::SameRole => (
                    3,
                    row.role.clone(),
                    "role; the other hosts that have it".to_owned(),
                ),
                Peer::Multicast => (
                    0,
                    "multicast".to_owned(),
                    "multicast groups that the role sends to; any by default".to_owned(),
                ),
                Peer::Prefix(_) | Peer::Itself | Peer::Unprinted => continue,
            };
            wanted
                .entry((order, key))
                .or_insert_with(|| (title, Vec::new()))
                .1
                .push(row);
        }
    }
    if wanted.is_empty() {
        return;
    }
    add(
        text,
        &format!(
            "\n[systems.{}.peers]    # \"any\", \"none\", or a list of addresses, prefixes and groups",
            system.id
        ),
    );
    for ((_, key), (title, rows)) in wanted {
        let addresses = seen.get(&format!("{}/{key}", system.id));
        let key = if key.contains([':', '.']) {
            format!("\"{key}\"")
        } else {
            key
        };
        add(text, &format!("# {title}; rows: {}", local(system, &rows)));
        match addresses {
            Some(all) => {
                let all: Vec<String> = all.iter().map(|one| format!("\"{one}\"")).collect();
                let line = format!(
                    "{key} = [{}]    # connected when this was written: complete it",
                    all.join(", ")
                );
                add(text, &line);
            }
            None => add(text, &format!("# {key} = [\"192.0.2.0/24\"]")),
        }
    }
}

fn local(system: &System, rows: &[&Row]) -> String {
    let mut ids: Vec<_> = rows.iter().map(|row| local_id(system, row)).collect();
    ids.dedup();
    ids.join(", ")
}

fn local_id<'a>(system: &System, row: &'a Row) -> &'a str {
    row.id
        .strip_prefix(&system.id)
        .and_then(|rest| rest.strip_prefix('/'))
        .unwrap_or(&row.id)
}

/// Comments longer than this go on.
const WIDTH: usize = 110;

/// One line, or for a long comment several; what the catalog says is kept within them.
pub(super) fn add(text: &mut String, line: &str) {
    let (breaks, body) = line.split_at(line.len() - line.trim_start_matches('\n').len());
    let body: String = body
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    text.push_str(breaks);
    let mut width = 0;
    for (index, word) in body.split(' ').enumerate() {
        let length = word.chars().count();
        if index == 0 {
            width = length;
        } else if width + length < WIDTH || !body.starts_with("# ") {
            text.push(' ');
            width += 1 + length;
        } else {
            text.push_str("\n#   ");
            width = 4 + length;
        }
        text.push_str(word);
    }
    text.push('\n');
}
