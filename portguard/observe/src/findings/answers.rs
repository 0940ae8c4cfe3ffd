//! What this host answered in audit: it belongs to what it answers, whatever ports the clients had.

use std::collections::{BTreeMap, BTreeSet};

use super::Kind;
use super::ledger::{Cause, Entry, Ledger};
use super::share::apportion;
use crate::talkers::TopTalker;
use portguard_policy::catalog::Transport;

/// Violations of clients' ports that nobody is known for by the port.
#[derive(Debug, Default)]
pub(super) struct Rest {
    pub(super) packets: u64,
    pub(super) ports: BTreeSet<u16>,
}

impl Rest {
    pub(super) fn add(&mut self, port: u16, packets: u64) {
        self.ports.insert(port);
        self.packets += packets;
    }
}

/// Books what was sent to clients to what it answers.
pub(super) fn book(
    ledger: &mut Ledger<'_>,
    transport: Transport,
    talkers: &[&TopTalker],
    rest: &Rest,
) {
    if rest.packets == 0 {
        return;
    }
    let mut groups: BTreeMap<Cause, (Option<u16>, Vec<&TopTalker>)> = BTreeMap::new();
    for talker in talkers {
        let group = groups
            .entry(answered(ledger, transport, talker))
            .or_insert((talker.source_port, Vec::new()));
        group.1.push(talker);
    }
    if groups.is_empty() {
        // Nobody is known: if only one service can have answered, it did.
        let mut services = ledger.entries.iter().filter(|(cause, entry)| {
            cause.direction == "in" && entry.listening && entry.transport == Some(transport)
        });
        let only = services.next().filter(|_| services.next().is_none());
        let cause = only.map_or_else(|| unknown(transport), |(cause, _)| cause.clone());
        groups.insert(cause, (None, Vec::new()));
    }
    let weights: Vec<u64> = groups
        .values()
        .map(|(_, talkers)| talkers.iter().map(|one| one.packets).sum())
        .collect();
    let is_sampled = weights.iter().sum::<u64>() != rest.packets;
    let parts = apportion(rest.packets, &weights);
    let count = groups.len();
    for ((cause, (service, talkers)), part) in groups.into_iter().zip(parts) {
        let is_own = cause.kind == Kind::UndocumentedAnswers;
        let entry = ledger.entry(cause);
        entry.violations += part;
        entry.answers += part;
        entry.estimated |= count > 1 && is_sampled;
        if is_own {
            entry.transport = Some(transport);
            entry.source_port = service;
            entry.what = Some(match service {
                Some(service) => format!("answers from {transport}/{service}"),
                None => format!("{transport} to clients"),
            });
        }
        for talker in talkers {
            entry.add(talker);
        }
    }
}

fn unknown(transport: Transport) -> Cause {
    Cause {
        direction: "out",
        kind: Kind::UndocumentedAnswers,
        place: format!("{transport}/0"),
    }
}

/// Whether something arrived that a talker was answered for by a service.
pub(super) fn is_known(ledger: &Ledger<'_>, transport: Transport, talker: &TopTalker) -> bool {
    talker.source_port.is_some() && answered(ledger, transport, talker).direction == "in"
}

/// What a talker was answered for.
fn answered(ledger: &Ledger<'_>, transport: Transport, talker: &TopTalker) -> Cause {
    let entries = ledger.entries.iter();
    let arrived = entries.filter(|(cause, _)| cause.direction == "in");
    let found = match talker.source_port {
        // Of the service itself, or else of the scan that met it.
        Some(service) => {
            let of = |(cause, entry): &(&Cause, &Entry)| {
                if cause.kind == Kind::Scan {
                    entry.peers.contains_key(talker.who())
                } else {
                    entry.transport == Some(transport)
                }
            };
            arrived
                .filter(|one| of(one) && one.1.ports.contains(&service))
                .min_by_key(|(cause, _)| cause.kind == Kind::Scan)
        }
        // Refusals: of whoever tried something, first of all of who scans.
        None => arrived
            .filter(|(cause, entry)| {
                let is_it = cause.kind == Kind::Scan || entry.transport == Some(transport);
                is_it && entry.peers.contains_key(talker.who())
            })
            .max_by_key(|(cause, entry)| (cause.kind == Kind::Scan, entry.violations)),
    };
    match (found, talker.source_port) {
        (Some((cause, _)), _) => cause.clone(),
        (None, Some(service)) => Cause {
            place: format!("{transport}/{service}"),
            ..unknown(transport)
        },
        (None, None) => unknown(transport),
    }
}
