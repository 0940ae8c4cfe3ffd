//! Causes that are one problem, as findings have them: a scan, answers to what arrived, answers from elsewhere.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use portguard_common::packet::protocol;
use portguard_common::talkers::{CLIENT_PORTS, CLIENT_PORTS_HERE};

use super::Cause;
use crate::findings::{Finding, Kind};
use crate::talkers::network;

/// Direction, reason, protocol, port, whether that is a client's, the service, and the peer's network.
type Key = (String, String, u8, u16, bool, u16, IpAddr);

/// What a scan is accepted as.
pub(super) const SCAN: &str = "scan";

/// The causes with those of one problem and one peer together.
pub(super) fn fold(causes: &[Cause], findings: &[Finding]) -> Vec<Cause> {
    let of = |kind| findings.iter().filter(move |finding| finding.kind == kind);
    let scanners: BTreeSet<&str> = of(Kind::Scan)
        .flat_map(|finding| &finding.peers)
        .map(|peer| peer.peer.as_str())
        .collect();
    // Ports that are a problem by themselves: somebody listens, or they were tried often.
    let alone = |cause: &Cause| {
        of(Kind::UndocumentedPort).any(|finding| {
            let ports = finding.port_first.zip(finding.port_last);
            finding.transport.map(number) == Some(cause.protocol)
                && ports.is_some_and(|(first, last)| (first..=last).contains(&cause.port))
        })
    };
    let arrived: BTreeSet<(IpAddr, u8, u16)> = causes
        .iter()
        .filter(|cause| cause.direction == "in" && !cause.to_client)
        .map(|cause| (network(cause.peer), cause.protocol, cause.port))
        .collect();
    let is_answer = |cause: &Cause| {
        let peer = network(cause.peer);
        cause.direction == "out"
            && cause.to_client
            && match cause.service {
                0 => arrived.iter().any(|(other, ..)| *other == peer),
                service => arrived.contains(&(peer, cause.protocol, service)),
            }
    };
    let mut folded: BTreeMap<Key, Cause> = BTreeMap::new();
    for cause in causes.iter().filter(|cause| !is_answer(cause)) {
        let mut cause = cause.clone();
        let peer = network(cause.peer);
        let who = match peer {
            IpAddr::V4(peer) => peer.to_string(),
            IpAddr::V6(peer) => format!("{peer}/64"),
        };
        let is_arrival = cause.direction == "in" && cause.reason == "undocumented-port";
        if is_arrival && scanners.contains(who.as_str()) && !alone(&cause) {
            SCAN.clone_into(&mut cause.reason);
            (cause.protocol, cause.port, cause.to_client, cause.service) = (0, 0, false, 0);
        } else if is_arrival
            && cause.protocol == protocol::UDP
            && (CLIENT_PORTS..=CLIENT_PORTS_HERE).contains(&cause.port)
        {
            // A client's port at both ends: the next transfer has others.
            (cause.port, cause.to_client) = (0, true);
        }
        let key = (
            cause.direction.clone(),
            cause.reason.clone(),
            cause.protocol,
            cause.port,
            cause.to_client,
            cause.service,
            peer,
        );
        folded
            .entry(key)
            .and_modify(|known| {
                known.packets = known.packets.and(cause.packets);
                known.error = known.error.and(cause.error);
                known.first = known.first.min(cause.first);
                known.last = known.last.max(cause.last);
            })
            .or_insert(cause);
    }
    folded.into_values().collect()
}

fn number(transport: portguard_policy::catalog::Transport) -> u8 {
    use portguard_policy::catalog::Transport;
    match transport {
        Transport::Tcp => protocol::TCP,
        Transport::Udp => protocol::UDP,
        Transport::Sctp => protocol::SCTP,
    }
}
