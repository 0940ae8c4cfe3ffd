//! What the dashboard shows, apart from how.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use portguard_kernel::generation::Live;
use portguard_observe::counters::{Report, Snapshot};
use portguard_observe::knock::Knocking;
use portguard_observe::observe::Observed;
use portguard_policy::catalog::Catalog;

/// Rates that are remembered for the plots.
const REMEMBERED: usize = 240;

/// The views, in the order of the tab key.
pub(super) const VIEWS: [&str; 4] = ["ports", "violations", "who is knocking", "never used"];

/// Everything on the screen.
pub(super) struct Top {
    /// Guarded interfaces, by name.
    pub(super) guards: BTreeMap<String, Guard>,
    /// The one that is shown.
    pub(super) shown: Option<String>,
    /// Index into [`VIEWS`].
    pub(super) view: usize,
    /// Lines scrolled down.
    pub(super) offset: usize,
    /// Whether time stands still.
    pub(super) is_paused: bool,
    /// For the rows that come near.
    pub(super) catalog: Catalog,
    /// Who causes violations, by interface.
    pub(super) callers: BTreeMap<String, Knocking>,
}

/// One interface.
pub(super) struct Guard {
    /// Since the last reset.
    pub(super) report: Report,
    /// Since the last look.
    pub(super) delta: Report,
    /// How long ago that was.
    pub(super) seconds: f64,
    /// Packets a second that passed, newest last.
    pub(super) passed: VecDeque<u64>,
    /// Violations a second, newest last.
    pub(super) violations: VecDeque<u64>,
    /// Boot-time nanoseconds at which the generation gives way; 0 = never.
    pub(super) deadline: u64,
    /// What is not as it should be.
    pub(super) warnings: Vec<String>,
    snapshot: Snapshot,
    at: Instant,
}

impl Top {
    pub(super) fn new(shown: Option<String>, catalog: Catalog) -> Self {
        Self {
            guards: BTreeMap::new(),
            shown,
            view: 0,
            offset: 0,
            is_paused: false,
            catalog,
            callers: BTreeMap::new(),
        }
    }

    /// Takes a new look; interfaces that are no longer guarded go.
    pub(super) fn update(&mut self, observed: Vec<Observed>, at: Instant) {
        let mut before = std::mem::take(&mut self.guards);
        for one in observed {
            let report = one.report(false);
            let name = one.name.clone();
            let guard = match before.remove(&name) {
                Some(guard) => guard.moved_on(report, one, at),
                None => Guard::first(report, one, at),
            };
            self.guards.insert(name, guard);
        }
        if !self
            .shown
            .as_ref()
            .is_some_and(|name| self.guards.contains_key(name))
        {
            self.shown = self.guards.keys().next().cloned();
        }
    }

    /// The interface that is shown.
    pub(super) fn guard(&self) -> Option<(&str, &Guard)> {
        let name = self.shown.as_deref()?;
        Some((name, self.guards.get(name)?))
    }

    pub(super) fn turn(&mut self, by: isize) {
        let views = isize::try_from(VIEWS.len()).unwrap_or(1);
        let view = isize::try_from(self.view).unwrap_or(0);
        self.view = usize::try_from((view + by).rem_euclid(views)).unwrap_or(0);
        self.offset = 0;
    }

    /// Not beyond the last line, so that the way back is as long as the way there.
    pub(super) fn scroll(&mut self, by: isize) {
        let last = self.lines().saturating_sub(1);
        self.offset = self.offset.saturating_add_signed(by).min(last);
    }

    /// Lines of the view that is shown.
    fn lines(&self) -> usize {
        let Some((name, guard)) = self.guard() else {
            return 0;
        };
        let report = &guard.report;
        match self.view {
            0 => report.ports.len(),
            1 => {
                let ports = report.ports.iter();
                ports.filter(|port| port.violations.packets > 0).count()
            }
            2 => self
                .callers
                .get(name)
                .map_or(0, |knocking| knocking.callers.len()),
            _ => report.rows.iter().filter(|row| row.packets == 0).count(),
        }
    }

    pub(super) fn next_interface(&mut self) {
        let names: Vec<&String> = self.guards.keys().collect();
        let at = names
            .iter()
            .position(|name| Some(*name) == self.shown.as_ref())
            .map_or(0, |at| at + 1);
        self.shown = names.get(at).or(names.first()).map(|name| (*name).clone());
        self.offset = 0;
    }
}

/// When the generation gives way; 0 once it is confirmed.
fn deadline(live: &Live) -> u64 {
    if live.is_confirmed {
        0
    } else {
        live.meta.deadline
    }
}

impl Guard {
    fn first(report: Report, one: Observed, at: Instant) -> Self {
        let nothing = one.raw.since(&one.raw);
        Self {
            delta: Report::new(&one.name, &one.live.meta, &nothing),
            report,
            seconds: 1.0,
            passed: VecDeque::new(),
            violations: VecDeque::new(),
            deadline: deadline(&one.live),
            warnings: one.live.warnings,
            snapshot: one.raw,
            at,
        }
    }

    fn moved_on(mut self, report: Report, one: Observed, at: Instant) -> Self {
        let since = one.raw.since(&self.snapshot);
        self.delta = Report::new(&one.name, &one.live.meta, &since);
        self.seconds = at.duration_since(self.at).as_secs_f64().max(0.001);
        self.report = report;
        self.deadline = deadline(&one.live);
        self.warnings = one.live.warnings;
        self.snapshot = one.raw;
        self.at = at;
        let bad = self.rate(self.delta.violations.packets);
        let all = self.rate(self.delta.totals.packets);
        for (rates, rate) in [
            (&mut self.passed, all.saturating_sub(bad)),
            (&mut self.violations, bad),
        ] {
            rates.push_back(rate);
            if rates.len() > REMEMBERED {
                rates.pop_front();
            }
        }
        self
    }

    /// Packets of the last look as packets a second.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a rate for people; never negative, and far below 2^52"
    )]
    pub(super) fn rate(&self, packets: u64) -> u64 {
        (packets as f64 / self.seconds).round() as u64
    }
}
