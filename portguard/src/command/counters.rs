//! `portguard counters`: what passed, by row and port, and what did not.

use std::io::{self, Write};

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

use super::{print, print_json};
use crate::counters::{PortCount, Report, Snapshot, details};
use crate::error::{Exit, Fault};
use crate::kernel::bpffs::{self, Layout};
use crate::kernel::generation;

/// Show counters by port, row or reason, with the document's rows cited
#[derive(Debug, Args)]
pub struct CountersArgs {
    /// Only this interface
    #[arg(short, long, value_name = "IF")]
    interface: Option<String>,
    /// What to sum by
    #[arg(long, value_enum, default_value_t = By::Port)]
    by: By,
    /// Only what is not documented
    #[arg(long)]
    violations: bool,
    /// Only the N largest
    #[arg(long, value_name = "N")]
    top: Option<usize>,
    /// Write JSON
    #[arg(long)]
    json: bool,
}

/// `--by`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum By {
    /// Transport and port.
    Port,
    /// Row of a document.
    Row,
    /// Reason of the verdict.
    Reason,
}

#[derive(Debug, Serialize)]
struct Answer {
    schema: u32,
    interfaces: Vec<Report>,
}

/// Shows the counters.
///
/// # Errors
/// If an interface is named that is not guarded, and what the system refuses.
pub fn run(args: &CountersArgs) -> anyhow::Result<Exit> {
    let mut reports = Vec::new();
    let mut detail = Vec::new();
    for layout in chosen(args.interface.as_deref())? {
        let (name, _) = layout.interface();
        let Some(live) = generation::live(&layout)? else {
            continue;
        };
        let snapshot = Snapshot::read(&layout.shared(), live.meta.directory.cells.len())
            .with_context(|| format!("cannot read the counters of `{name}`"))?;
        let mut report = Report::new(&name, &live.meta, &snapshot);
        narrow(&mut report, args);
        detail.push(details(&snapshot));
        reports.push(report);
    }
    if args.json {
        print_json(&Answer {
            schema: 1,
            interfaces: reports,
        })?;
        return Ok(Exit::Ok);
    }
    print(|out| {
        if reports.is_empty() {
            writeln!(out, "no interface is guarded")?;
        }
        for (report, detail) in reports.iter().zip(&detail) {
            writeln!(
                out,
                "{}: {}, generation {}: {} packets, {} bytes",
                report.name,
                report.mode,
                report.generation,
                report.totals.packets,
                report.totals.bytes
            )?;
            match args.by {
                By::Port => by_port(out, report)?,
                By::Row => by_row(out, report)?,
                By::Reason => by_reason(out, report, detail)?,
            }
        }
        Ok(())
    })?;
    Ok(Exit::Ok)
}

fn chosen(interface: Option<&str>) -> Result<Vec<Layout>, Fault> {
    let here: Vec<Layout> = bpffs::layouts()
        .into_iter()
        .filter(|layout| layout.interface().1)
        .collect();
    let Some(name) = interface else {
        return Ok(here);
    };
    match here.into_iter().find(|layout| layout.interface().0 == name) {
        Some(layout) => Ok(vec![layout]),
        None => Err(Fault::usage(format!("`{name}` is not guarded"))
            .hint("`portguard status` lists the guarded interfaces")),
    }
}

fn narrow(report: &mut Report, args: &CountersArgs) {
    if args.violations {
        report.ports.retain(|port| port.violations.packets > 0);
        report.reasons.retain(|reason| reason.violation);
    }
    if let Some(top) = args.top {
        report.ports.sort_by_key(|port| {
            std::cmp::Reverse(port.violations.packets.max(if args.violations {
                0
            } else {
                port.passed.packets
            }))
        });
        report.ports.truncate(top);
        report
            .rows
            .sort_by_key(|row| std::cmp::Reverse(row.packets));
        report.rows.truncate(top);
        report
            .reasons
            .sort_by_key(|reason| std::cmp::Reverse(reason.packets));
        report.reasons.truncate(top);
    }
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table
        .load_preset(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(header);
    table
}

fn by_port(out: &mut dyn Write, report: &Report) -> io::Result<()> {
    let verb = if report.mode == "enforce" {
        "dropped"
    } else {
        "would drop"
    };
    let mut lines = table(&["", "port", "passed", "bytes", verb, "rows"]);
    for port in &report.ports {
        let cells = [
            port.direction.to_owned(),
            name_of(port),
            port.passed.packets.to_string(),
            port.passed.bytes.to_string(),
            port.violations.packets.to_string(),
            if port.rows.is_empty() {
                "not documented".to_owned()
            } else {
                port.rows.join(", ")
            },
        ];
        lines.add_row(cells);
    }
    writeln!(out, "{lines}")
}

fn name_of(port: &PortCount) -> String {
    match (port.transport, port.port_last) {
        ("icmp", _) => "icmp echo".to_owned(),
        (transport, Some(last)) => format!("{transport}/{}-{last}", port.port),
        (transport, None) => format!("{transport}/{}", port.port),
    }
}

fn by_row(out: &mut dyn Write, report: &Report) -> io::Result<()> {
    let mut lines = table(&["row", "packets", "bytes", "purpose", "document"]);
    for row in &report.rows {
        lines.add_row([
            row.row.clone(),
            row.packets.to_string(),
            row.bytes.to_string(),
            row.purpose.clone(),
            row.citation.clone(),
        ]);
    }
    writeln!(out, "{lines}")
}

fn by_reason(
    out: &mut dyn Write,
    report: &Report,
    detail: &[(&str, String, crate::counters::Count)],
) -> io::Result<()> {
    let mut lines = table(&["", "reason", "packets", "bytes", "verdict"]);
    for reason in &report.reasons {
        let verdict = match (reason.violation, report.mode) {
            (false, _) => "pass",
            (true, "enforce") => "drop",
            (true, _) => "would drop",
        };
        lines.add_row([
            reason.direction.to_owned(),
            reason.reason.clone(),
            reason.packets.to_string(),
            reason.bytes.to_string(),
            verdict.to_owned(),
        ]);
    }
    for (direction, what, count) in detail {
        lines.add_row([
            (*direction).to_owned(),
            format!("  {what}"),
            count.packets.to_string(),
            count.bytes.to_string(),
            String::new(),
        ]);
    }
    writeln!(out, "{lines}")
}
