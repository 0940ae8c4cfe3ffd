//! The report as CSV (RFC 4180), one line a port and interface: for spreadsheets.

use std::fmt::Write as _;

use super::Evidence;

/// A field in quotes. Spreadsheets run what begins like a formula: such text gets an apostrophe in front.
fn field(text: &str) -> String {
    let guard = if text.starts_with(['=', '+', '-', '@', '\t', '\r']) {
        "'"
    } else {
        ""
    };
    format!("\"{guard}{}\"", text.replace('"', "\"\""))
}

/// The table.
pub fn csv(evidence: &Evidence) -> String {
    let mut out = String::from(
        "host,interface,mode,generation,digest,direction,transport,port_first,port_last,documented,\
         passed_packets,passed_bytes,violations,rows,purposes,citations\r\n",
    );
    for guard in &evidence.guards {
        let report = &guard.report;
        for port in &report.ports {
            let of = |pick: fn(&crate::counters::RowCount) -> &str| {
                let mut found: Vec<&str> = Vec::new();
                for row in report
                    .rows
                    .iter()
                    .filter(|row| port.rows.contains(&row.row))
                {
                    if !found.contains(&pick(row)) {
                        found.push(pick(row));
                    }
                }
                field(&found.join("; "))
            };
            let _ = write!(
                out,
                "{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{}\r\n",
                field(&evidence.host),
                field(&report.name),
                report.mode,
                report.generation,
                report.digest,
                port.direction,
                port.transport,
                port.port,
                port.port_last.unwrap_or(port.port),
                port.documented,
                port.passed.packets,
                port.passed.bytes,
                port.violations.packets,
                field(&port.rows.join("; ")),
                of(|row| &row.purpose),
                of(|row| &row.citation),
            );
        }
    }
    out
}
