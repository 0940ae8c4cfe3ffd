//! Findings about traffic as a table: the same lines in every view.

use std::io::{self, Write};

use super::catalogs;
use super::table::Column::{Number, Prose, Spare, Whole};
use super::table::Grid;
use portguard_kernel::pins::meta::Meta;
use portguard_observe::findings::{self, Finding};
use portguard_policy::human::plain;

/// Names the rows that document what was seen and open nothing here, by the catalog in force. It is read only where there may be
/// such rows.
pub(crate) fn name_left_out(findings: &mut [Finding], meta: &Meta) -> anyhow::Result<()> {
    if may_be_left_out(findings, meta) {
        let catalog = catalogs::in_force(std::iter::once(meta))?;
        findings::name_left_out(findings, &meta.policy, &catalog);
    }
    Ok(())
}

/// Whether there may be such rows: to read a catalog takes longer than all else that shows findings.
pub(crate) fn may_be_left_out(findings: &[Finding], meta: &Meta) -> bool {
    !meta.policy.omitted.is_empty() && findings.iter().any(Finding::may_be_left_out)
}

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
