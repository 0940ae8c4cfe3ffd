//! Top talkers of violations, and the row of a document that comes nearest.

use std::fmt::Write as _;

use super::super::Evidence;
use crate::report::escape::escape;
use portguard_observe::talkers::TopTalker;
use portguard_policy::human::grouped;

/// The heaviest causes of violations, interface by interface.
pub(super) fn talkers(page: &mut String, evidence: &Evidence) {
    page.push_str("<h2 id=\"callers\">Top talkers</h2>");
    let mut any = false;
    for guard in &evidence.guards {
        let top_talkers = &guard.top_talkers;
        if top_talkers.talkers.is_empty() {
            continue;
        }
        any = true;
        let _ = write!(
            page,
            "<h3>{}</h3><p class=\"soft\">The heaviest causes of violations since {}, as the kernel kept them: \
             {}. An IPv6 /64 stands for very many of its addresses.</p>\
             <table><thead><tr><th class=\"fit\">Peer</th>\
             <th class=\"fit\">To, and reason</th><th class=\"n fit\">Packets</th><th class=\"fit\">First and last seen</th><th>Nearest row</th></tr></thead><tbody>",
            escape(&guard.report.name),
            top_talkers.since(),
            escape(&top_talkers.words())
        );
        for talker in &top_talkers.talkers {
            line(page, talker);
        }
        page.push_str("</tbody></table>");
        let more = top_talkers.known - top_talkers.talkers.len();
        if more > 0 {
            let _ = write!(
                page,
                "<p class=\"soft\">and {} more; <code>portguard counters --by peer --json</code> has all.</p>",
                grouped(more as u64)
            );
        }
    }
    if !any {
        page.push_str("<p><span class=\"mark good\">none</span> No violations.</p>");
    }
}

fn line(page: &mut String, talker: &TopTalker) {
    let near = talker.nearest.first().map_or_else(
        || "<span class=\"soft\">no near row</span>".to_owned(),
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
        escape(talker.who()),
        talker.direction,
        escape(&talker.what()),
        talker.reason,
        talker.amount(),
        second(&talker.first),
        second(&talker.last),
    );
}
