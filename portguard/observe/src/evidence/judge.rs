//! What becomes of the causes of violations when a policy enforces. Pure.

use std::net::{IpAddr, Ipv4Addr};

use portguard_common::packet::protocol;
use portguard_common::reason::{Direction, Reason};
use serde::Serialize;

use super::Cause;
use super::accept::Accepted;
use super::fold::fold;
use crate::findings::{Finding, Kind, Sockets};
use crate::talkers::name;
use portguard_policy::catalog::Transport;
use portguard_policy::explain::{Explainer, Near, Outcome, Query};
use portguard_policy::policy::{Outbound, Peers, Policy};

/// What becomes of a cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, strum::IntoStaticStr)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum State {
    /// It would be dropped, and nobody has said that it may.
    Unexplained,
    /// It would be dropped, and somebody has said that it may.
    Accepted,
    /// It is dropped already, by what is in force: enforcing takes nothing away.
    Dropped,
    /// It would only be counted.
    Audit,
    /// The policy admits it.
    Admitted,
}

impl State {
    /// In one word.
    pub fn name(self) -> &'static str {
        self.into()
    }
}

/// A cause, and what becomes of it.
#[derive(Debug, Clone, Serialize)]
pub struct Judged {
    /// What becomes of it.
    pub state: State,
    /// `in` or `out`.
    pub direction: String,
    /// `tcp/8080`, `icmp/13`, `ip/47`, or the name of a reason.
    pub what: String,
    /// Stable name.
    pub reason: String,
    /// The other end: an address, or an IPv6 /64 from which too many came to tell them apart. Absent where it is not known:
    /// of the peers of a port, those that the kernel had no room for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
    /// The port that the packets come from, where that explains them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_port: Option<u16>,
    /// Packets.
    pub packets: u64,
    /// By how many of them that may be too high.
    pub error: u64,
    /// When it was first seen, as far as it is known.
    #[serde(skip_serializing_if = "is_unknown")]
    #[serde(serialize_with = "portguard_policy::human::seconds::serialize")]
    pub first: u64,
    /// When it was last seen.
    #[serde(skip_serializing_if = "is_unknown")]
    #[serde(serialize_with = "portguard_policy::human::seconds::serialize")]
    pub last: u64,
    /// Rows that admit it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rows: Vec<String>,
    /// Rows that come closest.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub nearest: Vec<Near>,
    /// Lines of a site file that would admit it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub site: Option<String>,
    /// Who accepted it, when and why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accepted: Option<Accepted>,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "what serde calls it with"
)]
const fn is_unknown(time: &u64) -> bool {
    *time == 0
}

impl Cause {
    /// `tcp/8080`, `icmp/13`, `ip/47`; where neither means anything, the name of the reason.
    pub fn what(&self) -> String {
        let (name, number) = match (self.reason(), self.protocol) {
            (Some(Reason::UndocumentedPort | Reason::UndocumentedPeer), protocol::TCP) => {
                ("tcp", self.port)
            }
            (Some(Reason::UndocumentedPort | Reason::UndocumentedPeer), protocol::UDP) => {
                ("udp", self.port)
            }
            (Some(Reason::UndocumentedPort | Reason::UndocumentedPeer), protocol::SCTP) => {
                ("sctp", self.port)
            }
            (Some(Reason::Icmp), protocol::ICMP) => ("icmp", self.port),
            (Some(Reason::Icmp), protocol::ICMPV6) => ("icmpv6", self.port),
            (Some(Reason::UndocumentedProtocol | Reason::UndocumentedPeer), number) => {
                ("ip", number.into())
            }
            _ => return self.reason.clone(),
        };
        match (self.to_client, self.service) {
            (false, _) => format!("{name}/{number}"),
            (true, 0) => format!("{name}/to-clients"),
            (true, service) => format!("{name}/from-{service}"),
        }
    }

    /// Lines of a site file that would admit it.
    fn site_lines(&self, (first, last): (u16, u16)) -> Option<String> {
        let what = self.what();
        let (transport, port) = what.split_once('/')?;
        if !matches!(transport, "tcp" | "udp" | "sctp") {
            return None;
        }
        // The next answer comes to another port of this host's clients.
        let ports = if self.to_client {
            format!("\"{first}-{last}\"")
        } else {
            port.to_owned()
        };
        let peer = name(self.whom());
        // All that is printed may be pasted: each peer, direction and port has a name of its own.
        let whom: Vec<&str> = peer
            .split(|one: char| !one.is_ascii_alphanumeric())
            .filter(|part| !part.is_empty())
            .collect();
        let row = format!(
            "{transport}-{port}-{}-{}",
            if self.direction == "out" { "to" } else { "of" },
            whom.join("-")
        );
        Some(format!(
            "[[row]]\nname = \"{row}\"\ndirection = \"{}\"\ntransport = \"{transport}\"\nports = [{ports}]\n\
             peers = [\"{peer}\"]\nreason = \"...\"",
            self.direction
        ))
    }
}

/// What drops packets now.
#[derive(Debug, Default)]
pub struct InForce<'a> {
    /// Whether what arrives is dropped, not only counted.
    pub inbound: bool,
    /// Whether what is sent is.
    pub outbound: bool,
    /// The policies that may be in force: two while it is not certain which.
    pub policies: Vec<Explainer<'a>>,
}

impl InForce<'_> {
    fn enforces(&self, direction: Direction) -> bool {
        let enforces = match direction {
            Direction::Ingress => self.inbound,
            Direction::Egress => self.outbound,
        };
        enforces && !self.policies.is_empty()
    }

    /// Whether something that is a violation is dropped now, by whichever of them is in force.
    fn drops(&self, query: &Query) -> bool {
        let is_dropped = |explainer: &Explainer<'_>| {
            let answer = explainer.query(query);
            matches!((answer.verdict, answer.mode), (Outcome::Drop, "enforce"))
        };
        self.enforces(query.direction) && self.policies.iter().all(is_dropped)
    }
}

/// Judges causes by a policy that enforces, one a finding and peer. Causes of a direction that it does not enforce are left
/// out.
pub fn judge(
    causes: &[Cause],
    findings: &[Finding],
    policy: &Policy,
    explainer: &Explainer<'_>,
    accepted: &[Accepted],
    sockets: &Sockets,
    in_force: &InForce<'_>,
) -> Vec<Judged> {
    let causes = fold(causes, findings, sockets);
    let mut all: Vec<Judged> = causes
        .iter()
        .filter(|cause| match cause.direction() {
            Direction::Ingress => true,
            Direction::Egress => policy.settings.outbound == Outbound::Enforce,
        })
        .map(|cause| {
            one(
                cause,
                policy,
                explainer,
                accepted,
                sockets.client_ports,
                in_force,
            )
        })
        .collect();
    all.extend(unknown_peers(findings, policy, accepted, in_force));
    all.sort_by_key(|judged| (judged.state, std::cmp::Reverse(judged.packets)));
    all
}

/// Of each finding, what no peer is known for: the counters know of every port, whatever there was no room for beside them.
fn unknown_peers<'a>(
    findings: &'a [Finding],
    policy: &'a Policy,
    accepted: &'a [Accepted],
    in_force: &'a InForce<'_>,
) -> impl Iterator<Item = Judged> + 'a {
    findings.iter().filter_map(|finding| {
        let is_judged = finding.direction == Direction::Ingress.name()
            || policy.settings.outbound == Outbound::Enforce;
        let known: u64 = finding.peers.iter().map(|peer| peer.packets).sum();
        let unknown = finding.violations.saturating_sub(known);
        let (Some(transport), Some(port)) = (finding.transport, finding.port_first) else {
            return None;
        };
        let is_whole = finding.estimated || finding.peers.iter().any(|peer| peer.estimated);
        if !is_judged || unknown == 0 || is_whole && known > 0 || finding.kind == Kind::Scan {
            return None;
        }
        let grants = if finding.direction == Direction::Ingress.name() {
            &policy.inbound
        } else {
            &policy.outbound
        };
        let is_open = grants.iter().any(|grant| {
            grant.transport == transport
                && grant.first <= port
                && finding.port_last.is_some_and(|last| last <= grant.last)
                && grant.peers == Peers::Any
        });
        let what = acceptable(finding, transport, port);
        let ports = (port, finding.port_last.unwrap_or(port));
        let said = accepted.iter().find(|said| {
            said.flow.peer.is_none()
                && said.flow.direction == finding.direction
                && (said.flow.what == what || said.flow.covers_ports(&transport.to_string(), ports))
        });
        let is_in = finding.direction == Direction::Ingress.name();
        let is_dropped = in_force.drops(&Query {
            direction: if is_in {
                Direction::Ingress
            } else {
                Direction::Egress
            },
            protocol: transport.number(),
            remote: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            port,
            from_port: None,
        });
        Some(Judged {
            state: match (is_open, said) {
                (true, _) => State::Admitted,
                (false, Some(_)) => State::Accepted,
                (false, None) if is_dropped => State::Dropped,
                (false, None) => State::Unexplained,
            },
            direction: finding.direction.to_owned(),
            what,
            reason: finding.kind.name().to_owned(),
            peer: None,
            source_port: finding.source_port,
            packets: unknown,
            error: 0,
            first: 0,
            last: 0,
            rows: Vec::new(),
            nearest: Vec::new(),
            site: None,
            accepted: said.cloned(),
        })
    })
}

/// A finding as `--accept` takes it.
fn acceptable(finding: &Finding, transport: Transport, first: u16) -> String {
    match (finding.kind, finding.source_port, finding.port_last) {
        (_, Some(service), _) => format!("{transport}/from-{service}"),
        (Kind::AnswersFromElsewhere | Kind::UndocumentedAnswers, None, _) => {
            format!("{transport}/to-clients")
        }
        (_, None, Some(last)) if last > first => format!("{transport}/{first}-{last}"),
        (_, None, _) => format!("{transport}/{first}"),
    }
}

fn one(
    cause: &Cause,
    policy: &Policy,
    explainer: &Explainer<'_>,
    accepted: &[Accepted],
    client_ports: (u16, u16),
    in_force: &InForce<'_>,
) -> Judged {
    let mut judged = Judged {
        state: State::Unexplained,
        direction: cause.direction.clone(),
        what: cause.what(),
        reason: cause.reason.clone(),
        // What could not be read names nobody.
        peer: (!cause.peer.is_unspecified()).then(|| name(cause.whom())),
        source_port: Some(cause.service).filter(|port| *port > 0),
        packets: cause.packets.total(),
        error: cause.error.total(),
        first: cause.first,
        last: cause.last,
        rows: Vec::new(),
        nearest: Vec::new(),
        site: None,
        accepted: None,
    };
    let is_lax = match cause.reason() {
        Some(Reason::StrictFragment) => !policy.settings.strict_fragments,
        Some(Reason::StrictEthertype) => !policy.settings.strict_ethertypes,
        _ => false,
    };
    if is_lax {
        judged.state = State::Admitted;
        return judged;
    }
    if matches!(
        cause.reason(),
        Some(
            Reason::UndocumentedPort
                | Reason::UndocumentedPeer
                | Reason::UndocumentedProtocol
                | Reason::Icmp
        )
    ) {
        let query_of = |remote| Query {
            direction: cause.direction(),
            protocol: cause.protocol,
            remote,
            port: if cause.to_client {
                client_ports.0
            } else {
                cause.port
            },
            from_port: Some(cause.service).filter(|port| *port > 0),
        };
        let ask = |remote| {
            let query = query_of(remote);
            let answer = explainer.query(&query);
            let state = match (answer.verdict, answer.mode) {
                (Outcome::Pass, _) => State::Admitted,
                (Outcome::Drop, "enforce") => State::Unexplained,
                (Outcome::Drop, _) => State::Audit,
            };
            (state, query, answer)
        };
        let mut worst = ask(cause.peer);
        if cause.is_crowd {
            // It is admitted where its whole network is.
            let whom = cause.whom();
            for edge in [whom.network(), whom.broadcast()].map(ask) {
                if edge.0 < worst.0 {
                    worst = edge;
                }
            }
        }
        let (state, query, answer) = worst;
        judged.rows = answer.rows;
        judged.state = state;
        if judged.state != State::Unexplained {
            return judged;
        }
        if in_force.drops(&query) {
            judged.state = State::Dropped;
        }
        judged.nearest = answer.nearest;
        judged.site = cause.site_lines(client_ports);
    } else if in_force.enforces(cause.direction()) {
        // No policy admits what cannot be read.
        judged.state = State::Dropped;
    }
    if let Some(said) = accepted
        .iter()
        .find(|said| said.flow.covers(cause, client_ports))
    {
        judged.state = State::Accepted;
        judged.accepted = Some(said.clone());
    }
    judged
}

#[cfg(test)]
mod tests;
