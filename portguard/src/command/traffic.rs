//! Findings about traffic as a table: the same lines in every view.

use std::io::{self, Write};

use super::table::Column::{Number, Prose, Spare, Whole};
use super::table::Grid;
use portguard_observe::findings::Finding;
use portguard_policy::human::plain;

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
            plain(&finding.cause()),
            plain(&finding.who(NAMED)),
            plain(finding.near.as_deref().unwrap_or_default()),
        ]);
    }
    writeln!(out, "{lines}")
}
