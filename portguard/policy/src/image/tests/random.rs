//! Random policies whose prefixes nest and whose ranges overlap, and questions close to their edges.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use fastrand::Rng;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use portguard_common::reason::Direction;
use portguard_common::tables::Key;

use super::Question;
use crate::catalog::Transport;
use crate::policy::{Grant, GrantKind, PeerSet, Peers, Policy, ProtocolGrant, RowFacts};

/// Protocols that have no ports and no meaning of their own.
const PROTOCOLS: [u8; 6] = [0, 2, 47, 50, 89, 255];

const TRANSPORTS: [Transport; 3] = [Transport::Tcp, Transport::Udp, Transport::Sctp];

pub(super) fn policy(rng: &mut Rng) -> Policy {
    let mut known = Vec::new();
    let sets: Vec<PeerSet> = (0..rng.usize(..8))
        .map(|index| PeerSet {
            name: format!("set {index}"),
            prefixes: (0..rng.usize(1..60))
                .map(|_| prefix(rng, &mut known))
                .collect(),
        })
        .collect();
    let count = u32::try_from(sets.len()).expect("few sets");
    let mut policy = Policy {
        echo: (rng.u8(..4) > 0).then(|| peers(rng, count)),
        inbound: grants(rng, count, "in"),
        outbound: grants(rng, count, "out"),
        sets,
        ..Policy::default()
    };
    for index in 0..rng.usize(..6) {
        policy.protocols.push(ProtocolGrant {
            protocol: rng.choice(PROTOCOLS).unwrap_or(0),
            peers: peers(rng, count),
            row: format!("protocol/{index}"),
        });
    }
    for _ in 0..rng.usize(..3) {
        let (first, last) = range(rng);
        let transport = rng.choice(TRANSPORTS).unwrap_or(Transport::Tcp);
        policy.settings.audit_ports.push((transport, first, last));
    }
    let rows = policy
        .inbound
        .iter()
        .chain(&policy.outbound)
        .map(|grant| grant.row.clone());
    policy.rows = rows
        .map(|id| RowFacts {
            id,
            role: None,
            purpose: String::new(),
            citation: String::new(),
            audit: rng.u8(..3) == 0,
            peers: String::new(),
        })
        .collect();
    policy.rows.sort_by(|one, other| one.id.cmp(&other.id));
    policy.rows.dedup_by(|one, other| one.id == other.id);
    policy
}

/// One of which much ends, at one of three times.
pub(super) fn ending(rng: &mut Rng) -> Policy {
    let mut policy = policy(rng);
    for grant in policy.inbound.iter_mut().chain(&mut policy.outbound) {
        grant.until = (rng.u8(..3) > 0).then(|| 10 * rng.u64(1..4));
    }
    policy
}

fn grants(rng: &mut Rng, sets: u32, name: &str) -> Vec<Grant> {
    let mut list: Vec<Grant> = Vec::new();
    for index in 0..rng.usize(..25) {
        let (first, last) = match list.last() {
            // The same range again, or one that begins where the last one ended.
            Some(grant) if rng.u8(..4) == 0 => (grant.first, grant.last),
            Some(grant) if rng.u8(..4) == 0 => {
                (grant.last, grant.last.saturating_add(rng.u16(..80)))
            }
            _ => range(rng),
        };
        let kinds = [
            GrantKind::Management,
            GrantKind::Baseline,
            GrantKind::Documented,
            GrantKind::Documented,
            GrantKind::Site,
        ];
        list.push(Grant {
            kind: rng.choice(kinds).unwrap_or(GrantKind::Site),
            transport: rng.choice(TRANSPORTS).unwrap_or(Transport::Tcp),
            first,
            last,
            peers: peers(rng, sets),
            // Some rows have several ranges.
            row: format!("{name}/{}", index - index % rng.usize(1..4)),
            until: None,
        });
    }
    list
}

fn peers(rng: &mut Rng, sets: u32) -> Peers {
    if sets == 0 || rng.u8(..4) == 0 {
        Peers::Any
    } else {
        Peers::Set(rng.u32(..sets))
    }
}

fn range(rng: &mut Rng) -> (u16, u16) {
    match rng.u8(..8) {
        0 => (0, 65_535),
        1 => (0, rng.u16(..100)),
        2 => (rng.u16(65_400..), 65_535),
        3..=5 => {
            let port = rng.u16(..2_000);
            (port, port)
        }
        6 => {
            let first = rng.u16(..2_000);
            // Around the number of ports from which on a range counts as one.
            (first, first + rng.u16(60..68))
        }
        _ => {
            let (one, other) = (rng.u16(..), rng.u16(..));
            (one.min(other), one.max(other))
        }
    }
}

/// A prefix, often within or around one that there is already.
fn prefix(rng: &mut Rng, known: &mut Vec<IpNet>) -> IpNet {
    let base = known.get(rng.usize(..=known.len())).copied();
    let base = base.unwrap_or_else(|| {
        if rng.bool() {
            IpNet::V4(Ipv4Net::new(Ipv4Addr::from_bits(rng.u32(..)), 32).expect("a host"))
        } else {
            IpNet::V6(Ipv6Net::new(Ipv6Addr::from_bits(rng.u128(..)), 128).expect("a host"))
        }
    });
    let net = match base {
        IpNet::V4(net) => {
            let length = rng
                .choice([0, 1, 8, 15, 16, 17, 23, 24, 25, 31, 32])
                .unwrap_or(32);
            let length = if rng.bool() { length } else { rng.u8(..=32) };
            let noise = rng
                .u32(..)
                .checked_shr(u32::from(net.prefix_len()))
                .unwrap_or(0);
            let address = Ipv4Addr::from_bits(net.addr().to_bits() ^ noise);
            IpNet::V4(Ipv4Net::new(address, length).expect("a length"))
        }
        IpNet::V6(net) => {
            let edges = [
                0, 1, 15, 16, 17, 32, 48, 63, 64, 65, 72, 80, 96, 120, 121, 127, 128, 128, 128,
            ];
            let length = rng.choice(edges).unwrap_or(128);
            let length = if rng.u8(..3) > 0 {
                length
            } else {
                rng.u8(65..=127)
            };
            let noise = rng
                .u128(..)
                .checked_shr(u32::from(net.prefix_len()))
                .unwrap_or(0);
            let address = Ipv6Addr::from_bits(net.addr().to_bits() ^ noise);
            IpNet::V6(Ipv6Net::new(address, length).expect("a length"))
        }
    };
    known.push(net);
    net
}

/// An address at, next to or within a prefix of the policy; or any.
pub(super) fn peer(rng: &mut Rng, policy: &Policy) -> IpAddr {
    let nets: Vec<&IpNet> = policy.sets.iter().flat_map(|set| &set.prefixes).collect();
    let Some(net) = rng.choice(nets) else {
        return any(rng);
    };
    match (net, rng.u8(..6)) {
        (_, 0) => any(rng),
        (IpNet::V4(net), place) => {
            let (first, last) = (net.network().to_bits(), net.broadcast().to_bits());
            Ipv4Addr::from_bits(match place {
                1 => first,
                2 => last,
                3 => first.wrapping_sub(1),
                4 => last.wrapping_add(1),
                _ => rng.u32(first..=last),
            })
            .into()
        }
        (IpNet::V6(net), place) => {
            let (first, last) = (net.network().to_bits(), net.broadcast().to_bits());
            Ipv6Addr::from_bits(match place {
                1 => first,
                2 => last,
                3 => first.wrapping_sub(1),
                4 => last.wrapping_add(1),
                _ => rng.u128(first..=last),
            })
            .into()
        }
    }
}

fn any(rng: &mut Rng) -> IpAddr {
    if rng.bool() {
        Ipv4Addr::from_bits(rng.u32(..)).into()
    } else {
        Ipv6Addr::from_bits(rng.u128(..)).into()
    }
}

pub(super) fn question(rng: &mut Rng, policy: &Policy) -> Question {
    let direction = if rng.u8(..3) > 0 {
        Direction::Ingress
    } else {
        Direction::Egress
    };
    let key = match rng.u8(..8) {
        0 => Key::protocol(rng.choice(PROTOCOLS).unwrap_or(0)),
        1 => Key::ECHO,
        _ => {
            let space = rng.u32(..3);
            Key::port(space, port(rng, policy))
        }
    };
    Question {
        direction,
        key,
        peer: peer(rng, policy),
        other: port(rng, policy),
    }
}

/// A port at or next to an edge of a grant; or any.
fn port(rng: &mut Rng, policy: &Policy) -> u16 {
    let grants: Vec<&Grant> = policy.inbound.iter().chain(&policy.outbound).collect();
    let Some(grant) = rng.choice(grants) else {
        return rng.u16(..);
    };
    match rng.u8(..7) {
        0 => rng.u16(..),
        1 => grant.first,
        2 => grant.last,
        3 => grant.first.wrapping_sub(1),
        4 => grant.last.wrapping_add(1),
        5 => rng.u16(..2_100),
        _ => rng.u16(grant.first..=grant.last),
    }
}
