//! Causes that are one problem, as findings have them: a scan, answers to what arrived, answers from elsewhere.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use portguard_common::packet::protocol;

use super::Cause;
use crate::findings::scan::{OFTEN, PORTS};
use crate::findings::{Finding, Kind, Sockets};
use crate::talkers::{name, whom};
use portguard_policy::catalog::Transport;

/// Direction, reason, protocol, port, whether that is a client's, the service, and the peer.
type Key = (String, String, u8, u16, bool, u16, IpNet);

/// What a scan is accepted as.
pub(super) const SCAN: &str = "scan";

/// The causes with those of one problem and one peer together.
pub(super) fn fold(causes: &[Cause], findings: &[Finding], sockets: &Sockets) -> Vec<Cause> {
    let of = |kind| findings.iter().filter(move |finding| finding.kind == kind);
    let scanning: BTreeMap<&str, u64> = of(Kind::Scan)
        .flat_map(|finding| &finding.peers)
        .map(|peer| (peer.peer.as_str(), peer.packets))
        .collect();
    let scanned_before = scanners(causes, sockets);
    // Ports that are a problem by themselves: somebody listens, or they were tried often.
    let alone = |cause: &Cause| {
        !is_quiet(cause, sockets)
            || of(Kind::UndocumentedPort).any(|finding| {
                let ports = finding.port_first.zip(finding.port_last);
                finding.transport.map(Transport::number) == Some(cause.protocol)
                    && ports.is_some_and(|(first, last)| (first..=last).contains(&cause.port))
            })
    };
    let arrived: BTreeSet<(IpNet, u8, u16)> = causes
        .iter()
        .filter(|cause| cause.direction == "in" && !cause.to_client)
        .map(|cause| (around(cause.peer), cause.protocol, cause.port))
        .collect();
    let is_answer = |cause: &Cause| {
        let peer = around(cause.peer);
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
        let peer = cause.whom();
        let who = name(peer);
        let is_arrival = cause.direction == "in" && cause.reason == "undocumented-port";
        let is_scanner = scanning.contains_key(who.as_str()) || scanned_before.contains(&peer);
        if is_arrival && is_scanner && !alone(&cause) {
            SCAN.clone_into(&mut cause.reason);
            (cause.protocol, cause.port, cause.to_client, cause.service) = (0, 0, false, 0);
        } else if is_arrival && cause.protocol == protocol::UDP && is_client(cause.port, sockets) {
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
    // The kernel has no room for each port of a scan, but counts them all.
    for cause in folded.values_mut().filter(|cause| cause.reason == SCAN) {
        let known = scanning.get(name(cause.whom()).as_str());
        cause.packets.now = cause.packets.now.max(known.copied().unwrap_or(0));
    }
    folded.into_values().collect()
}

/// An IPv4 address, or a /64: what came and what was answered may be crowds or not.
fn around(peer: IpAddr) -> IpNet {
    whom(peer, true)
}

fn is_client(port: u16, sockets: &Sockets) -> bool {
    let (first, last) = sockets.client_ports;
    (first..=last).contains(&port)
}

/// Whether nobody listens there and few packets came, as far as causes tell.
fn is_quiet(cause: &Cause, sockets: &Sockets) -> bool {
    let transport = Transport::from_repr(cause.protocol);
    transport.is_some_and(|transport| !sockets.serve(transport, cause.port))
        && cause.packets.total() <= OFTEN
}

/// Who tried many ports, also in a time of which no counters are left: before the last boot, or before the guard was removed.
fn scanners(causes: &[Cause], sockets: &Sockets) -> BTreeSet<IpNet> {
    let mut tried: BTreeMap<IpNet, BTreeSet<(u8, u16)>> = BTreeMap::new();
    let is_try = |cause: &&Cause| {
        cause.direction == "in"
            && cause.reason == "undocumented-port"
            && !cause.to_client
            && is_quiet(cause, sockets)
    };
    for cause in causes.iter().filter(is_try) {
        let ports = tried.entry(cause.whom()).or_default();
        ports.insert((cause.protocol, cause.port));
    }
    let many = tried.into_iter().filter(|(_, ports)| ports.len() >= PORTS);
    many.map(|(peer, _)| peer).collect()
}
