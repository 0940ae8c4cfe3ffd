//! The report as CSV (RFC 4180), one line a port and interface, and one for each kind of violation that has no port: for
//! spreadsheets. Where there is no port, `transport` is `icmp`, `ip` or empty, `port_first` is the IP protocol or empty, and
//! `reason` says why.

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
         passed_packets,passed_bytes,violations,rows,purposes,citations,reason,cause\r\n",
    );
    for guard in &evidence.guards {
        let report = &guard.report;
        for port in &report.ports {
            let of = |pick: fn(&portguard_observe::counters::RowCount) -> &str| {
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
            // Ping has no port, and its number none that anybody knows.
            let is_ping = port.transport == "icmp";
            let number = |number: u16| {
                if is_ping {
                    String::new()
                } else {
                    number.to_string()
                }
            };
            let _ = write!(
                out,
                "{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},\r\n",
                field(&evidence.host),
                field(&report.name),
                report.effective.inbound,
                report.generation,
                report.digest,
                port.direction,
                port.transport,
                number(port.port),
                number(port.port_last.unwrap_or(port.port)),
                port.documented,
                port.passed.packets,
                port.passed.bytes,
                port.violations.packets,
                field(&port.rows.join("; ")),
                of(|row| &row.purpose),
                of(|row| &row.citation),
                if is_ping { "icmp-echo" } else { "" },
            );
        }
        // Those of protocols and of ping stand above.
        for one in report
            .portless()
            .iter()
            .filter(|one| one.protocol.is_none() && !one.is_ping)
        {
            let _ = write!(
                out,
                "{},{},{},{},{},{},,,,false,0,0,{},,,,{},{}\r\n",
                field(&evidence.host),
                field(&report.name),
                report.effective.inbound,
                report.generation,
                report.digest,
                one.direction,
                one.packets,
                one.reason,
                one.cause.as_deref().unwrap_or_default(),
            );
        }
    }
    out
}
