//! What the dashboard shows, apart from how.

use std::cmp::Reverse;
use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use crate::command::catalogs;
use crate::command::counters::fold_clients;
use portguard_kernel::generation::Live;
use portguard_observe::counters::{PortCount, Report, Snapshot};
use portguard_observe::findings::{self, Finding};
use portguard_observe::observe::{self, Observed};
use portguard_observe::talkers::{TopTalker, TopTalkers};
use portguard_policy::catalog::Catalog;

/// Rates that are remembered for the plots.
const REMEMBERED: usize = 240;

/// The views, in the order of the tab key.
pub(super) const VIEWS: [&str; 4] = ["ports", "findings", "top talkers", "never used"];

/// How lines are sorted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sort {
    Rate,
    Total,
    Name,
}

impl Sort {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Rate => "rate",
            Self::Total => "total",
            Self::Name => "name",
        }
    }
}

/// Everything on the screen.
pub(super) struct Top {
    /// Guarded interfaces, by name.
    pub(super) guards: BTreeMap<String, Guard>,
    /// The one that is shown.
    pub(super) shown: Option<String>,
    /// How lines are sorted.
    pub(super) sort: Sort,
    /// What lines must have.
    pub(super) filter: String,
    /// Whether keys write the filter.
    pub(super) is_typing: bool,
    /// Whether the keys are explained.
    pub(super) is_help: bool,
    /// Index into [`VIEWS`].
    pub(super) view: usize,
    /// Lines scrolled down.
    pub(super) offset: usize,
    /// Whether time stands still.
    pub(super) is_paused: bool,
    /// For the rows that come near.
    pub(super) catalog: Catalog,
    /// Of the policies whose catalog that is.
    digests: Vec<String>,
    /// Who causes violations, by interface.
    pub(super) talkers: BTreeMap<String, TopTalkers>,
}

/// One interface.
pub(super) struct Guard {
    /// Since the last reset.
    pub(super) report: Report,
    /// Since the last look.
    pub(super) delta: Report,
    /// How long ago that was.
    pub(super) seconds: f64,
    /// Violations by their cause.
    pub(super) findings: Vec<Finding>,
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
    pub(super) fn new(shown: Option<String>) -> Self {
        Self {
            guards: BTreeMap::new(),
            shown,
            sort: Sort::Rate,
            filter: String::new(),
            is_typing: false,
            is_help: false,
            view: 0,
            offset: 0,
            is_paused: false,
            catalog: Catalog::default(),
            digests: Vec::new(),
            talkers: BTreeMap::new(),
        }
    }

    /// Reads the catalog again where other policies are in force.
    pub(super) fn read_catalog(&mut self, observed: &[Observed]) -> anyhow::Result<()> {
        let metas = || observed.iter().map(|one| &one.live.meta);
        let digests: Vec<String> = metas().map(|meta| meta.digest.clone()).collect();
        if self.digests != digests || self.catalog.systems.is_empty() {
            // What cannot be read is no reason to draw over the screen; other verbs say it.
            (self.catalog, _) = catalogs::found(metas())?;
            self.digests = digests;
        }
        Ok(())
    }

    /// Takes a new look; interfaces that are no longer guarded go.
    pub(super) fn update(&mut self, observed: Vec<Observed>, at: Instant) {
        let mut before = std::mem::take(&mut self.guards);
        let sockets = observe::sockets();
        for mut one in observed {
            let report = one.report(false);
            let findings = match &sockets {
                Ok(sockets) => {
                    let mut findings = one.findings(sockets, false);
                    findings::name_left_out(&mut findings, &one.live.meta.policy, &self.catalog);
                    findings
                }
                Err(error) => {
                    one.live.warnings.push(format!("no findings: {error:#}"));
                    Vec::new()
                }
            };
            let name = one.name.clone();
            let guard = match before.remove(&name) {
                Some(guard) => guard.moved_on(report, one, at),
                None => Guard::first(report, one, at),
            };
            let mut guard = Guard { findings, ..guard };
            for report in [&mut guard.report, &mut guard.delta] {
                fold_clients(report, &guard.findings);
            }
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
    pub(super) fn lines(&self) -> usize {
        let Some((name, guard)) = self.guard() else {
            return 0;
        };
        let report = &guard.report;
        match self.view {
            0 => self.ports(guard).len(),
            1 => self.findings(guard).len(),
            2 => self.talkers(name).len(),
            _ => {
                let rows = report.rows.iter();
                rows.filter(|row| row.packets == 0 && self.matches(&[&row.row, &row.purpose]))
                    .count()
            }
        }
    }

    /// Whether a line has what is searched for; all have nothing.
    pub(super) fn matches(&self, words: &[&str]) -> bool {
        self.filter.is_empty()
            || words
                .iter()
                .any(|word| word.to_lowercase().contains(&self.filter.to_lowercase()))
    }

    /// Ports in the order that is asked for; ports of other hosts' clients say nothing.
    pub(super) fn ports<'g>(&self, guard: &'g Guard) -> Vec<(&'g PortCount, (u64, u64))> {
        let rate = |port: &PortCount| {
            let delta = guard.delta.ports.iter().find(|other| other.is_same(port));
            delta.map_or((0, 0), |delta| {
                (
                    guard.rate(delta.passed.packets),
                    guard.rate(delta.violations.packets),
                )
            })
        };
        let mut lines: Vec<_> = guard
            .report
            .ports
            .iter()
            .filter(|port| self.matches(&[&port.name(), &port.rows.join(" "), port.direction]))
            .map(|port| (port, rate(port)))
            .collect();
        match self.sort {
            Sort::Rate => lines.sort_by_key(|(port, (passed, violations))| {
                Reverse((
                    passed + violations,
                    port.passed.packets + port.violations.packets,
                ))
            }),
            Sort::Total => lines
                .sort_by_key(|(port, _)| Reverse(port.passed.packets + port.violations.packets)),
            Sort::Name => {
                lines.sort_by_key(|(port, _)| (port.direction, port.transport, port.port));
            }
        }
        lines
    }

    /// Findings that have what is searched for.
    pub(super) fn findings<'g>(&self, guard: &'g Guard) -> Vec<&'g Finding> {
        let mut all: Vec<&Finding> = guard
            .findings
            .iter()
            .filter(|one| self.matches(&[&one.what, one.kind.name(), &one.who(usize::MAX)]))
            .collect();
        if self.sort == Sort::Name {
            all.sort_by(|a, b| a.what.cmp(&b.what));
        }
        all
    }

    /// Top talkers that have what is searched for.
    pub(super) fn talkers(&self, name: &str) -> Vec<&TopTalker> {
        let mut all: Vec<&TopTalker> = self
            .talkers
            .get(name)
            .into_iter()
            .flat_map(|top_talkers| &top_talkers.talkers)
            .filter(|one| self.matches(&[one.who(), &one.what(), one.reason]))
            .collect();
        if self.sort == Sort::Name {
            all.sort_by(|a, b| a.who().cmp(b.who()));
        }
        all
    }

    pub(super) fn next_sort(&mut self) {
        self.sort = match self.sort {
            Sort::Rate => Sort::Total,
            Sort::Total => Sort::Name,
            Sort::Name => Sort::Rate,
        };
        self.offset = 0;
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
            findings: Vec::new(),
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
