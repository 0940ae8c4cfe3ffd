//! `catalog verify`: are the files good, and how many rows has each section of their documents?

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::command::table::hanging;
use crate::failure;
use crate::stderr::stderr;
use crate::stdout::{print, print_field};
use portguard_policy::catalog::{
    Catalog, LoadError, System, catalog_files, embedded_files, load_str, read_file,
};
use portguard_policy::diagnostic::{Diagnostic, Level, Rejected};
use portguard_policy::error::Exit;

/// One file: counts where it is good, diagnostics where not.
#[derive(Serialize)]
struct FileJson {
    file: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    system: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    document: Option<String>,
    #[serde(flatten)]
    counts: Option<Counts>,
    sections: Vec<SectionJson>,
    diagnostics: Vec<Diagnostic>,
}

#[derive(Serialize)]
struct SectionJson {
    section: String,
    #[serde(flatten)]
    counts: Counts,
}

/// A flow is one entry of the file and several rows, one for each end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
struct Counts {
    entries: usize,
    rows: usize,
}

/// Verifies the paths and the directories; the embedded files where there is neither.
pub(super) fn run(directories: &[PathBuf], paths: &[PathBuf], json: bool) -> anyhow::Result<Exit> {
    let mut files = Vec::new();
    if directories.is_empty() && paths.is_empty() {
        files.extend(
            embedded_files()
                .iter()
                .map(|(name, text)| file(name, load_str(name, text))),
        );
    }
    for path in directories.iter().chain(paths) {
        if path.is_dir() {
            for path in catalog_files(path)? {
                files.push(verify(&path)?);
            }
        } else {
            files.push(verify(path)?);
        }
    }
    let (findings, notes): (Vec<_>, Vec<_>) = files
        .iter()
        .flat_map(|file| file.diagnostics.clone())
        .partition(|one| one.level == Level::Error);
    if json {
        print_field("files", &files)?;
        return Ok(if findings.is_empty() {
            Exit::Ok
        } else {
            Exit::Usage
        });
    }
    print(|out| {
        files
            .iter()
            .filter(|file| file.counts.is_some())
            .try_for_each(|file| write_text(out, file))
    })?;
    failure::diagnostics(&mut stderr(), &notes.iter().collect::<Vec<_>>())?;
    if findings.is_empty() {
        Ok(Exit::Ok)
    } else {
        Err(Rejected(findings).into())
    }
}

fn verify(path: &Path) -> anyhow::Result<FileJson> {
    let name = path.display().to_string();
    match read_file(path) {
        Ok(system) => {
            let note = already_there(&name, &system.id)?;
            let mut file = file(&name, Ok(system));
            file.diagnostics.extend(note);
            Ok(file)
        }
        Err(LoadError::Rejected(rejected)) => Ok(file(&name, Err(rejected))),
        Err(LoadError::Unreadable(fault)) => Err(fault.into()),
    }
}

/// A file that is good by itself, and cannot be added to what is built in.
fn already_there(file: &str, system: &str) -> anyhow::Result<Option<Diagnostic>> {
    let is_built_in = Catalog::embedded()?.systems.contains_key(system);
    Ok(is_built_in.then(|| {
        let message =
            format!("the system `{system}` is built in, and `--catalog` adds no second one");
        let hint = "give it a system id of its own, unless this is the file that is built in";
        Diagnostic::new(Level::Note, "duplicate-system", message)
            .at(file)
            .hint(hint)
    }))
}

fn file(name: &str, read: Result<System, Rejected>) -> FileJson {
    let file = name.to_owned();
    match read {
        Ok(system) => FileJson {
            file,
            counts: Some(count(system.rows.iter())),
            sections: sections(&system),
            system: Some(system.id),
            document: Some(system.document),
            diagnostics: Vec::new(),
        },
        Err(Rejected(diagnostics)) => FileJson {
            file,
            system: None,
            document: None,
            counts: None,
            sections: Vec::new(),
            diagnostics,
        },
    }
}

fn count<'a>(rows: impl Iterator<Item = &'a portguard_policy::catalog::Row>) -> Counts {
    let mut places = BTreeSet::new();
    let rows = rows.map(|row| places.insert(row.location.as_str())).count();
    Counts {
        entries: places.len(),
        rows,
    }
}

/// Sections in the order of the file.
fn sections(system: &System) -> Vec<SectionJson> {
    let mut seen = BTreeSet::new();
    let names = system.rows.iter().map(|row| row.citation.section.as_str());
    names
        .filter(|name| seen.insert(*name))
        .map(|name| SectionJson {
            section: name.to_owned(),
            counts: count(
                system
                    .rows
                    .iter()
                    .filter(|row| row.citation.section == name),
            ),
        })
        .collect()
}

fn write_text(out: &mut dyn Write, file: &FileJson) -> io::Result<()> {
    let Counts { entries, rows } = file.counts.unwrap_or_default();
    let document = file.document.as_deref().unwrap_or_default();
    hanging(out, &format!("{}: ", file.file), document)?;
    writeln!(out, "{entries:>6} entries, {rows:>3} rows; by section:")?;
    writeln!(out, "entries  rows  section")?;
    for SectionJson {
        section,
        counts: Counts { entries, rows },
    } in &file.sections
    {
        hanging(out, &format!("{entries:>7}  {rows:>4}  "), section)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flows_are_one_entry_and_several_rows() {
        let (name, text) = embedded_files()[0];
        let file = file(name, load_str(name, text));
        assert_eq!(
            file.counts,
            Some(Counts {
                entries: 45,
                rows: 56
            })
        );
        let mut out = Vec::new();
        write_text(&mut out, &file).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.starts_with("ibm-api-connect.toml: IBM API Connect: Firewall requirements on Kubernetes\n    45 entries,  56 rows; by section:\n"), "{text}");
        assert!(text.contains("\n      8     8  Firewall port requirements on Kubernetes > Table 3 > Gateway Server\n"), "{text}");
    }

    #[test]
    fn a_bad_file_has_diagnostics_and_no_counts() {
        let bad = serde_json::to_value(file("f", load_str("f", "schema = 1"))).unwrap();
        assert_eq!(bad["diagnostics"][0]["where"], "f:1:1");
        assert!(bad.get("rows").is_none() && bad.get("system").is_none());
    }
}
