//! The sections that judge: what is in force, violations, drift.

use std::fmt::Write as _;

use super::super::{Evidence, Guard, svg};
use crate::report::escape::escape;
use portguard_observe::drift::{Item, State};
use portguard_observe::findings::Finding;
use portguard_observe::history;
use portguard_policy::human::{count, duration, grouped, time};

/// Peers that a finding names.
const NAMED: usize = 3;
/// Findings of one state that are listed.
const FINDINGS: usize = 500;
/// Ports of violations that are plotted.
const PLOTTED: usize = 8;
/// Columns of the plot over time, at most.
const COLUMNS: usize = 96;
/// Samples in a column, at least, on average.
const SAMPLES: usize = 2;

/// In sentences, for who reads no further.
pub(super) fn summary(page: &mut String, evidence: &Evidence) {
    page.push_str("<h2 id=\"brief\">In brief</h2>");
    if evidence.guards.is_empty() {
        page.push_str(
            "<p><span class=\"mark bad\">no pass</span> No interface of this host is guarded: nothing was judged or counted, so this page says nothing about its traffic. <code>portguard load --audit</code> begins to gather evidence.</p>",
        );
        return;
    }
    for guard in &evidence.guards {
        let report = &guard.report;
        let _ = write!(
            page,
            "<p><b>{}</b>: {} judged, {}. The policy in force is generation {}, digest <code>{}</code>.</p>",
            escape(&report.name),
            count(report.totals.packets, "packet"),
            escape(&report.describe_violations()),
            report.generation,
            escape(report.digest.get(..16).unwrap_or(&report.digest)),
        );
        if let Some(wide) = guard.policy.open_to_any() {
            let _ = write!(
                page,
                "<p><span class=\"mark warn\">wide</span> {}.</p>",
                escape(&wide)
            );
        }
        for warning in &guard.warnings {
            let _ = write!(
                page,
                "<p><span class=\"mark warn\">warning</span> {}</p>",
                escape(warning)
            );
        }
    }
    page.push_str(
        "<nav><a href=\"#violations\">Violations</a><a href=\"#callers\">Top talkers</a><a href=\"#drift\">Documented, listening, seen</a>\
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
        let mut reasons: Vec<(String, u64, &str)> = report
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
        reasons.sort_by_key(|(_, packets, _)| std::cmp::Reverse(*packets));
        any = true;
        let name = escape(&report.name);
        over_time(page, &name, guard);
        let plotted: Vec<(String, u64, &str)> = guard
            .findings
            .iter()
            .take(PLOTTED)
            .map(|finding| {
                let name = format!("{} {}", finding.direction, finding.what);
                (name, finding.violations, "bad")
            })
            .collect();
        let all = guard.findings.len();
        let part = if all > PLOTTED {
            format!(" (the largest {PLOTTED} of {all})")
        } else {
            String::new()
        };
        let _ = write!(
            page,
            "<div class=\"two\"><div><h3>{name}: by reason</h3>{}</div><div><h3>{name}: by finding{part}</h3>{}</div></div>",
            svg::bars("violations by reason", &reasons),
            svg::bars("violations by finding", &plotted)
        );
        findings(page, &guard.findings);
    }
    if !any {
        page.push_str(
            "<p><span class=\"mark good\">none</span> No packet outside the matrix was seen.</p>",
        );
    }
}

/// Violations between the agent's samples; in words, where these tell nothing yet.
fn over_time(page: &mut String, name: &str, guard: &Guard) {
    let samples = &guard.history;
    // Columns that are narrower than the time between samples would be gaps and spikes.
    let columns = COLUMNS.min(samples.len() / SAMPLES).max(1);
    let over_time = history::violations(samples, columns);
    let width = match over_time.as_slice() {
        [(first, _), (second, _), ..] => format!(", each {}", duration(second - first)),
        _ => String::new(),
    };
    let _ = write!(page, "<h3>{name}: violations over time{width}</h3>");
    let is_any = over_time.iter().any(|(_, count)| *count > 0);
    let words = match (samples.first(), samples.last()) {
        (Some(first), Some(last)) if first.at < last.at => {
            let until = if is_any {
                String::new()
            } else {
                format!(
                    " There were none from then to {}: those that are listed here came before or after.",
                    time(last.at)
                )
            };
            format!("Samples of the agent since {}.{until}", time(first.at))
        }
        (Some(only), _) => format!(
            "The agent took its first sample at {}. Once it has taken another (after a minute, unless <code>--every</code> says otherwise), \
             the violations between the two are plotted here.",
            time(only.at)
        ),
        (None, _) => "No samples: <code>portguard agent</code> takes one each minute, and from the second on the violations between \
                      them are plotted here."
            .to_owned(),
    };
    let _ = write!(page, "<p class=\"soft\">{words}</p>");
    if is_any {
        let end = samples.last().map_or(0, |sample| sample.at);
        page.push_str(&svg::columns(
            "violations over time",
            columns,
            end,
            |most| history::violations(samples, most),
        ));
    }
}

/// One line a problem, whatever ports and peers it has.
fn findings(page: &mut String, all: &[Finding]) {
    let _ = write!(
        page,
        "<p class=\"soft\">{}; their violations add up to all of them.</p><table><thead><tr><th class=\"fit\">Finding</th>\
         <th class=\"n fit\">Violations</th><th>Cause</th><th>Peers</th></tr></thead><tbody>",
        count(all.len() as u64, "finding")
    );
    for finding in all.iter().take(FINDINGS) {
        let _ = write!(
            page,
            "<tr><td class=\"p\">{} {}</td><td class=\"n alarm\">{}</td><td>{}</td><td>{}</td></tr>",
            finding.direction,
            escape(&finding.what),
            finding.amount(),
            escape(&finding.cause()),
            escape(&finding.who(NAMED))
        );
    }
    page.push_str("</tbody></table>");
    let rest = all.get(FINDINGS..).unwrap_or_default();
    if !rest.is_empty() {
        let packets = rest.iter().map(|finding| finding.violations).sum();
        let _ = write!(
            page,
            "<p class=\"soft\">and {} more with {}.</p>",
            count(rest.len() as u64, "finding"),
            count(packets, "violation")
        );
    }
}

/// Findings with what to do, and the other states in numbers.
pub(super) fn drift(page: &mut String, evidence: &Evidence) {
    page.push_str("<h2 id=\"drift\">Documented, listening, seen</h2>");
    unread(page, evidence);
    if evidence.agrees() {
        page.push_str(
            "<p><span class=\"mark good\">none</span> Documents, services and traffic agree.</p>",
        );
    }
    for &state in State::ALL {
        let mut items: Vec<&Item> = evidence
            .drift
            .items
            .iter()
            .filter(|item| item.state == state)
            .collect();
        if items.is_empty() || !state.is_to_act_on() {
            continue;
        }
        items.sort_by_key(|item| std::cmp::Reverse(item.violations));
        let count = items.len();
        let _ = write!(
            page,
            "<h3><span class=\"mark bad\">{}</span> {count}</h3><p class=\"soft\">{}</p>\
             <table><thead><tr><th>Port</th><th>Listener</th><th class=\"n\">Passed</th><th class=\"n\">Violations</th>\
             <th>Rows and purpose</th></tr></thead><tbody>",
            state.name(),
            escape(state.meaning())
        );
        for item in items.iter().take(FINDINGS) {
            drift_line(page, item);
        }
        page.push_str("</tbody></table>");
        if count > FINDINGS {
            let _ = write!(page, "<p class=\"soft\">and {} more</p>", count - FINDINGS);
        }
    }
    without_port(page, evidence);
    let quiet: Vec<String> = State::ALL
        .iter()
        .copied()
        .filter(|state| !state.is_to_act_on())
        .filter_map(|state| {
            let count = evidence
                .drift
                .items
                .iter()
                .filter(|item| item.state == state);
            let count = count.count();
            (count > 0)
                .then(|| format!("<span class=\"mark soft\">{}</span> {count}", state.name()))
        })
        .collect();
    if !quiet.is_empty() {
        let _ = write!(
            page,
            "<h3>Nothing to do</h3><p>{}</p>",
            quiet.join(" &nbsp; ")
        );
    }
}

/// Undocumented traffic that no port is behind.
fn without_port(page: &mut String, evidence: &Evidence) {
    let all = &evidence.drift.portless;
    if all.is_empty() {
        return;
    }
    let _ = write!(
        page,
        "<h3><span class=\"mark bad\">without-port</span> {}</h3><p class=\"soft\">no document opens this, and it has no port</p>\
         <table><thead><tr><th>What</th><th>Reason</th><th>Who</th><th class=\"n\">Violations</th></tr></thead><tbody>",
        all.len()
    );
    for one in all {
        let _ = write!(
            page,
            "<tr><td class=\"p\">{} {}</td><td>{}</td><td>{}</td><td class=\"n alarm\">{}</td></tr>",
            one.direction,
            escape(&one.what),
            escape(&one.reason),
            escape(&one.who()),
            grouped(one.violations)
        );
    }
    page.push_str("</tbody></table>");
}

/// What of the packet filter was not understood: an auditor must not take it for read.
fn unread(page: &mut String, evidence: &Evidence) {
    for one in &evidence.drift.unread {
        let _ = write!(
            page,
            "<p><span class=\"mark warn\">not read</span> may hand ports on: {}: {}</p>",
            escape(&one.rule.to_string()),
            escape(&one.why)
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
        "<tr><td class=\"p\">{} {}</td><td>{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td>{rows}</td></tr>",
        item.direction,
        escape(&item.what()),
        escape(&item.who()),
        number(item.passed),
        number(item.violations)
    );
}
