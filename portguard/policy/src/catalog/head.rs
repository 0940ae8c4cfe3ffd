//! The head of a catalog file: what the document is, and the names that its rows may use.

use std::collections::{BTreeMap, BTreeSet};

use toml::Spanned;
use toml::de::DeValue;

use super::cells;
use super::conditions;
use super::fields::{self, Fields, Text};
use super::report::{Report, quoted};
use super::{Choice, Role, System, SystemOption};
use crate::diagnostic::Diagnostic;

/// Where a role's `includes` stand, to report cycles.
type IncludePlaces = BTreeMap<String, usize>;

/// Reads everything but the rows. `None` if there is nothing for rows to refer to.
pub(super) fn read(report: &mut Report<'_>, file: &mut Fields<'_>) -> Option<System> {
    match file.integer(report, "schema") {
        Some((1, _)) | None => {}
        Some((other, at)) => {
            let message = format!("schema {other} is unknown to this version");
            let hint = "this version reads `schema = 1`";
            report.add(at, Diagnostic::error("unknown-schema", message).hint(hint));
            return None;
        }
    }
    let id = file.text(report, "system");
    if let Some(id) = &id {
        check_id(report, id);
        if RESERVED.contains(&id.value.as_str()) {
            let message = format!(
                "{} is what rows of the site's own are called",
                quoted(&id.value)
            );
            report.add(
                id.at,
                Diagnostic::error("reserved-id", message)
                    .hint("choose another name for the system"),
            );
        }
    }
    let name = file.text(report, "name");
    let document = file.text(report, "document");
    let source = file.text(report, "source");
    let read = file.text(report, "read");
    if let Some(day) = &read
        && !is_day(&day.value)
    {
        let message = format!("{} is not a date", quoted(&day.value));
        report.add(
            day.at,
            Diagnostic::error("bad-day", message).hint("write `YYYY-MM-DD`"),
        );
    }
    let deployments = titles(report, file, "deployments");
    let options = named(report, file, "options", option);
    let choices = named(report, file, "choices", choice);
    let groups = titles(report, file, "groups");
    let roles = roles(report, file);

    // What is missing is reported already; rows are checked all the same.
    let value = |text: Option<Text>| text.map(|text| text.value).unwrap_or_default();
    Some(System {
        id: value(id),
        name: value(name),
        document: value(document),
        source: value(source),
        read: value(read),
        deployments,
        options,
        choices,
        groups,
        roles,
        conflicts: Vec::new(),
        rows: Vec::new(),
    })
}

/// First words of rows that no document has: a system of that name would be cited for them.
const RESERVED: [&str; 3] = ["baseline", "management", "site"];

fn check_id(report: &mut Report<'_>, id: &Text) {
    if let Err(finding) = cells::id(&id.value) {
        report.add(id.at, finding);
    }
}

/// A table of ids, each read by `entry`.
fn named<'i, T>(
    report: &mut Report<'_>,
    file: &mut Fields<'i>,
    key: &'static str,
    mut entry: impl FnMut(&mut Report<'_>, &Text, Spanned<DeValue<'i>>) -> Option<T>,
) -> BTreeMap<String, T> {
    let mut all = BTreeMap::new();
    for (id, value) in file
        .table(report, key)
        .map(Fields::entries)
        .unwrap_or_default()
    {
        check_id(report, &id);
        if let Some(value) = entry(report, &id, value) {
            all.insert(id.value, value);
        }
    }
    all
}

fn titles(
    report: &mut Report<'_>,
    file: &mut Fields<'_>,
    key: &'static str,
) -> BTreeMap<String, String> {
    named(report, file, key, |report, _, value| {
        fields::text(report, value).map(|text| text.value)
    })
}

fn option(
    report: &mut Report<'_>,
    _id: &Text,
    value: Spanned<DeValue<'_>>,
) -> Option<SystemOption> {
    let mut table = fields::table(report, value)?;
    let title = table.text(report, "title");
    let default = table.flag(report, "default").unwrap_or(false);
    let required = conditions::version(report, &mut table, "required");
    table.finish(report);
    Some(SystemOption {
        title: title?.value,
        default,
        required,
    })
}

fn choice(report: &mut Report<'_>, id: &Text, value: Spanned<DeValue<'_>>) -> Option<Choice> {
    let mut table = fields::table(report, value)?;
    let title = table.text(report, "title");
    let values = titles(report, &mut table, "values");
    if values.len() < 2 {
        let message = format!("choice {} has fewer than two values", quoted(&id.value));
        report.add(id.at, Diagnostic::error("no-alternatives", message));
    }
    table.finish(report);
    Some(Choice {
        title: title?.value,
        values,
    })
}

fn roles(report: &mut Report<'_>, file: &mut Fields<'_>) -> BTreeMap<String, Role> {
    let mut includes: Vec<(String, Text)> = Vec::new();
    let roles = named(report, file, "roles", |report, id, value| {
        let mut table = fields::table(report, value)?;
        let name = table.text(report, "name");
        let included = table.texts(report, "includes");
        let beside = table.texts(report, "beside");
        let is_abstract = table.flag(report, "abstract").unwrap_or(false);
        let has_offset = table.flag(report, "offset").unwrap_or(false);
        let built_in = table.optional_integer(report, "built_in_offset");
        let built_in_offset = built_in.and_then(|(number, at)| {
            let fits = u16::try_from(number).ok();
            if fits.is_none() {
                let message = format!("offset {number} is not between 0 and 65535");
                report.add(at, Diagnostic::error("out-of-range", message));
            }
            fits
        });
        table.finish(report);
        includes.extend(
            included
                .iter()
                .chain(&beside)
                .map(|other| (id.value.clone(), other.clone())),
        );
        Some(Role {
            id: id.value.clone(),
            name: name.map(|name| name.value).unwrap_or_default(),
            includes: included.into_iter().map(|other| other.value).collect(),
            beside: beside.into_iter().map(|other| other.value).collect(),
            is_abstract,
            has_offset,
            built_in_offset: built_in_offset.unwrap_or(0),
        })
    });
    if roles.is_empty() {
        let message = "the file has no role";
        let hint = "add `[roles.ID]` with a `name`";
        report.add(file.at, Diagnostic::error("no-role", message).hint(hint));
    }
    let mut places = IncludePlaces::new();
    for (role, other) in includes {
        if !roles.contains_key(&other.value) {
            report.add(
                other.at,
                cells::unknown("role", &other.value, roles.keys().map(String::as_str)),
            );
        }
        places.entry(role).or_insert(other.at);
    }
    report_cycle(report, &roles, &places);
    roles
}

/// Reports one cycle of `includes`, if there is any. Iterative: a file may chain as many roles as it likes.
fn report_cycle(report: &mut Report<'_>, roles: &BTreeMap<String, Role>, places: &IncludePlaces) {
    // Take away roles nobody left includes, again and again: what stays is a cycle, or leads out of one.
    let mut includers: BTreeMap<&str, usize> = roles.keys().map(|id| (id.as_str(), 0)).collect();
    for included in roles.values().flat_map(|role| &role.includes) {
        if let Some(count) = includers.get_mut(included.as_str()) {
            *count += 1;
        }
    }
    let mut free: Vec<&str> = includers
        .iter()
        .filter(|(_, count)| **count == 0)
        .map(|(id, _)| *id)
        .collect();
    let mut left: BTreeSet<&str> = includers.keys().copied().collect();
    while let Some(id) = free.pop() {
        left.remove(id);
        for included in roles.get(id).into_iter().flat_map(|role| &role.includes) {
            if let Some(count) = includers.get_mut(included.as_str()) {
                *count -= 1;
                if *count == 0 {
                    free.push(included);
                }
            }
        }
    }
    // Every role left is included by one that is left: walk towards the includers until a role comes again.
    let includer = |id: &str| {
        let mut all = left.iter().copied();
        all.find(|other| {
            roles
                .get(*other)
                .is_some_and(|role| role.includes.iter().any(|i| i == id))
        })
    };
    let mut walk: Vec<&str> = left.iter().copied().take(1).collect();
    while let Some(next) = walk.last().and_then(|last| includer(last)) {
        let again = walk.iter().position(|id| *id == next);
        walk.push(next);
        if let Some(start) = again {
            let mut cycle = walk.split_off(start);
            cycle.reverse();
            let message = format!("role `{next}` includes itself: {}", cycle.join(" > "));
            let at = places.get(next).copied().unwrap_or(0);
            report.add(at, Diagnostic::error("include-cycle", message));
            return;
        }
    }
}

fn is_day(text: &str) -> bool {
    let mut parts = text.split('-');
    let mut part = |length: usize, most: u16| {
        let digits = parts
            .next()
            .filter(|p| p.len() == length && p.bytes().all(|b| b.is_ascii_digit()));
        digits
            .and_then(|p| p.parse().ok())
            .is_some_and(|n: u16| (1..=most).contains(&n))
    };
    part(4, 9999) && part(2, 12) && part(2, 31) && parts.next().is_none()
}
