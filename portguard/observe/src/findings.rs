//! Findings: what was seen that no document admits, told by its cause. One problem is one finding with one number, however
//! many ports, peers and packets it has; every view shows the same ones.
//!
//! Pure. Counters say exactly how many violations there were, by port; talkers say, from a sample, whose they were; the
//! sockets that listen say which ports somebody answers at. Every violation belongs to exactly one finding, so that the
//! findings of a report add up to its violations.

mod answers;
mod ledger;
mod ports;
pub(crate) mod scan;
mod share;

use std::collections::BTreeSet;

use portguard_common::talkers::{CLIENT_PORTS, CLIENT_PORTS_HERE};
use serde::Serialize;

use crate::counters::Report;
use crate::talkers::TopTalker;
use portguard_policy::catalog::{Catalog, Transport};
use portguard_policy::explain::{LeftOut, Near};
use portguard_policy::human::grouped;
use portguard_policy::policy::Policy;

use ledger::Ledger;

/// Peers that a finding names.
const PEERS: usize = 64;

/// What kind of problem it is. The names are stable.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    strum::IntoStaticStr,
    strum::VariantArray,
)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
pub enum Kind {
    /// Packets to a port that no row opens.
    UndocumentedPort,
    /// Packets to a documented port, from a peer that its rows do not name.
    UndocumentedPeer,
    /// Many ports tried that nothing listens on.
    Scan,
    /// Packets to ports of this host's own clients, in no conversation that the guard knows: from another port or address than
    /// was asked, or of a question that it did not see, did not count as one, or had no room for.
    AnswersFromElsewhere,
    /// Sent to a port that no row opens.
    UndocumentedDestinationPort,
    /// Sent to a documented port of a peer that its rows do not name.
    UndocumentedDestination,
    /// Answers of this host that belong to no other finding.
    UndocumentedAnswers,
    /// What has no port: protocols, ping, malformed frames, fragments, EtherTypes.
    WithoutPort,
}

impl Kind {
    /// All of them.
    pub const ALL: &'static [Self] = <Self as strum::VariantArray>::VARIANTS;

    /// Stable name.
    pub fn name(self) -> &'static str {
        self.into()
    }
}

/// One problem.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What kind of problem it is.
    pub kind: Kind,
    /// `in` or `out`: which way the packets went that began it.
    pub direction: &'static str,
    /// What it is about: `tcp/9100`, `scan of 948 ports`, `udp from 161`, `malformed (ip-options)`.
    pub what: String,
    /// Transport, where it is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transport: Option<Transport>,
    /// First port, where it is about ports.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port_first: Option<u16>,
    /// Last port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port_last: Option<u16>,
    /// How many ports had violations.
    pub ports: usize,
    /// The port that the packets come from, where that explains them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_port: Option<u16>,
    /// Whether somebody listens on this host.
    pub listening: bool,
    /// Whether the policy admits all of its known peers now: these packets came before it did.
    pub admitted: bool,
    /// Packets of its known peers that the policy admits now, where it does not admit all of them.
    #[serde(skip)]
    pub admitted_part: u64,
    /// Packets that are violations, answers among them.
    pub violations: u64,
    /// How many of them this host sent in answer.
    pub answers: u64,
    /// Whether these numbers rest on a sample: how the violations of several findings were told apart.
    pub estimated: bool,
    /// Rows that open the ports to others.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rows: Vec<String>,
    /// Rows of the host's own roles that document the port and open nothing here, with the reason.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<Near>,
    /// How many peers are known.
    pub peers_known: usize,
    /// The heaviest of them.
    pub peers: Vec<Peer>,
    /// First packet, as far as it is known. RFC 3339, UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first: Option<String>,
    /// Last packet. RFC 3339, UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last: Option<String>,
    /// The row that comes nearest, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub near: Option<String>,
}

/// One peer of a finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Peer {
    /// An address, or the IPv6 /64 of which too many came to tell them apart; `unknown` where the frame names nobody.
    pub peer: String,
    /// Packets, answers to it among them.
    pub packets: u64,
    /// Whether that is an estimate.
    pub estimated: bool,
}

/// Leaves out the talkers that a scan is made of: they are one finding, and would fill a list that has room for others.
pub fn without_scans(talkers: &mut Vec<TopTalker>, findings: &[Finding]) {
    let is_of = |finding: &Finding, talker: &TopTalker| {
        let has = |port: u16| {
            finding.port_first.is_some_and(|first| first <= port)
                && finding.port_last.is_some_and(|last| port <= last)
        };
        finding.direction == talker.direction
            && finding
                .transport
                .is_none_or(|one| one.to_string() == talker.transport)
            && talker.port.is_some_and(has)
    };
    talkers.retain(|talker| {
        let mut others = findings.iter().filter(|one| one.kind != Kind::Scan);
        let is_scan = findings.iter().any(|finding| {
            finding.kind == Kind::Scan
                && is_of(finding, talker)
                && finding
                    .peers
                    .iter()
                    .any(|one| Some(&one.peer) == talker.peer.as_ref())
        });
        !is_scan || others.any(|finding| is_of(finding, talker))
    });
}

/// What the sockets of this host say about a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sockets {
    /// Ports that somebody listens on who others can reach.
    pub listening: BTreeSet<(Transport, u16)>,
    /// Ports that the kernel gives to clients: `ip_local_port_range`.
    pub client_ports: (u16, u16),
    /// UDP ports that it gave to all sockets that have them: those of clients.
    pub clients: BTreeSet<u16>,
}

impl Default for Sockets {
    /// Nobody listens, and clients have the ports that Linux gives them unless it is told otherwise.
    fn default() -> Self {
        Self {
            listening: BTreeSet::new(),
            client_ports: (CLIENT_PORTS, CLIENT_PORTS_HERE),
            clients: BTreeSet::new(),
        }
    }
}

impl Sockets {
    /// Whether a service has the port.
    pub fn serve(&self, transport: Transport, port: u16) -> bool {
        let is_client = transport == Transport::Udp && self.clients.contains(&port);
        self.listening.contains(&(transport, port)) && !is_client
    }
}

/// All findings, heaviest first: of what reports counted and talkers of the same interfaces since the same moments.
pub fn findings(
    policy: &Policy,
    reports: &[Report],
    talkers: &[TopTalker],
    sockets: &Sockets,
) -> Vec<Finding> {
    let mut ledger = Ledger::new(policy, reports, talkers, sockets);
    ports::inbound(&mut ledger);
    ports::outbound(&mut ledger);
    ports::without(&mut ledger);
    ledger.finish()
}

/// Names the rows that document a port and open nothing here: what has such a row is not undocumented, but left out.
pub fn name_left_out(findings: &mut [Finding], policy: &Policy, catalog: &Catalog) {
    let left_out = LeftOut::new(policy, catalog);
    for finding in findings.iter_mut().filter(|one| one.may_be_left_out()) {
        if let (Some(transport), Some(port)) = (finding.transport, finding.port_first) {
            finding.left_out = left_out.at((transport, port));
        }
    }
}

impl Finding {
    /// Whether it is about one port of this host that no row opens.
    pub fn may_be_left_out(&self) -> bool {
        self.kind == Kind::UndocumentedPort && self.ports == 1
    }

    /// `192.0.2.7 (12), 192.0.2.8 (3), ...`; `-` where nobody is known.
    pub fn who(&self, named: usize) -> String {
        let mut words: Vec<String> = self.peers.iter().take(named).map(Peer::words).collect();
        if self.peers_known > named {
            words.push(format!("{} more", self.peers_known - named));
        }
        if words.is_empty() {
            "-".to_owned()
        } else {
            words.join(", ")
        }
    }

    /// `1,203`, with a `~` where that rests on a sample.
    pub fn amount(&self) -> String {
        let about = if self.estimated { "~" } else { "" };
        format!("{about}{}", grouped(self.violations))
    }

    /// Why it is one, in a few words.
    pub fn cause(&self) -> String {
        let mut words = match self.kind {
            Kind::UndocumentedPort if !self.left_out.is_empty() => {
                format!("documented, but left out here: {}", self.left_out_rows())
            }
            Kind::UndocumentedPort if self.listening => {
                "not documented, but a service listens".to_owned()
            }
            // Handed on to a container, or by a service that is gone.
            Kind::UndocumentedPort if self.answers > 0 => {
                "not documented, but answered: by a container, or a service that is gone".to_owned()
            }
            Kind::UndocumentedPort => "not documented, and nothing listens".to_owned(),
            Kind::UndocumentedPeer | Kind::UndocumentedDestination | Kind::AnswersFromElsewhere
                if self.admitted =>
            {
                format!(
                    "not admitted when it came; {} admits it now",
                    self.row_ids()
                )
            }
            Kind::UndocumentedPeer | Kind::UndocumentedDestination if self.admitted_part > 0 => {
                let admitted = self.admitted_part.min(self.violations);
                let way = if self.direction == "out" {
                    "to"
                } else {
                    "from"
                };
                format!(
                    "{} {way} peers of {} by now, {} {way} others",
                    grouped(admitted),
                    self.row_ids(),
                    grouped(self.violations - admitted)
                )
            }
            Kind::UndocumentedPeer => format!("not a peer of {}", self.row_ids()),
            Kind::Scan if self.listening => {
                "ports tried, on some of which a service listens".to_owned()
            }
            Kind::Scan => "ports tried that nothing listens on".to_owned(),
            Kind::AnswersFromElsewhere => {
                "to ports of own clients, in no conversation that the guard knows".to_owned()
            }
            Kind::UndocumentedDestinationPort => "sent, and not documented".to_owned(),
            Kind::UndocumentedDestination => format!("sent to a peer not of {}", self.row_ids()),
            Kind::UndocumentedAnswers => "answers to nothing that was counted here".to_owned(),
            Kind::WithoutPort => "not documented".to_owned(),
        };
        if self.answers > 0 && self.kind != Kind::UndocumentedAnswers {
            words = format!("{words} ({} of them answers)", grouped(self.answers));
        }
        words
    }

    /// `acme/web (no-peer)`.
    fn left_out_rows(&self) -> String {
        let each = self.left_out.iter().map(|near| {
            let why = near.left_out.as_deref().unwrap_or_default();
            let reason = why.split(':').next().unwrap_or_default();
            format!("{} ({reason})", near.row)
        });
        each.collect::<Vec<_>>().join(", ")
    }

    fn row_ids(&self) -> String {
        if self.rows.is_empty() {
            "its rows".to_owned()
        } else {
            self.rows.join(", ")
        }
    }
}

impl Peer {
    fn words(&self) -> String {
        let about = if self.estimated { "~" } else { "" };
        format!("{} ({about}{})", self.peer, grouped(self.packets))
    }
}

#[cfg(test)]
mod tests;
