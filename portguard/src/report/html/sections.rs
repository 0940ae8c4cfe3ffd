//! The sections of the page, in order.

use std::fmt::Write as _;

use super::super::matrix::{Line, lines};
use super::super::{Evidence, Guard, svg};
use super::escape;
use crate::counters::PortCount;
use crate::drift::{Item, State};
use crate::history;
use crate::human::{bytes, duration, grouped, time};
use crate::policy::{GrantKind, Outbound};

/// Ports of violations that are listed by interface.
const LISTED: usize = 20;
/// Ports of violations that are plotted.
const PLOTTED: usize = 8;
/// Columns of the plot over time.
const COLUMNS: usize = 96;

/// In sentences, for who reads no further.
pub(super) fn summary(page: &mut String, evidence: &Evidence) {
    page.push_str("<h2 id=\"brief\">In brief</h2>");
    if evidence.guards.is_empty() {
        page.push_str(
            "<p>No interface of this host is guarded: there is no evidence of traffic.</p>",
        );
    }
    for guard in &evidence.guards {
        let report = &guard.report;
        let verb = if report.mode == "enforce" {
            "were dropped"
        } else {
            "would have been dropped by enforcing"
        };
        let _ = write!(
            page,
            "<p><b>{}</b>: of {} packets judged, {} {verb}. The policy in force is generation {}, digest <code>{}</code>.</p>",
            escape(&report.name),
            grouped(report.totals.packets),
            grouped(report.violations.packets),
            report.generation,
            escape(report.digest.get(..16).unwrap_or(&report.digest)),
        );
        for warning in &guard.warnings {
            let _ = write!(
                page,
                "<p><span class=\"mark warn\">warning</span> {}</p>",
                escape(warning)
            );
        }
    }
    page.push_str(
        "<nav><a href=\"#violations\">Violations</a><a href=\"#drift\">Documented, listening, seen</a>\
         <a href=\"#matrix\">The matrix with live numbers</a><a href=\"#unused\">Rows never used</a>\
         <a href=\"#omitted\">Rows that open nothing here</a><a href=\"#provenance\">Provenance</a></nav>",
    );
}

/// Plots and the list.
pub(super) fn violations(page: &mut String, evidence: &Evidence) {
    page.push_str("<h2 id=\"violations\">Violations</h2>");
    let mut any = false;
    for guard in &evidence.guards {
        let report = &guard.report;
        let mut ports: Vec<&PortCount> = report
            .ports
            .iter()
            .filter(|port| port.violations.packets > 0)
            .collect();
        let reasons: Vec<(String, u64, &str)> = report
            .reasons
            .iter()
            .filter(|reason| reason.violation)
            .map(|reason| {
                (
                    format!("{} {}", reason.direction, reason.reason),
                    reason.packets,
                    "bad",
                )
            })
            .collect();
        if reasons.is_empty() {
            continue;
        }
        any = true;
        ports.sort_by_key(|port| std::cmp::Reverse(port.violations.packets));
        let name = escape(&report.name);
        let over_time = history::violations(&guard.history, COLUMNS);
        if !over_time.is_empty() {
            let _ = write!(page, "<h3>{name}: violations over time</h3>");
            page.push_str(&svg::columns(
                "violations over time",
                &over_time,
                guard.history.last().map_or(0, |sample| sample.at),
            ));
        }
        let plotted: Vec<(String, u64, &str)> = ports
            .iter()
            .take(PLOTTED)
            .map(|port| {
                (
                    format!("{} {}", port.direction, port.name()),
                    port.violations.packets,
                    "bad",
                )
            })
            .collect();
        let _ = write!(
            page,
            "<div class=\"two\"><div><h3>{name}: by reason</h3>{}</div><div><h3>{name}: by port</h3>{}</div></div>",
            svg::bars("violations by reason", &reasons),
            svg::bars("violations by port", &plotted)
        );
        page.push_str(
            "<table><thead><tr><th>Port</th><th class=\"n\">Violations</th><th class=\"wide\">Documented</th></tr></thead><tbody>",
        );
        for port in ports.iter().take(LISTED) {
            let documented = if port.documented {
                format!(
                    "for other peers, by <span class=\"id\">{}</span>",
                    escape(&port.rows.join(", "))
                )
            } else {
                "<span class=\"soft\">by no row</span>".to_owned()
            };
            let _ = write!(
                page,
                "<tr><td class=\"p\">{} {}</td><td class=\"n alarm\">{}</td><td>{documented}</td></tr>",
                port.direction,
                escape(&port.name()),
                grouped(port.violations.packets)
            );
        }
        page.push_str("</tbody></table>");
        let rest = ports.get(LISTED..).unwrap_or_default();
        if !rest.is_empty() {
            let packets = rest.iter().map(|port| port.violations.packets).sum();
            let _ = write!(
                page,
                "<p class=\"soft\">and {} more ports with {} packets together; the CSV report lists all.</p>",
                rest.len(),
                grouped(packets)
            );
        }
    }
    if !any {
        page.push_str("<p><span class=\"mark good\">none</span> No packet outside of the matrix was seen.</p>");
    }
}

/// Findings with what to do, and the other states in numbers.
pub(super) fn drift(page: &mut String, evidence: &Evidence) {
    page.push_str("<h2 id=\"drift\">Documented, listening, seen</h2>");
    if evidence.findings().next().is_none() {
        page.push_str("<p><span class=\"mark good\">no finding</span> Documents, listeners and traffic agree.</p>");
    }
    for state in State::ALL {
        let mut items: Vec<&Item> = evidence
            .drift
            .iter()
            .filter(|item| item.state == state)
            .collect();
        if items.is_empty() || !state.is_finding() {
            continue;
        }
        items.sort_by_key(|item| std::cmp::Reverse(item.violations));
        let count = items.len();
        let _ = write!(
            page,
            "<h3><span class=\"mark bad\">{}</span> {count}</h3><p class=\"soft\">{}</p>\
             <table><thead><tr><th>Port</th><th></th><th>Listener</th><th class=\"n\">Passed</th><th class=\"n\">Violations</th>\
             <th>Rows and purpose</th></tr></thead><tbody>",
            state.name(),
            escape(state.meaning())
        );
        for item in items.iter().take(LISTED) {
            drift_line(page, item);
        }
        page.push_str("</tbody></table>");
        if count > LISTED {
            let _ = write!(page, "<p class=\"soft\">and {} more</p>", count - LISTED);
        }
    }
    let quiet: Vec<String> = State::ALL
        .into_iter()
        .filter(|state| !state.is_finding())
        .filter_map(|state| {
            let count = evidence.drift.iter().filter(|item| item.state == state);
            let count = count.count();
            (count > 0)
                .then(|| format!("<span class=\"mark soft\">{}</span> {count}", state.name()))
        })
        .collect();
    if !quiet.is_empty() {
        let _ = write!(
            page,
            "<h3>As it should be</h3><p>{}</p>",
            quiet.join(" &nbsp; ")
        );
    }
}

fn drift_line(page: &mut String, item: &Item) {
    let number = |count: Option<u64>| count.map_or("-".to_owned(), grouped);
    let rows = if item.rows.is_empty() {
        "<span class=\"soft\">by no row</span>".to_owned()
    } else {
        format!(
            "<span class=\"id\">{}</span> {}",
            escape(&item.rows.join(", ")),
            escape(&item.purposes.join("; "))
        )
    };
    let _ = write!(
        page,
        "<tr><td class=\"p\">{}/{}</td><td>{}</td><td>{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td>{rows}</td></tr>",
        item.transport,
        item.ports(),
        item.direction,
        escape(&item.who()),
        number(item.passed),
        number(item.violations)
    );
}

/// One interface's matrix, both directions.
pub(super) fn matrix(page: &mut String, guard: &Guard) {
    let all = lines(guard);
    let id = "matrix";
    let _ = write!(
        page,
        "<h2 id=\"{id}\">The matrix with live numbers: {}</h2>",
        escape(&guard.report.name)
    );
    for (direction, title) in [("in", "Inbound"), ("out", "Outbound")] {
        let of: Vec<&Line<'_>> = all
            .iter()
            .filter(|line| line.direction == direction)
            .collect();
        if of.is_empty() {
            continue;
        }
        let peers = if direction == "in" { "From" } else { "To" };
        let _ = write!(
            page,
            "<h3>{title}</h3><table><thead><tr><th>Port</th><th>{peers}</th><th>Row and purpose</th><th>Document</th>\
             <th class=\"n\">Passed</th><th class=\"n\">Bytes</th><th class=\"n\">Other peers</th></tr></thead><tbody>"
        );
        for line in of {
            matrix_line(page, line);
        }
        page.push_str("</tbody></table>");
    }
}

fn matrix_line(page: &mut String, line: &Line<'_>) {
    let mark = match line.kind {
        GrantKind::Documented => "",
        GrantKind::Management => " <span class=\"mark soft\">management</span>",
        GrantKind::Baseline => " <span class=\"mark soft\">baseline</span>",
        GrantKind::Site => " <span class=\"mark soft\">site</span>",
    };
    let (mut rows, mut citations) = (Vec::new(), Vec::new());
    for (row, facts) in &line.rows {
        let purpose = facts.map_or("", |facts| facts.purpose.as_str());
        rows.push(format!(
            "<span class=\"id\">{}</span> {}",
            escape(row),
            escape(purpose)
        ));
        if let Some(facts) = facts {
            let citation = escape(&facts.citation);
            if !citation.is_empty() && !citations.contains(&citation) {
                citations.push(citation);
            }
        }
    }
    let zero = if line.packets == 0 { " zero" } else { "" };
    let alarm = if line.violations == 0 {
        " zero"
    } else {
        " alarm"
    };
    let _ = write!(
        page,
        "<tr><td class=\"p\">{}</td><td>{}</td><td>{}{mark}</td><td class=\"soft\">{}</td>\
         <td class=\"n{zero}\">{}</td><td class=\"n{zero}\">{}</td><td class=\"n{alarm}\">{}</td></tr>",
        escape(&line.port),
        escape(&line.peers.join(", ")),
        rows.join("<br>"),
        citations.join("<br>"),
        grouped(line.packets),
        bytes(line.bytes),
        grouped(line.violations)
    );
}

/// Rows that opened something and let nothing pass.
pub(super) fn unused(page: &mut String, evidence: &Evidence) {
    page.push_str("<h2 id=\"unused\">Rows never used</h2><p class=\"soft\">Candidates for closing, or proof that the window was too short.</p>");
    let mut any = false;
    for guard in &evidence.guards {
        let never = guard.report.rows.iter().filter(|row| row.packets == 0);
        let never: Vec<_> = never.collect();
        if never.is_empty() {
            continue;
        }
        any = true;
        let _ = write!(
            page,
            "<table><thead><tr><th>Row ({})</th><th>Purpose</th><th>Document</th></tr></thead><tbody>",
            escape(&guard.report.name)
        );
        for row in never {
            let _ = write!(
                page,
                "<tr><td class=\"id\">{}</td><td>{}</td><td class=\"soft\">{}</td></tr>",
                escape(&row.row),
                escape(&row.purpose),
                escape(&row.citation)
            );
        }
        page.push_str("</tbody></table>");
    }
    if !any {
        page.push_str("<p>Every row was used.</p>");
    }
}

/// Rows of the documents that compile to nothing, and why.
pub(super) fn omitted(page: &mut String, evidence: &Evidence) {
    page.push_str("<h2 id=\"omitted\">Rows that open nothing here</h2>");
    let omitted: Vec<_> = evidence
        .guards
        .iter()
        .flat_map(|guard| &guard.policy.omitted)
        .collect();
    if omitted.is_empty() {
        page.push_str("<p>None: every row of the roles opens something.</p>");
        return;
    }
    page.push_str(
        "<table><thead><tr><th>Row</th><th>Why</th><th>In words</th></tr></thead><tbody>",
    );
    for row in omitted {
        let _ = write!(
            page,
            "<tr><td class=\"id\">{}</td><td>{}</td><td>{}</td></tr>",
            escape(&row.row),
            escape(&row.reason),
            escape(&row.detail)
        );
    }
    page.push_str("</tbody></table>");
}

/// What proves the rest: digests, generation, window, resets.
pub(super) fn provenance(page: &mut String, evidence: &Evidence) {
    page.push_str("<h2 id=\"provenance\">Provenance</h2><dl>");
    let _ = write!(
        page,
        "<dt>Host</dt><dd>{}</dd><dt>Kernel</dt><dd>{}</dd><dt>Made</dt><dd>{}</dd></dl>",
        escape(&evidence.host),
        escape(&evidence.kernel),
        time(evidence.made_at)
    );
    for guard in &evidence.guards {
        let report = &guard.report;
        let outbound = match guard.policy.settings.outbound {
            Outbound::Off => "not judged",
            Outbound::Audit => "audit",
            Outbound::Enforce => "enforce",
        };
        let _ = write!(
            page,
            "<h3>{}</h3><dl><dt>Inbound</dt><dd>{}, {} XDP</dd><dt>Outbound</dt><dd>{outbound}</dd>\
             <dt>Generation</dt><dd>{}, loaded {} by portguard {}</dd><dt>Policy digest</dt><dd><code>sha256:{}</code></dd>\
             <dt>Site file</dt><dd>{}</dd>",
            escape(&report.name),
            report.mode,
            guard.xdp_mode,
            report.generation,
            time(guard.loaded_at),
            escape(&guard.loaded_by),
            escape(&report.digest),
            guard.site.as_deref().map_or(
                "none; roles were given on the command line".to_owned(),
                escape
            )
        );
        if let Some(since) = report.since {
            let _ = write!(
                page,
                "<dt>Counted since</dt><dd>{} ({})</dd>",
                time(since),
                duration(evidence.made_at.saturating_sub(since))
            );
        }
        for reset in &guard.resets {
            let _ = write!(
                page,
                "<dt>Reset</dt><dd>{} by {}, after {} packets, {} violations{}</dd>",
                time(reset.at),
                escape(&reset.by),
                grouped(reset.totals.packets),
                grouped(reset.violations.packets),
                reset
                    .note
                    .as_deref()
                    .map_or(String::new(), |note| format!(": {}", escape(note)))
            );
        }
        page.push_str("</dl>");
    }
}
