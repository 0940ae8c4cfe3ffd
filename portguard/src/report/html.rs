//! One self-contained page: no script, no resource from elsewhere.

mod evidence;
mod sections;
mod talkers;

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::Evidence;
use super::escape::escape;
use portguard_kernel::generation::effective::Strictness;
use portguard_policy::human::{bytes, duration, grouped, short, time};

/// What the number of them is the number of.
const MISMATCHES: &str = "mismatches between documents and services";

/// The page.
pub fn html(evidence: &Evidence) -> String {
    let mut page = String::with_capacity(64 * 1024);
    let host = escape(&evidence.host);
    super::begin(&mut page, &format!("Port matrix evidence: {host}"));
    head(&mut page, evidence, &host);
    tiles(&mut page, evidence);
    sections::summary(&mut page, evidence);
    // Where nothing is guarded, nothing was seen: an empty section would read like a pass.
    if evidence.guards.is_empty() {
        sections::drift(&mut page, evidence);
    } else {
        sections::violations(&mut page, evidence);
        talkers::talkers(&mut page, evidence);
        sections::drift(&mut page, evidence);
        for guard in &evidence.guards {
            evidence::matrix(&mut page, guard);
        }
        evidence::unused(&mut page, evidence);
        evidence::omitted(&mut page, evidence);
    }
    evidence::provenance(&mut page, evidence);
    let _ = writeln!(
        page,
        "<footer>Made by portguard {} on {}. Every number is a sum that the kernel kept for every packet, but for those of \
         talkers that stand beside ~, which are estimates. This file is self-contained: it loads nothing from elsewhere.</footer></main></body></html>",
        env!("CARGO_PKG_VERSION"),
        time(evidence.made_at)
    );
    page
}

fn head(page: &mut String, evidence: &Evidence, host: &str) {
    let mut roles: Vec<&str> = evidence
        .guards
        .iter()
        .flat_map(|guard| guard.policy.roles.iter().map(String::as_str))
        .collect();
    roles.sort_unstable();
    roles.dedup();
    let window = evidence.window().map_or(String::new(), |(since, length)| {
        format!(
            " Evidence from {} to {} ({}).",
            time(since),
            time(evidence.made_at),
            duration(length)
        )
    });
    let guarded = if evidence.guards.is_empty() {
        "Not guarded.".to_owned()
    } else {
        format!("Guarded as <code>{}</code>.", escape(&roles.join(", ")))
    };
    let _ = write!(
        page,
        "<header><p class=\"kicker\">Port matrix evidence</p><h1>{host}</h1><p>{guarded}{window}</p></header>",
    );
}

fn tiles(page: &mut String, evidence: &Evidence) {
    let modes = evidence.guards.iter();
    let modes: BTreeSet<Strictness> = modes.map(|guard| guard.report.effective.inbound).collect();
    let (mode, meaning) = match (modes.first(), modes.len()) {
        (None | Some(Strictness::Off), 0 | 1) => {
            ("not guarded", "nothing is dropped or counted now")
        }
        (Some(Strictness::Audit), 1)
            if evidence
                .guards
                .iter()
                .any(|guard| guard.report.effective.drops_any()) =>
        {
            (
                "audit",
                "what arrives is only counted, undocumented packets that are sent are dropped",
            )
        }
        (Some(Strictness::Audit), 1) => ("audit", "nothing is dropped, all is counted"),
        (Some(Strictness::Enforce), 1) => ("enforce", "undocumented traffic is dropped"),
        _ => ("mixed", "not all interfaces drop undocumented traffic"),
    };
    let (mut packets, mut octets, mut violations) = (0u64, 0u64, 0u64);
    for guard in &evidence.guards {
        packets += guard.report.totals.packets;
        octets += guard.report.totals.bytes;
        violations += guard.report.violations.packets;
    }
    let lines = evidence.guards.iter().flat_map(super::matrix::lines);
    let (used, all) = lines.fold((0u64, 0u64), |(used, all), line| {
        (used + u64::from(line.packets > 0), all + 1)
    });
    let (findings, mismatches) = (evidence.drift.findings(), evidence.drift.mismatches());
    page.push_str("<section class=\"tiles\">");
    let mut tile = |class: &str, big: &str, small: &str| {
        let _ = write!(
            page,
            "<div class=\"tile {class}\"><b>{big}</b><span>{small}</span></div>"
        );
    };
    let class = match mode {
        "enforce" => "good",
        "not guarded" => "bad",
        _ => "warn",
    };
    tile(class, mode, meaning);
    if evidence.guards.is_empty() {
        tile("warn", "unknown", "violations: not counted");
        let class = if mismatches == 0 { "" } else { "bad" };
        tile(class, &mismatches.to_string(), MISMATCHES);
        page.push_str("</section>");
        return;
    }
    tile(
        "",
        &short(packets),
        &format!("packets judged, {}", bytes(octets)),
    );
    tile(
        if violations == 0 { "good" } else { "bad" },
        &grouped(violations),
        "violations (packets outside the matrix)",
    );
    tile(
        "",
        &format!("{used} of {all}"),
        "documented openings were used",
    );
    tile(
        if findings == 0 { "good" } else { "bad" },
        &findings.to_string(),
        "findings: violations by their cause",
    );
    let class = if mismatches == 0 { "good" } else { "bad" };
    tile(class, &mismatches.to_string(), MISMATCHES);
    page.push_str("</section>");
}
