//! The image against a model that scans the grants of the policy, one after the other.

mod cells;
mod limits;
mod model;
mod random;

use std::net::IpAddr;

use fastrand::Rng;
use portguard_common::addr::Addr;
use portguard_common::packet::{Packet, Shape, protocol};
use portguard_common::reason::{Direction, Reason};
use portguard_common::tables::Key;
use portguard_common::verdict::{Verdict, judge};

use super::Image;
use crate::cells::Directory;
use crate::policy::Policy;
use model::{Answer, Model};

/// A question to a policy.
#[derive(Debug, Clone, Copy)]
struct Question {
    direction: Direction,
    key: Key,
    peer: IpAddr,
    /// The other port, for keys that are ports.
    other: u16,
}

impl Question {
    fn packet(&self) -> Packet {
        let mut packet = Packet::new(60);
        let here = if self.peer.is_ipv6() {
            Addr::v6(1, 2)
        } else {
            Addr::v4(3)
        };
        (packet.source, packet.destination) = match self.direction {
            Direction::Ingress => (self.peer.into(), here),
            Direction::Egress => (here, self.peer.into()),
        };
        packet.source_port = self.other;
        packet.destination_port = self.key.number();
        match self.key.space() {
            0 => packet.protocol = protocol::TCP,
            1 => packet.protocol = protocol::UDP,
            2 => packet.protocol = protocol::SCTP,
            _ => packet.protocol = u8::try_from(self.key.number()).unwrap_or(protocol::ICMP),
        }
        packet.shape = match self.key {
            Key::ECHO => Shape::Icmp,
            key if key.space() == 3 => Shape::Protocol,
            _ => Shape::Ports,
        };
        if self.key == Key::ECHO {
            packet.icmp_type = if self.peer.is_ipv6() { 128 } else { 8 };
        }
        packet
    }

    fn ask(&self, image: &Image) -> Verdict {
        judge(image, &self.packet(), self.direction)
    }
}

/// Asks image and model, and fails where they differ.
fn compare(policy: &Policy, image: &Image, question: &Question) -> Reason {
    let verdict = question.ask(image);
    let model = Model(policy);
    let at = || format!("{question:?}\n{verdict:?}\n{policy:?}");
    let answer = model.judge(
        question.direction,
        question.key,
        question.peer,
        question.other,
    );
    let reason = match &answer {
        Answer::Granted { kind, rows } => {
            let cell = image
                .directory
                .get(verdict.cell)
                .unwrap_or_else(|| panic!("no cell: {}", at()));
            assert_eq!(&cell.rows, rows, "{}", at());
            assert_eq!(cell.kind, *kind, "{}", at());
            assert_eq!(cell.direction(), question.direction, "{}", at());
            assert_eq!(u32::from(cell.space), question.key.space(), "{}", at());
            let number = question.key.number();
            assert!(
                (cell.first..=cell.last).contains(&number),
                "{cell:?} {}",
                at()
            );
            Reason::Granted
        }
        Answer::Reply => Reason::Reply,
        Answer::Foreign => Reason::UndocumentedPeer,
        Answer::Closed if question.key == Key::ECHO => Reason::Icmp,
        Answer::Closed if question.key.space() == 3 => Reason::UndocumentedProtocol,
        Answer::Closed => Reason::UndocumentedPort,
    };
    assert_eq!(verdict.reason, reason, "{}", at());
    if answer != Answer::Reply {
        assert_eq!(verdict.key, question.key);
        let spared = model.is_audit(question.direction, question.key);
        assert_eq!(verdict.audit_only, spared, "{}", at());
    }
    reason
}

fn build(policy: &Policy) -> Image {
    Image::build(policy, Directory::default()).expect("the policy fits")
}

#[test]
fn random_policies_are_kept_to_the_letter() {
    let mut hits = std::collections::BTreeMap::new();
    for seed in 0..150 {
        let mut rng = Rng::with_seed(seed);
        let policy = random::policy(&mut rng);
        let image = build(&policy);
        for _ in 0..2_500 {
            let question = random::question(&mut rng, &policy);
            let reason = compare(&policy, &image, &question);
            *hits
                .entry((question.direction.name(), format!("{reason:?}")))
                .or_insert(0) += 1;
        }
    }
    println!("{hits:?}");
    for reason in [
        "Granted",
        "UndocumentedPeer",
        "UndocumentedPort",
        "UndocumentedProtocol",
    ] {
        for direction in ["in", "out"] {
            let count = hits
                .get(&(direction, reason.to_owned()))
                .copied()
                .unwrap_or(0);
            assert!(count > 500, "{direction} {reason}: {count}");
        }
    }
    assert!(hits[&("out", "Reply".to_owned())] > 500);
    assert!(hits[&("in", "Icmp".to_owned())] > 500);
}

/// Every port of every space, for a few peers: no port is left out, no range off by one.
#[test]
fn all_ports_of_some_policies() {
    for seed in 1_000..1_003 {
        let mut rng = Rng::with_seed(seed);
        let policy = random::policy(&mut rng);
        let image = build(&policy);
        let peer = random::peer(&mut rng, &policy);
        for number in
            (0..=65_535u16).filter(|number| number % 3 == u16::try_from(seed % 3).unwrap_or(0))
        {
            for space in 0..3 {
                let key = Key::port(space, number);
                let question = Question {
                    direction: Direction::Ingress,
                    key,
                    peer,
                    other: 1,
                };
                compare(&policy, &image, &question);
            }
        }
    }
}

/// Scoped to the host's addresses, the broadcast addresses of its networks count as its own.
#[test]
fn own_networks_are_judged_by_their_broadcast_too() {
    let mut policy = Policy::default();
    policy.settings.host_addresses = Some(vec![
        "10.77.0.5/24".parse().unwrap(),
        "192.0.2.8/32".parse().unwrap(),
        "198.51.100.2/31".parse().unwrap(),
        "fd77::5/64".parse().unwrap(),
    ]);
    let image = build(&policy);
    let reason = |destination: &str| {
        let question = Question {
            direction: Direction::Ingress,
            key: Key::port(1, 9),
            peer: "192.0.2.1".parse().unwrap(),
            other: 9,
        };
        let mut packet = question.packet();
        packet.destination = destination.parse::<IpAddr>().unwrap().into();
        judge(&image, &packet, Direction::Ingress).reason
    };
    for own in [
        "10.77.0.5",
        "10.77.0.255",
        "127.0.0.1",
        "::1",
        "192.0.2.8",
        "198.51.100.2",
        "fd77::5",
        "fd77::",
        "224.0.0.1",
        "255.255.255.255",
        "0.0.0.0",
        "ff02::1",
    ] {
        assert_eq!(reason(own), Reason::UndocumentedPort, "{own}");
    }
    for other in [
        "10.77.0.4",
        "10.77.0.6",
        "10.77.1.255",
        "192.0.2.7",
        "fd77::6",
        "10.78.0.5",
    ] {
        assert_eq!(reason(other), Reason::Transit, "{other}");
    }
}

/// Whenever one asks, what has ended is judged as if it had never been; only why it is refused may be said more kindly.
#[test]
fn what_has_ended_is_judged_as_if_it_had_never_been() {
    let mut refused = 0;
    for seed in 0..80 {
        let mut rng = Rng::with_seed(seed);
        let policy = random::ending(&mut rng);
        let mut image = build(&policy);
        for now in [5, 10, 19, 20, 30, 40] {
            image.time = now * 1_000_000_000;
            let left = policy.without_ended(now);
            let model = Model(&left);
            for _ in 0..500 {
                let question = random::question(&mut rng, &policy);
                let verdict = question.ask(&image);
                let answer = model.judge(
                    question.direction,
                    question.key,
                    question.peer,
                    question.other,
                );
                let at = || format!("{now}: {question:?}\n{verdict:?}\n{answer:?}\n{policy:?}");
                match &answer {
                    Answer::Granted { kind, rows } => {
                        let cell = image.directory.get(verdict.cell);
                        let cell = cell.unwrap_or_else(|| panic!("no cell: {}", at()));
                        assert_eq!((&cell.rows, cell.kind), (rows, *kind), "{}", at());
                        assert_eq!(verdict.reason, Reason::Granted, "{}", at());
                    }
                    Answer::Reply => assert_eq!(verdict.reason, Reason::Reply, "{}", at()),
                    Answer::Foreign | Answer::Closed => {
                        assert!(verdict.reason.is_violation(), "{}", at());
                        let is_dropped = verdict.is_drop(true);
                        let spared = model.is_audit(question.direction, question.key);
                        assert!(is_dropped || spared, "{}", at());
                        refused += usize::from(is_dropped);
                    }
                }
            }
        }
    }
    assert!(refused > 10_000, "{refused}");
}
