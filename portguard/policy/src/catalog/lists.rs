//! Cells that are lists, and citations: what rows and conditions have in common.

use std::collections::{BTreeMap, BTreeSet};

use super::Citation;
use super::fields::{Fields, Text};
use super::report::{Report, quoted};
use crate::diagnostic::Diagnostic;

/// Where a document says it.
pub(super) fn citation(report: &mut Report<'_>, table: &mut Fields<'_>) -> Option<Citation> {
    let mut cite = table.required_table(report, "cite")?;
    let section = cite.text(report, "section");
    let row = cite.text(report, "row");
    cite.finish(report);
    Some(Citation {
        section: section?.value,
        row: row?.value,
    })
}

/// The names that a key may have.
pub(super) fn keys<T>(map: &BTreeMap<String, T>) -> impl Iterator<Item = &str> + Clone {
    map.keys().map(String::as_str)
}

/// Parses every cell of a list.
pub(super) fn each<T: Ord + Clone>(
    report: &mut Report<'_>,
    table: &mut Fields<'_>,
    key: &'static str,
    parse: impl Fn(&str) -> Result<T, Diagnostic>,
) -> Vec<T> {
    let texts = table.texts(report, key);
    unique(report, texts, parse, |_, _, _| {})
}

/// Parses every cell; reports what is wrong, listed twice, or found wrong by `check`.
pub(super) fn unique<T: Ord + Clone>(
    report: &mut Report<'_>,
    cells: Vec<Text>,
    parse: impl Fn(&str) -> Result<T, Diagnostic>,
    check: impl Fn(&mut Report<'_>, &T, usize),
) -> Vec<T> {
    let mut all = Vec::new();
    let mut seen = BTreeSet::new();
    for cell in cells {
        match parse(&cell.value) {
            Ok(value) if !seen.insert(value.clone()) => {
                let message = format!("{} is listed twice", quoted(&cell.value));
                report.add(cell.at, Diagnostic::error("duplicate-entry", message));
            }
            Ok(value) => {
                check(report, &value, cell.at);
                all.push(value);
            }
            Err(finding) => report.add(cell.at, finding),
        }
    }
    all
}
