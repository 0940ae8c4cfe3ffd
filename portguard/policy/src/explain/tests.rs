//! The answers are those of a reading of the grants one by one, for every role of every embedded matrix.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use fastrand::Rng;
use portguard_common::packet::protocol;
use portguard_common::reason::Direction;

use super::{Explainer, Outcome, Query, capture};
use crate::catalog::{Catalog, System, Transport};
use crate::compile::tests::fixture::inputs;
use crate::compile::{Inputs, Selection, compile, domains};
use crate::policy::{Grant, GrantKind, Omitted, PeerSet, Peers, Policy, RowFacts};
use crate::site::{Site, Unresolved};

/// A site that has two hosts of every role of a system, and a group of everybody's for what no document prints.
fn site(catalog: &Catalog, system: &System, deployment: Option<&String>) -> Site {
    let mut text = String::from(
        "schema = 1\nunprinted_peers = [\"desks\"]\n[management]\nallow = [\"tcp/22=desks\"]\n[groups]\ndesks = [\"172.16.0.0/20\", \"2001:db8:de::/48\", \"198.51.100.7\"]\n",
    );
    if let Some(deployment) = deployment {
        let _ = write!(
            text,
            "[systems.{}]\ndeployment = \"{deployment}\"\n",
            system.id
        );
    }
    for (index, role) in system.host_roles().enumerate() {
        let _ = write!(
            text,
            "[[host]]\nname = \"h{index}\"\naddresses = [\"10.3.{index}.1\", \"10.4.{index}.9\", \"fd03::{index:x}\"]\nroles = [\"{}/{}\"]\n",
            system.id, role.id
        );
    }
    let mut site = Site::parse("site.toml", text.as_bytes()).unwrap();
    site.unresolved_peers = Some(Unresolved::Any);
    site.apply(&crate::site::Flags::default(), catalog).unwrap();
    site
}

/// What a reader of the grants would say: the strongest kind and the rows, or whether others are admitted.
fn read(policy: &Policy, query: &Query, transport: Transport) -> (String, Vec<String>) {
    let (grants, names): (&[Grant], _) = match query.direction {
        Direction::Ingress => (&policy.inbound, ["undocumented-port", "undocumented-peer"]),
        Direction::Egress => (
            &policy.outbound,
            ["undocumented-destination-port", "undocumented-destination"],
        ),
    };
    let covering: Vec<&Grant> = grants
        .iter()
        .filter(|g| g.transport == transport && g.first <= query.port && query.port <= g.last)
        .collect();
    let admitting: Vec<&Grant> = covering
        .iter()
        .copied()
        .filter(|grant| match grant.peers {
            Peers::Any => true,
            Peers::Set(set) => policy.sets[set as usize]
                .prefixes
                .iter()
                .any(|net| net.contains(&query.remote)),
        })
        .collect();
    let mut rows: Vec<String> = admitting.iter().map(|grant| grant.row.clone()).collect();
    rows.sort();
    rows.dedup();
    let reason = match admitting.iter().map(|grant| grant.kind).min() {
        Some(GrantKind::Management) => "management",
        Some(GrantKind::Baseline) if query.direction == Direction::Ingress => "dhcp",
        Some(GrantKind::Baseline) => "baseline",
        Some(GrantKind::Documented) => "documented",
        Some(GrantKind::Site) => "site",
        None => names[usize::from(!covering.is_empty())],
    };
    (reason.to_owned(), rows)
}

/// A tuple that has a good chance of meeting a grant, or of just missing it.
fn tuple(random: &mut Rng, policy: &Policy) -> (Query, Transport) {
    let direction = [Direction::Ingress, Direction::Egress][random.usize(..2)];
    let grants = match direction {
        Direction::Ingress => &policy.inbound,
        Direction::Egress => &policy.outbound,
    };
    let mut port = u16::try_from(random.usize(..65_536)).unwrap();
    let mut transport = [Transport::Tcp, Transport::Udp, Transport::Sctp][random.usize(..3)];
    if !grants.is_empty() && random.usize(..8) != 0 {
        let grant = &grants[random.usize(..grants.len())];
        port = [grant.first, grant.last][random.usize(..2)];
        port = [port, port, port.wrapping_add(1), port.wrapping_sub(1)][random.usize(..4)];
        transport = grant.transport;
    }
    let nets: Vec<_> = policy.sets.iter().flat_map(|set| &set.prefixes).collect();
    let remote = match (nets.get(random.usize(..nets.len())), random.usize(..8)) {
        (Some(net), 0..6) => {
            let offset = u128::from(random.u64(..));
            match [net.network(), net.broadcast()][random.usize(..2)] {
                IpAddr::V4(v4) => {
                    let bits = v4
                        .to_bits()
                        .wrapping_add(u32::try_from(random.usize(..3)).unwrap())
                        .wrapping_sub(1);
                    IpAddr::V4(Ipv4Addr::from_bits(bits))
                }
                IpAddr::V6(v6) => {
                    let bits = v6.to_bits().wrapping_add(offset % 3).wrapping_sub(1);
                    IpAddr::V6(Ipv6Addr::from_bits(bits))
                }
            }
        }
        (_, 6) => IpAddr::V6(Ipv6Addr::from_bits(
            u128::from(random.u64(..)) << 64 | u128::from(random.u64(..)),
        )),
        _ => IpAddr::V4(Ipv4Addr::from_bits(
            u32::try_from(random.u64(..) >> 32).unwrap(),
        )),
    };
    let number = match transport {
        Transport::Tcp => protocol::TCP,
        Transport::Udp => protocol::UDP,
        Transport::Sctp => protocol::SCTP,
    };
    let query = Query {
        direction,
        protocol: number,
        remote,
        port,
        from_port: None,
    };
    (query, transport)
}

#[test]
fn every_role_is_explained_as_its_grants_read() {
    let catalog = Catalog::embedded().unwrap();
    let mut random = Rng::with_seed(0x5eed);
    let (mut passed, mut dropped) = (0, 0);
    for system in catalog.systems.values() {
        let deployments: Vec<_> = system.deployments.keys().collect();
        for (index, role) in system.host_roles().enumerate() {
            let deployment = deployments.get(index % deployments.len().max(1)).copied();
            let site = site(&catalog, system, deployment);
            let files = BTreeMap::new();
            let none = BTreeMap::new();
            let mut inputs = Inputs {
                catalog: &catalog,
                site: &site,
                host: Selection::Name(format!("h{index}")),
                interface: None,
                local_addresses: &[],
                hostname: None,
                resolved: &none,
                files: &files,
                today: None,
            };
            let resolved = domains(&inputs)
                .into_iter()
                .map(|name| (name, vec!["192.0.2.1".parse().unwrap()]))
                .collect();
            inputs.resolved = &resolved;
            let policy = compile(&inputs).policy;
            assert!(!policy.inbound.is_empty(), "{}/{}", system.id, role.id);
            let explainer = Explainer::new(&policy, &catalog).unwrap();
            for _ in 0..2_000 {
                let (query, transport) = tuple(&mut random, &policy);
                let (reason, rows) = read(&policy, &query, transport);
                let packet = explainer.packet_of(&query);
                let verdict = explainer.judge(&packet, query.direction);
                let context = || format!("{}/{} {query:?}", system.id, role.id);
                assert_eq!(verdict.is_drop(true), rows.is_empty(), "{}", context());
                let reported = explainer.reason(&packet, query.direction, &verdict);
                assert_eq!(reported, (reason, rows), "{}", context());
                if reported.1.is_empty() {
                    dropped += 1;
                } else {
                    passed += 1;
                }
            }
        }
    }
    assert!(passed > 20_000 && dropped > 20_000, "{passed} {dropped}");
}

fn grant(kind: GrantKind, port: u16, peers: Peers, row: &str) -> Grant {
    Grant {
        kind,
        transport: Transport::Tcp,
        first: port,
        last: port,
        peers,
        row: row.to_owned(),
        until: None,
    }
}

fn small() -> Policy {
    let facts = |id: &str, audit| RowFacts {
        id: id.to_owned(),
        role: None,
        purpose: format!("purpose of {id}"),
        citation: format!("citation of {id}"),
        audit,
        peers: String::new(),
    };
    Policy {
        systems: vec!["thoughtspot".to_owned()],
        sets: vec![PeerSet {
            name: "group ops".to_owned(),
            prefixes: vec!["10.1.0.0/16".parse().unwrap(), "fd01::/64".parse().unwrap()],
        }],
        inbound: vec![
            grant(
                GrantKind::Management,
                22,
                Peers::Set(0),
                "management/tcp-22",
            ),
            grant(GrantKind::Documented, 443, Peers::Any, "thoughtspot/x"),
            grant(
                GrantKind::Documented,
                444,
                Peers::Set(0),
                "thoughtspot/audited",
            ),
        ],
        outbound: vec![grant(
            GrantKind::Documented,
            25,
            Peers::Any,
            "thoughtspot/mail",
        )],
        echo: Some(Peers::Set(0)),
        rows: vec![
            facts("management/tcp-22", false),
            facts("thoughtspot/x", false),
            facts("thoughtspot/mail", false),
            facts("thoughtspot/audited", true),
        ],
        omitted: Vec::<Omitted>::new(),
        ..Policy::default()
    }
}

fn ask(
    policy: &Policy,
    direction: Direction,
    protocol: u8,
    remote: &str,
    port: u16,
) -> super::Answer {
    let catalog = Catalog::embedded().unwrap();
    let query = Query {
        direction,
        protocol,
        remote: remote.parse().unwrap(),
        port,
        from_port: None,
    };
    Explainer::new(policy, &catalog).unwrap().query(&query)
}

#[test]
fn a_refusal_names_what_comes_close() {
    let policy = small();
    let answer = ask(&policy, Direction::Ingress, 6, "10.1.2.3", 445);
    assert_eq!((answer.verdict, answer.mode), (Outcome::Drop, "audit"));
    assert_eq!(answer.reason, "undocumented-port");
    let near: Vec<_> = answer
        .nearest
        .iter()
        .map(|near| (near.kind, near.row.as_str()))
        .collect();
    assert_eq!(near[0], ("same-peer-other-port", "thoughtspot/audited"));
    assert_eq!(near[1], ("same-peer-other-port", "thoughtspot/x"));
    let text = answer.to_string();
    assert!(text.contains("drop: undocumented-port\n"), "{text}");
    assert!(text.contains("counted, not dropped"), "{text}");

    let answer = ask(&policy, Direction::Ingress, 6, "192.0.2.1", 22);
    assert_eq!(answer.reason, "undocumented-peer");
    assert_eq!(answer.nearest[0].kind, "same-port-other-peer");
    assert_eq!(
        answer.nearest[0].words,
        "same port, other peers: tcp/22 is open to 10.1.0.0/16, fd01::/64 (group ops) (row management/tcp-22: purpose of management/tcp-22)"
    );

    let answer = ask(&policy, Direction::Ingress, 17, "192.0.2.1", 443);
    assert_eq!(answer.nearest[0].kind, "other-transport");
    let answer = ask(&policy, Direction::Ingress, 6, "192.0.2.1", 25);
    assert!(
        answer
            .nearest
            .iter()
            .any(|near| near.kind == "other-direction")
    );
    // The Windows agents' port of another vendor's document.
    let answer = ask(&policy, Direction::Ingress, 6, "192.0.2.1", 9443);
    assert!(
        answer
            .nearest
            .iter()
            .any(|near| near.kind == "other-system"),
        "{answer}"
    );
}

#[test]
fn a_pass_names_the_row_and_its_place() {
    let policy = small();
    let answer = ask(&policy, Direction::Ingress, 6, "fd01::5", 22);
    assert_eq!(
        (answer.verdict, answer.reason.as_str()),
        (Outcome::Pass, "management")
    );
    assert_eq!(answer.rows, ["management/tcp-22"]);
    assert_eq!(
        answer.citations[0].citation,
        "citation of management/tcp-22"
    );
    assert_eq!(answer.nearest, []);
    assert_eq!(
        ask(&policy, Direction::Egress, 6, "192.0.2.9", 25).reason,
        "documented"
    );
    assert_eq!(
        ask(&policy, Direction::Ingress, 1, "10.1.0.1", 8).reason,
        "icmp-echo"
    );
    assert_eq!(
        ask(&policy, Direction::Ingress, 1, "10.2.0.1", 8).verdict,
        Outcome::Drop
    );
    assert_eq!(
        ask(&policy, Direction::Ingress, 58, "fe80::1", 135).reason,
        "icmp-essential"
    );
    let gre = ask(&policy, Direction::Ingress, 47, "10.1.0.1", 0);
    assert_eq!(
        (gre.verdict, gre.reason.as_str()),
        (Outcome::Drop, "undocumented-protocol")
    );
}

#[test]
fn modes_are_those_of_the_row_and_the_direction() {
    let mut policy = small();
    policy.settings.enforce = true;
    assert_eq!(
        ask(&policy, Direction::Ingress, 6, "192.0.2.1", 9).mode,
        "enforce"
    );
    let spared = ask(&policy, Direction::Ingress, 6, "192.0.2.1", 444);
    assert_eq!((spared.verdict, spared.mode), (Outcome::Pass, "audit"));
    assert_eq!(spared.reason, "undocumented-peer");
    assert_eq!(
        ask(&policy, Direction::Egress, 6, "192.0.2.1", 9).mode,
        "audit"
    );
    policy.settings.outbound = crate::policy::Outbound::Off;
    let off = ask(&policy, Direction::Egress, 6, "192.0.2.1", 9);
    assert_eq!(
        (off.verdict, off.mode, off.reason.as_str()),
        (Outcome::Pass, "off", "not-judged")
    );
}

#[test]
fn replies_of_documented_services_pass_and_name_the_row() {
    let policy = small();
    let catalog = Catalog::embedded().unwrap();
    let explainer = Explainer::new(&policy, &catalog).unwrap();
    let mut query = Query {
        direction: Direction::Egress,
        protocol: 6,
        remote: "10.1.0.5".parse().unwrap(),
        port: 50_000,
        from_port: Some(22),
    };
    let answer = explainer.query(&query);
    assert_eq!(
        (answer.reason.as_str(), answer.rows.as_slice()),
        ("reply", &["management/tcp-22".to_owned()][..])
    );
    query.from_port = None;
    assert_eq!(
        explainer.query(&query).reason,
        "undocumented-destination-port"
    );
}

#[test]
fn frames_are_parsed_as_the_kernel_does() {
    let policy = small();
    let catalog = Catalog::embedded().unwrap();
    let explainer = Explainer::new(&policy, &catalog).unwrap();
    let syn = "ffffffffffff 020000000001 0800 45000028000100004006 0000 0a010203 0a000001 c350 0016 00000000 00000000 5002 2000 0000 0000";
    let answer = explainer.packet(
        &capture::packet(&capture::parse_hex(syn).unwrap()),
        Direction::Ingress,
    );
    assert_eq!(answer.reason, "management");
    assert_eq!(
        answer.packet.to_string(),
        "tcp 10.1.2.3:50000 -> 10.0.0.1:22"
    );
    let cut = &capture::parse_hex(syn).unwrap()[..40];
    let answer = explainer.packet(&capture::packet(cut), Direction::Ingress);
    assert_eq!(
        (answer.reason.as_str(), answer.cause),
        ("malformed", Some("ip-length"))
    );
    let arp = explainer.packet(
        &capture::packet(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8, 6]),
        Direction::Ingress,
    );
    assert_eq!(
        (
            arp.verdict,
            arp.reason.as_str(),
            arp.packet.to_string().as_str()
        ),
        (Outcome::Pass, "arp", "arp")
    );
}

#[test]
fn rows_whose_number_the_document_leaves_open_are_named_as_nearest() {
    let catalog = Catalog::embedded().unwrap();
    let text = "schema = 1\nmode = \"enforce\"\nunresolved_peers = \"none\"\n[[host]]\nname = \"a\"\naddresses = [\"10.3.0.1\"]\nroles = [\"thoughtspot/node\"]\n\
                [[host]]\nname = \"b\"\naddresses = [\"10.3.0.2\"]\nroles = [\"thoughtspot/node\"]\n";
    let site = Site::parse("site.toml", text.as_bytes()).unwrap();
    let compiled = compile(&inputs(&catalog, &site, Selection::Name("a".to_owned())));
    let asked = compiled
        .diagnostics
        .iter()
        .find(|d| d.code == "unresolved-ports");
    assert_eq!(asked.unwrap().level, crate::diagnostic::Level::Error);
    let remote = IpAddr::V4(Ipv4Addr::new(10, 3, 0, 2));
    let asked = (Direction::Ingress, Transport::Tcp, 31_000, remote);
    let near = super::nearest::nearest(&compiled.policy, &catalog, asked);
    let row = near
        .iter()
        .find(|near| near.row == "thoughtspot/intracluster-dynamic");
    let why = row.and_then(|near| near.left_out.clone());
    assert!(
        why.is_some_and(|why| why.starts_with("dynamic: ")),
        "{near:#?}"
    );
}

#[test]
fn the_row_of_the_very_port_comes_first_though_it_opens_nothing_here() {
    let catalog = Catalog::embedded().unwrap();
    let text = "schema = 1\nunprinted_peers = \"none\"\nunresolved_peers = \"none\"\nunresolved_ports = \"none\"\n[[host]]\nname = \"a\"\n\
                addresses = [\"10.3.0.1\"]\nroles = [\"thoughtspot/node\"]\n\
                [[row]]\nname = \"app\"\ndirection = \"in\"\ntransport = \"tcp\"\nports = [9999]\npeers = [\"10.55.0.1\"]\nreason = \"ours\"\n";
    let site = Site::parse("site.toml", text.as_bytes()).unwrap();
    let policy = compile(&inputs(&catalog, &site, Selection::Name("a".to_owned()))).policy;
    let remote = IpAddr::V4(Ipv4Addr::new(10, 55, 0, 1));
    let at = |port| {
        let asked = (Direction::Ingress, Transport::Tcp, port, remote);
        super::nearest(&policy, &catalog, asked)
    };
    let near = at(2181);
    assert_eq!(
        (near[0].kind, near[0].port.as_str()),
        ("left-out", "tcp/2181"),
        "{near:#?}"
    );
    let rows = super::LeftOut::new(&policy, &catalog).at((Transport::Tcp, 2181));
    assert_eq!(rows, [near[0].clone()]);
    assert_eq!(
        super::LeftOut::new(&policy, &catalog).at((Transport::Tcp, 31_000)),
        []
    );
    // Far ports of the same peer say little: one will do.
    let far = at(5555);
    let far = far.iter().filter(|one| one.kind == "same-peer-other-port");
    assert!(far.count() <= 1);
    // A row's peers are the words of the row, whoever else means the same addresses.
    assert_eq!(at(10_000)[0].peers.as_deref(), Some("10.55.0.1"));
}
