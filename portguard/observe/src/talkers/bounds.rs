//! How many packets a talker sent, at least and at most. Counters are exact, by port and by cause; what is put down to talkers
//! is a sample where violations come faster than all can be looked at. Each of the two bounds the other.

use std::collections::BTreeMap;

use portguard_common::abi::CHUNK_KEYS;
use portguard_common::packet::Malformed;
use portguard_common::reason::{Direction, Reason};
use portguard_common::talkers::{CLIENT_PORTS, CLIENT_PORTS_HERE};

use super::{Talker, Talkers};
use crate::counters::Report;

/// Packets of a talker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bounds {
    /// By the samples.
    pub(super) packets: u64,
    pub(super) at_least: u64,
    pub(super) at_most: u64,
    /// Whether samples are all that is known.
    pub(super) is_estimate: bool,
}

/// What an exact counter counts: direction; transport, or reason where there is none; port, or number of the cause.
type Place = (&'static str, &'static str, u16);

/// Stands for ping, which is counted beside the protocols.
const PING: &str = "icmp-echo";

/// A port; all that clients have are one.
fn place_of(side: &str, transport: &str, port: u16) -> u16 {
    let last = if side == Direction::Ingress.name() {
        CLIENT_PORTS_HERE
    } else {
        u16::MAX
    };
    let is_port = matches!(transport, "tcp" | "udp" | "sctp");
    if is_port && (CLIENT_PORTS..=last).contains(&port) {
        CLIENT_PORTS
    } else {
        port
    }
}

/// What is sampled together: direction, and a part of the ports or a reason.
type Group = (&'static str, &'static str, u32);

/// The reasons that have a counter, and a pace of sampling, by themselves.
const ALONE: [Reason; 4] = [
    Reason::Malformed,
    Reason::Icmp,
    Reason::StrictFragment,
    Reason::StrictEthertype,
];

fn place(talker: &Talker) -> Place {
    let (side, reason) = (talker.direction.name(), talker.reason);
    let (transport, port, _) = talker.what();
    if reason == Reason::Malformed {
        (side, reason.name(talker.direction), talker.port)
    } else if ALONE.contains(&reason) {
        (side, reason.name(talker.direction), 0)
    } else if transport == "icmp" {
        (side, PING, 0)
    } else if talker.to_client {
        (side, transport, CLIENT_PORTS)
    } else {
        (
            side,
            transport,
            place_of(side, transport, port.unwrap_or(0)),
        )
    }
}

fn group(&(side, what, number): &Place) -> Group {
    let part = u32::from(number) / CHUNK_KEYS;
    match what {
        "tcp" | "udp" | "sctp" => (side, what, part),
        // Protocols and ping are one part.
        "ip" | PING => (side, "ip", 0),
        _ => (side, what, 0),
    }
}

/// The exact counters of violations.
fn counted(report: &Report) -> BTreeMap<Place, u64> {
    let mut found = BTreeMap::new();
    for port in &report.ports {
        let (what, number) = match port.transport {
            "icmp" => (PING, 0),
            transport => (transport, place_of(port.direction, transport, port.port)),
        };
        if port.violations.packets > 0 {
            *found.entry((port.direction, what, number)).or_default() += port.violations.packets;
        }
    }
    for reason in report.reasons.iter().filter(|reason| reason.violation) {
        let alone = ALONE
            .into_iter()
            .filter(|alone| *alone != Reason::Malformed);
        // The same both ways.
        let mut names = alone.map(|alone| alone.name(Direction::Ingress));
        if let Some(name) = names.find(|name| *name == reason.reason) {
            found.insert((reason.direction, name, 0), reason.packets);
        }
    }
    for cause in report
        .causes
        .iter()
        .filter(|cause| cause.kind == "malformed")
    {
        let all = Malformed::ALL.into_iter();
        for known in all.filter(|known| known.name() == cause.cause) {
            found.insert((cause.direction, "malformed", known as u16), cause.packets);
        }
    }
    found
}

/// The bounds of each talker, in their order, and whether every violation was looked at.
pub(super) fn bounds(talkers: &Talkers, report: &Report) -> (Vec<Bounds>, bool) {
    let counted = counted(report);
    let is_exact = talkers.attributed == report.violations.packets;
    let places: Vec<Place> = talkers.heaviest.iter().map(place).collect();
    // What is known of each place: packets that were put down to somebody, and of how many that is sure.
    let mut sums: BTreeMap<Place, (u64, u64)> = BTreeMap::new();
    for (place, talker) in places.iter().zip(&talkers.heaviest) {
        let (attributed, looks) = sums.entry(*place).or_default();
        *attributed += talker.packets;
        *looks += talker.looks;
    }
    // Where nobody lost a place, the sums of each part of the counters tell whether all of that part was looked at.
    let is_orderly = talkers.heaviest.iter().all(|talker| talker.error == 0);
    let mut whole: BTreeMap<Group, bool> = BTreeMap::new();
    for place in counted.keys().chain(&places) {
        let attributed = sums.get(place).map_or(0, |(attributed, _)| *attributed);
        let is_same = counted.get(place).copied().unwrap_or(0) == attributed;
        let whole = whole.entry(group(place)).or_insert(is_orderly);
        *whole = *whole && is_same;
    }
    let each = talkers.heaviest.iter().zip(&places);
    let bounds = each.map(|(talker, place)| {
        let count = counted.get(place).copied().unwrap_or(talker.packets);
        let is_known = is_exact || whole.get(&group(place)).copied().unwrap_or(false);
        let (at_least, at_most) = if is_known {
            (talker.packets - talker.error, talker.packets.min(count))
        } else {
            // Those that others sent for certain it did not.
            let others = sums.get(place).map_or(0, |(_, looks)| looks - talker.looks);
            (talker.looks, count.saturating_sub(others))
        };
        let at_most = at_most.max(at_least);
        let packets = if is_known {
            talker.packets
        } else {
            // Its share of what was sampled at this place, of what came there: samples stand for their neighbours, too.
            share(
                talker.packets,
                sums.get(place).map_or(0, |(sum, _)| *sum),
                count,
            )
        };
        Bounds {
            packets: packets.clamp(at_least, at_most),
            at_least,
            at_most,
            is_estimate: !is_known && at_least < at_most,
        }
    });
    (bounds.collect(), is_exact)
}

/// `part` of `sum`, of another whole.
fn share(part: u64, sum: u64, whole: u64) -> u64 {
    let share = (u128::from(part) * u128::from(whole)).checked_div(sum.into());
    share
        .and_then(|share| share.try_into().ok())
        .unwrap_or(whole)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::counters::tests::report;

    fn talker(port: u16, peer: &str, packets: u64) -> Talker {
        Talker {
            packets,
            looks: Talker::looks(packets),
            ..Talker::example(port, peer)
        }
    }

    fn told(heaviest: Vec<Talker>, ports: &[(u16, u64)]) -> (Vec<(u64, u64, u64)>, bool) {
        let talkers = Talkers {
            attributed: heaviest.iter().map(|talker| talker.packets).sum(),
            heaviest,
            bound: 0,
        };
        let (bounds, is_exact) = bounds(&talkers, &report("tcp", ports));
        let numbers = bounds
            .iter()
            .map(|one| (one.at_least, one.packets, one.at_most));
        (numbers.collect(), is_exact)
    }

    #[test]
    fn all_that_was_looked_at_is_exact() {
        let (bounds, is_exact) = told(
            vec![talker(23, "192.0.2.1", 7), talker(23, "192.0.2.2", 3)],
            &[(23, 10)],
        );
        assert_eq!((bounds, is_exact), (vec![(7, 7, 7), (3, 3, 3)], true));
    }

    #[test]
    fn nobody_is_told_to_have_sent_more_than_came() {
        // The one look at the second talker stood for 500 of the first.
        let (bounds, is_exact) = told(
            vec![talker(23, "192.0.2.1", 520), talker(24, "192.0.2.2", 500)],
            &[(23, 1_000), (24, 40)],
        );
        assert_eq!(bounds, [(2, 1_000, 1_000), (1, 40, 40)]);
        assert!(!is_exact);
        // What another sent for certain, it did not.
        let (bounds, _) = told(
            vec![talker(23, "192.0.2.1", 990), talker(23, "192.0.2.2", 1)],
            &[(23, 900)],
        );
        assert_eq!(bounds, [(2, 899, 899), (1, 1, 898)]);
    }

    #[test]
    fn a_flood_elsewhere_takes_nothing_from_what_is_exact() {
        let (bounds, is_exact) = told(
            vec![talker(50_000, "192.0.2.1", 400), talker(23, "192.0.2.2", 3)],
            &[(50_000, 1_000), (23, 3)],
        );
        assert_eq!(bounds, [(1, 1_000, 1_000), (3, 3, 3)]);
        assert!(!is_exact);
    }
}
