//! Sampled violations in the words of the policy: decoding is pure, [`stream`] reads the kernel's ring buffer.

mod decode;
pub mod pcap;
pub mod stream;
pub mod tally;

use std::net::IpAddr;

use portguard_common::abi::Event;
use portguard_common::addr::Addr;
use portguard_common::packet::{Malformed, protocol};
use portguard_common::reason::{Direction, Reason};
use serde::Serialize;

use portguard_policy::catalog::{Catalog, Transport};
use portguard_policy::explain::{self, Near};
use portguard_policy::human::rfc3339;
use portguard_policy::image::{Span, spans};
use portguard_policy::policy::Policy;

pub use decode::decode;

/// Rows that a line for people names as near.
const NEAREST: usize = 3;

/// One event as it is written, one JSON object a line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Line {
    /// RFC 3339, UTC.
    pub time: String,
    /// Interface.
    pub interface: String,
    /// `in` or `out`.
    pub direction: &'static str,
    /// What enforce does, as `explain` has it: `drop`, for every event is of a violation.
    pub verdict: &'static str,
    /// What became of it: `drop`, or `pass` in audit, where it was only counted.
    pub effective: &'static str,
    /// Stable name.
    pub reason: &'static str,
    /// What exactly was malformed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<&'static str>,
    /// Source address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<IpAddr>,
    /// Destination address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination: Option<IpAddr>,
    /// `tcp`, `udp`, `sctp`, `icmp`, or the protocol's number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transport: Option<String>,
    /// Source port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_port: Option<u16>,
    /// Destination port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination_port: Option<u16>,
    /// ICMP type.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub icmp_type: Option<u8>,
    /// EtherType, where it is no IP packet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ethertype: Option<u16>,
    /// VLAN id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vlan: Option<u16>,
    /// Bytes on the wire.
    pub length: u32,
    /// Violations that this one stands for.
    pub weight: u32,
    /// Rows that open this port to other peers.
    pub rows: Vec<String>,
    /// Rows that come near, as `explain` names them.
    pub nearest: Vec<Near>,
}

/// Spans of a policy's grants, cut once for all events.
#[derive(Debug)]
pub struct Words<'a> {
    interface: &'a str,
    policy: &'a Policy,
    catalog: &'a Catalog,
    inbound: Vec<Span<'a>>,
    outbound: Vec<Span<'a>>,
}

impl<'a> Words<'a> {
    /// For what one interface reports; the catalog is asked for rows that come near.
    pub fn new(interface: &'a str, policy: &'a Policy, catalog: &'a Catalog) -> Self {
        Self {
            interface,
            policy,
            catalog,
            inbound: spans(&policy.inbound),
            outbound: spans(&policy.outbound),
        }
    }

    /// Tells an event; `booted` is the wall clock at boot, in nanoseconds since the Unix epoch.
    pub fn tell(&self, event: &Event, booted: u64) -> Line {
        let direction = match event.direction {
            0 => Direction::Ingress,
            _ => Direction::Egress,
        };
        let reason = Reason::from_number(event.reason);
        let is_ip = matches!(event.ethertype, 0x0800 | 0x86dd) && reason != Some(Reason::Malformed);
        let port = |number: u16| (is_ip && has_ports(event.protocol)).then_some(number);
        let is_icmp = is_ip && matches!(event.protocol, protocol::ICMP | protocol::ICMPV6);
        let (rows, nearest) = match port(event.destination_port) {
            Some(port) if reason.is_some_and(about_ports) => (
                self.rows(direction, event.protocol, port),
                self.nearest(direction, event, port),
            ),
            _ => Default::default(),
        };
        Line {
            time: rfc3339(booted.saturating_add(event.time)),
            interface: self.interface.to_owned(),
            direction: direction.name(),
            verdict: "drop",
            effective: if event.dropped == 1 { "drop" } else { "pass" },
            reason: reason.map_or("unknown", |reason| reason.name(direction)),
            detail: (reason == Some(Reason::Malformed))
                .then(|| malformed(event.detail))
                .flatten(),
            source: is_ip.then(|| address(event.v6, event.source)),
            destination: is_ip.then(|| address(event.v6, event.destination)),
            transport: is_ip.then(|| transport(event.protocol)),
            source_port: port(event.source_port),
            destination_port: port(event.destination_port),
            icmp_type: is_icmp.then_some(event.detail),
            ethertype: (!is_ip).then_some(event.ethertype),
            vlan: (event.vlan >> 16 != 0).then_some((event.vlan & 0xfff) as u16),
            length: event.length,
            weight: event.weight,
            rows,
            nearest,
        }
    }

    /// Rows of a port.
    fn rows(&self, direction: Direction, protocol: u8, port: u16) -> Vec<String> {
        let spans = match direction {
            Direction::Ingress => &self.inbound,
            Direction::Egress => &self.outbound,
        };
        let here = spans
            .iter()
            .filter(|span| Transport::from_repr(protocol).is_some_and(|of| span.covers(of, port)));
        unique(here.flat_map(names).collect())
    }

    fn nearest(&self, direction: Direction, event: &Event, port: u16) -> Vec<Near> {
        let transport = Transport::from_repr(event.protocol).unwrap_or(Transport::Sctp);
        let remote = match direction {
            Direction::Ingress => event.source,
            Direction::Egress => event.destination,
        };
        let asked = (direction, transport, port, address(event.v6, remote));
        explain::nearest(self.policy, self.catalog, asked)
    }
}

fn names<'s>(span: &'s Span<'_>) -> impl Iterator<Item = String> + 's {
    span.grants.iter().map(|grant| grant.row.clone())
}

/// Without repetitions, in order.
fn unique(names: Vec<String>) -> Vec<String> {
    let mut kept: Vec<String> = Vec::new();
    for name in names {
        if !kept.contains(&name) {
            kept.push(name);
        }
    }
    kept
}

fn about_ports(reason: Reason) -> bool {
    matches!(reason, Reason::UndocumentedPort | Reason::UndocumentedPeer)
}

fn has_ports(number: u8) -> bool {
    matches!(number, protocol::TCP | protocol::UDP | protocol::SCTP)
}

fn transport(number: u8) -> String {
    match number {
        protocol::ICMP | protocol::ICMPV6 => "icmp".to_owned(),
        other => Transport::from_repr(other).map_or(other.to_string(), |one| one.to_string()),
    }
}

fn address(v6: u8, [high, low]: [u64; 2]) -> IpAddr {
    let v6 = v6 == 1;
    Addr { v6, high, low }.into()
}

fn malformed(number: u8) -> Option<&'static str> {
    let all = Malformed::ALL.into_iter();
    all.filter(|cause| *cause as u8 == number)
        .map(Malformed::name)
        .next()
}

impl Line {
    /// For people: `eth0 in would drop undocumented-port udp 10.0.0.1:4000 -> 10.0.0.2:99, near wso2/x (x 64)`.
    pub fn text(&self) -> String {
        let end = |address: Option<IpAddr>, port: Option<u16>| match (address, port) {
            (Some(IpAddr::V6(address)), Some(port)) => format!("[{address}]:{port}"),
            (Some(address), Some(port)) => format!("{address}:{port}"),
            (Some(address), None) => address.to_string(),
            (None, _) => "?".to_owned(),
        };
        let mut words = vec![
            self.time.clone(),
            self.interface.clone(),
            self.direction.to_owned(),
            if self.effective == "drop" {
                "dropped"
            } else {
                "would drop"
            }
            .to_owned(),
            self.reason.to_owned(),
        ];
        words.extend(self.detail.map(|detail| format!("({detail})")));
        words.extend(self.transport.clone());
        if self.source.is_some() {
            words.push(end(self.source, self.source_port));
            words.push("->".to_owned());
            words.push(end(self.destination, self.destination_port));
        }
        words.extend(self.icmp_type.map(|number| format!("type {number}")));
        words.extend(
            self.ethertype
                .map(|number| format!("ethertype {number:#06x}")),
        );
        words.extend(self.vlan.map(|number| format!("vlan {number}")));
        words.push(format!("{} bytes", self.length));
        if !self.rows.is_empty() {
            words.push(format!("open to other peers by {}", self.rows.join(", ")));
        } else if !self.nearest.is_empty() {
            let near = self.nearest.iter().map(|near| near.row.clone());
            let mut near = unique(near.collect());
            near.truncate(NEAREST);
            words.push(format!("near {}", near.join(", ")));
        }
        if self.weight > 1 {
            words.push(format!("(one of {})", self.weight));
        }
        words.join(" ")
    }
}

#[cfg(test)]
mod tests;
