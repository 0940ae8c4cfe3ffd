//! Violations that no port is behind: protocols, ping, malformed frames, fragments, EtherTypes. Together with those of ports they
//! are all violations that there are.

use portguard_common::reason::{Direction, Reason};

use super::Report;

/// Protocols whose names an operator looks for, by their numbers at IANA.
const PROTOCOLS: [(u16, &str); 15] = [
    (1, "ICMP"),
    (2, "IGMP"),
    (4, "IPv4 in IP"),
    (33, "DCCP"),
    (41, "IPv6 in IP"),
    (46, "RSVP"),
    (47, "GRE"),
    (50, "ESP"),
    (51, "AH"),
    (58, "ICMPv6"),
    (88, "EIGRP"),
    (89, "OSPF"),
    (103, "PIM"),
    (112, "VRRP"),
    (115, "L2TP"),
];

/// Violations of one kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Portless {
    /// `in` or `out`.
    pub direction: &'static str,
    /// Stable name of the reason.
    pub reason: String,
    /// IP protocol, where the reason is about one.
    pub protocol: Option<u16>,
    /// What was malformed, or the EtherType as `0x88cc`.
    pub cause: Option<String>,
    /// Whether it is ping.
    pub is_ping: bool,
    /// Rows that open the protocol to others.
    pub rows: Vec<String>,
    /// Packets.
    pub packets: u64,
}

impl Portless {
    /// `protocol 47 (GRE)`, `ping`, `malformed (ip-options)`, `ethertype 0x88cc`, `ICMP`, `fragments`.
    pub fn what(&self) -> String {
        let name = |number| PROTOCOLS.iter().find(|(known, _)| *known == number);
        match (
            self.protocol,
            self.is_ping,
            self.reason.as_str(),
            &self.cause,
        ) {
            (Some(number), ..) => name(number).map_or_else(
                || format!("protocol {number}"),
                |(_, name)| format!("protocol {number} ({name})"),
            ),
            (None, true, ..) => "ping".to_owned(),
            (None, false, "malformed", Some(cause)) => format!("malformed ({cause})"),
            (None, false, "strict-ethertype", Some(cause)) => format!("ethertype {cause}"),
            (None, false, "strict-ethertype", None) => "ethertypes".to_owned(),
            (None, false, "strict-fragment", _) => "fragments".to_owned(),
            (None, false, "icmp", _) => "ICMP".to_owned(),
            (None, false, reason, _) => reason.to_owned(),
        }
    }
}

impl Report {
    /// Violations that no port is behind.
    pub fn portless(&self) -> Vec<Portless> {
        let mut found = Vec::new();
        for port in &self.ports {
            let is_ping = port.transport == "icmp";
            if port.violations.packets == 0 || !(is_ping || port.transport == "ip") {
                continue;
            }
            let side = if port.direction == Direction::Egress.name() {
                Direction::Egress
            } else {
                Direction::Ingress
            };
            let reason = if port.documented {
                Reason::UndocumentedPeer
            } else {
                Reason::UndocumentedProtocol
            };
            found.push(Portless {
                direction: port.direction,
                reason: reason.name(side).to_owned(),
                protocol: Some(port.port).filter(|_| !is_ping),
                cause: None,
                is_ping,
                rows: port.rows.clone(),
                packets: port.violations.packets,
            });
        }
        for reason in self.reasons.iter().filter(|reason| reason.violation) {
            let kind = match reason.reason.as_str() {
                "malformed" => "malformed",
                "strict-ethertype" => "ethertype",
                "icmp" | "strict-fragment" => "",
                // Counted by port or protocol.
                _ => continue,
            };
            let causes = self.causes.iter();
            let causes: Vec<_> = causes
                .filter(|cause| cause.direction == reason.direction && cause.kind == kind)
                .collect();
            let line = |cause, packets| Portless {
                direction: reason.direction,
                reason: reason.reason.clone(),
                protocol: None,
                cause,
                is_ping: false,
                rows: Vec::new(),
                packets,
            };
            // EtherTypes are counted together with those that passed while the site did not forbid them.
            let sum: u64 = causes.iter().map(|cause| cause.packets).sum();
            if sum == reason.packets {
                let each = causes.into_iter();
                found.extend(each.map(|cause| line(Some(cause.cause.clone()), cause.packets)));
            } else {
                found.push(line(None, reason.packets));
            }
        }
        found
    }
}
