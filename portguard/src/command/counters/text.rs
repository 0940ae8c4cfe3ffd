//! Counters as tables.

use std::io::{self, Write};

use super::{By, LeftOut};
use crate::command::table::{sparing, table};
use portguard_kernel::generation::effective::Strictness;
use portguard_observe::counters::{CauseCount, PortCount, Report};
use portguard_observe::knock::Knocking;
use portguard_policy::human::{bytes, duration, grouped, now, plain};

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

/// One interface.
pub(super) fn interface(
    out: &mut dyn Write,
    (report, left_out): (&Report, LeftOut),
    by: By,
    rates: Option<&Rates<'_>>,
) -> io::Result<()> {
    head(out, report)?;
    match by {
        By::Port => {
            ports(out, report, rates)?;
            not_listed(out, left_out)
        }
        By::Row => rows(out, report, rates),
        By::Reason => reasons(out, report, rates),
        By::Peer => peers(out, report, rates),
    }
}

fn head(out: &mut dyn Write, report: &Report) -> io::Result<()> {
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
    writeln!(
        out,
        "  {} packets, {}{since}; {} {}",
        grouped(report.totals.packets),
        bytes(report.totals.bytes),
        grouped(report.violations.packets),
        report.effective.describe(),
    )?;
    for warning in &report.warnings {
        writeln!(out, "  warning: {}", plain(warning))?;
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

fn ports(out: &mut dyn Write, report: &Report, rates: Option<&Rates<'_>>) -> io::Result<()> {
    let mut header = vec!["", "port", "passed", "bytes", "violations"];
    if rates.is_some() {
        header.extend(["passed/s", "violations/s"]);
    }
    header.extend(["rows", "purpose"]);
    let (mut lines, _) = sparing(&header, &["purpose"]);
    for port in &report.ports {
        let mut cells = vec![
            port.direction.to_owned(),
            port.name(),
            grouped(port.passed.packets),
            bytes(port.passed.bytes),
            grouped(port.violations.packets),
        ];
        if let Some(rates) = rates {
            let delta = rates.delta.ports.iter().find(|other| other.is_same(port));
            cells.push(rates.tell(delta.map_or(0, |delta| delta.passed.packets)));
            cells.push(rates.tell(delta.map_or(0, |delta| delta.violations.packets)));
        }
        cells.push(if port.rows.is_empty() {
            "not documented".to_owned()
        } else {
            plain(&port.rows.join(", "))
        });
        cells.push(plain(&purposes(report, port)));
        lines.add_row(cells);
    }
    writeln!(out, "{lines}")
}

/// What the line at the top counts, and the table does not list.
fn not_listed(out: &mut dyn Write, left_out: LeftOut) -> io::Result<()> {
    let LeftOut {
        ports,
        of_ports,
        portless,
    } = left_out;
    if of_ports > 0 {
        writeln!(
            out,
            "\nnot listed: {} violations of {ports} more ports; a larger `--top` shows them",
            grouped(of_ports)
        )?;
    }
    if portless > 0 {
        writeln!(
            out,
            "\nnot listed: {} violations that have no port, such as malformed frames; `--by reason` shows them",
            grouped(portless)
        )?;
    }
    Ok(())
}

/// What the rows of a port are for, each purpose once.
fn purposes(report: &Report, port: &PortCount) -> String {
    let mut found: Vec<&str> = Vec::new();
    for row in report
        .rows
        .iter()
        .filter(|row| port.rows.contains(&row.row))
    {
        if !row.purpose.is_empty() && !found.contains(&row.purpose.as_str()) {
            found.push(&row.purpose);
        }
    }
    found.join("; ")
}

fn rows(out: &mut dyn Write, report: &Report, rates: Option<&Rates<'_>>) -> io::Result<()> {
    let mut header = vec!["row", "packets", "bytes"];
    if rates.is_some() {
        header.push("packets/s");
    }
    header.extend(["role", "purpose", "document"]);
    let (mut lines, _) = sparing(&header, &["role", "document"]);
    for row in &report.rows {
        let mut cells = vec![plain(&row.row), grouped(row.packets), bytes(row.bytes)];
        if let Some(rates) = rates {
            let delta = rates.delta.rows.iter().find(|other| other.row == row.row);
            cells.push(rates.tell(delta.map_or(0, |delta| delta.packets)));
        }
        cells.push(plain(row.role.as_deref().unwrap_or_default()));
        cells.push(plain(&row.purpose));
        cells.push(plain(&row.citation));
        lines.add_row(cells);
    }
    writeln!(out, "{lines}")
}

fn peers(out: &mut dyn Write, report: &Report, rates: Option<&Rates<'_>>) -> io::Result<()> {
    let mut header = vec!["", "peers", "packets", "bytes"];
    if rates.is_some() {
        header.push("packets/s");
    }
    header.push("rows");
    let mut lines = table(&header);
    for peer in &report.peers {
        let mut cells = vec![
            peer.direction.to_owned(),
            plain(&peer.peers),
            grouped(peer.packets),
            bytes(peer.bytes),
        ];
        if let Some(rates) = rates {
            let delta = rates
                .delta
                .peers
                .iter()
                .find(|other| other.peers == peer.peers && other.direction == peer.direction);
            cells.push(rates.tell(delta.map_or(0, |delta| delta.packets)));
        }
        cells.push(plain(&peer.rows.join(", ")));
        lines.add_row(cells);
    }
    writeln!(out, "{lines}")?;
    match &report.knocking {
        Some(knocking) => callers(out, knocking),
        None => Ok(()),
    }
}

/// Whoever causes violations, in numbers that say how sure they are.
fn callers(out: &mut dyn Write, knocking: &Knocking) -> io::Result<()> {
    if knocking.callers.is_empty() {
        return writeln!(
            out,
            "\nnobody caused a violation since {}",
            knocking.since()
        );
    }
    writeln!(out, "\nwho is knocking, since {}:\n", knocking.since())?;
    let header = [
        "",
        "peer",
        "to",
        "reason",
        "packets",
        "first",
        "last",
        "nearest row",
    ];
    let (mut lines, is_narrow) = sparing(&header, &["first", "nearest row"]);
    let is_short = lines.width().is_some_and(|width| width < 150);
    let second = |time: &str| {
        let time = time.get(..19).unwrap_or(time);
        if is_short {
            // Without the year, where room is dear.
            time.get(5..16).unwrap_or(time).replace('T', " ")
        } else {
            format!("{time}Z")
        }
    };
    for caller in &knocking.callers {
        lines.add_row([
            caller.direction.to_owned(),
            caller.who().to_owned(),
            caller.what(),
            caller.reason.to_owned(),
            caller.amount(),
            second(&caller.first),
            second(&caller.last),
            plain(&caller.near()),
        ]);
    }
    writeln!(out, "{lines}\n")?;
    if is_narrow {
        writeln!(out, "a wider terminal, or `--json`, shows the nearest rows")?;
    }
    let more = knocking.known - knocking.callers.len();
    if more > 0 {
        writeln!(
            out,
            "and {} more; `--top` or `--json` shows them",
            grouped(more as u64)
        )?;
    }
    writeln!(out, "{}", knocking.words())
}

fn reasons(out: &mut dyn Write, report: &Report, rates: Option<&Rates<'_>>) -> io::Result<()> {
    let mut header = vec!["", "reason", "packets", "bytes"];
    if rates.is_some() {
        header.push("packets/s");
    }
    header.push("verdict");
    let mut lines = table(&header);
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
        let mut cells = vec![
            reason.direction.to_owned(),
            reason.reason.clone(),
            grouped(reason.packets),
            bytes(reason.bytes),
        ];
        if let Some(rates) = rates {
            let delta =
                rates.delta.reasons.iter().find(|other| {
                    other.reason == reason.reason && other.direction == reason.direction
                });
            cells.push(rates.tell(delta.map_or(0, |delta| delta.packets)));
        }
        cells.push(verdict.to_owned());
        lines.add_row(cells);
        let inner = report
            .causes
            .iter()
            .filter(|cause| cause.direction == reason.direction && belongs(cause, &reason.reason));
        for cause in inner {
            lines.add_row([
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
