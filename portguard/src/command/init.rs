//! `portguard init`: a commented site file for the chosen roles, so that nobody starts from an empty page.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::PathBuf;

use super::{catalogs, print};
use portguard_policy::catalog::{Catalog, Peer, PeerClass, PortSpec, Row, System};
use portguard_policy::diagnostic::{Diagnostic, Rejected};
use portguard_policy::error::{Exit, Fault};

/// Write a commented site file for the roles of a host, or of several
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  portguard init --role thoughtspot/node > site.toml                    this machine, by its name and addresses
  portguard init --role wso2/api-manager --host am1=10.0.0.1 --host am2=10.0.0.2 > site.toml
  portguard init --host a1=10.0.0.1@interlink-asi/authenticator --host a2=10.0.0.2@interlink-asi/vault > site.toml
  portguard setup                                                       proposes roles from what listens here")]
pub struct InitArgs {
    /// Role of every host that does not name its own
    #[arg(
        long = "role",
        value_name = "SYSTEM/ROLE",
        required_unless_present = "hosts"
    )]
    roles: Vec<String>,
    /// Host of the site; may be repeated [default: this machine]
    #[arg(long = "host", value_name = "NAME=ADDRESS,...[@SYSTEM/ROLE,...]", value_parser = HostSpec::parse)]
    hosts: Vec<HostSpec>,
    /// Deployment of a system, as its document names it; may be repeated
    #[arg(long = "deployment", value_name = "SYSTEM=NAME", value_parser = deployment)]
    deployments: Vec<(String, String)>,
    /// Directory of catalog files of your own
    #[arg(long = "catalog", value_name = "DIR")]
    catalogs: Vec<PathBuf>,
    /// Write JSON: the text of the file and its hosts
    #[arg(long)]
    json: bool,
}

/// A host as it is written into the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HostSpec {
    pub(super) name: String,
    pub(super) addresses: Vec<IpAddr>,
    /// Empty = those of all.
    pub(super) roles: Vec<String>,
}

impl HostSpec {
    fn parse(text: &str) -> Result<Self, String> {
        let (rest, roles) = text.split_once('@').unwrap_or((text, ""));
        let Some((name, addresses)) = rest.split_once('=') else {
            return Err("expected NAME=ADDRESS, like `db1=10.0.0.1`".to_owned());
        };
        if name.is_empty() || name.contains(['"', '\\']) {
            return Err("expected a name before the `=`".to_owned());
        }
        let addresses: Result<Vec<IpAddr>, _> = addresses.split(',').map(str::parse).collect();
        let words = roles.split(',').filter(|role| !role.is_empty());
        Ok(Self {
            name: name.to_owned(),
            addresses: addresses
                .map_err(|_error| "expected addresses behind the `=`".to_owned())?,
            roles: words.map(str::to_owned).collect(),
        })
    }
}

fn deployment(text: &str) -> Result<(String, String), String> {
    let (system, name) = text
        .split_once('=')
        .ok_or("expected SYSTEM=NAME, like `ibm-api-connect=kubernetes`")?;
    Ok((system.to_owned(), name.to_owned()))
}

/// What the file is about.
#[derive(Debug, Clone, Default)]
pub(super) struct Draft {
    pub(super) hosts: Vec<HostSpec>,
    /// Deployment by system.
    pub(super) deployments: BTreeMap<String, String>,
    /// Who administers the hosts.
    pub(super) admins: Vec<String>,
    /// Ports that this is done by.
    pub(super) management: Vec<u16>,
}

#[derive(Debug, serde::Serialize)]
struct Answer {
    schema: u32,
    hosts: Vec<String>,
    text: String,
}

/// Prints the file.
pub fn run(args: &InitArgs) -> anyhow::Result<Exit> {
    let roles = args.roles.iter().map(String::as_str);
    let catalog = catalogs::read(roles, &args.catalogs)?;
    let mut hosts = args.hosts.clone();
    if hosts.is_empty() {
        hosts.push(super::setup::look::this_host());
    }
    for host in &mut hosts {
        if host.roles.is_empty() {
            host.roles.clone_from(&args.roles);
        }
        if host.roles.is_empty() {
            return Err(Fault::usage(format!("host `{}` has no role", host.name))
                .hint("add `--role SYSTEM/ROLE`, or write `NAME=ADDRESS@SYSTEM/ROLE`")
                .into());
        }
    }
    let draft = Draft {
        hosts,
        deployments: args.deployments.iter().cloned().collect(),
        ..Draft::default()
    };
    let text = site_file(&catalog, &draft)?;
    if args.json {
        super::print_json(&Answer {
            schema: 1,
            hosts: draft.hosts.iter().map(|host| host.name.clone()).collect(),
            text,
        })?;
    } else {
        print(|out| out.write_all(text.as_bytes()))?;
    }
    Ok(Exit::Ok)
}

/// The site file's text.
pub(super) fn site_file(catalog: &Catalog, draft: &Draft) -> Result<String, Rejected> {
    let mut systems: BTreeMap<&str, (&System, BTreeSet<&str>)> = BTreeMap::new();
    let mut faults = Vec::new();
    for name in draft.hosts.iter().flat_map(|host| &host.roles) {
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
    for (system, name) in &draft.deployments {
        let known = systems.get(system.as_str());
        if known.is_none_or(|(system, _)| !system.deployments.contains_key(name)) {
            let names = known.map_or(String::new(), |(system, _)| {
                let all: Vec<&str> = system.deployments.keys().map(String::as_str).collect();
                all.join(", ")
            });
            let message = format!("`{name}` is no deployment of `{system}`");
            let fault = Diagnostic::error("unknown-deployment", message).at("--deployment");
            faults.push(if names.is_empty() {
                fault.hint("it has none, or no host has a role of it")
            } else {
                fault.hint(format!("one of {names}"))
            });
        }
    }
    if !faults.is_empty() {
        return Err(Rejected(faults));
    }
    let mut text = head(draft);
    for (system, roles) in systems.values() {
        about(&mut text, system, roles, draft.deployments.get(&system.id));
    }
    text.push_str(
        "\n# Every host of the site: a role named as a peer is the hosts that have it.\n",
    );
    for host in &draft.hosts {
        let listed: BTreeSet<_> = host
            .roles
            .iter()
            .map(|role| format!("\"{role}\""))
            .collect();
        let listed: Vec<_> = listed.into_iter().collect();
        let addresses: Vec<_> = host
            .addresses
            .iter()
            .map(|one| format!("\"{one}\""))
            .collect();
        let _ = writeln!(text, "[[host]]\nname = \"{}\"", host.name);
        let _ = writeln!(
            text,
            "addresses = [{}]    # as its peers see it",
            addresses.join(", ")
        );
        add(&mut text, &format!("roles = [{}]", listed.join(", ")));
        text.push('\n');
    }
    Ok(text.trim_end().to_owned() + "\n")
}

fn head(draft: &Draft) -> String {
    let quoted = |words: &[String]| {
        let all: Vec<String> = words.iter().map(|word| format!("\"{word}\"")).collect();
        all.join(", ")
    };
    let (admins, note) = if draft.admins.is_empty() {
        ("\"192.0.2.0/28\"".to_owned(), "write your own")
    } else {
        (
            quoted(&draft.admins),
            "who is connected now; add the others",
        )
    };
    let ports = if draft.management.is_empty() {
        vec![22]
    } else {
        draft.management.clone()
    };
    let allow: Vec<String> = ports
        .iter()
        .map(|port| format!("tcp/{port}=admins"))
        .collect();
    format!(
        "\
# portguard site file. Read it from the top; whatever stands behind `#` is optional.
schema = 1
mode = \"audit\"                 # audit: count violations; enforce: drop them
outbound = \"audit\"             # what the host sends: off, audit or enforce
# unresolved_peers = \"refuse\"  # peers that a document names and this file does not define: refuse, any or none
# unresolved_ports = \"refuse\"  # rows without a number that this file does not give: refuse or none (closed)

[groups]
admins = [{admins}]      # {note}
users = [\"192.0.2.0/24\"]       # who uses the products; write your own

[management]                   # stays open whatever the documents say
allow = [{}]

[baseline]                     # \"any\", \"none\" or a list of peers
echo = \"any\"                   # who may ping
dhcp = \"any\"
dns = \"any\"                    # name servers that the host asks
ntp = \"any\"
",
        quoted(&allow)
    )
}

fn about(text: &mut String, system: &System, roles: &BTreeSet<&str>, deployment: Option<&String>) {
    let closure: BTreeSet<&str> = roles.iter().flat_map(|role| system.closure(role)).collect();
    let rows: Vec<&Row> = system
        .rows
        .iter()
        .filter(|row| row.inert.is_none() && closure.contains(row.role.as_str()))
        .collect();
    add(text, &format!("\n# {}", system.document));
    add(text, &format!("[systems.{}]", system.id));
    facts(text, system, &rows, deployment);
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
                "# ports.\"{}\" = \"FIRST-LAST\"    # {}; not printed, and closed without a range: {}",
                local_id(system, row),
                row.ports
                    .first()
                    .map(ToString::to_string)
                    .unwrap_or_default(),
                row.purpose
            ),
        );
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

/// One line a key: what is commented may be uncommented, all of it.
fn facts(text: &mut String, system: &System, rows: &[&Row], deployment: Option<&String>) {
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
    if conditions
        .iter()
        .any(|condition| !condition.version.is_empty())
    {
        add(text, "# version = \"1.2.3\"    # some rows depend on it");
    }
    for (key, is_on, state) in [("options", false, "off"), ("without", true, "on")] {
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
                &format!("# {key} = [\"{first}\"]    # {state} unless said: {all}"),
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
                let draft = Draft {
                    hosts: vec![HostSpec {
                        name: "host-1".to_owned(),
                        addresses: vec!["192.0.2.1".parse().unwrap()],
                        roles: vec![format!("{}/{}", system.id, role.id)],
                    }],
                    ..Draft::default()
                };
                let text = site_file(&catalog, &draft).unwrap();
                keys_collide_nowhere(&text);
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

    /// Whatever is uncommented, it is a document still.
    fn keys_collide_nowhere(text: &str) {
        let is_key = |line: &str| {
            let mut parts = line.splitn(2, " = ");
            let key = parts.next().unwrap_or_default();
            parts
                .next()
                .is_some_and(|value| value.starts_with(['"', '[', '{']))
                && !key.contains(' ')
        };
        let lines = text.lines().map(|line| match line.strip_prefix("# ") {
            Some(rest) if is_key(rest) => rest,
            _ => line,
        });
        let all: Vec<&str> = lines.collect();
        // Comments that go on behind a value stay comments: `#   `.
        let parsed = all.join("\n").parse::<toml::Table>();
        assert!(parsed.is_ok(), "{parsed:?}\n{}", all.join("\n"));
    }

    #[test]
    fn several_hosts_have_roles_of_their_own() {
        let catalog = Catalog::embedded().unwrap();
        let hosts = [
            "a1=10.0.0.1,10.0.0.2@thoughtspot/node",
            "a2=fd00::2@nexthink/engine",
        ];
        let draft = Draft {
            hosts: hosts.map(|text| HostSpec::parse(text).unwrap()).to_vec(),
            ..Draft::default()
        };
        let text = site_file(&catalog, &draft).unwrap();
        assert_eq!(text.matches("[[host]]").count(), 2);
        assert!(
            text.contains("addresses = [\"10.0.0.1\", \"10.0.0.2\"]"),
            "{text}"
        );
        assert!(text.contains("roles = [\"nexthink/engine\"]"), "{text}");
        for wrong in ["a1", "=10.0.0.1", "a1=x"] {
            assert!(HostSpec::parse(wrong).is_err(), "{wrong}");
        }
        let wrong = Draft {
            deployments: [("thoughtspot".to_owned(), "nowhere".to_owned())].into(),
            ..draft
        };
        assert!(site_file(&catalog, &wrong).is_err());
    }
}
