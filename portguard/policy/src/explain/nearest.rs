//! The rows that come closest to a packet that none admits: what an operator should look at.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use portguard_common::packet::{Packet, Shape};
use portguard_common::reason::Direction;
use serde::Serialize;

use super::{cited, remote};
use crate::catalog::{self, Catalog, PortSpec, Row, System, Transport};
use crate::policy::{Grant, GrantKind, Omitted, Peers, Policy};

/// Rows of each kind that are named.
const EACH: usize = 3;
/// Ports that are this far apart are close.
const CLOSE: u16 = 20;
/// Rows of other systems with more ports than this say little about one of them.
const WIDE: u16 = 1_000;

/// A row that comes close.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Near {
    /// `same-port-other-peer`, `same-peer-other-port`, `other-transport`, `other-direction`, `left-out`, `other-role` or
    /// `other-system`.
    pub kind: &'static str,
    /// Row id.
    pub row: String,
    /// `tcp/443`.
    pub port: String,
    /// Who is admitted, where the row admits anybody on this host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peers: Option<String>,
    /// Why the row opens nothing here: the reasons that `check` gives.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub left_out: Option<String>,
    /// Where it stands.
    pub citation: String,
    /// In words.
    pub words: String,
}

/// What is asked for.
#[derive(Clone, Copy)]
struct Asked<'a> {
    policy: &'a Policy,
    catalog: &'a Catalog,
    direction: Direction,
    transport: Transport,
    port: u16,
    remote: IpAddr,
}

/// Finds the rows that are nearest to a packet. Nothing for packets without ports.
pub(super) fn of(
    policy: &Policy,
    catalog: &Catalog,
    packet: &Packet,
    direction: Direction,
) -> Vec<Near> {
    match (packet.shape, Transport::from_repr(packet.protocol)) {
        (Shape::Ports, Some(transport)) => {
            let (port, remote) = (packet.destination_port, remote(packet, direction));
            nearest(policy, catalog, (direction, transport, port, remote))
        }
        _ => Vec::new(),
    }
}

/// Rows of a policy's own roles that open nothing here: looked up once, since a host may listen on every port.
#[derive(Debug)]
pub struct LeftOut<'a> {
    policy: &'a Policy,
    catalog: &'a Catalog,
    rows: Vec<Unopened<'a>>,
}

/// A row that opens nothing, with its system and the reason.
type Unopened<'a> = (&'a Omitted, &'a System, &'a Row);

impl<'a> LeftOut<'a> {
    /// Looks them up.
    pub fn new(policy: &'a Policy, catalog: &'a Catalog) -> Self {
        Self {
            policy,
            catalog,
            rows: unopened(policy, catalog),
        }
    }

    /// Those that print a port of this host, with the reason.
    pub fn at(&self, (transport, port): (Transport, u16)) -> Vec<Near> {
        let asked = Asked {
            policy: self.policy,
            catalog: self.catalog,
            direction: Direction::Ingress,
            transport,
            port,
            remote: Ipv4Addr::UNSPECIFIED.into(),
        };
        // What another device listens on, or only the host itself reaches, is no row for a listener here.
        left_out(&self.rows, |row| {
            asked.prints(row, u16::MAX).filter(|_| row.inert.is_none())
        })
    }
}

fn unopened<'a>(policy: &'a Policy, catalog: &'a Catalog) -> Vec<Unopened<'a>> {
    let of = |omitted: &'a Omitted| {
        let system = catalog.systems.get(omitted.row.split_once('/')?.0)?;
        let row = system.rows.iter().find(|row| row.id == omitted.row)?;
        Some((omitted, system, row))
    };
    policy.omitted.iter().filter_map(of).collect()
}

/// A few rows that open nothing here, as far as they have a port.
fn left_out(rows: &[Unopened<'_>], port_of: impl Fn(&Row) -> Option<String>) -> Vec<Near> {
    let of = |(omitted, system, row): &Unopened<'_>| {
        let ports = port_of(row)?;
        Some(Near {
            kind: "left-out",
            row: row.id.clone(),
            words: format!(
                "left out here: {ports}, {} (row {}: {}: {})",
                row.purpose, row.id, omitted.reason, omitted.detail
            ),
            port: ports,
            peers: None,
            left_out: Some(format!("{}: {}", omitted.reason, omitted.detail)),
            citation: system.cite(row),
        })
    };
    rows.iter().filter_map(of).take(EACH).collect()
}

/// Finds the nearest rows, the most telling first: of direction, transport, destination port and the other end.
pub fn nearest(
    policy: &Policy,
    catalog: &Catalog,
    (direction, transport, port, remote): (Direction, Transport, u16, IpAddr),
) -> Vec<Near> {
    let asked = Asked {
        policy,
        catalog,
        direction,
        transport,
        port,
        remote,
    };
    let mut found = asked.same_port();
    let unopened = unopened(policy, catalog);
    found.extend(left_out(&unopened, |row| asked.prints(row, u16::MAX)));
    found.extend(asked.other_transport());
    found.extend(asked.same_peer(CLOSE));
    found.extend(asked.other_direction());
    found.extend(asked.unnumbered(&unopened));
    found.extend(asked.other_roles());
    found.extend(asked.other_systems());
    if found.is_empty() {
        // Better than nothing: what else the peer may use.
        found.extend(asked.same_peer(u16::MAX).into_iter().take(1));
    }
    found
}

impl<'a> Asked<'a> {
    fn grants(&self) -> &'a [Grant] {
        self.policy.grants(self.direction)
    }

    fn near(&self, kind: &'static str, grant: &Grant) -> Near {
        let cited = cited(self.policy, &grant.row);
        let peers = self.policy.row_peers_words(&grant.row, grant.peers);
        let open = match self.direction {
            Direction::Ingress => "is open to",
            Direction::Egress => "may be sent to",
        };
        let ports = grant.ports();
        let words = match (kind, self.direction) {
            ("same-port-other-peer", _) => {
                format!("same port, other peers: {ports} {open} {peers}")
            }
            ("other-transport", _) => {
                format!("same number, other transport: {ports} {open} {peers}")
            }
            ("same-peer-other-port", _) => {
                format!("same peer, other port: {ports} {open} {peers}")
            }
            (_, Direction::Ingress) => {
                format!("other direction: the host may send {ports} to {peers}")
            }
            (_, Direction::Egress) => {
                format!("other direction: the host accepts {ports} from {peers}")
            }
        };
        Near {
            kind,
            row: grant.row.clone(),
            port: ports,
            words: format!("{words} (row {}: {})", grant.row, cited.purpose),
            peers: Some(peers),
            left_out: None,
            citation: cited.citation,
        }
    }

    fn same_port(&self) -> Vec<Near> {
        self.grants()
            .iter()
            .filter(|grant| grant.transport == self.transport && grant.covers(self.port))
            .take(EACH)
            .map(|grant| self.near("same-port-other-peer", grant))
            .collect()
    }

    fn other_transport(&self) -> Vec<Near> {
        let is_other = |grant: &&Grant| grant.transport != self.transport;
        narrow_first(self.grants().iter().filter(is_other), self.port)
            .map(|grant| self.near("other-transport", grant))
            .collect()
    }

    /// Ports that the peer may use, with numbers no further off; those beyond [`CLOSE`] only if they are open to it in particular.
    fn same_peer(&self, furthest: u16) -> Vec<Near> {
        let is_telling = |distance: u16, grant: &Grant| {
            distance <= CLOSE || (grant.peers != Peers::Any && grant.kind == GrantKind::Documented)
        };
        let mut candidates: Vec<(u16, &Grant)> = self
            .grants()
            .iter()
            .filter(|grant| grant.transport == self.transport && !grant.covers(self.port))
            .map(|grant| (distance(grant, self.port), grant))
            .filter(|(distance, grant)| *distance <= furthest && is_telling(*distance, grant))
            .filter(|(_, grant)| self.policy.admits(grant.peers, self.remote))
            .collect();
        candidates.sort_by_key(|(distance, _)| *distance);
        candidates
            .into_iter()
            .take(EACH)
            .map(|(_, grant)| self.near("same-peer-other-port", grant))
            .collect()
    }

    fn other_direction(&self) -> Vec<Near> {
        let grants = match self.direction {
            Direction::Ingress => &self.policy.outbound,
            Direction::Egress => &self.policy.inbound,
        };
        let is_same = |grant: &&Grant| grant.transport == self.transport;
        narrow_first(grants.iter().filter(is_same), self.port)
            .map(|grant| self.near("other-direction", grant))
            .collect()
    }

    /// Of those that open nothing here, the rows whose number neither the document nor the site gives: any port may be theirs.
    fn unnumbered(&self, unopened: &[Unopened<'_>]) -> Vec<Near> {
        // Whoever the row is not for learns nothing from a number that it lacks.
        let is_for = |peers| self.policy.admits(peers, self.remote);
        let lacks_number = |row: &Row| {
            let is_it = |omitted: &Omitted| {
                omitted.row == row.id
                    && omitted.reason == "dynamic"
                    && omitted.peers.is_none_or(is_for)
            };
            self.policy.omitted.iter().any(is_it)
        };
        left_out(unopened, |row| {
            if self.prints(row, u16::MAX).is_some()
                || !self.asks_for_a_number(row)
                || !lacks_number(row)
            {
                return None;
            }
            let spec = row.ports.iter().find(|spec| spec.is_open())?;
            Some(format!("{}/{spec}", self.transport))
        })
    }

    /// Rows of roles of the same systems that this host does not have.
    fn other_roles(&self) -> Vec<Near> {
        let own: BTreeSet<&str> = self
            .policy
            .rows
            .iter()
            .map(|facts| facts.id.as_str())
            .collect();
        let systems = self
            .policy
            .systems
            .iter()
            .filter_map(|id| self.catalog.systems.get(id));
        let mut found = Vec::new();
        for system in systems {
            for row in system
                .rows
                .iter()
                .filter(|row| !own.contains(row.id.as_str()))
            {
                if let Some(ports) = self.prints(row, u16::MAX) {
                    found.push(Near {
                        kind: "other-role",
                        row: row.id.clone(),
                        words: format!(
                            "role {}/{} has it, but this host does not have that role: {ports}, {} (row {})",
                            system.id, row.role, row.purpose, row.id
                        ),
                        port: ports,
                        peers: None,
                        left_out: None,
                        citation: system.cite(row),
                    });
                }
            }
        }
        found.truncate(EACH);
        found
    }

    fn other_systems(&self) -> Vec<Near> {
        let mut found = Vec::new();
        for system in self.catalog.systems.values() {
            if self.policy.systems.contains(&system.id) {
                continue;
            }
            // One row a system says enough.
            let row = system
                .rows
                .iter()
                .find_map(|row| Some((row, self.prints(row, WIDE)?)));
            if let Some((row, ports)) = row {
                found.push(Near {
                    kind: "other-system",
                    row: row.id.clone(),
                    words: format!(
                        "{} documents it, but this host has none of its roles: {ports}, {} (row {})",
                        system.name, row.purpose, row.id
                    ),
                    port: ports,
                    peers: None,
                    left_out: None,
                    citation: system.cite(row),
                });
            }
        }
        found.truncate(EACH);
        found
    }

    /// Whether a row is of this direction and transport: where its number is open, any port may be its.
    fn asks_for_a_number(&self, row: &Row) -> bool {
        self.is_of_direction(row) && row.transports.contains(&self.transport)
    }

    fn is_of_direction(&self, row: &Row) -> bool {
        matches!(
            (row.direction, self.direction),
            (catalog::Direction::Both, _)
                | (catalog::Direction::In, Direction::Ingress)
                | (catalog::Direction::Out, Direction::Egress)
        )
    }

    /// The ports of a catalog row that are asked for, if the row prints them for this direction and transport, in a range that
    /// is not wider.
    fn prints(&self, row: &Row, widest: u16) -> Option<String> {
        if !self.is_of_direction(row) || !row.transports.contains(&self.transport) {
            return None;
        }
        let spec = row.ports.iter().find(|spec| match spec {
            PortSpec::Range(first, last) => {
                (*first..=*last).contains(&self.port) && last - first <= widest
            }
            PortSpec::Offset { base, .. } => *base == self.port,
            PortSpec::Dynamic | PortSpec::Random | PortSpec::Unprinted => false,
        })?;
        Some(format!("{}/{spec}", self.transport))
    }
}

/// A few grants that cover a port: the narrower, the more it says about it.
fn narrow_first<'g>(
    grants: impl Iterator<Item = &'g Grant>,
    port: u16,
) -> impl Iterator<Item = &'g Grant> {
    let mut found: Vec<&Grant> = grants.filter(|grant| grant.covers(port)).collect();
    found.sort_by_key(|grant| grant.last - grant.first);
    found.into_iter().take(EACH)
}

fn distance(grant: &Grant, port: u16) -> u16 {
    grant.first.abs_diff(port).min(grant.last.abs_diff(port))
}
