//! What a listener was told of all that happened: exact counters before and after, and the events between. Violations that come
//! faster than all can be looked at have no event, and those that there was no room for are lost: both are counted here.

use std::collections::BTreeMap;

use portguard_common::abi::{Event, slot};
use portguard_common::reason::{Direction, Reason};
use serde::Serialize;

use crate::counters::{Report, Snapshot};
use portguard_kernel::pins::meta::Meta;
use portguard_policy::human::{count, grouped, rfc3339};

/// Counts what a listener of one interface is told.
#[derive(Debug)]
pub struct Tally {
    interface: String,
    /// Nanoseconds since the Unix epoch.
    since: u64,
    before: Snapshot,
    told: BTreeMap<(&'static str, &'static str), u64>,
}

/// What happened while somebody listened, and what of it was told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Interface.
    pub interface: String,
    /// When listening began. RFC 3339, UTC.
    pub since: String,
    /// Up to when these numbers count. RFC 3339, UTC.
    pub until: String,
    /// Violations by the exact counters: the sum of the three that follow.
    pub violations: u64,
    /// Events that were told.
    pub shown: u64,
    /// Events that there was no room for.
    pub lost: u64,
    /// Violations that no event was made of.
    pub not_sampled: u64,
    /// The same by reason; those that did not occur are left out.
    pub reasons: Vec<OfReason>,
}

/// Violations of one reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OfReason {
    /// `in` or `out`.
    pub direction: &'static str,
    /// Stable name.
    pub reason: String,
    /// By the exact counters.
    pub violations: u64,
    /// Events that were told.
    pub shown: u64,
}

impl Tally {
    /// From counters that were read before anybody was to be told, at a time in nanoseconds since the Unix epoch.
    pub fn new(interface: &str, before: Snapshot, since: u64) -> Self {
        Self {
            interface: interface.to_owned(),
            since,
            before,
            told: BTreeMap::new(),
        }
    }

    /// Another event was told.
    pub fn tell(&mut self, event: &Event) {
        let direction = match event.direction {
            0 => Direction::Ingress,
            _ => Direction::Egress,
        };
        let reason = Reason::from_number(event.reason).map_or("unknown", |one| one.name(direction));
        *self.told.entry((direction.name(), reason)).or_default() += 1;
    }

    /// What happened up to `now`, whose counters these are; `meta` is of any generation since.
    pub fn summary(&self, meta: &Meta, counters: &Snapshot, now: u64) -> Summary {
        let happened = counters.since(&self.before);
        let report = Report::new(&self.interface, meta, &happened);
        let violations = report.violations.packets;
        let shown = self.told.values().sum();
        let lost = happened.slot(slot::EVENTS_LOST).packets;
        let reasons = report.reasons.into_iter().filter(|one| one.violation);
        let reasons = reasons.map(|one| OfReason {
            direction: one.direction,
            shown: self
                .told
                .get(&(one.direction, one.reason.as_str()))
                .copied()
                .unwrap_or(0),
            reason: one.reason,
            violations: one.packets,
        });
        Summary {
            interface: self.interface.clone(),
            since: rfc3339(self.since),
            until: rfc3339(now),
            violations,
            shown,
            lost,
            not_sampled: violations.saturating_sub(shown + lost),
            reasons: reasons.collect(),
        }
    }
}

impl Summary {
    /// `eth0: 4,336 violations: 342 shown, 3,994 not sampled, 0 lost`.
    pub fn text(&self) -> String {
        if self.violations == 0 {
            return format!("{}: no violation", self.interface);
        }
        format!(
            "{}: {}: {} shown, {} not sampled, {} lost",
            self.interface,
            count(self.violations, "violation"),
            grouped(self.shown),
            grouped(self.not_sampled),
            grouped(self.lost)
        )
    }
}
