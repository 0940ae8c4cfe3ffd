//! `portguard init`: a commented site file for the chosen roles, so that nobody starts from an empty page.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use super::print;
use portguard_policy::catalog::{Catalog, Peer, PeerClass, PortSpec, Row, System};
use portguard_policy::diagnostic::Rejected;
use portguard_policy::error::Exit;

/// Write a commented site file for the roles of a host
#[derive(Debug, clap::Args)]
pub struct InitArgs {
    /// Role that a host of the site has
    #[arg(long = "role", value_name = "SYSTEM/ROLE", required = true)]
    roles: Vec<String>,
    /// Directory of catalog files of your own
    #[arg(long = "catalog", value_name = "DIR")]
    catalogs: Vec<PathBuf>,
}

/// Prints the file.
pub fn run(args: &InitArgs) -> anyhow::Result<Exit> {
    let mut catalog = Catalog::embedded()?;
    for dir in &args.catalogs {
        catalog = catalog.with_directory(dir)?;
    }
    let text = site_file(&catalog, &args.roles)?;
    print(|out| out.write_all(text.as_bytes()))?;
    Ok(Exit::Ok)
}

/// The site file's text.
pub fn site_file(catalog: &Catalog, roles: &[String]) -> Result<String, Rejected> {
    let mut systems: BTreeMap<&str, (&System, BTreeSet<&str>)> = BTreeMap::new();
    let mut faults = Vec::new();
    for name in roles {
        match catalog.role(name) {
            Ok((system, role)) => {
                systems
                    .entry(&system.id)
                    .or_insert((system, BTreeSet::new()))
                    .1
                    .insert(&role.id);
            }
            Err(diagnostic) => faults.push(diagnostic.at("--role")),
        }
    }
    if !faults.is_empty() {
        return Err(Rejected(faults));
    }
    let mut text = HEAD.to_owned();
    for (system, roles) in systems.values() {
        about(&mut text, system, roles);
    }
    let listed: BTreeSet<_> = roles.iter().map(|role| format!("\"{role}\"")).collect();
    let listed: Vec<_> = listed.into_iter().collect();
    text.push_str(
        "\n# Every host of the site: a role named as a peer is the hosts that have it.\n[[host]]\n",
    );
    text.push_str(
        "name = \"host-1\"\naddresses = [\"192.0.2.1\"]    # as its peers see it; write your own\n",
    );
    add(&mut text, &format!("roles = [{}]", listed.join(", ")));
    Ok(text)
}

const HEAD: &str = "\
# portguard site file. Read it from the top; whatever stands behind `#` is optional.
schema = 1
mode = \"audit\"                 # audit: count violations; enforce: drop them
outbound = \"audit\"             # what the host sends: off, audit or enforce
# unresolved_peers = \"refuse\"  # peers that a document names and this file does not define: refuse, any or none
# unresolved_ports = \"refuse\"  # rows without a number that this file does not give: refuse or none (closed)

[groups]
admins = [\"192.0.2.0/28\"]      # write your own
users = [\"192.0.2.0/24\"]       # who uses the products

[management]                   # stays open whatever the documents say
allow = [\"tcp/22=admins\"]

[baseline]                     # \"any\", \"none\" or a list of peers
echo = \"any\"                   # who may ping
dhcp = \"any\"
dns = \"any\"                    # name servers that the host asks
ntp = \"any\"
";

fn about(text: &mut String, system: &System, roles: &BTreeSet<&str>) {
    let closure: BTreeSet<&str> = roles.iter().flat_map(|role| system.closure(role)).collect();
    let rows: Vec<&Row> = system
        .rows
        .iter()
        .filter(|row| row.inert.is_none() && closure.contains(row.role.as_str()))
        .collect();
    add(text, &format!("\n# {}", system.document));
    add(text, &format!("[systems.{}]", system.id));
    facts(text, system, &rows);
    unprinted(text, system, &rows);
    let changeable: Vec<_> = rows
        .iter()
        .copied()
        .filter(|row| row.customisable && !row.ports.iter().any(PortSpec::is_open))
        .collect();
    let open = |row: &&Row| !row.implied && row.ports.iter().any(PortSpec::is_open);
    let dynamic: Vec<_> = rows.iter().copied().filter(open).collect();
    if !changeable.is_empty() || !dynamic.is_empty() {
        add(text, &format!("\n# [systems.{}.ports]", system.id));
        if !changeable.is_empty() {
            add(
                text,
                &format!(
                    "# The document lets these be changed: {}",
                    local(system, &changeable)
                ),
            );
        }
        for row in &dynamic {
            add(
                text,
                &format!(
                    "# \"{}\" = \"FIRST-LAST\"    # {}; not printed, and closed without a range: {}",
                    local_id(system, row),
                    row.ports
                        .first()
                        .map(ToString::to_string)
                        .unwrap_or_default(),
                    row.purpose
                ),
            );
        }
    }
    peers(text, system, &rows);
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
    for class in PeerClass::ALL {
        let lacking = of(Some(class));
        if lacking.is_empty() {
            continue;
        }
        let rows = local(system, &lacking);
        add(
            text,
            &format!("# Not printed who is meant, {}: {rows}", class.title()),
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

fn facts(text: &mut String, system: &System, rows: &[&Row]) {
    let conditions: Vec<_> = rows
        .iter()
        .filter_map(|row| row.condition.as_ref())
        .collect();
    if conditions
        .iter()
        .any(|condition| !condition.deployments.is_empty())
    {
        for (id, title) in &system.deployments {
            add(text, &format!("# deployment = \"{id}\"    # {title}"));
        }
    }
    if conditions
        .iter()
        .any(|condition| !condition.version.is_empty())
    {
        add(text, "# version = \"1.2.3\"    # some rows depend on it");
    }
    for (id, option) in &system.options {
        if conditions
            .iter()
            .any(|condition| condition.options.contains(id) || condition.without.contains(id))
        {
            let (key, state) = if option.default {
                ("without", "on")
            } else {
                ("options", "off")
            };
            add(
                text,
                &format!(
                    "# {key} = [\"{id}\"]    # {}: {state} unless said",
                    option.title
                ),
            );
        }
    }
    for (id, choice) in &system.choices {
        let asked = conditions
            .iter()
            .any(|condition| condition.choices.contains_key(id));
        if asked || rows.iter().any(|row| row.pick.as_ref() == Some(id)) {
            for (value, title) in &choice.values {
                add(
                    text,
                    &format!(
                        "# choices.{id} = \"{value}\"    # {}: {title}",
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

/// Each peer that the site has to give, with the rows that need it.
fn peers(text: &mut String, system: &System, rows: &[&Row]) {
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
                    "multicast groups that the role sends to; any, unless given here".to_owned(),
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
        let key = if key.contains([':', '.']) {
            format!("\"{key}\"")
        } else {
            key
        };
        add(text, &format!("# {title}; rows: {}", local(system, &rows)));
        add(text, &format!("# {key} = [\"192.0.2.0/24\"]"));
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
fn add(text: &mut String, line: &str) {
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use portguard_policy::compile::{Inputs, Selection, compile};
    use portguard_policy::diagnostic::Level;
    use portguard_policy::site::Site;

    fn codes(catalog: &Catalog, text: &str) -> Vec<(Level, &'static str, String)> {
        let site =
            Site::parse("init.toml", text.as_bytes()).unwrap_or_else(|e| panic!("{e}\n{text}"));
        let (resolved, files) = (BTreeMap::new(), BTreeMap::new());
        let compiled = compile(&Inputs {
            catalog,
            site: &site,
            host: Selection::Name("host-1".to_owned()),
            interface: None,
            local_addresses: &[],
            hostname: None,
            resolved: &resolved,
            files: &files,
            today: None,
        });
        compiled
            .diagnostics
            .into_iter()
            .map(|d| (d.level, d.code, d.message))
            .collect()
    }

    /// The file loads as it is; with its example peers uncommented nothing is unresolved.
    #[test]
    fn the_file_of_every_role_is_a_site_and_lists_every_peer() {
        let catalog = Catalog::embedded().unwrap();
        for system in catalog.systems.values() {
            for role in system.host_roles() {
                let text = site_file(&catalog, &[format!("{}/{}", system.id, role.id)]).unwrap();
                let errors: Vec<_> = codes(&catalog, &text)
                    .into_iter()
                    .filter(|(level, ..)| *level == Level::Error)
                    .collect();
                assert!(errors.is_empty(), "{errors:?}\n{text}");
                let uncomment = |line: &str| match line.strip_prefix("# ") {
                    Some(rest)
                        if rest.ends_with("= [\"192.0.2.0/24\"]")
                            || rest.starts_with("unprinted_peers.") =>
                    {
                        rest.to_owned()
                    }
                    _ => line.to_owned(),
                };
                let full: Vec<String> = text.lines().map(uncomment).collect();
                let left: Vec<_> = codes(&catalog, &full.join("\n"))
                    .into_iter()
                    .filter(|(_, code, _)| {
                        ["unresolved-peer", "unprinted-peers", "domain-not-asked"].contains(code)
                    })
                    .collect();
                assert!(left.is_empty(), "{left:?}\n{text}");
            }
        }
    }
}
