//! The site file of a system, and what `check --json` makes of it.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "all other kinds are alike here"
)]

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Mutex;

use anyhow::{Context as _, Result, ensure};
use ipnet::IpNet;
use portguard_harness::net::{Host, unique_name};
use portguard_policy::catalog::{Direction, Peer, PeerClass, PortSpec, Row, System};
use serde_json::Value;

use super::network::Network;
use super::{Ask, ROGUE};

/// In place of every number that the document leaves to the site.
const GIVEN: u16 = 62_000;
/// Of the second server of a role, where servers have one.
const OFFSET: u16 = 100;
/// Ranges of more ports are tried at both ends.
const FEW: u16 = 16;
/// Of all ports that other hosts have, those that are tried as well.
const FOREIGN: usize = 5;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Transport {
    Tcp,
    Udp,
}

/// A host of the site, or who is outside and plays everybody else.
pub(super) struct Member {
    pub(super) name: String,
    /// `None`: outside, without a guard.
    pub(super) cluster: Option<char>,
    pub(super) host: Host,
    pub(super) interface: String,
    pub(super) address: IpAddr,
    /// With those that documents print, which are outside.
    pub(super) addresses: Vec<IpAddr>,
    pub(super) matrix: Matrix,
    /// What is tried of it.
    pub(super) ports: BTreeSet<(Transport, u16)>,
}

impl Member {
    pub(super) fn is_outside(&self) -> bool {
        self.cluster.is_none()
    }
}

pub(super) struct Site {
    pub(super) members: Vec<Member>,
    file: PathBuf,
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.file);
    }
}

impl Site {
    /// Hosts that a system takes.
    pub(super) fn size(system: &System) -> usize {
        1 + system.host_roles().count() * 4
    }

    pub(super) fn new(
        system: &System,
        deployment: Option<&str>,
        network: &Network,
    ) -> Result<Self> {
        let mut links = network.links.iter();
        let outside = &links.next().context("a network without hosts")?.left;
        let mut members = vec![Member {
            name: "outside".to_owned(),
            cluster: None,
            host: outside.host.clone(),
            interface: outside.name.clone(),
            address: outside.v4().into(),
            addresses: vec![outside.v4().into()],
            matrix: Matrix::default(),
            ports: BTreeSet::new(),
        }];
        let router = &network
            .links
            .first()
            .context("a network without hosts")?
            .right;
        for net in printed(system) {
            let address = net.hosts().next().context("an empty prefix")?;
            members[0].addresses.push(address);
            // Who did so before is the same.
            let _ = outside.add_address(address.into());
            let _ = router.add_route(address.into(), Some(outside.v4().into()));
        }
        let mut text = head(system, deployment, outside.v4());
        let roles = system
            .host_roles()
            .flat_map(|role| ['a', 'b'].map(|cluster| (role, cluster)));
        for (role, cluster) in roles {
            for number in [1, 2] {
                let interface = &links.next().context("a host of the network")?.left;
                let name = format!("{}-{cluster}{number}", role.id);
                let (id, address) = (format!("{}/{}", system.id, role.id), interface.v4());
                writeln!(
                    text,
                    "[[host]]\nname = \"{name}\"\naddresses = [\"{address}\"]\ncluster = \"{cluster}\"\nroles = [\"{id}\"]"
                )?;
                if role.has_offset && number == 2 {
                    writeln!(text, "offsets = {{ \"{id}\" = {OFFSET} }}")?;
                }
                members.push(Member {
                    name,
                    cluster: Some(cluster),
                    host: interface.host.clone(),
                    interface: interface.name.clone(),
                    address: address.into(),
                    addresses: vec![address.into()],
                    matrix: Matrix::default(),
                    ports: BTreeSet::new(),
                });
            }
        }
        let file = std::env::temp_dir().join(format!("{}.toml", unique_name("sy")));
        std::fs::write(&file, text)?;
        Ok(Self { members, file })
    }

    pub(super) fn path(&self) -> String {
        self.file.display().to_string()
    }

    /// All that can talk to each other over the network.
    pub(super) fn pairs(&self) -> impl Iterator<Item = (&Member, &Member)> {
        let all = self.members.iter();
        let pairs = all.flat_map(|from| self.members.iter().map(move |to| (from, to)));
        pairs.filter(|(from, to)| from.name != to.name)
    }

    /// Takes the matrices of all members.
    pub(super) fn settle(&mut self, matrices: Vec<Matrix>) {
        for (member, matrix) in self.members.iter_mut().zip(matrices) {
            member.matrix = matrix;
        }
        let ports: Vec<_> = self.members.iter().map(|of| self.ports(of)).collect();
        for (member, ports) in self.members.iter_mut().zip(ports) {
            member.ports = ports;
        }
    }

    /// What is tried of a host: what its matrix has (or, outside, what those of others have towards it), some that only others have,
    /// and one that nobody has.
    fn ports(&self, of: &Member) -> BTreeSet<(Transport, u16)> {
        let mut ports = BTreeSet::new();
        let mut foreign = BTreeSet::new();
        for member in &self.members {
            if of.is_outside() {
                let out = member.matrix.outbound.iter();
                let towards =
                    out.filter(|entry| of.addresses.iter().any(|address| entry.is_for(*address)));
                ports.extend(towards.flat_map(Entry::some));
            } else if member.name == of.name {
                ports.extend(member.matrix.inbound.iter().flat_map(Entry::some));
            } else {
                foreign.extend(member.matrix.inbound.iter().flat_map(Entry::some));
            }
        }
        foreign.retain(|port| !ports.contains(port));
        let step = foreign.len() / FOREIGN + 1;
        ports.extend(foreign.into_iter().step_by(step));
        ports.extend([(Transport::Tcp, ROGUE), (Transport::Udp, ROGUE)]);
        ports
    }

    /// All that one host tries.
    pub(super) fn asks(&self, from: &Member, wanted: Transport) -> Vec<Ask<'_>> {
        let mut asks = Vec::new();
        for to in self.members.iter().filter(|to| to.name != from.name) {
            for &(transport, port) in &to.ports {
                for address in to.addresses.iter().filter(|_| transport == wanted) {
                    let sent = from.is_outside() || from.matrix.sends(transport, port, *address);
                    let received =
                        to.is_outside() || to.matrix.accepts(transport, port, from.address);
                    asks.push(Ask {
                        to,
                        address: *address,
                        port,
                        is_open: sent && received,
                    });
                }
            }
        }
        asks
    }

    /// Compares what was found with what is said, and notes the rows that opened it.
    pub(super) fn judge(
        from: &Member,
        ask: &Ask<'_>,
        transport: Transport,
        is_open: bool,
        opened: &Mutex<BTreeSet<String>>,
    ) -> Result<()> {
        let Ask { to, port, .. } = ask;
        let said = ask.is_open;
        ensure!(
            is_open == said,
            "{} to {} ({}) {transport:?}/{port}: opened {is_open}, and check says {said}",
            from.name,
            to.name,
            ask.address
        );
        if is_open && let Ok(mut opened) = opened.lock() {
            let sent = from
                .matrix
                .outbound
                .iter()
                .filter(|entry| entry.is_for(ask.address));
            let received = to
                .matrix
                .inbound
                .iter()
                .filter(|entry| entry.is_for(from.address));
            for entry in sent
                .chain(received)
                .filter(|entry| entry.has(transport, *port))
            {
                opened.extend(entry.rows.iter().cloned());
            }
        }
        Ok(())
    }
}

/// Prefixes that the document prints.
fn printed(system: &System) -> BTreeSet<IpNet> {
    let peers = system
        .rows
        .iter()
        .filter(|row| row.inert.is_none())
        .flat_map(|row| &row.peers);
    peers
        .filter_map(|peer| match peer {
            Peer::Prefix(net) => Some(*net),
            _ => None,
        })
        .collect()
}

/// All but the hosts: every option on, the newest version, and the one who is outside for everybody whom the site has to name.
fn head(system: &System, deployment: Option<&str>, outside: Ipv4Addr) -> String {
    let rows: Vec<&Row> = system
        .rows
        .iter()
        .filter(|row| row.inert.is_none() && is_of(row, deployment))
        .collect();
    let conditions: Vec<_> = rows
        .iter()
        .filter_map(|row| row.condition.as_ref())
        .collect();
    let mut lines = vec![
        "schema = 1\nmode = \"enforce\"\noutbound = \"enforce\"".to_owned(),
        "[management]\nnone = true".to_owned(),
        "[baseline]\ndhcp = \"none\"\ndns = \"none\"\nntp = \"none\"\necho = \"none\"".to_owned(),
        "[timeouts]\nflows = 4096".to_owned(),
        format!("[systems.{}]", system.id),
    ];
    lines.extend(deployment.map(|name| format!("deployment = \"{name}\"")));
    if conditions
        .iter()
        .any(|condition| !condition.version.is_empty())
    {
        lines.push("version = \"6.99\"".to_owned());
    }
    let options = system.options.iter().filter(|(id, option)| {
        !option.default && conditions.iter().any(|own| own.options.contains(*id))
    });
    let options: Vec<_> = options.map(|(id, _)| format!("\"{id}\"")).collect();
    lines.push(format!("options = [{}]", options.join(", ")));
    let choices = system.choices.iter().filter_map(|(id, choice)| {
        // One that rows ask for.
        let asked = conditions
            .iter()
            .filter_map(|own| own.choices.get(id))
            .min();
        let is_picked = rows.iter().any(|row| row.pick.as_ref() == Some(id));
        let picked = || choice.values.keys().next().filter(|_| is_picked);
        Some(format!("{id} = \"{}\"", asked.or_else(picked)?))
    });
    lines.push(format!(
        "choices = {{ {} }}",
        choices.collect::<Vec<_>>().join(", ")
    ));
    let classes = PeerClass::ALL.iter().copied().filter(|class| {
        *class != PeerClass::ClusterMembers && rows.iter().any(|row| row.class == Some(*class))
    });
    let classes: Vec<_> = classes
        .map(|class| format!("{} = [\"{outside}\"]", class.as_str()))
        .collect();
    lines.push(format!("unprinted_peers = {{ {} }}", classes.join(", ")));
    lines.push(format!("[systems.{}.peers]", system.id));
    let named: BTreeSet<String> = rows
        .iter()
        .flat_map(|row| &row.peers)
        .filter_map(|peer| match peer {
            Peer::Group(name) => Some(name.clone()),
            Peer::Asn(number) => Some(format!("\"asn:{number}\"")),
            Peer::Domain(name) => Some(format!("\"domain:{name}\"")),
            _ => None,
        })
        .collect();
    lines.extend(named.iter().map(|name| format!("{name} = [\"{outside}\"]")));
    lines.push(format!("[systems.{}.ports]", system.id));
    let mut listeners = BTreeSet::new();
    let open = rows.iter().filter(|row| {
        let is_new = row.listener.is_none() || listeners.insert(&row.listener);
        !row.implied && row.ports.iter().any(PortSpec::is_open) && is_new
    });
    let open: BTreeSet<_> = open.filter_map(|row| row.id.split('/').nth(1)).collect();
    lines.extend(open.iter().map(|row| format!("{row} = {GIVEN}")));
    lines.push(String::new());
    lines.join("\n")
}

fn is_of(row: &Row, deployment: Option<&str>) -> bool {
    let wanted = row
        .condition
        .iter()
        .flat_map(|own| &own.deployments)
        .collect::<Vec<_>>();
    wanted.is_empty() || wanted.iter().any(|name| Some(name.as_str()) == deployment)
}

/// `check --json`.
#[derive(Debug, Default)]
pub(super) struct Matrix {
    pub(super) inbound: Vec<Entry>,
    pub(super) outbound: Vec<Entry>,
}

/// Ports that are open to the same peers.
#[derive(Debug)]
pub(super) struct Entry {
    transport: Transport,
    first: u16,
    last: u16,
    peers: Vec<IpNet>,
    pub(super) rows: Vec<String>,
}

impl Matrix {
    pub(super) fn read(text: &str) -> Result<Self> {
        let matrix: Value = serde_json::from_str(text)?;
        let errors = matrix["diagnostics"].as_array().into_iter().flatten();
        let errors: Vec<_> = errors.filter(|one| one["level"] == "error").collect();
        ensure!(errors.is_empty(), "{errors:?}");
        let entries = |direction: Direction| -> Result<Vec<Entry>> {
            let (key, peers) = match direction {
                Direction::In => ("inbound", "sources"),
                _ => ("outbound", "destinations"),
            };
            let all = matrix[key].as_array().with_context(|| key.to_owned())?;
            all.iter()
                .map(|entry| Entry::read(entry, peers).with_context(|| entry.to_string()))
                .collect()
        };
        Ok(Self {
            inbound: entries(Direction::In)?,
            outbound: entries(Direction::Out)?,
        })
    }

    pub(super) fn accepts(&self, transport: Transport, port: u16, from: IpAddr) -> bool {
        self.inbound
            .iter()
            .any(|entry| entry.has(transport, port) && entry.is_for(from))
    }

    pub(super) fn sends(&self, transport: Transport, port: u16, to: IpAddr) -> bool {
        self.outbound
            .iter()
            .any(|entry| entry.has(transport, port) && entry.is_for(to))
    }

    pub(super) fn rows(&self) -> impl Iterator<Item = String> {
        self.inbound
            .iter()
            .chain(&self.outbound)
            .flat_map(|entry| entry.rows.iter().cloned())
    }
}

impl Entry {
    fn read(entry: &Value, key: &str) -> Result<Self> {
        let number = |key: &str| {
            let number = entry[key]
                .as_u64()
                .and_then(|number| u16::try_from(number).ok());
            number.with_context(|| key.to_owned())
        };
        let texts = |key: &str| -> Result<Vec<String>> {
            let all = entry[key].as_array().with_context(|| key.to_owned())?;
            Ok(all
                .iter()
                .filter_map(Value::as_str)
                .map(str::to_owned)
                .collect())
        };
        let peers = texts(key)?
            .into_iter()
            .map(|peer| peer.parse().with_context(|| peer));
        Ok(Self {
            transport: if entry["transport"] == "udp" {
                Transport::Udp
            } else {
                Transport::Tcp
            },
            first: number("port_first")?,
            last: number("port_last")?,
            peers: peers.collect::<Result<_>>()?,
            rows: texts("rows")?,
        })
    }

    pub(super) fn has(&self, transport: Transport, port: u16) -> bool {
        self.transport == transport && (self.first..=self.last).contains(&port)
    }

    pub(super) fn is_for(&self, address: IpAddr) -> bool {
        self.peers.iter().any(|net| net.contains(&address))
    }

    /// The ports of a small range, the ends of a large one.
    fn some(&self) -> Vec<(Transport, u16)> {
        let ports = if self.last - self.first < FEW {
            (self.first..=self.last).collect()
        } else {
            vec![self.first, self.last]
        };
        ports
            .into_iter()
            .map(|port| (self.transport, port))
            .collect()
    }
}
