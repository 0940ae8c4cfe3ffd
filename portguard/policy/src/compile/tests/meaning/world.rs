//! An inventory with every role twice and distinct addresses for everybody, and what each host of it opens.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "all other kinds are alike here"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use super::table::{End, Port, Table};
use crate::catalog::{Catalog, Peer, PeerClass, PortSpec, System};
use crate::compile::{Inputs, Selection, compile};
use crate::policy::{GrantKind, Outbound, Peers};
use crate::site::{
    ChangedPorts, Chosen, Host, Place, Ports, Site, SystemSite, Term, Terms, UnresolvedPorts, Who,
};

/// Row, host, direction, transport, first and last port, the other end.
pub(super) type Flow = (String, String, &'static str, String, u16, u16, String);

/// In place of every number that a document does not print.
const GIVEN: u16 = 62_000;
/// In place of a number that the site changes.
const CHANGED: u16 = 61_000;
/// Of the second host of a role, in systems whose ports move.
const OFFSET: u16 = 100;
/// Ranges of more ports are compared as ranges.
const FEW: u16 = 16;
/// Who is meant by the class whose members are known.
const MEMBERS: &str = "?cluster-members";

/// What a site says of the system.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Facts {
    pub(super) deployment: Option<String>,
    pub(super) version: Vec<u32>,
    /// Those that are on.
    pub(super) options: BTreeSet<String>,
    pub(super) choices: BTreeMap<String, String>,
    /// The site says who the members of clusters are, and gives no numbers.
    pub(super) members: bool,
}

impl Facts {
    pub(super) fn base(system: &System, on: bool) -> Self {
        let values = |choice: &crate::catalog::Choice| {
            let mut all = choice.values.keys();
            if on { all.next() } else { all.next_back() }.cloned()
        };
        let choices = system.choices.iter();
        let mut deployments = system.deployments.keys();
        Self {
            deployment: if on {
                deployments.next()
            } else {
                deployments.next_back()
            }
            .cloned(),
            version: vec![if on { 6 } else { 1 }, 30],
            options: system.options.keys().filter(|_| on).cloned().collect(),
            choices: choices
                .filter_map(|(id, choice)| Some((id.clone(), values(choice)?)))
                .collect(),
            members: !on,
        }
    }
}

/// A system, its table, and who is who.
pub(super) struct World {
    pub(super) system: System,
    pub(super) table: Table,
    site: Site,
    names: BTreeMap<String, Vec<IpAddr>>,
    /// Name of an end outside to its address.
    outside: BTreeMap<String, String>,
}

/// A row's id within its system, the same for all its ends.
pub(super) fn key(system: &System, id: &str) -> String {
    let local = id.strip_prefix(&format!("{}/", system.id)).unwrap();
    local.split('/').next().unwrap().to_owned()
}

fn these(net: &str) -> Who {
    let net: IpNet = net.parse().unwrap();
    Who::These(Terms(vec![(Term::Prefix(net), Place::default())]))
}

impl World {
    pub(super) fn new(system: System, table: Table) -> Self {
        let place = Place::default();
        let mut site = Site {
            outbound: Outbound::Audit,
            ..Site::default()
        };
        let moves = system.roles.values().any(|role| role.has_offset);
        for (role, net) in system.host_roles().zip(1_u8..) {
            let id = format!("{}/{}", system.id, role.id);
            for last in [1_u8, 2] {
                let mut host = Host {
                    name: format!("{}-{last}", role.id),
                    addresses: vec![(IpAddr::from([10, net, 0, last]), place)],
                    roles: vec![(id.clone(), place)],
                    ..Host::default()
                };
                if moves && last == 2 {
                    host.offsets.insert(id.clone(), (vec![OFFSET], place));
                }
                site.hosts.push(host);
            }
        }
        let mut said = SystemSite::default();
        let mut outside = BTreeMap::from([("multicast".to_owned(), "multicast".to_owned())]);
        for (group, last) in system.groups.keys().zip(1..) {
            let net = format!("198.18.0.{last}/32");
            said.peers.insert(group.clone(), (these(&net), place));
            outside.insert(format!("@{group}"), net);
        }
        for (&class, last) in PeerClass::ALL.iter().zip(1..) {
            let net = format!("198.18.1.{last}/32");
            said.unprinted_classes.insert(class, (these(&net), place));
            outside.insert(format!("?{}", class.as_str()), net);
        }
        let mut names = BTreeMap::new();
        let peers: BTreeSet<_> = system.rows.iter().flat_map(|row| &row.peers).collect();
        for (peer, last) in peers.into_iter().zip(1_u8..) {
            match peer {
                Peer::Domain(name) => {
                    names.insert(name.clone(), vec![IpAddr::from([198, 18, 2, last])]);
                    outside.insert(name.clone(), format!("198.18.2.{last}/32"));
                }
                Peer::Asn(number) => {
                    let net = format!("198.18.3.{last}/32");
                    said.peers
                        .insert(format!("asn:{number}"), (these(&net), place));
                    outside.insert(format!("AS{number}"), net);
                }
                _ => {}
            }
        }
        let all = [Ports {
            first: GIVEN,
            last: GIVEN,
        }];
        for row in &system.rows {
            if row.ports.iter().any(PortSpec::is_open) {
                let ports = ChangedPorts::All(all.to_vec());
                said.ports.insert(key(&system, &row.id), (ports, place));
            }
        }
        site.systems.insert(system.id.clone(), said);
        Self {
            system,
            table,
            site,
            names,
            outside,
        }
    }

    /// What the table says; `row`: of one row only.
    pub(super) fn expected(&self, facts: &Facts, row: Option<&str>) -> BTreeSet<Flow> {
        self.said(facts, row, &|_, _, _| false)
    }

    /// As [`Self::expected`]; `is_moved` tells servers whose port has the changed number, by row, server and port.
    fn said(
        &self,
        facts: &Facts,
        row: Option<&str>,
        is_moved: &dyn Fn(&str, &str, &Port) -> bool,
    ) -> BTreeSet<Flow> {
        let mut flows = BTreeSet::new();
        for line in &self.table.lines {
            if row.is_some_and(|row| row != line.row) || !line.holds(facts) {
                continue;
            }
            let ends = |ends: &[End]| -> Vec<End> {
                let mut ends = ends.to_vec();
                for end in &mut ends {
                    if end.name == MEMBERS && !facts.members {
                        "same".clone_into(&mut end.name);
                    }
                }
                ends
            };
            let (from, to) = (ends(&line.from), ends(&line.to));
            let is_given = |port: &&Port| port.range.is_some() || !facts.members;
            let ports: Vec<&Port> = line.ports.iter().filter(is_given).collect();
            self.connect(&line.row, &from, &to, &ports, is_moved, &mut flows);
            if line.both {
                self.connect(&line.row, &to, &from, &ports, is_moved, &mut flows);
            }
        }
        flows
    }

    /// Rows of one number that the site can change, by their ids within the system.
    pub(super) fn changeable(&self) -> BTreeSet<String> {
        let is_one = |row: &&crate::catalog::Row| {
            !row.implied && row.customisable && row.inert.is_none() && row.ports.len() == 1
        };
        let rows = self.system.rows.iter().filter(is_one);
        let rows = rows.filter(|row| !row.ports.iter().any(PortSpec::is_open));
        rows.map(|row| key(&self.system, &row.id)).collect()
    }

    /// What the table says where the site changes a row's number, and what the compiler makes of it.
    pub(super) fn changed(&self, facts: &Facts, row: &str) -> (BTreeSet<Flow>, BTreeSet<Flow>) {
        // Servers of the row, with the numbers that they have by the table.
        let servers = std::cell::RefCell::new(BTreeSet::new());
        self.said(facts, Some(row), &|_, server, port| {
            let server = (server.to_owned(), port.transport.clone(), port.range);
            servers.borrow_mut().insert(server);
            false
        });
        let servers = servers.into_inner();
        let listener = self.table.listener(row);
        let is_moved = |other: &str, server: &str, port: &Port| {
            let server = (server.to_owned(), port.transport.clone(), port.range);
            // All of a listener that has a name of its own, or what has the same number at the same servers.
            let is_there = listener.is_some() || servers.contains(&server);
            self.table.listener(other) == listener && is_there
        };
        let expected = self.said(facts, None, &is_moved);
        (expected, self.compiled(&self.system, facts, Some(row)))
    }

    /// From each to each, on the ports of whoever listens.
    fn connect(
        &self,
        row: &str,
        from: &[End],
        to: &[End],
        ports: &[&Port],
        is_moved: &dyn Fn(&str, &str, &Port) -> bool,
        flows: &mut BTreeSet<Flow>,
    ) {
        let pairs = from
            .iter()
            .flat_map(|from| to.iter().map(move |to| (from, to)));
        for (client_end, server_end) in pairs {
            let is_same = client_end.name == "same" || server_end.name == "same";
            for client in self.who(client_end, server_end) {
                for server in self.who(server_end, client_end) {
                    if client == server || (is_same && role_of(&client) != role_of(&server)) {
                        continue;
                    }
                    for port in ports {
                        let (first, last) = if is_moved(row, &server, port) {
                            (CHANGED, CHANGED)
                        } else {
                            self.numbers(port, &server, &client)
                        };
                        for (end, direction, own, far) in [
                            (client_end, "out", &client, &server),
                            (server_end, "in", &server, &client),
                        ] {
                            if self.site.host(own).is_some() && !end.elsewhere {
                                flows.insert((
                                    row.to_owned(),
                                    own.clone(),
                                    direction,
                                    port.transport.clone(),
                                    first,
                                    last,
                                    self.address(far),
                                ));
                            }
                        }
                    }
                }
            }
        }
    }

    /// Hosts of an end, or the name of who is outside.
    fn who(&self, end: &End, other: &End) -> Vec<String> {
        let name = if end.name == "same" {
            &other.name
        } else {
            &end.name
        };
        let set = self.table.sets.get(name);
        let is_role = |role: &crate::catalog::Role| !role.is_abstract;
        let roles = match set {
            Some(set) => set.clone(),
            None if self.system.roles.get(name).is_some_and(is_role) => {
                BTreeSet::from([name.clone()])
            }
            None => return vec![name.clone()],
        };
        let hosts = roles.iter();
        hosts
            .flat_map(|role| [format!("{role}-1"), format!("{role}-2")])
            .collect()
    }

    fn numbers(&self, port: &Port, server: &str, client: &str) -> (u16, u16) {
        let (first, last) = port.range.unwrap_or((GIVEN, GIVEN));
        // Of a server outside nothing is known but the host's own offset.
        let at = if self.site.host(server).is_some() {
            server
        } else {
            client
        };
        let moved = if port.offset && at.ends_with("-2") {
            OFFSET
        } else {
            0
        };
        (first + moved, last + moved)
    }

    fn address(&self, name: &str) -> String {
        match self.site.host(name) {
            Some(host) => format!("{}/32", host.addresses[0].0),
            None => match self.outside.get(name) {
                Some(net) => net.clone(),
                None if name.contains('/') => name.to_owned(),
                None => {
                    let address: IpAddr = name.parse().unwrap_or_else(|_| panic!("who is {name}?"));
                    IpNet::from(address).to_string()
                }
            },
        }
    }

    /// What the compiler makes of a catalog, for every host.
    pub(super) fn actual(&self, system: &System, facts: &Facts) -> BTreeSet<Flow> {
        self.compiled(system, facts, None)
    }

    /// As [`Self::actual`]; `changed` is a row of which the site changes the number.
    fn compiled(&self, system: &System, facts: &Facts, changed: Option<&str>) -> BTreeSet<Flow> {
        let place = Place::default();
        let mut site = self.site.clone();
        let said = site.systems.get_mut(&system.id).unwrap();
        said.deployment = facts.deployment.clone().map(|name| (name, place));
        said.version = Some((facts.version.clone(), place));
        for option in system.options.keys() {
            let list = if facts.options.contains(option) {
                &mut said.options
            } else {
                &mut said.without
            };
            list.insert(option.clone(), place);
        }
        if facts.members {
            // Nor does this site give numbers: rows without one open nothing.
            said.ports.clear();
            site.unresolved_ports = Some(UnresolvedPorts::None);
        } else {
            said.unprinted_classes.remove(&PeerClass::ClusterMembers);
        }
        if let Some(row) = changed {
            let number = vec![Ports {
                first: CHANGED,
                last: CHANGED,
            }];
            said.ports
                .insert(row.to_owned(), (ChangedPorts::All(number), place));
        }
        for (choice, value) in &facts.choices {
            let chosen = Chosen {
                values: vec![value.clone()],
                ..Chosen::default()
            };
            said.choices.insert(choice.clone(), chosen);
        }
        let catalog = Catalog {
            systems: [(system.id.clone(), system.clone())].into(),
        };
        let files = BTreeMap::new();
        let mut flows = BTreeSet::new();
        for host in &site.hosts {
            let policy = compile(&Inputs {
                catalog: &catalog,
                site: &site,
                host: Selection::Name(host.name.clone()),
                interface: None,
                local_addresses: &[],
                hostname: None,
                resolved: &self.names,
                files: &files,
                today: None,
            })
            .policy;
            for (direction, grants) in [("in", &policy.inbound), ("out", &policy.outbound)] {
                for grant in grants.iter().filter(|g| g.kind == GrantKind::Documented) {
                    let far = match grant.peers {
                        Peers::Any => vec!["any".to_owned()],
                        Peers::Set(index) => {
                            let set = &policy.sets[index as usize];
                            set.prefixes.iter().flat_map(|net| singles(*net)).collect()
                        }
                    };
                    let ports = if grant.last - grant.first < FEW {
                        (grant.first..=grant.last)
                            .map(|port| (port, port))
                            .collect()
                    } else {
                        vec![(grant.first, grant.last)]
                    };
                    for (far, (first, last)) in far
                        .iter()
                        .flat_map(|far| ports.iter().map(move |ports| (far, ports)))
                    {
                        let row = key(system, &grant.row);
                        let transport = grant.transport.to_string();
                        flows.insert((
                            row,
                            host.name.clone(),
                            direction,
                            transport,
                            *first,
                            *last,
                            far.clone(),
                        ));
                    }
                }
            }
        }
        flows
    }
}

/// `bps` of `bps-2`.
fn role_of(host: &str) -> &str {
    host.rsplit_once('-').map_or(host, |(role, _)| role)
}

/// Neighbours are aggregated: small prefixes as the addresses that they are of.
fn singles(net: IpNet) -> Vec<String> {
    if net.addr().is_multicast() {
        return vec!["multicast".to_owned()];
    }
    if net.max_prefix_len() - net.prefix_len() > 6 {
        return vec![net.to_string()];
    }
    let subnets = net.subnets(net.max_prefix_len()).unwrap();
    subnets.map(|net| net.to_string()).collect()
}
