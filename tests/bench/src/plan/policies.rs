//! Policies of every size, and their programs.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::Result;
use fastrand::Rng;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use portguard_kernel::object::{self, HostFacts, Loaded};
use portguard_policy::catalog::Transport;
use portguard_policy::cells::Directory;
use portguard_policy::image::Image;
use portguard_policy::policy::{Grant, GrantKind, Outbound, PeerSet, Peers, Policy, Settings};

/// Groups of peers; each has a port of its own, and all have [`SHARED_PORT`].
pub(crate) const GROUPS: u16 = 16;
/// The port of the first group.
pub(crate) const GROUP_PORT: u16 = 7000;
/// The port that all groups have.
pub(crate) const SHARED_PORT: u16 = 5432;

/// As a host loads it: in enforce, with a flow table, events possible, nobody listening.
pub(crate) fn load(policy: &Policy) -> Result<Loaded> {
    let image = Image::build(policy, Directory::default())?;
    let host = HostFacts {
        flow_key: [0x1234_5678_9abc_def1, 0x0fed_cba9_8765_4321],
        ..HostFacts::default()
    };
    Ok(object::load(&image, &host, None)?)
}

fn settings(outbound: Outbound) -> Settings {
    Settings {
        enforce: true,
        outbound,
        ..Settings::default()
    }
}

fn grant(transport: Transport, first: u16, last: u16, peers: Peers, row: String) -> Grant {
    Grant {
        kind: GrantKind::Documented,
        transport,
        first,
        last,
        peers,
        row,
        until: None,
    }
}

/// A few ports that are open to everybody.
pub(crate) fn plain(outbound: Outbound) -> Policy {
    let open = |transport, port| {
        let row = format!("bench/{port}");
        grant(transport, port, port, Peers::Any, row)
    };
    Policy {
        inbound: vec![
            open(Transport::Tcp, 22),
            open(Transport::Tcp, 80),
            open(Transport::Tcp, 443),
            open(Transport::Tcp, 5432),
            open(Transport::Udp, 53),
        ],
        outbound: vec![open(Transport::Tcp, 443), open(Transport::Udp, 53)],
        echo: Some(Peers::Any),
        settings: settings(outbound),
        ..Policy::default()
    }
}

/// So many TCP ports that are open to everybody. A row has one; or a range that is long enough to be counted as one, where
/// there are more ports than counters.
pub(crate) fn ports(count: u32) -> Policy {
    let step = if count > 8192 { 65 } else { 1 };
    let rows = (0..count).step_by(usize::try_from(step).unwrap_or(1));
    let inbound = rows
        .filter_map(|first| {
            let last = (first + step - 1).min(count - 1);
            let (first, last) = (u16::try_from(first).ok()?, u16::try_from(last).ok()?);
            let row = format!("bench/{first}");
            Some(grant(Transport::Tcp, first, last, Peers::Any, row))
        })
        .collect();
    Policy {
        inbound,
        settings: settings(Outbound::Off),
        ..Policy::default()
    }
}

/// So many rows for [`GROUPS`] ports, each for a network of its own.
pub(crate) fn rows(count: u32) -> Policy {
    let network = |row: u32| Ipv4Net::new_assert(Ipv4Addr::from(16 << 24 | row << 9), 24);
    let sets = (0..count).map(|row| PeerSet {
        name: format!("network {row}"),
        prefixes: vec![network(row).into()],
    });
    let inbound = (0..count).map(|row| {
        let port = GROUP_PORT + u16::try_from(row % u32::from(GROUPS)).unwrap_or(0);
        let name = format!("bench/{port}-{row}");
        grant(Transport::Tcp, port, port, Peers::Set(row), name)
    });
    Policy {
        sets: sets.collect(),
        inbound: inbound.collect(),
        settings: settings(Outbound::Off),
        ..Policy::default()
    }
}

/// Peers of a policy, to make frames from.
#[derive(Debug, Clone, Default)]
pub(crate) struct Members {
    pub(crate) v4: Vec<Ipv4Net>,
    pub(crate) v6: Vec<Ipv6Net>,
    pub(crate) hosts: Vec<Ipv6Addr>,
}

/// So many prefixes, the same ones each time: half of them IPv4 from /16 to /32, a quarter IPv6 from /32 to /64, and a
/// quarter IPv6 hosts; dealt out to [`GROUPS`] groups of peers.
pub(crate) fn sources(count: u32) -> (Policy, Members) {
    let mut rng = Rng::with_seed(7);
    let mut seen = BTreeSet::new();
    let mut members = Members::default();
    let mut sets: Vec<PeerSet> = (0..GROUPS)
        .map(|group| PeerSet {
            name: format!("group {group}"),
            prefixes: Vec::new(),
        })
        .collect();
    let mut dealt = 0;
    while dealt < count {
        let net = match dealt % 4 {
            0 | 1 => IpNet::V4(prefix4(&mut rng)),
            2 => IpNet::V6(prefix6(&mut rng)),
            _ => IpNet::V6(Ipv6Net::from(host6(&mut rng))),
        };
        if !seen.insert(net) {
            continue;
        }
        match net {
            IpNet::V4(net) => members.v4.push(net),
            IpNet::V6(net) if net.prefix_len() == 128 => members.hosts.push(net.addr()),
            IpNet::V6(net) => members.v6.push(net),
        }
        let groups = sets.len();
        if let Some(set) = sets.get_mut(rng.usize(..groups)) {
            set.prefixes.push(net);
        }
        dealt += 1;
    }
    for set in &mut sets {
        set.prefixes.sort();
    }
    sets.retain(|set| !set.prefixes.is_empty());
    let mut inbound = Vec::new();
    for group in 0..u16::try_from(sets.len()).unwrap_or(0) {
        let peers = Peers::Set(u32::from(group));
        for port in [SHARED_PORT, GROUP_PORT + group] {
            let row = format!("bench/{port}-{group}");
            inbound.push(grant(Transport::Tcp, port, port, peers, row));
        }
    }
    let policy = Policy {
        sets,
        inbound,
        settings: settings(Outbound::Off),
        ..Policy::default()
    };
    (policy, members)
}

/// An IPv4 prefix of the lengths that sites have, within what is routed.
fn prefix4(rng: &mut Rng) -> Ipv4Net {
    let length = match rng.u8(..100) {
        0..3 => 16,
        3..10 => 20,
        10..60 => 24,
        60..80 => 28,
        _ => 32,
    };
    let first = loop {
        // 11.0.0.0/8 is where the strangers come from.
        let octet = rng.u8(1..224);
        if octet != 11 && octet != 127 {
            break octet;
        }
    };
    let address = Ipv4Addr::from(u32::from(first) << 24 | rng.u32(..1 << 24));
    Ipv4Net::new_assert(address, length).trunc()
}

fn prefix6(rng: &mut Rng) -> Ipv6Net {
    let length = match rng.u8(..100) {
        0 => 32,
        1..5 => 48,
        5..15 => 56,
        _ => 64,
    };
    Ipv6Net::new_assert(host6(rng), length).trunc()
}

/// A host in one of a hundred thousand networks: 2,048 providers with a /32 each, sixteen sites with a /48 each, whose
/// networks are numbered from zero.
pub(crate) fn host6(rng: &mut Rng) -> Ipv6Addr {
    let provider = u128::from(rng.u32(..1 << 11)) << 96;
    let site = u128::from(rng.u32(..1 << 4)) << 80;
    let network = u128::from(rng.u32(..1 << 8)) << 64;
    Ipv6Addr::from(0x2a00 << 112 | provider | site | network | u128::from(rng.u64(..)))
}

/// Addresses in random order, one a prefix.
pub(crate) fn hosts(members: &Members, rng: &mut Rng) -> Vec<IpAddr> {
    let v4 = members.v4.iter().map(|net| {
        let host_bits = 32 - u32::from(net.prefix_len());
        let low = u32::try_from(rng.u64(..1 << host_bits)).unwrap_or(0);
        IpAddr::from(Ipv4Addr::from(u32::from(net.network()) | low))
    });
    let mut all: Vec<IpAddr> = v4.collect();
    rng.shuffle(&mut all);
    all
}
