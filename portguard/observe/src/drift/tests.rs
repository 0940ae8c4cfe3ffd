use std::net::IpAddr;

use super::*;
use crate::counters::{Count, Packets, PortCount};
use crate::findings::{Sockets, findings};
use portguard_kernel::host::nat::Place;
use portguard_policy::policy::{Grant, Peers, RowFacts};

fn grant(kind: GrantKind, transport: Transport, first: u16, last: u16, row: &str) -> Grant {
    Grant {
        kind,
        transport,
        first,
        last,
        peers: Peers::Any,
        row: row.to_owned(),
        until: None,
    }
}

fn listener(transport: Transport, port: u16, address: &str) -> Listener {
    Listener {
        transport,
        port,
        address: address.parse::<IpAddr>().unwrap(),
        processes: Vec::new(),
    }
}

fn published(port: u16, port_last: Option<u16>, to: &str) -> Published {
    Published {
        transport: Transport::Tcp,
        port,
        port_last,
        to: to.to_owned(),
        is_host: false,
        is_certain: true,
        rule: Place::default(),
        address: to.split(':').next().and_then(|to| to.parse().ok()),
        inside: to
            .split_once(':')
            .and_then(|(_, port)| port.parse().ok())
            .map(|port| (port, port)),
    }
}

fn namespace(address: &str, port: u16) -> Namespace {
    Namespace {
        addresses: vec![address.parse().unwrap()],
        listeners: vec![listener(Transport::Tcp, port, "0.0.0.0")],
    }
}

fn count(
    direction: &'static str,
    transport: &'static str,
    port: u16,
    passed: u64,
    not: u64,
) -> PortCount {
    PortCount {
        direction,
        transport,
        port,
        port_last: None,
        documented: passed > 0,
        rows: Vec::new(),
        passed: Count {
            packets: passed,
            bytes: 0,
        },
        violations: Packets { packets: not },
    }
}

fn report(ports: Vec<PortCount>) -> Report {
    Report {
        ports,
        ..crate::counters::tests::report("tcp", &[])
    }
}

/// What an interface with such counters and talkers saw, where others reach such listeners.
fn sight(
    policy: &Policy,
    ports: Vec<PortCount>,
    talkers: Vec<TopTalker>,
    listeners: &[Listener],
) -> Sight {
    let report = report(ports);
    let listening = listeners.iter().filter(|one| !one.is_loopback());
    let sockets = Sockets {
        listening: listening.map(|one| (one.transport, one.port)).collect(),
        ..Sockets::default()
    };
    let findings = findings(policy, std::slice::from_ref(&report), &talkers, &sockets);
    Sight {
        report,
        talkers,
        findings,
    }
}

fn policy() -> Policy {
    let documented =
        |first, last, row| grant(GrantKind::Documented, Transport::Tcp, first, last, row);
    Policy {
        inbound: vec![
            grant(GrantKind::Baseline, Transport::Udp, 68, 68, "baseline/dhcp"),
            documented(443, 443, "a/web"),
            documented(8443, 8443, "a/admin"),
            documented(9000, 9010, "a/range"),
            documented(5000, 5000, "a/local"),
            documented(7000, 7000, "a/container"),
        ],
        outbound: vec![documented(25, 25, "a/mail"), documented(389, 389, "a/ldap")],
        rows: vec![RowFacts {
            id: "a/web".to_owned(),
            role: None,
            purpose: "web".to_owned(),
            citation: "Doc, 1".to_owned(),
            audit: false,
            peers: String::new(),
        }],
        ..Policy::default()
    }
}

fn states(items: &[Item]) -> Vec<String> {
    items
        .iter()
        .map(|item| {
            format!(
                "{} {}/{} {}",
                item.direction,
                item.transport,
                item.ports(),
                item.state.name()
            )
        })
        .collect()
}

#[test]
fn every_state_by_its_name() {
    let listeners = vec![
        listener(Transport::Tcp, 443, "0.0.0.0"),
        listener(Transport::Tcp, 9003, "::"),
        listener(Transport::Tcp, 5000, "127.0.0.1"),
        listener(Transport::Tcp, 22, "0.0.0.0"),
        listener(Transport::Tcp, 6379, "::1"),
        listener(Transport::Udp, 40_000, "0.0.0.0"),
    ];
    let ports = vec![
        count("in", "tcp", 443, 12, 3),
        count("out", "tcp", 25, 4, 0),
        count("in", "tcp", 22, 0, 9),
        count("in", "udp", 1900, 0, 1),
        count("out", "tcp", 6667, 0, 2),
    ];
    let seen = [sight(&policy(), ports, Vec::new(), &listeners)];
    let one = |port, to: &str| published(port, None, to);
    let views = Views {
        listeners,
        published: vec![
            one(7000, "172.17.0.2:80"),
            one(8080, "172.17.0.3:80"),
            // Its first is documented.
            published(9010, Some(9012), "172.17.0.4"),
        ],
        elsewhere: vec![
            namespace("172.17.0.3", 80),
            // Another's, on the same port.
            namespace("172.17.0.9", 80),
        ],
        seen: &seen,
        left_out: BTreeMap::new(),
        ephemeral: (32_768, 60_999),
        clients: BTreeSet::from([40_000]),
    };
    let items = compare(&policy(), &views);
    assert_eq!(
        states(&items),
        [
            "in tcp/22 listening-undocumented",
            "in tcp/443 undocumented-peer-seen",
            "in tcp/5000 documented-loopback-only",
            "in tcp/8080 published-undocumented",
            "in tcp/8443 documented-not-listening",
            "in tcp/9011-9012 published-undocumented",
            "in udp/1900 undocumented-traffic-seen",
            "out tcp/6667 undocumented-traffic-seen",
            "in tcp/443 documented-used",
            "in tcp/6379 loopback-only",
            "in tcp/7000 documented-published",
            "in tcp/9000-9010 documented-published",
            "in udp/40000 ephemeral-socket",
            "out tcp/25 documented-used",
            "out tcp/389 documented-never-used",
        ]
    );
    let web = items.iter().find(|item| item.port_first == 443).unwrap();
    assert_eq!((web.passed, web.violations), (Some(12), Some(3)));
    assert_eq!(
        (&web.purposes[..], &web.citations[..]),
        (&["web".to_owned()][..], &["Doc, 1".to_owned()][..])
    );
    assert_eq!(items[0].violations, Some(9));
    assert_eq!(items[3].behind.len(), 1);
}

#[test]
fn a_port_whose_rows_open_nothing_here_is_no_undocumented_one() {
    let near = Near {
        kind: "left-out",
        row: "acme/quorum".to_owned(),
        port: "tcp/2181".to_owned(),
        peers: None,
        left_out: Some("no-peer: no other host has the role".to_owned()),
        citation: "Doc, 7".to_owned(),
        words: String::new(),
    };
    let views = Views {
        listeners: vec![
            listener(Transport::Tcp, 2181, "0.0.0.0"),
            listener(Transport::Tcp, 22, "0.0.0.0"),
        ],
        left_out: [((Transport::Tcp, 2181), vec![near.clone()])].into(),
        ..Views::default()
    };
    let items = compare(&Policy::default(), &views);
    assert_eq!(
        states(&items),
        [
            "in tcp/22 listening-undocumented",
            "in tcp/2181 listening-left-out"
        ]
    );
    assert_eq!(items[1].left_out, [near]);
    assert!(items[1].mismatch);
}

#[test]
fn a_port_of_another_interface_is_served_all_the_same() {
    let listeners = vec![listener(Transport::Tcp, 443, "0.0.0.0")];
    let here = vec![count("in", "tcp", 443, 0, 12)];
    let seen = [sight(&Policy::default(), here, Vec::new(), &listeners)];
    let views = Views {
        listeners,
        seen: &seen,
        ..Views::default()
    };
    let items = compare(&policy(), &views);
    let of_443: Vec<_> = states(&items)
        .into_iter()
        .filter(|state| state.contains("tcp/443"))
        .collect();
    assert_eq!(
        of_443,
        [
            "in tcp/443 listening-undocumented",
            "in tcp/443 documented-listening-unused"
        ]
    );
}

#[test]
fn what_is_handed_on_is_told_by_where_it_stays_and_how_sure_that_is() {
    let to_port = |port| Published {
        is_host: true,
        address: None,
        inside: Some((5_353, 5_353)),
        ..published(port, None, "port 5353")
    };
    let perhaps = |port, to: &str| Published {
        is_certain: false,
        ..published(port, None, to)
    };
    let views = Views {
        listeners: vec![
            listener(Transport::Tcp, 5_353, "0.0.0.0"),
            listener(Transport::Tcp, 443, "0.0.0.0"),
            listener(Transport::Tcp, 82, "127.0.0.1"),
        ],
        published: vec![
            to_port(53),
            to_port(8_443),
            perhaps(80, "172.17.0.2:80"),
            perhaps(443, "172.17.0.2:80"),
            // A listener that others do not reach does not keep it from being handed on.
            published(82, None, "172.17.0.2:80"),
        ],
        ..Views::default()
    };
    let items = compare(&policy(), &views);
    let of = |port| items.iter().find(|item| item.port_first == port).unwrap();
    assert_eq!(
        (of(53).state, of(53).may),
        (State::RedirectedUndocumented, false)
    );
    assert_eq!(of(53).behind[0].port, 5_353);
    assert_eq!(of(8_443).state, State::DocumentedRedirected);
    assert_eq!(
        (of(80).state, of(80).may),
        (State::PublishedUndocumented, true)
    );
    assert_eq!(of(80).who(), "maybe -> 172.17.0.2:80");
    assert_eq!(of(82).state, State::PublishedUndocumented);
    // What listens for certain counts for more than what may be handed on.
    assert_eq!(
        (of(443).state, of(443).may),
        (State::DocumentedListening, false)
    );
}

#[test]
fn answers_of_an_undocumented_service_are_told_apart_from_what_the_host_asks() {
    let talker = |direction, port, peer: &str| TopTalker {
        direction,
        reason: "",
        transport: "tcp",
        port,
        source_port: None,
        cause: None,
        peer: Some(peer.to_owned()),
        last_address: None,
        packets: 1,
        at_least: 1,
        at_most: 1,
        estimated: false,
        dropped: 0,
        first: String::new(),
        last: String::new(),
        nearest: Vec::new(),
    };
    let ports = vec![
        count("in", "tcp", 22, 0, 9),
        count("out", "tcp", 40_001, 0, 3),
        count("out", "tcp", 40_002, 0, 3),
        count("out", "tcp", 6667, 0, 3),
    ];
    let talkers = vec![
        talker("in", Some(22), "192.0.2.1"),
        TopTalker {
            source_port: Some(22),
            ..talker("out", None, "192.0.2.1")
        },
        // What the host asks for by itself, of the same peer.
        talker("out", Some(6667), "192.0.2.1"),
    ];
    let listeners = vec![listener(Transport::Tcp, 22, "0.0.0.0")];
    let seen = [sight(&Policy::default(), ports, talkers, &listeners)];
    let views = Views {
        listeners,
        seen: &seen,
        ephemeral: (32_768, 60_999),
        ..Views::default()
    };
    let items = compare(&Policy::default(), &views);
    assert_eq!(
        states(&items),
        [
            "in tcp/22 listening-undocumented",
            "out tcp/6667 undocumented-traffic-seen",
        ]
    );
    // In, and its answers to two ports.
    assert_eq!(items[0].violations, Some(9 + 6));
}

#[test]
fn what_two_interfaces_saw_is_as_many_findings_as_they_have_together() {
    let listeners = vec![listener(Transport::Tcp, 22, "0.0.0.0")];
    let mut seen = [3, 4].map(|packets| {
        let ports = vec![
            count("in", "tcp", 22, 0, packets),
            count("in", "tcp", 443, 0, packets),
            count("in", "ip", 47, 0, packets),
        ];
        sight(&policy(), ports, Vec::new(), &listeners)
    });
    for (sight, name) in seen.iter_mut().zip(["eth0", "eth1"]) {
        sight.report.name = name.to_owned();
    }
    let views = Views {
        listeners,
        seen: &seen,
        ephemeral: (32_768, 60_999),
        ..Views::default()
    };
    let drift = Drift::new(&policy(), &views, Vec::new());
    let counted: usize = seen.iter().map(|sight| sight.findings.len()).sum();
    assert_eq!((drift.findings(), counted), (6, 6));
    let services = drift.items.iter().filter(|item| item.port_first == 22);
    let services: Vec<_> = services
        .map(|item| {
            (
                item.interface.as_deref(),
                item.violations,
                item.finding,
                item.mismatch,
            )
        })
        .collect();
    assert_eq!(
        services,
        [
            (Some("eth0"), Some(3), true, false),
            (Some("eth1"), Some(4), true, false),
        ]
    );
    // Services that the document has and the host has not are no findings: nobody saw a violation.
    let missing = drift.items.iter().filter(|item| item.mismatch);
    assert_eq!((drift.mismatches(), missing.count()), (5, 5));
}

#[test]
fn without_a_guard_nothing_is_said_of_traffic() {
    let views = Views {
        listeners: vec![listener(Transport::Tcp, 443, "0.0.0.0")],
        ..Views::default()
    };
    let items = compare(&policy(), &views);
    let web = items.iter().find(|item| item.port_first == 443).unwrap();
    assert_eq!(web.state, State::DocumentedListening);
    assert_eq!(web.passed, None);
    assert!(items.iter().all(|item| item.direction == "in"));
}

#[test]
fn states_to_act_on_come_first_in_the_list() {
    let first = State::ALL.iter().map(|state| state.is_to_act_on());
    assert!(first.is_sorted_by(|a, b| a >= b));
    for &state in State::ALL {
        let json = serde_json::to_value(state).unwrap();
        assert_eq!(json, state.name());
        assert!(!state.meaning().is_empty());
    }
}

#[test]
fn a_scan_of_all_ports_takes_no_longer_for_each_of_them() {
    scanned(Vec::new());
}

#[test]
fn nor_does_it_where_all_of_them_listen() {
    let listeners = (1..=u16::MAX).map(|port| listener(Transport::Tcp, port, "0.0.0.0"));
    scanned(listeners.collect());
}

/// All ports of a host that has these listeners.
fn scanned(listeners: Vec<Listener>) {
    let ports = (1..=u16::MAX).map(|port| count("in", "tcp", port, 0, 1));
    let seen = [sight(&policy(), ports.collect(), Vec::new(), &listeners)];
    let views = Views {
        listeners,
        seen: &seen,
        ephemeral: (32_768, 60_999),
        ..Views::default()
    };
    let start = portguard_harness::clock::thread_time().unwrap();
    let items = compare(&policy(), &views);
    let took = portguard_harness::clock::thread_time()
        .unwrap()
        .saturating_sub(start);
    let traffic = items.iter().filter_map(|item| item.traffic.as_ref());
    let violations: u64 = traffic.map(|finding| finding.violations).sum();
    assert_eq!(violations, u64::from(u16::MAX));
    // A second as it is built for tests; each port against each other takes a minute.
    assert!(took.as_secs() < 10, "{took:?}");
}
