//! When a row holds: the `when` table, checked against the names of its file.

use std::collections::BTreeMap;

use super::cells;
use super::fields::{self, Fields};
use super::lists::{citation, each, keys};
use super::report::Report;
use super::{Condition, Conflict, System, VersionBound};
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
    let version = version(report, &mut when, "version");
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

/// Comparisons with the version that may be there.
pub(super) fn version(
    report: &mut Report<'_>,
    table: &mut Fields<'_>,
    key: &'static str,
) -> Vec<VersionBound> {
    let text = table.optional_text(report, key);
    text.map_or_else(Vec::new, |text| {
        cells::version(&text.value).unwrap_or_else(|finding| {
            report.add(text.at, finding);
            Vec::new()
        })
    })
}

/// Reads `[[conflict]]`: facts that the document says cannot go together.
pub(super) fn conflicts(
    report: &mut Report<'_>,
    file: &mut Fields<'_>,
    system: &System,
) -> Vec<Conflict> {
    let mut found = Vec::new();
    for mut table in file.tables(report, "conflict") {
        let at = table.at;
        let id = table.text(report, "id");
        let condition = read(report, &mut table, system);
        let same_host = names(report, &mut table, "same_host", "role", &system.roles);
        let mut role = |report: &mut Report<'_>, key| {
            let text = table.optional_text(report, key)?;
            if !system.roles.contains_key(&text.value) {
                report.add(
                    text.at,
                    cells::unknown("role", &text.value, keys(&system.roles)),
                );
            }
            Some(text.value)
        };
        let (has, lacks) = (role(report, "role"), role(report, "lacks"));
        let offset_of = role(report, "offset_of");
        let several = role(report, "several");
        let offset = number(report, &mut table, "offset_other_than");
        let port_of = table.optional_text(report, "port_of");
        let lacks_protocol = number(report, &mut table, "lacks_protocol");
        let message = table.text(report, "message");
        let hint = table.text(report, "hint");
        let citation = citation(report, &mut table);
        table.finish(report);
        if condition.is_none()
            && same_host.is_empty()
            && has.is_none()
            && offset_of.is_none()
            && several.is_none()
        {
            let message = "the conflict has no condition";
            let hint = "write `when`, `same_host`, `role` and `lacks`, `several`, or `offset_of` and `offset_other_than`";
            report.add(at, Diagnostic::error("empty-conflict", message).hint(hint));
        }
        if let (Some(id), Some(message), Some(hint), Some(citation)) = (id, message, hint, citation)
        {
            found.push(Conflict {
                id: id.value,
                condition,
                same_host,
                role: has,
                lacks,
                offset_other_than: offset_of.zip(offset),
                port_of: port_of.map(|text| text.value),
                several,
                lacks_protocol,
                message: message.value,
                hint: hint.value,
                citation,
            });
        }
    }
    found
}

/// A small number that may be there.
fn number<N: TryFrom<i64>>(
    report: &mut Report<'_>,
    table: &mut Fields<'_>,
    key: &'static str,
) -> Option<N> {
    let (number, at) = table.optional_integer(report, key)?;
    let small = N::try_from(number).ok();
    if small.is_none() {
        let message = format!("{number} is out of range for `{key}`");
        report.add(at, Diagnostic::error("out-of-range", message));
    }
    small
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
