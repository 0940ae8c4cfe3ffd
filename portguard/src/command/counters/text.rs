//! Counters as tables.

use std::io::{self, Write};

use super::{By, Shown};
use crate::command::table::Column::{Hidden, Number, Prose, Spare, SpareWhole, Whole};
use crate::command::table::{Column, Grid, hanging, wrapped};
use crate::command::traffic;
use crate::fold::width;
use portguard_fleet::now;
use portguard_kernel::generation::effective::Strictness;
use portguard_observe::counters::{CauseCount, PeerCount, PortCount, Report, RowCount};
use portguard_observe::talkers::TopTalkers;
use portguard_policy::human::{bytes, count, duration, grouped, plain};

/// Rates beside sums: what was counted in a number of seconds.
pub(super) struct Rates<'a> {
    /// The same interface, counted since the last look.
    pub(super) delta: &'a Report,
    /// How long ago that was.
    pub(super) seconds: f64,
}

impl Rates<'_> {
    #[expect(
        clippy::cast_precision_loss,
        reason = "a rate for people, of numbers far below 2^52"
    )]
    fn tell(&self, packets: u64) -> String {
        let rate = packets as f64 / self.seconds.max(0.001);
        if rate > 0.0 && rate < 10.0 {
            format!("{rate:.1}")
        } else {
            format!("{rate:.0}")
        }
    }
}

/// The column of rates.
const fn per_second(rates: Option<&Rates<'_>>) -> Column {
    if rates.is_some() { Number } else { Hidden }
}

/// A cell of what came since the last look; empty where nobody looked before.
fn rate(rates: Option<&Rates<'_>>, packets: impl FnOnce(&Report) -> Option<u64>) -> String {
    rates.map_or(String::new(), |rates| {
        rates.tell(packets(rates.delta).unwrap_or(0))
    })
}

/// One interface.
pub(super) fn interface(
    out: &mut dyn Write,
    shown: &Shown,
    by: By,
    rates: Option<&Rates<'_>>,
) -> io::Result<()> {
    let report = &shown.report;
    head(out, shown)?;
    match by {
        By::Port => {
            if !shown.violations_only {
                ports(out, shown, rates)?;
            }
            traffic::table(out, &shown.findings, None)?;
            not_listed(out, shown)
        }
        By::Row if shown.violations_only => hanging(
            out,
            "",
            "no row has violations, which are what no row admits: `--by port`, `reason` or `peer` shows them",
        ),
        By::Row => rows(out, shown, rates),
        By::Reason => reasons(out, report, rates),
        By::Peer => {
            if !shown.violations_only {
                peers(out, shown, rates)?;
            }
            match &shown.top_talkers {
                Some(top_talkers) => talkers(out, top_talkers),
                None => Ok(()),
            }
        }
    }
}

fn head(out: &mut dyn Write, shown: &Shown) -> io::Result<()> {
    let report = &shown.report;
    let since = report.since.map_or(String::new(), |since| {
        format!(" in {}", duration(now().saturating_sub(since)))
    });
    writeln!(
        out,
        "{}: {}, generation {} of policy {}",
        plain(&report.name),
        report.mode(),
        report.generation,
        report.digest.get(..12).unwrap_or_default(),
    )?;
    let findings = shown.findings.len() + shown.findings_left_out;
    let findings = count(findings as u64, "finding");
    writeln!(
        out,
        "  {}, {}{since}",
        count(report.totals.packets, "packet"),
        bytes(report.totals.bytes),
    )?;
    let violations = format!("{}; {findings}", shown.violated);
    hanging(out, "  ", &violations)?;
    for warning in &report.warnings {
        hanging(out, "  warning: ", &plain(warning))?;
    }
    if let Some(reset) = &report.reset {
        let note = reset
            .note
            .as_deref()
            .map_or(String::new(), |note| format!(": {}", plain(note)));
        writeln!(
            out,
            "  counted since the reset by {}{note}; `--raw` shows all",
            plain(&reset.by)
        )?;
    }
    writeln!(out)
}

/// Whether a port has a line of its own; what is a violation is in a finding.
pub(super) fn is_listed(port: &PortCount) -> bool {
    port.documented || port.passed.packets > 0
}

fn ports(out: &mut dyn Write, shown: &Shown, rates: Option<&Rates<'_>>) -> io::Result<()> {
    let report = &shown.report;
    let mut lines = Grid::new(&[
        ("", Whole),
        ("port", Whole),
        ("passed", Number),
        ("passed/s", per_second(rates)),
        ("violations", Number),
        ("rows", Prose),
        ("purpose", Spare),
        ("bytes", SpareWhole),
    ]);
    let documented = report.ports.iter();
    let documented: Vec<&PortCount> = documented.filter(|port| is_listed(port)).collect();
    for port in documented {
        let rate = rate(rates, |delta| {
            let same = delta.ports.iter().find(|other| other.is_same(port))?;
            Some(same.passed.packets)
        });
        lines.row([
            port.direction.to_owned(),
            port.name(),
            grouped(port.passed.packets),
            rate,
            grouped(port.violations.packets),
            plain(&port.rows.join(", ")),
            plain(&purposes(&shown.rows, port)),
            bytes(port.passed.bytes),
        ]);
    }
    for (other, what) in &shown.without_port {
        lines.row([
            other.direction.to_owned(),
            other.reason.clone(),
            grouped(other.packets),
            rate(rates, |delta| Some(delta.packets_like(other))),
            String::new(),
            (*what).to_owned(),
            String::new(),
            bytes(other.bytes),
        ]);
    }
    writeln!(out, "{lines}")
}

/// What the line at the top counts, and the table does not list.
fn not_listed(out: &mut dyn Write, shown: &Shown) -> io::Result<()> {
    let (ports, passed) = shown.ports_left_out;
    if passed > 0 && !shown.violations_only {
        writeln!(
            out,
            "not listed: {} that passed by {}; a larger `--top` shows them",
            count(passed, "packet"),
            count(ports as u64, "more port"),
        )?;
    }
    if shown.findings_left_out == 0 {
        return Ok(());
    }
    writeln!(
        out,
        "not listed: {} of {}; a larger `--top` shows them",
        count(shown.violations_left_out, "violation"),
        count(shown.findings_left_out as u64, "more finding"),
    )
}

/// What the rows of a port are for, each purpose once.
fn purposes(rows: &[RowCount], port: &PortCount) -> String {
    let mut found: Vec<&str> = Vec::new();
    for row in rows.iter().filter(|row| port.rows.contains(&row.row)) {
        if !row.purpose.is_empty() && !found.contains(&row.purpose.as_str()) {
            found.push(&row.purpose);
        }
    }
    found.join("; ")
}

fn rows(out: &mut dyn Write, shown: &Shown, rates: Option<&Rates<'_>>) -> io::Result<()> {
    let report = &shown.report;
    let mut lines = Grid::new(&[
        ("row", Whole),
        ("packets", Number),
        ("bytes", SpareWhole),
        ("packets/s", per_second(rates)),
        ("purpose", Prose),
        ("role", SpareWhole),
        ("document", Spare),
    ]);
    for row in &report.rows {
        let rate = rate(rates, |delta| {
            let same = delta.rows.iter().find(|other| other.row == row.row)?;
            Some(same.packets)
        });
        lines.row([
            plain(&row.row),
            grouped(row.packets),
            bytes(row.bytes),
            rate,
            plain(&row.purpose),
            plain(row.role.as_deref().unwrap_or_default()),
            plain(&row.citation),
        ]);
    }
    let by_no_row = |reason: &str, packets, size, rate, what: &str| {
        let row = format!("({reason})");
        [row, grouped(packets), bytes(size), rate, what.to_owned()]
    };
    for (other, what) in &shown.without_port {
        let rate = rate(rates, |delta| Some(delta.packets_like(other)));
        let reason = format!("{} {}", other.direction, other.reason);
        lines.row(by_no_row(&reason, other.packets, other.bytes, rate, what));
    }
    let violations = &report.violations;
    if violations.packets > 0 {
        let rate = rate(rates, |delta| Some(delta.violations.packets));
        let what = "admitted by no row";
        let (packets, size) = (violations.packets, violations.bytes);
        lines.row(by_no_row("violations", packets, size, rate, what));
    }
    writeln!(out, "{lines}")
}

fn peers(out: &mut dyn Write, shown: &Shown, rates: Option<&Rates<'_>>) -> io::Result<()> {
    let report = &shown.report;
    if report.peers.is_empty() && shown.without_port.is_empty() {
        return writeln!(out, "no packet of a documented peer\n");
    }
    let mut lines = Grid::new(&[
        ("", Whole),
        ("peers", Prose),
        ("packets", Number),
        ("bytes", Number),
        ("packets/s", per_second(rates)),
        ("rows", Prose),
    ]);
    for peer in &report.peers {
        let rate = rate(rates, |delta| {
            let is_same =
                |other: &&PeerCount| other.peers == peer.peers && other.direction == peer.direction;
            Some(delta.peers.iter().find(is_same)?.packets)
        });
        lines.row([
            peer.direction.to_owned(),
            plain(&peer.peers),
            grouped(peer.packets),
            bytes(peer.bytes),
            rate,
            plain(&peer.rows.join(", ")),
        ]);
    }
    for (other, what) in &shown.without_port {
        lines.row([
            other.direction.to_owned(),
            (*what).to_owned(),
            grouped(other.packets),
            bytes(other.bytes),
            rate(rates, |delta| Some(delta.packets_like(other))),
        ]);
    }
    writeln!(out, "{lines}")
}

/// Whoever causes violations, in numbers that say how sure they are.
fn talkers(out: &mut dyn Write, top_talkers: &TopTalkers) -> io::Result<()> {
    if top_talkers.talkers.is_empty() {
        return writeln!(out, "no violation since {}", top_talkers.since());
    }
    writeln!(
        out,
        "top talkers of violations, since {}\n",
        top_talkers.since()
    )?;
    let mut lines = Grid::new(&[
        ("", Whole),
        ("peer", Whole),
        ("to", Whole),
        ("packets", Number),
        ("last", SpareWhole),
        ("reason", Whole),
        ("first", SpareWhole),
        ("nearest row", Spare),
    ]);
    let is_short = width().is_some_and(|width| width < 150);
    let second = |time: &str| {
        let time = time.get(..19).unwrap_or(time);
        if is_short {
            // Without the year, where room is dear.
            time.get(5..16).unwrap_or(time).replace('T', " ")
        } else {
            format!("{} UTC", time.replace('T', " "))
        }
    };
    for talker in &top_talkers.talkers {
        lines.row([
            talker.direction.to_owned(),
            talker.who().to_owned(),
            talker.what(),
            talker.amount(),
            second(&talker.last),
            talker.reason.to_owned(),
            second(&talker.first),
            plain(&talker.near()),
        ]);
    }
    writeln!(out, "{lines}")?;
    let more = top_talkers.known - top_talkers.talkers.len();
    if more > 0 {
        writeln!(
            out,
            "and {} more; `--top` or `--json` shows them",
            grouped(more as u64)
        )?;
    }
    for line in wrapped(&top_talkers.words(), width().unwrap_or(usize::MAX)) {
        writeln!(out, "{line}")?;
    }
    Ok(())
}

fn reasons(out: &mut dyn Write, report: &Report, rates: Option<&Rates<'_>>) -> io::Result<()> {
    let mut lines = Grid::new(&[
        ("", Whole),
        ("reason", Whole),
        ("packets", Number),
        ("bytes", Number),
        ("packets/s", per_second(rates)),
        ("verdict", Whole),
    ]);
    for reason in &report.reasons {
        let mode = if reason.direction == "out" {
            report.effective.outbound
        } else {
            report.effective.inbound
        };
        let verdict = match (reason.violation, mode) {
            (false, _) => "pass",
            (true, Strictness::Enforce) => "drop",
            (true, _) => "would drop",
        };
        let rate = rate(rates, |delta| Some(delta.packets_like(reason)));
        lines.row([
            reason.direction.to_owned(),
            reason.reason.clone(),
            grouped(reason.packets),
            bytes(reason.bytes),
            rate,
            verdict.to_owned(),
        ]);
        let inner = report
            .causes
            .iter()
            .filter(|cause| cause.direction == reason.direction && belongs(cause, &reason.reason));
        for cause in inner {
            lines.row([
                String::new(),
                format!("  {}", cause.name()),
                grouped(cause.packets),
                bytes(cause.bytes),
            ]);
        }
    }
    writeln!(out, "{lines}")
}

/// Whether a cause is one of a reason.
fn belongs(cause: &CauseCount, reason: &str) -> bool {
    match reason {
        "malformed" => cause.kind == "malformed",
        "non-ip" | "strict-ethertype" => cause.kind == "ethertype",
        _ => false,
    }
}
