//! One self-contained page about all hosts: no script, no resource from elsewhere.

use std::fmt::Write as _;

use portguard_policy::human::{grouped, short, time};

use super::show::names;
use super::{Said, States};
use crate::report::{begin, escape};

/// The page.
pub(super) fn page(said: &Said, states: &States, made_at: u64) -> String {
    let mut page = String::with_capacity(16 * 1024);
    let fleet = escape(&said.fleet);
    begin(&mut page, &format!("Fleet {fleet}"));
    let _ = write!(
        page,
        "<header><p class=\"kicker\">Fleet</p><h1>{fleet}</h1><p>Release {}, as its hosts saw it until {}.</p></header>",
        said.serial,
        time(made_at)
    );
    tiles(&mut page, said, states);
    let seen = &said.seen;
    let causes = seen.causes.iter().map(|cause| {
        [
            cause.direction.clone(),
            cause.what.clone(),
            cause.kind.clone(),
            grouped(cause.violations),
            cause.hosts.len().to_string(),
            names(&cause.hosts),
            names(&cause.peers),
        ]
    });
    table(
        &mut page,
        "What no document admits",
        [
            "",
            "finding",
            "cause",
            "violations",
            "hosts",
            "which",
            "peers",
        ],
        causes,
    );
    let services = seen.listening.iter();
    let services =
        services.map(|(service, hosts)| [service.clone(), hosts.len().to_string(), names(hosts)]);
    table(
        &mut page,
        "Undocumented services",
        ["service", "hosts", "which"],
        services,
    );
    let unused = seen.unused.iter();
    let unused = unused.map(|(row, count)| [row.clone(), count.to_string()]);
    table(
        &mut page,
        "Rows that no host used",
        ["row", "interfaces that have it"],
        unused,
    );
    let expiring = said.expiring.iter();
    let expiring = expiring.map(|row| [row.row.clone(), row.expires.clone()]);
    table(
        &mut page,
        "Exceptions that end",
        ["row", "last day"],
        expiring,
    );
    let reasons = seen.reasons.iter();
    let reasons = reasons.map(|(reason, sum)| {
        [
            reason.clone(),
            grouped(sum.packets),
            sum.interfaces.to_string(),
        ]
    });
    table(
        &mut page,
        "All packets by reason",
        ["reason", "packets", "interfaces"],
        reasons,
    );
    let without = said.without.iter();
    let without = without.map(|(host, doubt)| [host.clone(), doubt.clone()]);
    table(
        &mut page,
        "Hosts without evidence",
        ["host", "why"],
        without,
    );
    let _ = write!(
        page,
        "<footer>Made by portguard {}. Numbers are what hosts signed, the oldest at {}; {} lines had no room. This file is self-contained: it loads nothing from elsewhere.</footer></main></body></html>",
        env!("CARGO_PKG_VERSION"),
        said.oldest.map_or_else(|| "no time".to_owned(), time),
        grouped(seen.left_off)
    );
    page
}

fn tiles(page: &mut String, said: &Said, states: &States) {
    let seen = &said.seen;
    page.push_str("<section class=\"tiles\">");
    let mut tile = |class: &str, big: &str, small: &str| {
        let _ = write!(
            page,
            "<div class=\"tile {class}\"><b>{}</b><span>{}</span></div>",
            escape(big),
            escape(small)
        );
    };
    let good = |is_good: bool| if is_good { "good" } else { "bad" };
    for (state, count) in states {
        let is_bad = ["failed", "reverted", "silent"].contains(state);
        tile(good(!is_bad), &count.to_string(), state);
    }
    tile(
        good(said.without.is_empty()),
        &format!("{} of {}", seen.hosts.len(), said.selected),
        "hosts said what they saw",
    );
    let violations: u64 = seen.causes.iter().map(|cause| cause.violations).sum();
    tile(good(violations == 0), &short(violations), "violations");
    tile(
        good(seen.causes.is_empty()),
        &seen.causes.len().to_string(),
        "causes",
    );
    page.push_str("</section>");
}

/// Nothing where there is no row.
fn table<const N: usize>(
    page: &mut String,
    title: &str,
    columns: [&str; N],
    rows: impl Iterator<Item = [String; N]>,
) {
    let mut rows = rows.peekable();
    if rows.peek().is_none() {
        return;
    }
    let _ = write!(page, "<section><h2>{title}</h2><table><thead><tr>");
    for column in columns {
        let _ = write!(page, "<th>{column}</th>");
    }
    page.push_str("</tr></thead><tbody>");
    for row in rows {
        page.push_str("<tr>");
        for cell in row {
            let _ = write!(page, "<td>{}</td>", escape(&cell));
        }
        page.push_str("</tr>");
    }
    page.push_str("</tbody></table></section>");
}
