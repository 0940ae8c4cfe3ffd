//! Violations of ports, each booked to its finding.

use std::collections::BTreeMap;

use portguard_common::talkers::{CLIENT_PORTS, CLIENT_PORTS_HERE};

use super::Kind;
use super::answers::{self, Rest};
use super::ledger::{Cause, Entry, Half, Ledger, Port, Side};
use super::scan::{OFTEN, Scanners};
use super::share::apportion;
use crate::counters::Report;
use crate::talkers::TopTalker;
use portguard_policy::catalog::Transport;
use portguard_policy::image::{Span, covering, spans};

const IN: &str = "in";
const OUT: &str = "out";

/// Where a finding of a documented port belongs: rows open ranges, and who has no part in one tries all of it.
fn place(open: &[Span<'_>], transport: Transport, port: u16) -> String {
    let first = covering(open, transport, (port, port)).map_or(port, |span| span.first);
    format!("{transport}/{first}")
}

impl Entry {
    fn of_port(&mut self, transport: Transport, number: u16) {
        self.transport = Some(transport);
        self.ports.insert(number);
    }

    /// All of a port.
    fn book(&mut self, (transport, number): (Transport, u16), port: &Port<'_>) {
        self.of_port(transport, number);
        self.violations += port.count;
        self.rows.extend(port.rows().map(str::to_owned));
        port.talkers().iter().for_each(|talker| self.add(talker));
    }
}

fn scan() -> Cause {
    Cause {
        direction: IN,
        kind: Kind::Scan,
        place: String::new(),
    }
}

/// What arrived.
pub(super) fn inbound(ledger: &mut Ledger<'_>) {
    let policy = ledger.policy;
    let open = spans(&policy.inbound);
    let sockets = ledger.sockets;
    let is_picked = |number| (CLIENT_PORTS..=CLIENT_PORTS_HERE).contains(&number);
    let listens = |transport, number| sockets.serve(transport, number);
    let halves = take(ledger, IN);
    let is_client = |transport, number| {
        is_picked(number) && transport == Transport::Udp && !listens(transport, number)
    };
    let scanners = Scanners::find(IN, &halves, |transport, number| {
        !listens(transport, number) && !is_client(transport, number)
    });
    for ((_, transport), half) in halves {
        let mut rest = Rest::default();
        // What came to clients before a row opened their ports.
        let came_before = other(&half.to_clients, "undocumented-peer")
            .next()
            .is_some()
            && documented(&half.to_clients, "undocumented-peer")
                .next()
                .is_none();
        for (number, port) in &half.ports {
            let place_here = (transport, *number);
            let is_listening = listens(transport, *number);
            if port.documented
                && !(came_before
                    && is_picked(*number)
                    && !is_listening
                    && port.talkers().is_empty())
            {
                let cause = Cause {
                    direction: IN,
                    kind: Kind::UndocumentedPeer,
                    place: place(&open, transport, *number),
                };
                split(ledger, &scanners, place_here, port, &cause, is_listening);
                continue;
            }
            if is_picked(*number) && !is_listening && port.talkers().is_empty()
                || is_client(transport, *number)
            {
                rest.add(*number, port.count);
                continue;
            }
            let cause = Cause {
                direction: IN,
                kind: Kind::UndocumentedPort,
                place: format!("{transport}/{number}"),
            };
            if is_listening {
                let entry = ledger.entry(cause);
                entry.listening = true;
                entry.book(place_here, port);
            } else if scanners.is_noise(place_here)
                || (port.talkers().is_empty() && scanners.are_known())
            {
                ledger.entry(scan()).book(place_here, port);
            } else {
                split(ledger, &scanners, place_here, port, &cause, false);
            }
        }
        for talker in documented(&half.to_clients, "undocumented-peer") {
            name(ledger, IN, Kind::UndocumentedPeer, transport, talker);
        }
        from_elsewhere(ledger, transport, &half, &scanners, rest);
    }
}

/// A port of which scanners have their part: what one of them sends there often is no scan, whatever else it does.
fn split(
    ledger: &mut Ledger<'_>,
    scanners: &Scanners<'_>,
    (transport, number): (Transport, u16),
    port: &Port<'_>,
    cause: &Cause,
    is_listening: bool,
) {
    let (theirs, others): (Vec<&TopTalker>, Vec<&TopTalker>) = port
        .talkers()
        .iter()
        .copied()
        .partition(|talker| talker.packets <= OFTEN && scanners.has(talker.peer.as_ref()));
    let sum = |talkers: &[&TopTalker]| talkers.iter().map(|one| one.packets).sum::<u64>();
    let weights = [sum(&others), sum(&theirs)];
    let [own, scanned] = apportion(port.count, &weights)[..] else {
        return;
    };
    let is_told_apart = own > 0 && scanned > 0;
    let is_sampled = weights.iter().sum::<u64>() != port.count;
    for (part, talkers, cause) in [(own, others, cause.clone()), (scanned, theirs, scan())] {
        if part == 0 {
            continue;
        }
        let entry = ledger.entry(cause);
        entry.of_port(transport, number);
        entry.listening |= is_listening;
        entry.violations += part;
        entry.estimated |= is_told_apart && is_sampled;
        entry.rows.extend(port.rows().map(str::to_owned));
        for talker in talkers {
            entry.add(talker);
        }
    }
}

/// What came to ports of this host's own clients and answers nothing that they sent.
fn from_elsewhere(
    ledger: &mut Ledger<'_>,
    transport: Transport,
    half: &Half<'_>,
    scanners: &Scanners<'_>,
    rest: Rest,
) {
    if rest.packets == 0 {
        return;
    }
    // Who opened a connection to such a port by its number is known there.
    let opened = |talker: &&TopTalker| {
        let mut all = half.ports.values().flat_map(Port::talkers);
        talker.source_port.is_none() && all.any(|other| other.peer == talker.peer)
    };
    // Of those at both ends of which a client's port is, such as TFTP, the kernel keeps each.
    let each = half
        .ports
        .iter()
        .filter(|(number, port)| rest.ports.contains(number) && !port.talkers().is_empty());
    let each = each.flat_map(|(_, port)| port.talkers().iter().copied());
    let mut groups: BTreeMap<Option<Option<u16>>, Vec<&TopTalker>> = BTreeMap::new();
    let to_clients = other(&half.to_clients, "undocumented-peer");
    for talker in to_clients.filter(|one| !opened(one)).chain(each) {
        let is_scan = scanners.has(talker.peer.as_ref());
        let group = (!is_scan).then_some(talker.source_port);
        groups.entry(group).or_default().push(talker);
    }
    if groups.is_empty() {
        let cause = if scanners.are_known() {
            scan()
        } else {
            Cause {
                direction: IN,
                kind: Kind::UndocumentedPort,
                place: format!("{transport}/clients"),
            }
        };
        let entry = ledger.entry(cause);
        entry.transport = Some(transport);
        entry.ports.extend(rest.ports);
        entry.violations += rest.packets;
        return;
    }
    let weights: Vec<u64> = groups
        .values()
        .map(|talkers| talkers.iter().map(|one| one.packets).sum())
        .collect();
    let is_sampled = weights.iter().sum::<u64>() != rest.packets;
    let parts = apportion(rest.packets, &weights);
    let count = groups.len();
    for ((group, talkers), part) in groups.into_iter().zip(parts) {
        let cause = match group {
            None => scan(),
            Some(from) => Cause {
                direction: IN,
                kind: Kind::AnswersFromElsewhere,
                place: format!("{transport} from {}", from.unwrap_or(0)),
            },
        };
        let entry = ledger.entry(cause);
        entry.transport = Some(transport);
        if let Some(from) = group {
            entry.source_port = from;
            entry.what = Some(match from {
                Some(from) => format!("{transport} from {from}"),
                None => format!("{transport} to clients"),
            });
        }
        if count == 1 {
            entry.ports.extend(&rest.ports);
        }
        let of = rest
            .ports
            .iter()
            .filter_map(|number| half.ports.get(number));
        entry
            .rows
            .extend(of.flat_map(Port::rows).map(str::to_owned));
        entry.violations += part;
        entry.estimated |= count > 1 && is_sampled;
        for talker in talkers {
            entry.add(talker);
        }
    }
}

/// What was sent.
pub(super) fn outbound(ledger: &mut Ledger<'_>) {
    let policy = ledger.policy;
    let open = spans(&policy.outbound);
    let halves = take(ledger, OUT);
    let scanners = Scanners::find(OUT, &halves, |_, _| true);
    for ((_, transport), half) in halves {
        let mut rest = Rest::default();
        // Answered by number, and at more ports than a host asks one peer for.
        let is_answered = |talker: &&TopTalker| {
            let mut answered = half.to_clients.iter();
            scanners.has(talker.peer.as_ref())
                && answered.any(|other| other.source_port.is_some() && other.peer == talker.peer)
        };
        // What answers a peer that no row names: to a port that its client picked, though rows open that one to others.
        let (answers, sent): (Vec<&TopTalker>, Vec<&TopTalker>) =
            documented(&half.to_clients, "undocumented-destination")
                .partition(|talker| answers::is_known(ledger, transport, talker));
        for (number, port) in &half.ports {
            let place_here = (transport, *number);
            let is_answer = *number >= CLIENT_PORTS
                && port.talkers().is_empty()
                && sent.is_empty()
                && !answers.is_empty();
            if port.documented && is_answer {
                rest.add(*number, port.count);
                continue;
            }
            if port.documented {
                let cause = Cause {
                    direction: OUT,
                    kind: Kind::UndocumentedDestination,
                    place: place(&open, transport, *number),
                };
                ledger.entry(cause).book(place_here, port);
                continue;
            }
            // To clients of this host, who may have any port.
            let is_client = if *number >= CLIENT_PORTS {
                port.talkers().is_empty()
            } else {
                *number >= 1024
                    && !port.talkers().is_empty()
                    && port.talkers().iter().all(is_answered)
            };
            if is_client {
                rest.add(*number, port.count);
                continue;
            }
            // One peer that is sent to at many ports is one problem.
            let mut peers = port.talkers().iter().map(|talker| talker.peer.as_ref());
            let many = peers.find(|peer| scanners.has(*peer)).flatten();
            let cause = Cause {
                direction: OUT,
                kind: Kind::UndocumentedDestinationPort,
                place: match many {
                    Some(peer) => format!("{transport} {peer}"),
                    None => format!("{transport}/{number}"),
                },
            };
            let entry = ledger.entry(cause);
            entry.book(place_here, port);
            if many.is_some() {
                entry.what = Some(format!("{transport}: {} ports", entry.ports.len()));
            }
        }
        for talker in sent {
            name(
                ledger,
                OUT,
                Kind::UndocumentedDestination,
                transport,
                talker,
            );
        }
        let talkers: Vec<&TopTalker> = other(&half.to_clients, "undocumented-destination")
            .chain(answers)
            .collect();
        answers::book(ledger, transport, &talkers, &rest);
    }
}

/// What has no port.
pub(super) fn without(ledger: &mut Ledger<'_>) {
    for one in ledger.reports.iter().flat_map(Report::portless) {
        let what = one.what();
        let cause = Cause {
            direction: one.direction,
            kind: Kind::WithoutPort,
            place: format!("{} {what}", one.reason),
        };
        let talkers = ledger.talkers;
        let is_new = !ledger.entries.contains_key(&cause);
        let entry = ledger.entry(cause);
        entry.what = Some(what);
        entry.violations += one.packets;
        entry.rows.extend(one.rows.iter().cloned());
        // Of all interfaces together.
        if is_new {
            let of = talkers.iter().filter(|talker| talker.is_of(&one));
            of.for_each(|talker| entry.add(talker));
        }
    }
}

fn take<'a>(ledger: &mut Ledger<'a>, direction: &str) -> BTreeMap<Side, Half<'a>> {
    let all = std::mem::take(&mut ledger.halves).into_iter();
    let (taken, left) = all.partition(|((side, _), _)| *side == direction);
    ledger.halves = left;
    taken
}

fn documented<'t>(
    talkers: &'t [&'t TopTalker],
    reason: &'t str,
) -> impl Iterator<Item = &'t TopTalker> {
    let all = talkers.iter().copied();
    all.filter(move |talker| talker.reason == reason)
}

fn other<'t>(talkers: &'t [&'t TopTalker], reason: &'t str) -> impl Iterator<Item = &'t TopTalker> {
    let all = talkers.iter().copied();
    all.filter(move |talker| talker.reason != reason)
}

/// Names a talker to clients' ports at the findings of documented ranges among them, where it is not told apart.
fn name(
    ledger: &mut Ledger<'_>,
    direction: &'static str,
    kind: Kind,
    transport: Transport,
    talker: &TopTalker,
) {
    let heaviest = ledger
        .entries
        .iter_mut()
        .filter(|(cause, entry)| {
            (cause.direction, cause.kind) == (direction, kind)
                && entry.transport == Some(transport)
                && entry.ports.last().is_some_and(|last| *last >= CLIENT_PORTS)
        })
        .max_by_key(|(_, entry)| entry.violations);
    if let Some((_, entry)) = heaviest {
        entry.add(talker);
    }
}
