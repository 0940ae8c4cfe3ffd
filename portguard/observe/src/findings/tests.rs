//! The laws of findings, for whatever was counted; and the cases that they are for.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::counters::tests::report;
use crate::counters::{Count, Packets, PortCount};
use ipnet::IpNet;
use portguard_policy::policy::{Grant, GrantKind, PeerSet, Peers};

type Place = (&'static str, &'static str, u16);
type Said = (
    &'static str,
    &'static str,
    &'static str,
    Option<u16>,
    Option<u16>,
    String,
);

/// What passes by, as counters and talkers keep it.
#[derive(Debug, Default, Clone)]
struct World {
    counts: BTreeMap<Place, u64>,
    talkers: BTreeMap<Said, u64>,
    documented: Vec<(u16, u16)>,
    /// The same of what is sent.
    documented_out: Vec<(u16, u16)>,
    /// Whom the rows admit.
    admitted: Vec<IpNet>,
}

impl World {
    fn is_documented(&self, port: u16) -> bool {
        let mut all = self.documented.iter();
        all.any(|(first, last)| (*first..=*last).contains(&port))
    }

    fn is_documented_out(&self, port: u16) -> bool {
        let mut all = self.documented_out.iter();
        all.any(|(first, last)| (*first..=*last).contains(&port))
    }

    fn arrive(&mut self, peer: &str, transport: &'static str, port: u16, packets: u64) {
        let reason = if self.is_documented(port) {
            "undocumented-peer"
        } else {
            "undocumented-port"
        };
        *self.counts.entry(("in", transport, port)).or_default() += packets;
        let said = ("in", reason, transport, Some(port), None, peer.to_owned());
        *self.talkers.entry(said).or_default() += packets;
    }

    fn answer(&mut self, service: Option<u16>, peer: &str, client: u16, packets: u64) {
        *self.counts.entry(("out", "tcp", client)).or_default() += packets;
        let reason = if self.is_documented_out(client) {
            "undocumented-destination"
        } else {
            "undocumented-destination-port"
        };
        let said = ("out", reason, "tcp", None, service, peer.to_owned());
        *self.talkers.entry(said).or_default() += packets;
    }

    fn answered_from(&mut self, service: u16, peer: &str, client: u16, packets: u64) {
        *self.counts.entry(("in", "udp", client)).or_default() += packets;
        let said = (
            "in",
            "undocumented-port",
            "udp",
            None,
            Some(service),
            peer.to_owned(),
        );
        *self.talkers.entry(said).or_default() += packets;
    }

    /// A scraper of a service: connections from new ports each time.
    fn scrape(&mut self, peer: &str, service: u16, connections: u16) {
        for number in 0..connections {
            self.arrive(peer, "tcp", service, 5);
            self.answer(Some(service), peer, 33_000 + number % 27_000, 4);
        }
    }

    fn scan(&mut self, peer: &str, ports: impl Iterator<Item = u16>) {
        for port in ports {
            self.arrive(peer, "tcp", port, 1);
            self.answer(None, peer, 43_210, 1);
        }
    }

    fn total(&self) -> u64 {
        self.counts.values().sum()
    }

    fn policy(&self) -> Policy {
        let grant = |(first, last): &(u16, u16)| Grant {
            kind: GrantKind::Documented,
            transport: Transport::Tcp,
            first: *first,
            last: *last,
            peers: Peers::Set(0),
            row: format!("a/{first}"),
            until: None,
        };
        Policy {
            inbound: self.documented.iter().map(grant).collect(),
            sets: vec![PeerSet {
                name: String::new(),
                prefixes: self.admitted.clone(),
            }],
            ..Policy::default()
        }
    }

    /// Every `one_in`th talker is known.
    fn findings(&self, listening: &[u16], one_in: usize) -> Vec<Finding> {
        let mut counted = report("tcp", &[]);
        counted.ports = self
            .counts
            .iter()
            .map(|(&(direction, transport, port), packets)| {
                let documented = transport == "tcp"
                    && if direction == "in" {
                        self.is_documented(port)
                    } else {
                        self.is_documented_out(port)
                    };
                PortCount {
                    direction,
                    transport,
                    port,
                    port_last: None,
                    documented,
                    rows: Vec::new(),
                    passed: Count::default(),
                    violations: Packets { packets: *packets },
                }
            })
            .collect();
        let talkers: Vec<TopTalker> = self
            .talkers
            .iter()
            .step_by(one_in)
            .map(
                |((direction, reason, transport, port, from, peer), packets)| TopTalker {
                    direction,
                    reason,
                    transport,
                    port: *port,
                    source_port: *from,
                    cause: None,
                    peer: Some(peer.clone()),
                    last_address: None,
                    packets: *packets,
                    at_least: *packets,
                    at_most: *packets,
                    estimated: false,
                    dropped: 0,
                    first: String::new(),
                    last: String::new(),
                    nearest: Vec::new(),
                },
            )
            .collect();
        let listening = listening.iter().map(|port| (Transport::Tcp, *port));
        let sockets = Sockets {
            listening: listening.collect(),
            ..Sockets::default()
        };
        findings(&self.policy(), &[counted], &talkers, &sockets)
    }
}

fn words(all: &[Finding]) -> Vec<String> {
    let one = |finding: &Finding| {
        format!(
            "{} {} {} {}",
            finding.kind.name(),
            finding.direction,
            finding.what,
            finding.violations
        )
    };
    all.iter().map(one).collect()
}

#[test]
fn a_scraper_is_one_finding_with_its_answers() {
    let mut world = World::default();
    for peer in 0..12 {
        world.scrape(&format!("10.0.0.{peer}"), 9100, 100);
    }
    let all = world.findings(&[9100], 1);
    assert_eq!(words(&all), ["undocumented-port in tcp/9100 10800"]);
    assert_eq!((all[0].answers, all[0].peers_known), (4_800, 12));
    assert!(all[0].listening && !all[0].estimated);
    assert_eq!(all[0].peers[0].packets, 900);
}

#[test]
fn a_scan_is_one_finding_and_the_service_that_it_meets_another() {
    let mut world = World {
        documented: vec![(443, 443)],
        ..World::default()
    };
    world.scan("10.0.0.9", 1..=2_000);
    world.scrape("10.0.0.1", 22, 3);
    world.arrive("10.0.0.7", "tcp", 443, 15);
    let all = world.findings(&[22, 443], 1);
    assert_eq!(
        words(&all),
        [
            "scan in scan of 1,999 ports 3999",
            "undocumented-port in tcp/22 28",
            "undocumented-peer in tcp/443 15",
        ]
    );
}

#[test]
fn what_is_answered_to_a_port_of_a_documented_range_is_no_finding_of_its_own() {
    let mut world = World {
        documented_out: vec![(40_000, 40_100)],
        ..World::default()
    };
    world.arrive("192.0.2.7", "tcp", 2181, 5);
    world.answer(Some(2181), "192.0.2.7", 40_097, 4);
    let [one] = &world.findings(&[2181], 1)[..] else {
        panic!("{:?}", world.findings(&[2181], 1))
    };
    assert_eq!(
        (one.kind, one.violations, one.answers),
        (Kind::UndocumentedPort, 9, 4)
    );
}

#[test]
fn answers_to_a_scan_are_of_it_and_what_who_scans_does_often_is_not() {
    let mut world = World {
        documented: vec![(443, 443)],
        ..World::default()
    };
    world.scan("10.0.0.9", 2_000..2_100);
    world.arrive("10.0.0.9", "tcp", 443, 4);
    world.answer(Some(443), "10.0.0.9", 40_000, 2);
    assert_eq!(
        words(&world.findings(&[443], 1)),
        ["scan in scan of 101 ports 206"]
    );
    world.arrive("10.0.0.9", "tcp", 443, 500);
    assert_eq!(
        words(&world.findings(&[443], 1)),
        [
            "undocumented-peer in tcp/443 506",
            "scan in scan of 100 ports 200",
        ]
    );
}

#[test]
fn noise_of_many_is_one_finding_and_what_is_tried_often_is_not_noise() {
    let mut world = World::default();
    for number in 0..200_u16 {
        world.arrive(&format!("10.1.{number}.1"), "tcp", 2_000 + number, 2);
    }
    world.arrive("10.0.0.8", "tcp", 8_080, 500);
    assert_eq!(
        words(&world.findings(&[], 1)),
        [
            "undocumented-port in tcp/8080 500",
            "scan in scan of 200 ports 400",
        ]
    );
}

#[test]
fn what_answers_from_elsewhere_is_one_finding_by_the_port_that_explains_it() {
    let mut world = World::default();
    for client in 40_000..40_300 {
        world.answered_from(161, "10.0.0.5", client, 1);
        world.answered_from(1900, "10.0.0.6", client, 2);
    }
    // A transfer by TFTP: from a port of its own to a port of its own.
    for transfer in 0..30 {
        world.arrive("10.0.0.7", "udp", 41_000 + transfer, 5);
    }
    let all = world.findings(&[], 1);
    assert_eq!(
        words(&all),
        [
            "answers-from-elsewhere in udp from 1900 600",
            "answers-from-elsewhere in udp from 161 300",
            "answers-from-elsewhere in udp to clients 150",
        ]
    );
    assert_eq!(all[0].source_port, Some(1900));
}

#[test]
fn what_answered_from_elsewhere_before_its_row_was_written_stays_what_it_was() {
    let mut world = World::default();
    for client in 40_000..40_300 {
        world.answered_from(161, "10.0.0.5", client, 1);
    }
    world.documented = vec![(32_768, 60_999)];
    let all = world.findings(&[], 1);
    assert_eq!(words(&all), ["answers-from-elsewhere in udp from 161 300"]);
    assert_eq!(all[0].peers_known, 1);
}

#[test]
fn a_documented_range_that_a_stranger_tries_is_one_finding() {
    let mut world = World {
        documented: vec![(5_000, 5_010), (6_000, 6_000)],
        ..World::default()
    };
    for port in [5_000, 5_003, 5_010, 6_000] {
        world.arrive("10.0.0.7", "tcp", port, 3);
    }
    assert_eq!(
        words(&world.findings(&[], 1)),
        [
            "undocumented-peer in tcp/5000-5010 9",
            "undocumented-peer in tcp/6000 3",
        ]
    );
}

/// Something that a network does.
#[derive(Debug, Clone)]
enum Event {
    Scrape(u8, u16, u16),
    Scan(u8, u16, u16),
    Stray(u8, u16, u8),
    From(u8, u16, u16),
    Sends(u8, u16),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        (any::<u8>(), 1..60_u16, 1..40_u16).prop_map(|(a, b, c)| Event::Scrape(a, b, c)),
        (any::<u8>(), any::<u16>(), 1..300_u16).prop_map(|(a, b, c)| Event::Scan(a, b, c)),
        (any::<u8>(), any::<u16>(), 1..90_u8).prop_map(|(a, b, c)| Event::Stray(a, b, c)),
        (any::<u8>(), 1..1_100_u16, 33_000..60_000_u16).prop_map(|(a, b, c)| Event::From(a, b, c)),
        (any::<u8>(), any::<u16>()).prop_map(|(a, b)| Event::Sends(a, b)),
    ]
}

fn world(events: &[Event]) -> World {
    let mut world = World {
        documented: vec![(20, 30), (40_000, 40_100)],
        ..World::default()
    };
    for event in events {
        let peer = |number: &u8| format!("10.9.0.{number}");
        match event {
            Event::Scrape(by, port, times) => world.scrape(&peer(by), *port, *times),
            Event::Scan(by, from, ports) => {
                world.scan(&peer(by), *from..from.saturating_add(*ports));
            }
            Event::Stray(by, port, times) => {
                world.arrive(&peer(by), "tcp", *port, u64::from(*times));
            }
            Event::From(by, from, to) => world.answered_from(*from, &peer(by), *to, 3),
            Event::Sends(to, port) => {
                *world.counts.entry(("out", "tcp", *port)).or_default() += 2;
                let reason = "undocumented-destination-port";
                let said = ("out", reason, "tcp", Some(*port), None, peer(to));
                *world.talkers.entry(said).or_default() += 2;
            }
        }
    }
    world
}

proptest! {
    #[test]
    fn every_violation_belongs_to_one_finding(
        events in prop::collection::vec(event(), 0..30),
        listening in prop::collection::vec(1..60_u16, 0..8),
        one_in in 1..9_usize,
    ) {
        let world = world(&events);
        let all = world.findings(&listening, one_in);
        let sum: u64 = all.iter().map(|finding| finding.violations).sum();
        prop_assert_eq!(sum, world.total(), "{:?}", words(&all));
        for finding in &all {
            prop_assert!(finding.answers <= finding.violations);
            prop_assert!(finding.violations > 0 && finding.peers.len() <= finding.peers_known);
        }
        // No two are of the same cause.
        let names: BTreeSet<_> = all.iter().map(|one| (one.kind, one.direction, &one.what, one.port_first)).collect();
        prop_assert_eq!(names.len(), all.len(), "{:?}", words(&all));
    }

    #[test]
    fn more_connections_make_no_more_findings(connections in 1..2_000_u16, peers in 1..20_u8) {
        let mut world = World::default();
        for peer in 0..peers {
            world.scrape(&format!("10.0.0.{peer}"), 9100, connections);
        }
        prop_assert_eq!(world.findings(&[9100], 1).len(), 1);
        // Nor does it matter how few of the talkers are known, as long as one is.
        prop_assert_eq!(world.findings(&[9100], 3).len(), 1);
    }
}

#[test]
fn whoever_is_admitted_by_now_is_not_said_to_be_no_peer() {
    let mut world = World {
        documented: vec![(443, 443)],
        admitted: vec!["10.0.0.0/24".parse().unwrap()],
        ..World::default()
    };
    world.arrive("10.0.0.7", "tcp", 443, 5);
    let cause = |world: &World| {
        let all = world.findings(&[443], 1);
        assert_eq!(all.len(), 1);
        (all[0].admitted, all[0].cause())
    };
    let (is_admitted, words) = cause(&world);
    assert!(is_admitted && words.contains("admits it now"), "{words}");
    // One of several is not: what is said is true of each.
    world.arrive("10.0.1.7", "tcp", 443, 1);
    let (is_admitted, words) = cause(&world);
    assert!(!is_admitted, "{words}");
    assert_eq!(words, "5 from peers of its rows by now, 1 from others");
    // Nor is a port that somebody listens on one of those that nothing listens on.
    world.scan("10.0.1.7", 1_000..1_040);
    let all = world.findings(&[443], 1);
    let scan = all.iter().find(|one| one.kind == Kind::Scan).unwrap();
    let is_mixed = scan.cause().contains("on some of which a service listens");
    assert_eq!(scan.listening, is_mixed, "{scan:?}");
}

#[test]
fn what_was_answered_was_listened_to_by_somebody() {
    let mut world = World::default();
    world.arrive("10.0.0.7", "tcp", 7777, 12);
    world.answer(Some(7777), "10.0.0.7", 50_000, 12);
    let all = world.findings(&[], 1);
    assert_eq!((all.len(), all[0].answers), (1, 12));
    assert!(
        !all[0].cause().contains("nobody listens ("),
        "{}",
        all[0].cause()
    );
    assert!(all[0].cause().contains("answered"), "{}", all[0].cause());
}
