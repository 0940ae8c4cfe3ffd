//! Findings about traffic as a table: the same lines in every view.

use std::io::{self, Write};

use super::table::Column::{Number, Prose, Spare, Whole};
use super::table::Grid;
use portguard_observe::findings::{Finding, Kind};
use portguard_policy::human::{grouped, plain};

/// Peers that a line names.
const NAMED: usize = 2;

/// Nothing where there is no finding; below a `title`, if there is one.
pub(crate) fn table(
    out: &mut dyn Write,
    findings: &[Finding],
    title: Option<&str>,
) -> io::Result<()> {
    if findings.is_empty() {
        return Ok(());
    }
    if let Some(title) = title {
        writeln!(out, "{title}")?;
    }
    let mut lines = Grid::new(&[
        ("", Whole),
        ("finding", Whole),
        ("violations", Number),
        ("cause", Prose),
        ("peers", Prose),
        ("nearest row", Spare),
    ]);
    for finding in findings {
        lines.row([
            finding.direction.to_owned(),
            plain(&finding.what),
            finding.amount(),
            plain(&cause(finding)),
            plain(&finding.who(NAMED)),
            plain(finding.near.as_deref().unwrap_or_default()),
        ]);
    }
    writeln!(out, "{lines}")
}

/// Why it is one, in a few words.
pub(crate) fn cause(finding: &Finding) -> String {
    let mut words = match finding.kind {
        Kind::UndocumentedPort if finding.listening => {
            "not documented, and somebody listens".to_owned()
        }
        Kind::UndocumentedPort => "not documented, and nobody listens".to_owned(),
        Kind::UndocumentedPeer => format!("not a peer of {}", rows(finding)),
        Kind::Scan => "ports tried that nobody listens on".to_owned(),
        Kind::AnswersFromElsewhere => {
            "to ports of own clients, from a port or address that they did not ask".to_owned()
        }
        Kind::UndocumentedDestinationPort => "sent, and not documented".to_owned(),
        Kind::UndocumentedDestination => format!("sent to a peer not of {}", rows(finding)),
        Kind::UndocumentedAnswers => "answers to what was not counted here".to_owned(),
        Kind::WithoutPort => "not documented".to_owned(),
    };
    if finding.answers > 0 && finding.kind != Kind::UndocumentedAnswers {
        words = format!("{words} ({} of them answers)", grouped(finding.answers));
    }
    words
}

fn rows(finding: &Finding) -> String {
    if finding.rows.is_empty() {
        "its rows".to_owned()
    } else {
        finding.rows.join(", ")
    }
}
