//! When a row holds: the `when` table, checked against the names of its file.

use std::collections::BTreeMap;

use super::cells;
use super::fields::{self, Fields};
use super::report::Report;
use super::rows::{each, keys};
use super::{Condition, System};
use crate::diagnostic::Diagnostic;

/// The condition of a row; `None` if it always holds.
pub(super) fn read(
    report: &mut Report<'_>,
    row: &mut Fields<'_>,
    system: &System,
) -> Option<Condition> {
    let mut when = row.table(report, "when")?;
    let at = when.at;
    let deployments = names(
        report,
        &mut when,
        "deployment",
        "deployment",
        &system.deployments,
    );
    let version = when
        .optional_text(report, "version")
        .map_or_else(Vec::new, |text| {
            cells::version(&text.value).unwrap_or_else(|finding| {
                report.add(text.at, finding);
                Vec::new()
            })
        });
    let options = names(report, &mut when, "option", "option", &system.options);
    let without = names(report, &mut when, "without", "option", &system.options);
    let choices = choices(report, &mut when, system);
    when.finish(report);
    if let Some(both) = options.iter().find(|option| without.contains(option)) {
        let message = format!("option `{both}` must be both on and off");
        report.add(at, Diagnostic::error("impossible-condition", message));
    }
    let condition = Condition {
        deployments,
        version,
        options,
        without,
        choices,
    };
    (condition != Condition::default()).then_some(condition)
}

fn choices(
    report: &mut Report<'_>,
    when: &mut Fields<'_>,
    system: &System,
) -> BTreeMap<String, String> {
    let mut choices = BTreeMap::new();
    for (id, value) in when
        .table(report, "choice")
        .map(Fields::entries)
        .unwrap_or_default()
    {
        let Some(value) = fields::text(report, value) else {
            continue;
        };
        match system.choices.get(&id.value) {
            None => report.add(
                id.at,
                cells::unknown("choice", &id.value, keys(&system.choices)),
            ),
            Some(choice) if !choice.values.contains_key(&value.value) => {
                let kind = format!("value of choice `{}`:", id.value);
                report.add(
                    value.at,
                    cells::unknown(&kind, &value.value, keys(&choice.values)),
                );
            }
            Some(_) => drop(choices.insert(id.value, value.value)),
        }
    }
    choices
}

/// Texts that must be keys of `known`.
fn names<T>(
    report: &mut Report<'_>,
    table: &mut Fields<'_>,
    key: &'static str,
    kind: &str,
    known: &BTreeMap<String, T>,
) -> Vec<String> {
    each(report, table, key, |name| {
        if known.contains_key(name) {
            Ok(name.to_owned())
        } else {
            Err(cells::unknown(kind, name, keys(known)))
        }
    })
}
