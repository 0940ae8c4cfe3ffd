//! What hosts saw, for a terminal.

use std::collections::BTreeSet;
use std::io::{self, Write};

use portguard_fleet::now;
use portguard_policy::human::{count, duration, grouped, plain, some};

use super::super::said::folded;
use super::Said;
use crate::command::table::Column::{Number, Prose, Whole};
use crate::command::table::Grid;

/// Names that a line has; the rest is counted.
const NAMED: usize = 3;

/// Names, and how many more there are.
pub(super) fn names(all: &BTreeSet<String>) -> String {
    some(all.iter().map(|name| plain(name)), NAMED, ", ")
}

pub(super) fn head(said: &Said) -> String {
    let effective = said.seen.effective.iter();
    let effective: Vec<String> = effective
        .map(|(mode, count)| format!("{count} {}", plain(mode)))
        .collect();
    let age = said.oldest.map_or(String::new(), |at| {
        format!("; at most {} ago", duration(now().saturating_sub(at)))
    });
    folded(&format!(
        "fleet {}, release {}: {} of {} said what they saw; interfaces: {}{age}",
        plain(&said.fleet),
        said.serial,
        said.seen.hosts.len(),
        count(said.selected as u64, "host"),
        effective.join(", ")
    ))
}

/// By reason.
pub(super) fn counters(out: &mut dyn Write, said: &Said) -> io::Result<()> {
    writeln!(out, "{}\n", head(said))?;
    let mut rows = Grid::new(&[
        ("reason", Whole),
        ("packets", Number),
        ("interfaces", Number),
    ]);
    for (reason, sum) in &said.seen.reasons {
        rows.row([
            plain(reason),
            grouped(sum.packets),
            grouped(sum.interfaces as u64),
        ]);
    }
    writeln!(out, "{rows}")
}

/// By cause.
pub(super) fn drift(out: &mut dyn Write, said: &Said) -> io::Result<()> {
    let seen = &said.seen;
    writeln!(out, "{}", head(said))?;
    for (host, doubt) in said.without.iter().take(NAMED) {
        writeln!(out, "warning: {}: {}", plain(host), plain(doubt))?;
    }
    if said.without.len() > NAMED {
        let more = count((said.without.len() - NAMED) as u64, "more host");
        writeln!(out, "warning: and {more}")?;
    }
    if seen.left_off > 0 {
        let lines = count(seen.left_off, "line");
        writeln!(out, "warning: hosts left off {lines} that had no room")?;
    }
    if !seen.causes.is_empty() {
        writeln!(out, "\nWhat no document admits\n")?;
        let mut rows = Grid::new(&[
            ("", Whole),
            ("finding", Whole),
            ("cause", Whole),
            ("violations", Number),
            ("hosts", Number),
            ("which", Prose),
            ("peers", Prose),
        ]);
        for cause in &seen.causes {
            rows.row([
                plain(&cause.direction),
                plain(&cause.what),
                plain(&cause.kind),
                grouped(cause.violations),
                cause.hosts.len().to_string(),
                names(&cause.hosts),
                names(&cause.peers),
            ]);
        }
        writeln!(out, "{rows}")?;
    }
    if !seen.listening.is_empty() {
        writeln!(out, "\nUndocumented services\n")?;
        let mut rows = Grid::new(&[("service", Whole), ("hosts", Number), ("which", Prose)]);
        for (service, hosts) in &seen.listening {
            rows.row([plain(service), hosts.len().to_string(), names(hosts)]);
        }
        writeln!(out, "{rows}")?;
    }
    if !seen.unused.is_empty() {
        writeln!(out, "\nRows that no host used\n")?;
        let mut rows = Grid::new(&[("row", Whole), ("interfaces", Number)]);
        for (row, interfaces) in &seen.unused {
            rows.row([plain(row), interfaces.to_string()]);
        }
        writeln!(out, "{rows}")?;
    }
    if !said.expiring.is_empty() {
        writeln!(out, "\nExceptions that end\n")?;
        let mut rows = Grid::new(&[("row", Whole), ("last day", Whole)]);
        for row in &said.expiring {
            rows.row([plain(&row.row), row.expires.clone()]);
        }
        writeln!(out, "{rows}")?;
    }
    Ok(())
}
