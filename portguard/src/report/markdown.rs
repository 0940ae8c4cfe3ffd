//! The report as Markdown: for tickets and wikis.

use std::fmt::Write as _;

use super::Evidence;
use super::matrix::lines;
use portguard_observe::drift::Item;
use portguard_observe::talkers::TopTalkers;
use portguard_policy::human::{bytes, count, duration, grouped, plain, time};

/// A table cell: no bar and no line break of its own.
fn cell(text: &str) -> String {
    plain(text)
        .replace('\\', "\\\\")
        .replace('|', "\\|")
        .replace('<', "&lt;")
}

/// The document.
pub fn markdown(evidence: &Evidence) -> String {
    let mut out = String::new();
    let _ = writeln!(out, "# Port matrix evidence: {}\n", cell(&evidence.host));
    let _ = writeln!(
        out,
        "Made {} by portguard {} on {}.",
        time(evidence.made_at),
        env!("CARGO_PKG_VERSION"),
        cell(&evidence.kernel)
    );
    if let Some((since, length)) = evidence.window() {
        let _ = writeln!(
            out,
            "Evidence since {} ({}).",
            time(since),
            duration(length)
        );
    }
    if evidence.guards.is_empty() {
        out.push_str(
            "\n**No pass: no interface of this host is guarded.** Nothing was judged or counted, so this page says nothing about its traffic. `portguard load --audit` begins to gather evidence.\n",
        );
    }
    findings(&mut out, evidence);
    for guard in &evidence.guards {
        let report = &guard.report;
        let _ = writeln!(
            out,
            "\n## {}: {}\n\nGeneration {}, policy `sha256:{}`: {} judged, {}.\n",
            cell(&report.name),
            report.mode(),
            report.generation,
            report.digest,
            count(report.totals.packets, "packet"),
            count(report.violations.packets, "violation")
        );
        if let Some(wide) = guard.policy.open_to_any() {
            let _ = writeln!(out, "{}.\n", cell(&wide));
        }
        out.push_str("| | reason | packets | bytes | |\n|---|---|---:|---:|---|\n");
        for reason in &report.reasons {
            let _ = writeln!(
                out,
                "| {} | {} | {} | {} | {} |",
                reason.direction,
                reason.reason,
                grouped(reason.packets),
                bytes(reason.bytes),
                if reason.violation { "violation" } else { "" }
            );
        }
        talkers(&mut out, &guard.top_talkers);
        out.push_str("\n| | port | peers | rows | passed | bytes | other peers |\n|---|---|---|---|---:|---:|---:|\n");
        for line in lines(guard) {
            let rows: Vec<&str> = line.rows.iter().map(|(row, _)| *row).collect();
            let _ = writeln!(
                out,
                "| {} | {} | {} | {} | {} | {} | {} |",
                line.direction,
                line.port,
                cell(&line.peers.join(", ")),
                cell(&rows.join(", ")),
                grouped(line.packets),
                bytes(line.bytes),
                grouped(line.violations)
            );
        }
    }
    out
}

/// What somebody should do something about.
fn findings(out: &mut String, evidence: &Evidence) {
    let portless = &evidence.drift.portless;
    let _ = writeln!(out, "\n## Findings: {}\n", evidence.drift.findings());
    let items = || evidence.drift.items.iter();
    table(out, items().filter(|item| item.finding));
    if !portless.is_empty() {
        out.push_str(
            "\nWithout a port:\n\n| | what | reason | who | violations |\n|---|---|---|---|---:|\n",
        );
    }
    for one in portless {
        let _ = writeln!(
            out,
            "| {} | {} | {} | {} | {} |",
            one.direction,
            cell(&one.what),
            one.reason,
            cell(&one.who()),
            grouped(one.violations)
        );
    }
    let mismatches = evidence.drift.mismatches();
    if mismatches > 0 {
        let _ = writeln!(
            out,
            "\n## Mismatches between documents and services, without violations: {mismatches}\n"
        );
        table(out, items().filter(|item| item.mismatch));
    }
    if !evidence.drift.unread.is_empty() {
        out.push_str(
            "\nRules of the packet filter that were not understood, and may hand ports on:\n\n",
        );
    }
    for one in &evidence.drift.unread {
        let _ = writeln!(out, "- {}: {}", cell(&one.rule.to_string()), cell(&one.why));
    }
}

/// A line for each port; nothing where there are none.
fn table<'a>(out: &mut String, items: impl Iterator<Item = &'a Item>) {
    let number = |count: Option<u64>| count.map_or("-".to_owned(), grouped);
    let mut items = items.peekable();
    if items.peek().is_some() {
        out.push_str("| state | port | | listener | passed | violations | rows |\n|---|---|---|---|---:|---:|---|\n");
    }
    for item in items {
        let _ = writeln!(
            out,
            "| {} | {} | {} | {} | {} | {} | {} |",
            item.state.name(),
            cell(&item.what()),
            item.direction,
            cell(&item.who()),
            number(item.passed),
            number(item.violations),
            cell(&item.rows.join(", "))
        );
    }
}

/// Top talkers of violations; nothing where there are none.
fn talkers(out: &mut String, top_talkers: &TopTalkers) {
    if top_talkers.talkers.is_empty() {
        return;
    }
    let words = top_talkers.words();
    let _ = writeln!(
        out,
        "\nTop talkers of violations since {} ({words}):\n",
        top_talkers.since()
    );
    out.push_str("| | peer | to | reason | packets | first | last | nearest row |\n|---|---|---|---|---:|---|---|---|\n");
    for talker in &top_talkers.talkers {
        let _ = writeln!(
            out,
            "| {} | {} | {} | {} | {} | {} | {} | {} |",
            talker.direction,
            cell(talker.who()),
            cell(&talker.what()),
            talker.reason,
            talker.amount(),
            talker.first,
            talker.last,
            cell(&talker.near())
        );
    }
}
