//! Top talkers of violations, and the row of a document that comes nearest.

use std::fmt::Write as _;

use super::super::Evidence;
use crate::report::escape::escape;
use portguard_observe::knock::Caller;
use portguard_policy::human::grouped;

/// The heaviest causes of violations, interface by interface.
pub(super) fn callers(page: &mut String, evidence: &Evidence) {
    page.push_str("<h2 id=\"callers\">Top talkers</h2>");
    let mut any = false;
    for guard in &evidence.guards {
        let knocking = &guard.knocking;
        if knocking.callers.is_empty() {
            continue;
        }
        any = true;
        let _ = write!(
            page,
            "<h3>{}</h3><p class=\"soft\">The heaviest causes of violations since {}, as the kernel kept them: \
             {}. IPv6 peers stand for their /64.</p>\
             <table><thead><tr><th class=\"fit\">Peer</th>\
             <th class=\"fit\">To, and reason</th><th class=\"n fit\">Packets</th><th class=\"fit\">First and last seen</th><th>Nearest row</th></tr></thead><tbody>",
            escape(&guard.report.name),
            knocking.since(),
            escape(&knocking.words())
        );
        for caller in &knocking.callers {
            line(page, caller);
        }
        page.push_str("</tbody></table>");
        let more = knocking.known - knocking.callers.len();
        if more > 0 {
            let _ = write!(
                page,
                "<p class=\"soft\">and {} more; <code>portguard counters --by peer --json</code> has all.</p>",
                grouped(more as u64)
            );
        }
    }
    if !any {
        page.push_str("<p><span class=\"mark good\">nobody</span> No violations.</p>");
    }
}

fn line(page: &mut String, caller: &Caller) {
    let near = caller.nearest.first().map_or_else(
        || "<span class=\"soft\">none comes near</span>".to_owned(),
        |near| {
            format!(
                "{}<br><span class=\"soft\">{}</span>",
                escape(&near.words),
                escape(&near.citation)
            )
        },
    );
    let second = |time: &str| time.get(..19).unwrap_or(time).replace('T', " ");
    let _ = write!(
        page,
        "<tr><td class=\"p\">{}</td><td class=\"p\">{} {}<br><span class=\"soft\">{}</span></td><td class=\"n alarm\">{}</td>\
         <td class=\"t\">{}<br>{}</td><td>{near}</td></tr>",
        escape(caller.who()),
        caller.direction,
        escape(&caller.what()),
        caller.reason,
        caller.amount(),
        second(&caller.first),
        second(&caller.last),
    );
}
