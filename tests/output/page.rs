//! `docs/json.md`, read as what it promises: sections of fields, and what real output has of them.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/json.md");

/// What a line of a table promises.
#[derive(Debug, Clone)]
struct Field {
    kind: String,
    is_optional: bool,
    /// Where it stands: a section or shared part, and the path there.
    line: (String, String),
}

/// The fields of one verb, by path.
type Section = BTreeMap<String, Field>;

/// The page, and which of its lines real output has shown.
#[derive(Debug)]
pub(crate) struct Page {
    sections: BTreeMap<String, Section>,
    lines: BTreeSet<(String, String)>,
    shown: BTreeSet<(String, String)>,
    faults: BTreeSet<String>,
}

/// Headings whose name is in backticks are verbs, the others shared parts; both with their tables.
fn tables() -> Result<BTreeMap<String, Vec<(String, String)>>> {
    let text = std::fs::read_to_string(PAGE).context(PAGE)?;
    let mut found: BTreeMap<String, Vec<(String, String)>> = BTreeMap::new();
    let mut name = String::new();
    for line in text.lines() {
        if let Some(heading) = line.strip_prefix('#') {
            name = heading.trim_start_matches('#').trim().to_owned();
        } else if let Some(rest) = line.strip_prefix("| `") {
            let mut cells = rest.split(" | ");
            let (Some(field), Some(kind)) = (cells.next(), cells.next()) else {
                continue;
            };
            let field = field.trim_end_matches('`').to_owned();
            found
                .entry(name.clone())
                .or_default()
                .push((field, kind.trim().to_owned()));
        }
    }
    Ok(found)
}

impl Page {
    /// The sections of the verbs that are wanted, and what they share.
    pub(crate) fn read(is_wanted: impl Fn(&str) -> bool) -> Result<Self> {
        let tables = tables()?;
        let mut page = Self {
            sections: BTreeMap::new(),
            lines: BTreeSet::new(),
            shown: BTreeSet::new(),
            faults: BTreeSet::new(),
        };
        for name in tables.keys() {
            let verb = name
                .strip_prefix('`')
                .map(|verb| verb.trim_end_matches('`'));
            if let Some(verb) = verb.filter(|verb| is_wanted(verb)) {
                let mut section = Section::new();
                expand(&tables, name, "", &mut section)?;
                page.lines
                    .extend(section.values().map(|field| field.line.clone()));
                page.sections.insert(verb.to_owned(), section);
            }
        }
        ensure!(page.sections.len() > 10, "no sections in docs/json.md");
        Ok(page)
    }

    /// Compares a document that `verb` printed.
    pub(crate) fn compare(&mut self, verb: &str, document: &Value) {
        let Some(section) = self.sections.get(verb).cloned() else {
            self.faults.insert(format!("`{verb}` has no section"));
            return;
        };
        if document["schema"] != 1 && verb != "export" {
            self.faults.insert(format!("{verb}: no `\"schema\": 1`"));
        }
        self.walk(verb, &section, "", document);
    }

    fn walk(&mut self, verb: &str, section: &Section, path: &str, value: &Value) {
        if let Some(field) = section.get(path) {
            if value.is_null() && field.is_optional {
                return;
            }
            self.shown.insert(field.line.clone());
            if field.kind == "any" {
                return;
            }
            if !fits(&field.kind, value) {
                self.faults
                    .insert(format!("{verb}: `{path}` is {value}, not {}", field.kind));
            }
        } else if !path.is_empty() && !section.keys().any(|known| begins(known, path)) {
            let is_inner = match value {
                Value::Array(all) => !all.is_empty(),
                Value::Object(fields) => !fields.is_empty(),
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
            };
            // What is in it is told instead.
            if !is_inner {
                self.faults.insert(format!(
                    "{verb}: `{path}` is not on the page: {}",
                    brief(value)
                ));
            }
        }
        match value {
            Value::Array(all) => {
                for one in all {
                    self.walk(verb, section, &format!("{path}[]"), one);
                }
            }
            Value::Object(fields) => {
                let inner = |key: &str| {
                    if path.is_empty() {
                        key.to_owned()
                    } else {
                        format!("{path}.{key}")
                    }
                };
                let is_map = section.keys().any(|known| begins(known, &inner("*")));
                for (key, value) in fields {
                    let key = if is_map { "*" } else { key };
                    self.walk(verb, section, &inner(key), value);
                }
                for (known, field) in section {
                    let Some(rest) = known.strip_prefix(path) else {
                        continue;
                    };
                    let name = if path.is_empty() {
                        rest
                    } else {
                        rest.strip_prefix('.').unwrap_or_default()
                    };
                    let name = name.trim_end_matches("[]");
                    let is_direct = !name.is_empty() && !name.contains(['.', '[', '*']);
                    if is_direct && !field.is_optional && !fields.contains_key(name) {
                        self.faults.insert(format!(
                            "{verb}: `{known}` is missing, which the page says is always there"
                        ));
                    }
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    /// Fails with all that does not agree, but for lines of the page that are known not to be shown.
    pub(crate) fn agree(&self, not_shown: &[(&str, &str, &str)]) -> Result<()> {
        let mut faults: Vec<String> = self.faults.iter().cloned().collect();
        for (name, field) in self.lines.difference(&self.shown) {
            let is_known = not_shown
                .iter()
                .any(|(part, line, _)| part == name && line == field);
            if !is_known {
                faults.push(format!("{name}: no output shows `{field}`"));
            }
        }
        ensure!(
            faults.is_empty(),
            "docs/json.md and the output differ:\n{}",
            faults.join("\n")
        );
        Ok(())
    }
}

/// Whether `known` is `path` or something within it.
fn begins(known: &str, path: &str) -> bool {
    known
        .strip_prefix(path)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

/// The fields of a table, with those of the shared parts that its kinds link to.
fn expand(
    tables: &BTreeMap<String, Vec<(String, String)>>,
    name: &str,
    at: &str,
    into: &mut Section,
) -> Result<()> {
    let fields = tables
        .get(name)
        .with_context(|| format!("docs/json.md has no part `{name}`"))?;
    for (field, kind) in fields {
        let path = match (at, field.as_str()) {
            ("", field) => field.to_owned(),
            (at, "*") => format!("{at}.*"),
            (at, field) => format!("{at}.{field}"),
        };
        let (kind, is_optional) = match kind.strip_suffix('?') {
            Some(kind) => (kind, true),
            None => (kind.as_str(), false),
        };
        let part = kind
            .strip_prefix('[')
            .and_then(|rest| rest.split(']').next());
        into.insert(
            path.clone(),
            Field {
                kind: if part.is_some() { "object" } else { kind }.to_owned(),
                is_optional,
                line: (name.to_owned(), field.clone()),
            },
        );
        if let Some(part) = part {
            expand(tables, part, &path, into)?;
        }
    }
    Ok(())
}

fn fits(kind: &str, value: &Value) -> bool {
    match kind {
        "string" => value.is_string(),
        "number" => value.is_number(),
        "true or false" => value.is_boolean(),
        "object" => value.is_object(),
        "any" => true,
        // RFC 3339, in UTC.
        "time" => value.as_str().is_some_and(|text| {
            text.len() >= 20 && text.as_bytes().get(10) == Some(&b'T') && text.ends_with('Z')
        }),
        _ => false,
    }
}

fn brief(value: &Value) -> String {
    value.to_string().chars().take(60).collect()
}
