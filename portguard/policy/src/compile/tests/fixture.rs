//! A small catalog built by hand.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::catalog::{
    Catalog, Choice, Citation, Condition, Direction, Inert, Peer, PortSpec, Role, Row, System,
    SystemOption, Transport, VersionBound,
};
use crate::compile::{Inputs, Selection, compile};
use crate::policy::{Compiled, Grant, Peers};
use crate::site::Site;

/// A system with nothing in it.
pub(in crate::compile) fn empty_system(id: &str) -> System {
    System {
        id: id.to_owned(),
        name: id.to_owned(),
        document: format!("{id}: ports"),
        source: "fixture".to_owned(),
        read: "2026-11-21".to_owned(),
        deployments: BTreeMap::new(),
        options: BTreeMap::new(),
        choices: BTreeMap::new(),
        groups: BTreeMap::new(),
        roles: BTreeMap::new(),
        conflicts: Vec::new(),
        rows: Vec::new(),
    }
}

/// A role; `includes` are ids of the same system.
fn role(system: &mut System, id: &str, includes: &[&str]) {
    let role = Role {
        id: id.to_owned(),
        name: id.to_owned(),
        includes: includes.iter().map(|id| (*id).to_owned()).collect(),
        is_abstract: id.starts_with("abstract"),
        has_offset: id.starts_with("server"),
        beside: Vec::new(),
        built_in_offset: 0,
    };
    system.roles.insert(id.to_owned(), role);
}

/// A row that always holds.
pub(in crate::compile) fn row(
    system: &str,
    id: &str,
    role: &str,
    direction: Direction,
    ports: &[PortSpec],
    peers: &[Peer],
) -> Row {
    Row {
        id: format!("{system}/{id}"),
        role: role.to_owned(),
        direction,
        transports: vec![Transport::Tcp],
        direction_printed: true,
        transport_printed: true,
        application: None,
        ports: ports.to_vec(),
        ports_from: None,
        pick: None,
        offset: false,
        listener: None,
        peers: peers.to_vec(),
        other_roles_only: false,
        class: None,
        condition: None,
        customisable: false,
        customisable_in: Vec::new(),
        purpose: format!("purpose of {id}"),
        citation: Citation {
            section: "S".to_owned(),
            row: id.to_owned(),
        },
        notes: Vec::new(),
        inert: None,
        implied: false,
        location: format!("{system}.toml:1"),
    }
}

/// One port.
pub(in crate::compile) fn port(number: u16) -> PortSpec {
    PortSpec::Range(number, number)
}

/// System `acme`: one row of each shape.
#[expect(clippy::too_many_lines, reason = "a table")]
pub(in crate::compile) fn catalog() -> Catalog {
    let mut system = empty_system("acme");
    system
        .deployments
        .insert("clustered".to_owned(), "several".to_owned());
    system
        .deployments
        .insert("standalone".to_owned(), "one".to_owned());
    system.options.insert(
        "jmx".to_owned(),
        SystemOption {
            title: "JMX".to_owned(),
            default: true,
            required: Vec::new(),
        },
    );
    system.choices.insert(
        "mail".to_owned(),
        Choice {
            title: "mail relay".to_owned(),
            values: [("25", "plain"), ("587", "secure")]
                .map(|(k, v)| (k.to_owned(), v.to_owned()))
                .into(),
        },
    );
    system
        .groups
        .insert("support".to_owned(), "the support desk".to_owned());
    role(&mut system, "abstract-base", &[]);
    role(&mut system, "node", &["abstract-base"]);
    role(&mut system, "worker", &["abstract-base"]);
    role(&mut system, "all", &["node", "worker"]);
    role(&mut system, "server-a", &[]);
    role(&mut system, "server-b", &[]);
    let group = Peer::Group("support".to_owned());
    let mut rows = vec![
        row(
            "acme",
            "base",
            "abstract-base",
            Direction::In,
            &[port(100)],
            &[Peer::SameRole],
        ),
        row(
            "acme",
            "cluster",
            "node",
            Direction::Both,
            &[port(2100), PortSpec::Range(2200, 2202)],
            &[Peer::SameRole],
        ),
        row(
            "acme",
            "from-worker",
            "node",
            Direction::In,
            &[port(300)],
            &[Peer::Role("worker".to_owned())],
        ),
        row(
            "acme",
            "desk",
            "node",
            Direction::In,
            &[port(400)],
            &[group],
        ),
        row(
            "acme",
            "blank",
            "node",
            Direction::In,
            &[port(500)],
            &[Peer::Unprinted],
        ),
        row(
            "acme",
            "self",
            "node",
            Direction::In,
            &[port(600)],
            &[Peer::Itself],
        ),
        row(
            "acme",
            "dyn",
            "node",
            Direction::In,
            &[PortSpec::Dynamic],
            &[Peer::SameRole],
        ),
        row(
            "acme",
            "ipmi",
            "node",
            Direction::In,
            &[port(623)],
            &[Peer::Unprinted],
        ),
        row(
            "acme",
            "only-clustered",
            "node",
            Direction::In,
            &[port(700)],
            &[Peer::SameRole],
        ),
        row(
            "acme",
            "new",
            "node",
            Direction::In,
            &[port(800)],
            &[Peer::SameRole],
        ),
        row(
            "acme",
            "jmx",
            "node",
            Direction::In,
            &[port(900)],
            &[Peer::SameRole],
        ),
        row(
            "acme",
            "relay",
            "node",
            Direction::Out,
            &[port(25), port(587)],
            &[Peer::Prefix("192.0.2.25/32".parse().unwrap())],
        ),
        row(
            "acme",
            "names",
            "node",
            Direction::Out,
            &[port(443)],
            &[Peer::Domain("Updates.example".to_owned())],
        ),
        row(
            "acme",
            "console/in",
            "server-a",
            Direction::In,
            &[port(9443)],
            &[Peer::Role("server-b".to_owned())],
        ),
        row(
            "acme",
            "console/out",
            "server-b",
            Direction::Out,
            &[port(9443)],
            &[Peer::Role("server-a".to_owned())],
        ),
        row(
            "acme",
            "data",
            "server-b",
            Direction::Out,
            &[PortSpec::Offset {
                base: 7711,
                role: "server-a".to_owned(),
            }],
            &[Peer::Role("server-a".to_owned())],
        ),
    ];
    for row in &mut rows {
        let id = row.id.trim_start_matches("acme/");
        row.inert = (id == "ipmi").then_some(Inert::OutOfBand);
        row.offset = id.starts_with("console");
        row.customisable = id == "cluster";
        row.pick = (id == "relay").then(|| "mail".to_owned());
        let mut condition = Condition::default();
        match id {
            "only-clustered" => condition.deployments.push("clustered".to_owned()),
            "new" => condition.version.push(VersionBound {
                operator: ">=".to_owned(),
                version: vec![4, 5],
            }),
            "jmx" => condition.options.push("jmx".to_owned()),
            _ => continue,
        }
        row.condition = Some(condition);
    }
    system.rows = rows;
    Catalog {
        systems: [("acme".to_owned(), system)].into(),
    }
}

/// A site of `acme` that leaves nothing unsaid.
pub(in crate::compile) const SITE: &str = r#"schema = 1
unresolved_ports = "none"
mode = "enforce"
unprinted_peers = ["admins"]

[groups]
admins = ["10.9.0.0/24", "ops"]
ops = ["10.8.0.1"]

[management]
allow = ["tcp/22=admins"]

[systems.acme]
deployment = "clustered"
version = "4.5.1"
choices = { mail = "587" }
peers = { support = ["203.0.113.0/24"] }

[[host]]
name = "node1"
addresses = ["10.0.0.1", "fd00::1"]
roles = ["acme/node"]

[[host]]
name = "node2"
addresses = ["10.0.0.2"]
roles = ["acme/node"]

[[host]]
name = "all1"
addresses = ["10.0.0.3"]
roles = ["acme/all"]

[[host]]
name = "a1"
addresses = ["10.0.1.1"]
roles = ["acme/server-a"]
offsets = { "acme/server-a" = 2 }

[[host]]
name = "a2"
addresses = ["10.0.1.2"]
roles = ["acme/server-a"]

[[host]]
name = "b1"
addresses = ["10.0.2.1"]
roles = ["acme/server-b"]
"#;

/// Compiles a site's text for one host.
pub(in crate::compile) fn compiled(site: &str, host: &str) -> Compiled {
    let site = Site::parse("site.toml", site.as_bytes()).unwrap();
    compiled_site(&catalog(), &site, Selection::Name(host.to_owned()))
}

/// A host of a site: no interface, nothing known of the machine, no names, files or day.
pub(crate) fn inputs<'a>(catalog: &'a Catalog, site: &'a Site, host: Selection) -> Inputs<'a> {
    static RESOLVED: BTreeMap<String, Vec<IpAddr>> = BTreeMap::new();
    static FILES: BTreeMap<String, Vec<IpNet>> = BTreeMap::new();
    Inputs {
        catalog,
        site,
        host,
        interface: None,
        local_addresses: &[],
        hostname: None,
        resolved: &RESOLVED,
        files: &FILES,
        today: None,
    }
}

/// Compiles with `updates.example` resolved.
pub(in crate::compile) fn compiled_site(
    catalog: &Catalog,
    site: &Site,
    host: Selection,
) -> Compiled {
    let resolved = [(
        "updates.example".to_owned(),
        vec!["198.51.100.7".parse().unwrap()],
    )]
    .into();
    compile(&Inputs {
        resolved: &resolved,
        today: Some("2026-11-21"),
        ..inputs(catalog, site, host)
    })
}

/// `inbound tcp/400 <- 203.0.113.0/24 (acme/desk)`, one line a grant.
pub(in crate::compile) fn lines(compiled: &Compiled) -> Vec<String> {
    let policy = &compiled.policy;
    let side = |grants: &[Grant], arrow: &str| -> Vec<String> {
        let line = |grant: &Grant| {
            let peers = match grant.peers {
                Peers::Any => "any".to_owned(),
                Peers::Set(index) => {
                    let nets = policy.sets[index as usize].prefixes.iter();
                    nets.map(ToString::to_string).collect::<Vec<_>>().join(" ")
                }
            };
            let ports = if grant.first == grant.last {
                grant.first.to_string()
            } else {
                format!("{}-{}", grant.first, grant.last)
            };
            format!("{} {}/{ports} {arrow} {peers}", grant.row, grant.transport)
        };
        grants.iter().map(line).collect()
    };
    [side(&policy.inbound, "<-"), side(&policy.outbound, "->")].concat()
}

/// Diagnostics as a reader sees them.
pub(in crate::compile) fn messages(compiled: &Compiled) -> Vec<String> {
    compiled
        .diagnostics
        .iter()
        .map(ToString::to_string)
        .collect()
}

/// `ROW: REASON` of whatever is left out.
pub(in crate::compile) fn omitted(compiled: &Compiled) -> Vec<String> {
    compiled
        .policy
        .omitted
        .iter()
        .map(|omitted| format!("{}: {}", omitted.row, omitted.reason))
        .collect()
}
