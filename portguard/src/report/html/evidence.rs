//! The sections that list: the matrix with its numbers, what was not used, what opens nothing, and what proves the rest.

use std::fmt::Write as _;

use super::super::matrix::{Line, lines};
use super::super::{Evidence, Guard};
use crate::report::escape::escape;
use portguard_kernel::generation::effective::Strictness;
use portguard_policy::human::{bytes, count, duration, grouped, time};
use portguard_policy::policy::GrantKind;

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
        let outbound = match report.effective.outbound {
            Strictness::Off => "not judged",
            judged @ (Strictness::Audit | Strictness::Enforce) => judged.name(),
        };
        let _ = write!(
            page,
            "<h3>{}</h3><dl><dt>Inbound</dt><dd>{}, {} XDP</dd><dt>Outbound</dt><dd>{outbound}</dd>\
             <dt>Generation</dt><dd>{}, loaded {} by portguard {}</dd><dt>Policy digest</dt><dd><code>sha256:{}</code></dd>\
             <dt>Site file</dt><dd>{}</dd>",
            escape(&report.name),
            report.mode(),
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
                "<dt>Reset</dt><dd>{} by {}, after {}, {}{}</dd>",
                time(reset.at),
                escape(&reset.by),
                count(reset.totals.packets, "packet"),
                count(reset.violations.packets, "violation"),
                reset
                    .note
                    .as_deref()
                    .map_or(String::new(), |note| format!(": {}", escape(note)))
            );
        }
        page.push_str("</dl>");
    }
}
