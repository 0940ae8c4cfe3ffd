//! What the guard does with a packet and why: the kernel's own parser and verdict, run over the image on the host.
//!
//! `explain/nearest.rs` finds the rows that come closest to a packet that none of them admits, `explain/capture.rs` reads
//! captures. Pure: no kernel, no network, no clock. The host knows no flows, so that a packet which answers a connection of
//! the host is judged as if there were none.

pub mod capture;
mod nearest;
#[cfg(test)]
mod tests;
mod words;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use portguard_common::addr::Addr;
use portguard_common::config::dhcp;
use portguard_common::ethernet::ethertype;
use portguard_common::packet::{Packet, Shape, protocol};
use portguard_common::reason::{Direction, Reason};
use portguard_common::tables::{Key, Tables};
use portguard_common::verdict::{self, Verdict};
use serde::Serialize;

use crate::catalog::{Catalog, Transport};
use crate::cells::Directory;
use crate::image::{Image, TooLarge};
use crate::policy::{Grant, Outbound, Policy};

pub use nearest::{LeftOut, Near, nearest};

/// Answers for one policy.
#[derive(Debug)]
pub struct Explainer<'a> {
    policy: &'a Policy,
    catalog: &'a Catalog,
    image: Image,
    /// No program of this policy runs now, whatever it says.
    pub is_off: bool,
}

/// A packet by its numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Query {
    /// Arriving or sent.
    pub direction: Direction,
    /// IP protocol.
    pub protocol: u8,
    /// The other end.
    pub remote: IpAddr,
    /// The listening port, or the ICMP type; 0 for protocols that have neither.
    pub port: u16,
    /// The connecting side's port; `None` = one that means nothing.
    pub from_port: Option<u16>,
}

/// What is done with a packet, and why. `explain --json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Answer {
    /// What enforcing does, whatever the mode is.
    pub verdict: Outcome,
    /// Stable kebab-case name.
    pub reason: String,
    /// Rows that admit the packet.
    pub rows: Vec<String>,
    /// What holds for this packet: `enforce`, `audit` or `off`.
    pub mode: &'static str,
    /// `in` or `out`.
    pub direction: &'static str,
    /// Why it is malformed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<&'static str>,
    /// The packet.
    #[serde(flatten)]
    pub packet: Summary,
    /// What the rows are for and where they stand.
    pub citations: Vec<Cited>,
    /// For a refusal, the rows that come closest.
    pub nearest: Vec<Near>,
}

/// `pass` or `drop`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, strum::IntoStaticStr)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum Outcome {
    /// Passes.
    Pass,
    /// Is dropped.
    Drop,
}

/// The facts of a packet, as far as it has them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// `tcp`, `icmp`, `arp`, `protocol 47`, `ethertype 0x88cc`.
    pub protocol: String,
    /// From where.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<IpAddr>,
    /// To where.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination: Option<IpAddr>,
    /// Source port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_port: Option<u16>,
    /// Destination port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination_port: Option<u16>,
    /// ICMP type.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub icmp_type: Option<u8>,
}

/// A row and where it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Cited {
    /// Its id.
    pub row: String,
    /// What it is for.
    pub purpose: String,
    /// Where it stands.
    pub citation: String,
}

impl Outcome {
    /// `pass` or `drop`.
    pub fn name(self) -> &'static str {
        self.into()
    }
}

impl<'a> Explainer<'a> {
    /// For a policy; the catalog is where the nearest rows of other roles and systems come from.
    ///
    /// # Errors
    /// [`TooLarge`] if the policy could not be loaded either.
    pub fn new(policy: &'a Policy, catalog: &'a Catalog) -> Result<Self, TooLarge> {
        let image = Image::build(policy, Directory::default())?;
        Ok(Self {
            policy,
            catalog,
            image,
            is_off: false,
        })
    }

    /// Explains a packet given by its numbers.
    pub fn query(&self, query: &Query) -> Answer {
        let mut answer = self.packet(&self.packet_of(query), query.direction);
        // What nobody asked for is not said.
        let Summary {
            source,
            destination,
            source_port,
            ..
        } = &mut answer.packet;
        let local = match query.direction {
            Direction::Ingress => destination,
            Direction::Egress => source,
        };
        *local = local.filter(|address| !address.is_unspecified());
        *source_port = source_port.filter(|_| query.from_port.is_some());
        answer
    }

    /// Explains a packet that was parsed.
    pub fn packet(&self, packet: &Packet, direction: Direction) -> Answer {
        let settings = &self.policy.settings;
        let verdict = self.judge(packet, direction);
        let is_judged = direction == Direction::Ingress || settings.outbound != Outbound::Off;
        let outcome = if is_judged && verdict.is_drop(true) {
            Outcome::Drop
        } else {
            Outcome::Pass
        };
        let enforce = match direction {
            Direction::Ingress => settings.enforce,
            Direction::Egress => settings.outbound == Outbound::Enforce,
        };
        let mode = match (is_judged && !self.is_off, enforce && !verdict.audit_only) {
            (false, _) => "off",
            (true, true) => "enforce",
            (true, false) => "audit",
        };
        let (reason, rows) = if is_judged {
            self.reason(packet, direction, &verdict)
        } else {
            ("not-judged".to_owned(), Vec::new())
        };
        let nearest = if is_judged && verdict.reason.is_violation() {
            nearest::of(self.policy, self.catalog, packet, direction)
        } else {
            Vec::new()
        };
        Answer {
            verdict: outcome,
            reason,
            citations: rows.iter().map(|row| cited(self.policy, row)).collect(),
            rows,
            mode,
            direction: direction.name(),
            cause: verdict.cause.map(portguard_common::packet::Malformed::name),
            packet: Summary::of(packet),
            nearest,
        }
    }

    /// The bare verdict.
    pub fn judge(&self, packet: &Packet, direction: Direction) -> Verdict {
        verdict::judge(&self.image, packet, direction)
    }

    /// The packet that a query describes. Its local end is the first of the host's own addresses, where only those are
    /// judged.
    pub fn packet_of(&self, query: &Query) -> Packet {
        let remote = Addr::from(query.remote);
        let unspecified: IpAddr = if remote.v6 {
            Ipv6Addr::UNSPECIFIED.into()
        } else {
            Ipv4Addr::UNSPECIFIED.into()
        };
        let own = self.image.own.iter().find(|own| own.v6 == remote.v6);
        let local = own.copied().unwrap_or_else(|| Addr::from(unspecified));
        let mut packet = Packet::new(64);
        packet.ethertype = if remote.v6 {
            ethertype::IPV6
        } else {
            ethertype::IPV4
        };
        packet.protocol = query.protocol;
        packet.hop_limit = if query.protocol == protocol::IGMP {
            1
        } else {
            255
        };
        (packet.source, packet.destination) = match query.direction {
            Direction::Ingress if query.protocol == protocol::IGMP => (remote, ALL_HOSTS),
            Direction::Ingress => (remote, local),
            Direction::Egress => (local, remote),
        };
        packet.shape = match query.protocol {
            protocol::TCP | protocol::UDP | protocol::SCTP => Shape::Ports,
            protocol::ICMP | protocol::IGMP if !remote.v6 => Shape::Icmp,
            protocol::ICMPV6 if remote.v6 => Shape::Icmp,
            _ => Shape::Protocol,
        };
        match packet.shape {
            Shape::Ports => {
                packet.destination_port = query.port;
                packet.source_port = query.from_port.unwrap_or_else(|| match query.direction {
                    Direction::Ingress => self.server_port(query),
                    Direction::Egress => self.meaningless_port(query.protocol),
                });
            }
            Shape::Icmp => packet.icmp_type = u8::try_from(query.port).unwrap_or(u8::MAX),
            Shape::Arp | Shape::NonIp | Shape::Protocol | Shape::Fragment | Shape::Malformed(_) => {
            }
        }
        packet
    }

    /// A port that a peer may ask from: any, but for what only DHCP servers say.
    fn server_port(&self, query: &Query) -> u16 {
        let only = self.image.facts.dhcp;
        let is_it = |&(bit, client, _): &(u32, u16, u16)| only & bit != 0 && client == query.port;
        dhcp::PORTS
            .into_iter()
            .find(|known| query.protocol == protocol::UDP && is_it(known))
            .map_or(EPHEMERAL, |(_, _, server)| server)
    }

    /// A port that nothing documented listens on: what comes from one that is may be a reply, and is judged so.
    fn meaningless_port(&self, number: u8) -> u16 {
        let Some(transport) = Transport::from_repr(number) else {
            return EPHEMERAL;
        };
        (EPHEMERAL..=u16::MAX)
            .chain((0..EPHEMERAL).rev())
            .find(|port| {
                let key = Key::port(transport.space(), *port);
                self.image.entry(Direction::Ingress, key).is_closed()
            })
            .unwrap_or(EPHEMERAL)
    }

    fn reason(
        &self,
        packet: &Packet,
        direction: Direction,
        verdict: &Verdict,
    ) -> (String, Vec<String>) {
        match verdict.reason {
            Reason::Granted => match self.image.directory.get(verdict.cell) {
                Some(cell) => (cell.reason().to_owned(), cell.rows.clone()),
                None => (verdict.reason.name(direction).to_owned(), Vec::new()),
            },
            Reason::Reply => {
                let remote = IpAddr::from(packet.destination);
                let mut rows: Vec<String> =
                    covering(&self.policy.inbound, packet.protocol, packet.source_port)
                        .filter(|grant| self.policy.admits(grant.peers, remote))
                        .map(|grant| grant.row.clone())
                        .collect();
                rows.sort();
                rows.dedup();
                (verdict.reason.name(direction).to_owned(), rows)
            }
            Reason::Arp
            | Reason::NonIp
            | Reason::Fragment
            | Reason::IcmpEssential
            | Reason::EchoReply
            | Reason::Transit
            | Reason::OtherHost
            | Reason::UndocumentedPort
            | Reason::UndocumentedPeer
            | Reason::UndocumentedProtocol
            | Reason::Malformed
            | Reason::Icmp
            | Reason::StrictFragment
            | Reason::StrictEthertype => (verdict.reason.name(direction).to_owned(), Vec::new()),
        }
    }
}

/// Where queries for multicast groups go.
const ALL_HOSTS: Addr = Addr::v4(0xe000_0001);

/// The first port that Linux takes for outgoing connections, unless its settings say otherwise.
const EPHEMERAL: u16 = 32_768;

/// The other end of a packet.
fn remote(packet: &Packet, direction: Direction) -> IpAddr {
    IpAddr::from(match direction {
        Direction::Ingress => packet.source,
        Direction::Egress => packet.destination,
    })
}

/// Grants for a port, whoever they are for.
fn covering(grants: &[Grant], number: u8, port: u16) -> impl Iterator<Item = &Grant> {
    let transport = Transport::from_repr(number);
    grants
        .iter()
        .filter(move |grant| Some(grant.transport) == transport && grant.covers(port))
}

/// What is known of a row; the baseline's echo has no facts of its own.
fn cited(policy: &Policy, row: &str) -> Cited {
    let facts = policy.facts(row);
    let (purpose, citation) = facts.map_or(("who may ping", "baseline"), |facts| {
        (facts.purpose.as_str(), facts.citation.as_str())
    });
    Cited {
        row: row.to_owned(),
        purpose: purpose.to_owned(),
        citation: citation.to_owned(),
    }
}

impl Summary {
    fn of(packet: &Packet) -> Self {
        let has_ports = packet.shape == Shape::Ports;
        let has_addresses = matches!(packet.ethertype, ethertype::IPV4 | ethertype::IPV6)
            && (packet.source, packet.destination) != (Addr::v4(0), Addr::v4(0));
        let protocol = match (packet.shape, packet.ethertype) {
            (Shape::NonIp, kind) => format!("ethertype {kind:#06x}"),
            (_, ethertype::ARP) => "arp".to_owned(),
            (Shape::Malformed(_), _) if !has_addresses => "frame".to_owned(),
            _ => match (packet.protocol, Transport::from_repr(packet.protocol)) {
                (_, Some(transport)) => transport.to_string(),
                (protocol::ICMP, _) => "icmp".to_owned(),
                (protocol::IGMP, _) => "igmp".to_owned(),
                (protocol::ICMPV6, _) => "icmpv6".to_owned(),
                (number, _) => format!("protocol {number}"),
            },
        };
        Self {
            protocol,
            source: has_addresses.then(|| packet.source.into()),
            destination: has_addresses.then(|| packet.destination.into()),
            source_port: has_ports.then_some(packet.source_port),
            destination_port: has_ports.then_some(packet.destination_port),
            icmp_type: (packet.shape == Shape::Icmp).then_some(packet.icmp_type),
        }
    }
}
