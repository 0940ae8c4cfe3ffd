//! What is known, by place, and the findings that it is booked to.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use super::share::apportion;
use super::{Finding, Kind, PEERS, Peer, Sockets};
use crate::counters::{PortCount, Report};
use crate::talkers::TopTalker;
use portguard_policy::catalog::Transport;
use portguard_policy::policy::{Peers, Policy};

/// `in` or `out`, and a transport.
pub(super) type Side = (&'static str, Transport);

/// What came to, or went to, one port.
#[derive(Default)]
pub(super) struct Port<'a> {
    /// Violations, by the counters.
    pub(super) count: u64,
    /// Whether rows open it to others.
    pub(super) documented: bool,
    /// Of the few ports of which more is known than that: there may be as many as there are ports.
    known: Option<Box<Known<'a>>>,
}

/// What is known of a port beside its count.
#[derive(Default)]
struct Known<'a> {
    /// Rows that open it to others.
    rows: BTreeSet<&'a str>,
    /// Who sent to it.
    talkers: Vec<&'a TopTalker>,
}

impl<'a> Port<'a> {
    /// Rows that open it to others.
    pub(super) fn rows(&self) -> impl Iterator<Item = &'a str> {
        let known = self.known.iter();
        known.flat_map(|known| known.rows.iter().copied())
    }

    /// Who sent to it.
    pub(super) fn talkers(&self) -> &[&'a TopTalker] {
        self.known
            .as_ref()
            .map_or(&[], |known| known.talkers.as_slice())
    }

    fn known(&mut self) -> &mut Known<'a> {
        self.known.get_or_insert_default()
    }
}

/// One direction of one transport.
#[derive(Default)]
pub(super) struct Half<'a> {
    /// By port: those that have violations.
    pub(super) ports: BTreeMap<u16, Port<'a>>,
    /// Who sent to clients' ports, which are not told apart.
    pub(super) to_clients: Vec<&'a TopTalker>,
}

/// A finding that grows.
#[derive(Default)]
pub(super) struct Entry {
    pub(super) transport: Option<Transport>,
    pub(super) ports: BTreeSet<u16>,
    pub(super) source_port: Option<u16>,
    pub(super) what: Option<String>,
    pub(super) listening: bool,
    pub(super) violations: u64,
    pub(super) answers: u64,
    pub(super) estimated: bool,
    pub(super) rows: BTreeSet<String>,
    pub(super) peers: BTreeMap<String, Peer>,
    first: Option<String>,
    last: Option<String>,
    near: Option<(u64, String)>,
}

/// By what a finding is known: two that have the same are one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Cause {
    pub(super) direction: &'static str,
    pub(super) kind: Kind,
    /// Transport, and first port of the range that rows open, or the port itself; or a reason and what it is about.
    pub(super) place: String,
}

pub(super) struct Ledger<'a> {
    pub(super) policy: &'a Policy,
    pub(super) sockets: &'a Sockets,
    pub(super) halves: BTreeMap<Side, Half<'a>>,
    pub(super) reports: &'a [Report],
    pub(super) talkers: &'a [TopTalker],
    pub(super) entries: BTreeMap<Cause, Entry>,
}

impl<'a> Ledger<'a> {
    pub(super) fn new(
        policy: &'a Policy,
        reports: &'a [Report],
        talkers: &'a [TopTalker],
        sockets: &'a Sockets,
    ) -> Self {
        let mut halves: BTreeMap<Side, Half<'a>> = BTreeMap::new();
        let of = |line: &'a PortCount| Some((line.direction, line.transport.parse().ok()?));
        for line in reports.iter().flat_map(|report| &report.ports) {
            let Some(side) = of(line).filter(|_| line.violations.packets > 0) else {
                continue;
            };
            let half = halves.entry(side).or_default();
            let port = half.ports.entry(line.port).or_default();
            port.count += line.violations.packets;
            port.documented |= line.documented;
            if line.documented {
                let rows = line.rows.iter().map(String::as_str);
                port.known().rows.extend(rows);
            }
        }
        for talker in talkers {
            let Ok(transport) = talker.transport.parse() else {
                continue;
            };
            // Without a counter there is nothing to tell about: it is of a moment later than the counters.
            let Some(half) = halves.get_mut(&(talker.direction, transport)) else {
                continue;
            };
            match talker.port {
                None => half.to_clients.push(talker),
                Some(port) => {
                    if let Some(port) = half.ports.get_mut(&port) {
                        port.known().talkers.push(talker);
                    }
                }
            }
        }
        Self {
            policy,
            sockets,
            halves,
            reports,
            talkers,
            entries: BTreeMap::new(),
        }
    }

    /// The finding of a cause, made where there is none.
    pub(super) fn entry(&mut self, cause: Cause) -> &mut Entry {
        self.entries.entry(cause).or_default()
    }

    pub(super) fn finish(self) -> Vec<Finding> {
        let (entries, policy) = (self.entries.into_iter(), self.policy);
        let mut all: Vec<Finding> = entries
            .filter(|(_, entry)| entry.violations > 0)
            .map(|(cause, entry)| entry.finish(&cause, policy))
            .collect();
        all.sort_by_key(|finding| Reverse(finding.violations));
        all
    }
}

/// Who scans has a talker for each port, of which there is room for the first: all of it is theirs.
fn whole(peers: &mut [Peer], violations: u64) {
    let weights: Vec<u64> = peers.iter().map(|peer| peer.packets).collect();
    if weights.iter().sum::<u64>() >= violations {
        return;
    }
    for (peer, packets) in peers.iter_mut().zip(apportion(violations, &weights)) {
        peer.packets = packets;
        peer.estimated = true;
    }
}

impl Entry {
    /// Adds what a talker did.
    pub(super) fn add(&mut self, talker: &TopTalker) {
        let name = talker.who().to_owned();
        let peer = self.peers.entry(name.clone()).or_insert(Peer {
            peer: name,
            packets: 0,
            estimated: false,
        });
        peer.packets += talker.packets;
        peer.estimated |= talker.at_least < talker.at_most;
        if self
            .first
            .as_ref()
            .is_none_or(|first| talker.first < *first)
        {
            self.first = Some(talker.first.clone());
        }
        if self.last.as_ref().is_none_or(|last| talker.last > *last) {
            self.last = Some(talker.last.clone());
        }
        let near = talker.near();
        let is_heavier = |(packets, _): &(u64, String)| talker.packets > *packets;
        if !near.is_empty() && self.near.as_ref().is_none_or(is_heavier) {
            self.near = Some((talker.packets, near));
        }
    }

    /// Whether the policy admits all of its peers now, so that what it counted came before that; and packets of those that it
    /// admits.
    fn admitted(&self, cause: &Cause, policy: &Policy) -> (bool, u64) {
        let grants = match cause.kind {
            Kind::UndocumentedPeer => &policy.inbound,
            // Rows open them now.
            Kind::AnswersFromElsewhere if !self.rows.is_empty() => &policy.inbound,
            Kind::UndocumentedDestination => &policy.outbound,
            Kind::UndocumentedPort
            | Kind::Scan
            | Kind::AnswersFromElsewhere
            | Kind::UndocumentedDestinationPort
            | Kind::UndocumentedAnswers
            | Kind::WithoutPort => return (false, 0),
        };
        let at_port = |port: u16, peer: Option<IpNet>| {
            grants.iter().any(|grant| {
                Some(grant.transport) == self.transport
                    && grant.covers(port)
                    && match peer {
                        None => grant.peers == Peers::Any,
                        Some(net) => [net.network(), net.broadcast()]
                            .iter()
                            .all(|address| policy.admits(grant.peers, *address)),
                    }
            })
        };
        // Which ones it had is not known where several share them.
        let admits =
            |peer| !self.ports.is_empty() && self.ports.iter().all(|port| at_port(*port, peer));
        if self.peers.is_empty() {
            return (admits(None), 0);
        }
        let net = |name: &str| {
            let address = name.parse::<IpAddr>().map(IpNet::from);
            address.or_else(|_error| name.parse()).ok()
        };
        let admitted = self.peers.values().filter(|peer| admits(net(&peer.peer)));
        let (count, packets) = admitted.fold((0, 0), |(count, packets), peer| {
            (count + 1, packets + peer.packets)
        });
        (count == self.peers.len(), packets)
    }

    fn finish(self, cause: &Cause, policy: &Policy) -> Finding {
        let (admitted, packets) = self.admitted(cause, policy);
        let peers_known = self.peers.len();
        let mut peers: Vec<Peer> = self.peers.into_values().collect();
        peers.sort_by(|a, b| b.packets.cmp(&a.packets).then(a.peer.cmp(&b.peer)));
        if cause.kind == Kind::Scan {
            whole(&mut peers, self.violations);
        }
        peers.truncate(PEERS);
        let (port_first, port_last) = (self.ports.first().copied(), self.ports.last().copied());
        let what = self.what.unwrap_or_else(|| {
            if cause.kind == Kind::Scan {
                return format!(
                    "scan of {}",
                    portguard_policy::human::count(self.ports.len() as u64, "port")
                );
            }
            let transport = self.transport.map_or(String::new(), |one| one.to_string());
            match (port_first, port_last) {
                (Some(first), Some(last)) if first != last => format!("{transport}/{first}-{last}"),
                (Some(first), _) => format!("{transport}/{first}"),
                (None, _) => transport,
            }
        });
        Finding {
            kind: cause.kind,
            direction: cause.direction,
            what,
            transport: self.transport,
            port_first,
            port_last,
            ports: self.ports.len(),
            source_port: self.source_port,
            listening: self.listening,
            admitted,
            admitted_part: if admitted { 0 } else { packets },
            violations: self.violations,
            answers: self.answers,
            estimated: self.estimated,
            rows: self.rows.into_iter().collect(),
            left_out: Vec::new(),
            peers_known,
            peers,
            first: self.first,
            last: self.last,
            near: self.near.map(|(_, words)| words),
        }
    }
}
