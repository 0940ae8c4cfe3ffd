//! A large site, generated from a seed: what the compiler's scale is measured with.

use std::collections::BTreeMap;
use std::fmt::Write;

use fastrand::Rng;

use crate::catalog::{Catalog, Citation, Direction, Peer, PortSpec, Role, Row, System, Transport};

/// How large.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Hosts of the inventory, one address of each family and two roles each.
    pub hosts: u32,
    /// Roles of the one system, three rows each.
    pub roles: u32,
    /// Prefixes, in groups of a thousand.
    pub prefixes: u32,
    /// Of the random numbers; equal seeds, equal sites.
    pub seed: u64,
}

/// The catalog and the text of the site file. `host-0` has a role that names many others as peers.
pub fn site(size: Size) -> (Catalog, String) {
    let mut random = Rng::with_seed(size.seed);
    let groups = size.prefixes.div_ceil(1_000).max(1);
    (
        Catalog {
            systems: [("big".to_owned(), system(size, groups, &mut random))].into(),
        },
        text(size, groups, &mut random),
    )
}

fn system(size: Size, groups: u32, random: &mut Rng) -> System {
    let mut system = System {
        id: "big".to_owned(),
        name: "Big".to_owned(),
        document: "Big: generated".to_owned(),
        source: "generated".to_owned(),
        read: "1970-01-01".to_owned(),
        deployments: BTreeMap::new(),
        options: BTreeMap::new(),
        choices: BTreeMap::new(),
        groups: (0..groups)
            .map(|group| (format!("g{group}"), "generated".to_owned()))
            .collect(),
        roles: BTreeMap::new(),
        conflicts: Vec::new(),
        rows: Vec::new(),
    };
    for index in 0..size.roles {
        let id = format!("r{index}");
        let mut peers = vec![Peer::SameRole];
        peers.extend((0..3).map(|_| Peer::Role(format!("r{}", random.u32(..size.roles)))));
        let group = Peer::Group(format!("g{}", index % groups));
        for (direction, peers) in [
            (Direction::In, peers.clone()),
            (Direction::Out, peers),
            (Direction::In, vec![group]),
        ] {
            system.rows.push(row(&id, direction, peers, random));
        }
        let role = Role {
            id: id.clone(),
            name: id.clone(),
            includes: Vec::new(),
            is_abstract: false,
            has_offset: false,
            beside: Vec::new(),
            built_in_offset: 0,
        };
        system.roles.insert(id, role);
    }
    // Role 0 has a row for every group, so that compiling `host-0` touches every prefix.
    for group in 0..groups {
        system.rows.push(row(
            "r0",
            Direction::In,
            vec![Peer::Group(format!("g{group}"))],
            random,
        ));
    }
    system
}

fn row(role: &str, direction: Direction, peers: Vec<Peer>, random: &mut Rng) -> Row {
    let port = u16::try_from(1 + random.u32(..30_000)).unwrap_or(1);
    Row {
        id: format!("big/{role}-{direction}-{port}-{}", random.u32(..u32::MAX)),
        role: role.to_owned(),
        direction,
        transports: vec![Transport::Tcp],
        direction_printed: true,
        transport_printed: true,
        application: None,
        ports: vec![PortSpec::Range(port, port)],
        ports_from: None,
        pick: None,
        offset: false,
        listener: None,
        peers,
        other_roles_only: false,
        class: None,
        condition: None,
        customisable: false,
        customisable_in: Vec::new(),
        purpose: "generated".to_owned(),
        citation: Citation {
            section: "generated".to_owned(),
            row: port.to_string(),
        },
        notes: Vec::new(),
        inert: None,
        implied: false,
        location: "generated".to_owned(),
    }
}

fn text(size: Size, groups: u32, random: &mut Rng) -> String {
    let mut text = String::from(
        "schema = 1\nmode = \"enforce\"\n[management]\nallow = [\"tcp/22=g0\"]\n[groups]\n",
    );
    for group in 0..groups {
        let _ = write!(text, "g{group} = [");
        for index in (group * 1_000)..size.prefixes.min((group + 1) * 1_000) {
            // Every second /24 of 16.0.0.0/4 and up: no two of them aggregate.
            let _ = write!(
                text,
                "\"{}.{}.{}.0/24\", ",
                16 + (index >> 15),
                (index >> 7) & 255,
                (index & 127) * 2
            );
        }
        text.push_str("]\n");
    }
    text.push_str("[systems.big.peers]\n");
    for group in 0..groups {
        let _ = writeln!(text, "g{group} = [\"g{group}\"]");
    }
    for host in 0..size.hosts {
        let (high, low) = (host >> 8, host & 255);
        let _ = writeln!(
            text,
            "[[host]]\nname = \"host-{host}\"\naddresses = [\"10.1.{high}.{low}\", \"fd00::{host:x}\"]\nroles = [\"big/r{}\", \"big/r{}\"]",
            host % size.roles,
            random.u32(..size.roles)
        );
    }
    text
}
