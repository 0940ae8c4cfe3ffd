//! `catalog show`: the rows of a system or of a role, for scripts and for reading.

use std::collections::BTreeSet;
use std::io::{self, Write};

use super::json;
use crate::command::table::Column::{Below, Prose, Spare, Whole};
use crate::command::table::{Grid, hanging};
use crate::stdout::{print, print_json};
use portguard_policy::catalog::{Catalog, Row, System};
use portguard_policy::diagnostic::Rejected;
use portguard_policy::error::Exit;

pub(super) fn run(
    catalog: &Catalog,
    name: &str,
    verbose: bool,
    as_json: bool,
) -> anyhow::Result<Exit> {
    let (system, rows) = select(catalog, name)?;
    if as_json {
        print_json(&json::document(system, &rows))?;
    } else {
        // One row is asked for to be read whole.
        print(|out| write_text(out, system, &rows, verbose || rows.len() == 1))?;
    }
    Ok(Exit::Ok)
}

/// The system that is named, and all its rows, those of the named role, or the named row.
fn select<'c>(catalog: &'c Catalog, name: &str) -> Result<(&'c System, Vec<&'c Row>), Rejected> {
    let rejected = |finding| Rejected(vec![finding]);
    let Some((system, role)) = name.split_once('/') else {
        let system = catalog.system(name).map_err(rejected)?;
        return Ok((system, system.rows.iter().collect()));
    };
    if let Some(found) = row(catalog, name) {
        return Ok(found);
    }
    // What is common to several roles can be looked at, though no host has it by itself.
    let known = catalog
        .systems
        .get(system)
        .filter(|system| system.roles.contains_key(role));
    let system = match known {
        Some(system) => system,
        None => catalog.role(name).map_err(rejected)?.0,
    };
    Ok((system, system.rows_of(role).collect()))
}

/// A row by its id.
fn row<'c>(catalog: &'c Catalog, id: &str) -> Option<(&'c System, Vec<&'c Row>)> {
    let (name, rest) = id.split_once('/')?;
    let system = catalog.systems.get(name)?;
    // A role of the same name is what was meant before.
    if system.roles.contains_key(rest) {
        return None;
    }
    let rows: Vec<&Row> = system.rows.iter().filter(|row| row.id == id).collect();
    (!rows.is_empty()).then_some((system, rows))
}

fn write_text(
    out: &mut dyn Write,
    system: &System,
    rows: &[&Row],
    verbose: bool,
) -> io::Result<()> {
    writeln!(out, "{} ({})", system.name, system.id)?;
    hanging(out, "  document     ", &system.document)?;
    let source = format!("{}, read {}", system.source, system.read);
    hanging(out, "  source       ", &source)?;
    for (id, title) in &system.deployments {
        hanging(out, "  deployment   ", &format!("{id}: {title}"))?;
    }
    for (id, option) in &system.options {
        let default = if option.default {
            " (on by default)"
        } else {
            ""
        };
        let text = format!("{id}: {}{default}", option.title);
        hanging(out, "  option       ", &text)?;
    }
    for (id, choice) in &system.choices {
        let values: Vec<_> = choice.values.keys().map(String::as_str).collect();
        let text = format!("{id}: {}: {}", choice.title, values.join(" or "));
        hanging(out, "  choice       ", &text)?;
    }
    for (id, title) in &system.groups {
        hanging(out, "  group        ", &format!("{id}: {title}"))?;
    }
    for (role, sections) in by_role_and_section(rows) {
        writeln!(out)?;
        match system.roles.get(role) {
            Some(known) => hanging(out, &format!("{}/{role}: ", system.id), &known.name)?,
            None => writeln!(out, "{}/{role}", system.id)?,
        }
        for (section, rows) in sections {
            writeln!(out)?;
            hanging(out, "  ", section)?;
            let mut columns = vec![
                ("", Whole),
                ("port", Prose),
                ("peers", Prose),
                ("row", Whole),
                ("purpose", if verbose { Below } else { Spare }),
                ("when", if verbose { Below } else { Spare }),
            ];
            if verbose {
                columns.extend([("document", Below), ("notes", Below)]);
            }
            let mut table = Grid::new(&columns);
            for row in rows {
                table.row(cells(row));
            }
            write!(out, "{table}")?;
        }
    }
    Ok(())
}

type Sections<'a> = Vec<(&'a str, Vec<&'a Row>)>;

/// Roles and sections in the order in which the document first names them.
fn by_role_and_section<'a>(rows: &[&'a Row]) -> Vec<(&'a str, Sections<'a>)> {
    let groups = |rows: &[&'a Row], key: fn(&'a Row) -> &'a str| {
        let mut seen = BTreeSet::new();
        let names: Vec<&str> = rows
            .iter()
            .map(|row| key(row))
            .filter(|name| seen.insert(*name))
            .collect();
        let of = |name: &str| {
            rows.iter()
                .copied()
                .filter(|row| key(row) == name)
                .collect::<Vec<_>>()
        };
        names
            .into_iter()
            .map(|name| (name, of(name)))
            .collect::<Sections<'a>>()
    };
    groups(rows, |row| &row.role)
        .into_iter()
        .map(|(role, rows)| (role, groups(&rows, |row| &row.citation.section)))
        .collect()
}

/// What a row says, a cell for each column.
fn cells(row: &Row) -> [String; 8] {
    let ports = if row.ports.is_empty() {
        "no number".to_owned()
    } else {
        joined(&row.ports, if row.pick.is_some() { " or " } else { ", " })
    };
    let offset = if row.offset { " + offset" } else { "" };
    let transports = joined(&row.transports, ", ");
    let application = row
        .application
        .as_ref()
        .map(|name| format!(" ({name})"))
        .unwrap_or_default();
    let mut notes = Vec::new();
    if !row.transport_printed {
        notes.push("transport inferred".to_owned());
    }
    if row.customisable {
        notes.push("the number is a default".to_owned());
    }
    notes.extend(
        row.inert
            .map(|inert| format!("opens nothing: {}", inert.as_str())),
    );
    notes.extend(row.notes.iter().map(|note| format!("note: {note}")));
    [
        row.direction.to_string(),
        format!("{transports}/{ports}{offset}"),
        joined(&row.peers, ", "),
        row.id.clone(),
        format!("{}{application}", row.purpose),
        row.condition
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default(),
        row.citation.row.clone(),
        notes.join("; "),
    ]
}

fn joined<T: ToString>(all: &[T], between: &str) -> String {
    all.iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(between)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_has_the_rows_that_it_includes() {
        let catalog = Catalog::embedded().unwrap();
        let (_, rows) = select(&catalog, "ibm-api-connect/analytics").unwrap();
        let has = |id| rows.iter().any(|row| row.id == id);
        assert!(has("ibm-api-connect/common-44135") && has("ibm-api-connect/analytics-161"));
        assert!(!has("ibm-api-connect/management-161") && !has("ibm-api-connect/common-22"));
        assert!(select(&catalog, "ibm-api-connect/subsystem").is_ok());
        assert!(
            select(&catalog, "ibm-api-connect/gatway")
                .unwrap_err()
                .to_string()
                .contains("`gateway`")
        );
        assert!(
            select(&catalog, "thoughtspo")
                .unwrap_err()
                .to_string()
                .contains("`thoughtspot`")
        );
    }

    #[test]
    fn text_groups_by_role_and_section_and_shows_conditions_and_notes() {
        let catalog = Catalog::embedded().unwrap();
        let (system, rows) = select(&catalog, "thoughtspot").unwrap();
        let mut out = Vec::new();
        write_text(&mut out, system, &rows, true).unwrap();
        let text = String::from_utf8(out).unwrap();
        for part in [
            "thoughtspot/node: ThoughtSpot node",
            "\n  Callhome\n",
            "version <4.5.1",
            "note: ",
            "25 or 587",
            "opens nothing: out-of-band",
            "dynamic",
        ] {
            assert!(text.contains(part), "{part}\n{text}");
        }
    }
}
