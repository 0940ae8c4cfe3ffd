//! From catalog files to the catalog: the embedded ones, and those of directories that a user names.
//!
//! Every problem of a file is reported with its place, and reading goes on as far as it makes sense; a file with any
//! problem is refused as a whole, so that no row is ever lost in silence.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use toml::de::DeTable;

use super::fields::Fields;
use super::report::{Report, quoted};
use super::{Catalog, System, conditions, head, rows};
use crate::diagnostic::{Diagnostic, Rejected};
use crate::error::Fault;

/// A larger file is no catalog.
pub const MAX_FILE_BYTES: usize = 4 << 20;

/// Syntax errors shown: later ones often follow from the first.
const MAX_SYNTAX_ERRORS: usize = 5;

/// The vendors' matrices that come with the program.
const EMBEDDED: &[(&str, &str)] = &[
    (
        "ibm-api-connect.toml",
        include_str!("../../../catalog/ibm-api-connect.toml"),
    ),
    (
        "interlink-asi.toml",
        include_str!("../../../catalog/interlink-asi.toml"),
    ),
    (
        "nexthink.toml",
        include_str!("../../../catalog/nexthink.toml"),
    ),
    (
        "thoughtspot.toml",
        include_str!("../../../catalog/thoughtspot.toml"),
    ),
    ("wso2.toml", include_str!("../../../catalog/wso2.toml")),
];

/// What hosts need beside a vendor's product: no documents, and in no list of them; a host's role brings one in.
const PROFILES: &[(&str, &str)] = &[(
    "kubernetes-node",
    include_str!("../../../catalog/profiles/kubernetes-node.toml"),
)];

/// Name and text of every catalog file that comes with the program.
pub fn embedded_files() -> &'static [(&'static str, &'static str)] {
    EMBEDDED
}

impl Catalog {
    /// The matrices that come with the program.
    pub fn embedded() -> Result<Self, Rejected> {
        let mut catalog = Self::default();
        let mut found = Vec::new();
        for (name, text) in EMBEDDED {
            match load_str(name, text) {
                Ok(system) => found.extend(catalog.add(name, system).err()),
                Err(Rejected(diagnostics)) => found.extend(diagnostics),
            }
        }
        if found.is_empty() {
            Ok(catalog)
        } else {
            Err(Rejected(found))
        }
    }

    /// Adds the profiles that any of these roles (`SYSTEM/ROLE`) is of.
    pub fn with_profiles<'r>(
        mut self,
        roles: impl Iterator<Item = &'r str>,
    ) -> Result<Self, Rejected> {
        let wanted: BTreeSet<&str> = roles.filter_map(|role| role.split('/').next()).collect();
        for (id, text) in PROFILES.iter().filter(|(id, _)| wanted.contains(id)) {
            let name = format!("{id}.toml");
            let system = load_str(&name, text)?;
            self.add(&name, system)
                .map_err(|found| Rejected(vec![found]))?;
        }
        Ok(self)
    }

    /// Adds every `*.toml` file of a directory, with the same checks and the same standing as the embedded ones.
    ///
    /// # Errors
    /// [`LoadError::Rejected`] with the problems of all files, or the directory or a file cannot be read.
    pub fn with_directory(mut self, dir: &Path) -> Result<Self, LoadError> {
        let mut found = Vec::new();
        for path in catalog_files(dir)? {
            let name = path.display().to_string();
            match read_file(&path) {
                Ok(system) => found.extend(self.add(&name, system).err()),
                Err(LoadError::Rejected(Rejected(diagnostics))) => found.extend(diagnostics),
                Err(unreadable) => return Err(unreadable),
            }
        }
        if found.is_empty() {
            Ok(self)
        } else {
            Err(Rejected(found).into())
        }
    }

    /// Adds a system that is not there yet.
    fn add(&mut self, file: &str, system: System) -> Result<(), Diagnostic> {
        if self.systems.contains_key(&system.id) {
            let message = format!("the system {} is known already", quoted(&system.id));
            let hint =
                "a file adds a system, it cannot replace one: give it a system id of its own";
            return Err(Diagnostic::error("duplicate-system", message)
                .at(file)
                .hint(hint));
        }
        self.systems.insert(system.id.clone(), system);
        Ok(())
    }
}

/// Why a catalog could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// What stands in it is no good.
    #[error(transparent)]
    Rejected(#[from] Rejected),
    /// It cannot be read.
    #[error(transparent)]
    Unreadable(#[from] Fault),
}

/// The catalog files of a directory, in order of their names.
///
/// # Errors
/// The directory cannot be read.
pub fn catalog_files(dir: &Path) -> Result<Vec<PathBuf>, Fault> {
    let unreadable = |error| unreadable("directory", dir, &error);
    let mut paths = Vec::new();
    for entry in fs::read_dir(dir).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "toml")
        {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

/// A path that is not there is a mistake of the command line; other refusals are the system's.
fn unreadable(what: &str, path: &Path, error: &io::Error) -> Fault {
    let message = format!(
        "cannot read the catalog {what} `{}`: {error}",
        path.display()
    );
    if error.kind() == io::ErrorKind::NotFound {
        Fault::usage(message)
    } else {
        Fault::system(message)
    }
}

/// Reads and checks one file.
///
/// # Errors
/// [`LoadError`]
pub fn read_file(path: &Path) -> Result<System, LoadError> {
    // A pipe would be waited for.
    let kind = fs::metadata(path).map_err(|error| unreadable("file", path, &error))?;
    if !kind.is_file() {
        let message = format!("the catalog `{}` is not a regular file", path.display());
        return Err(Fault::usage(message).into());
    }
    let mut bytes = Vec::new();
    // One byte more than allowed tells a file that is too large, whatever its size is said to be.
    File::open(path)
        .and_then(|file| file.take(MAX_FILE_BYTES as u64 + 1).read_to_end(&mut bytes))
        .map_err(|error| unreadable("file", path, &error))?;
    Ok(load_bytes(&path.display().to_string(), &bytes)?)
}

/// As [`load_str`], for bytes that may be anything.
pub fn load_bytes(file_name: &str, bytes: &[u8]) -> Result<System, Rejected> {
    check_size(file_name, bytes.len())?;
    match str::from_utf8(bytes) {
        Ok(text) => load_str(file_name, text),
        Err(error) => {
            let valid = bytes.get(..error.valid_up_to()).unwrap_or_default();
            let mut report_text = String::from_utf8_lossy(valid).into_owned();
            let at = report_text.len();
            report_text.push('\u{fffd}');
            let mut report = Report::new(file_name, &report_text);
            let hint = "save the file in UTF-8";
            report.add(
                at,
                Diagnostic::error("invalid-utf8", "the file is not UTF-8 text").hint(hint),
            );
            Err(Rejected(report.finish()))
        }
    }
}

/// Reads and checks the text of one catalog file. Pure; `file_name` is for the diagnostics and [`super::Row::location`].
pub fn load_str(file_name: &str, text: &str) -> Result<System, Rejected> {
    check_size(file_name, text.len())?;
    let mut report = Report::new(file_name, text);
    let (table, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        for error in errors.iter().take(MAX_SYNTAX_ERRORS) {
            let at = error.span().map_or(text.len(), |span| span.start);
            let message = error.message().trim_end().replace('\n', ", ");
            let message = message.trim_end_matches(", expected nothing").to_owned();
            report.add(at, Diagnostic::error("syntax", message));
        }
        return Err(Rejected(report.finish()));
    }
    let mut file = Fields::new(table);
    file.at = 0;
    let Some(mut system) = head::read(&mut report, &mut file) else {
        return Err(Rejected(report.finish()));
    };
    let usual = rows::Usual {
        customisable: file.flag(&mut report, "customisable").unwrap_or(false),
        direction_printed: file.flag(&mut report, "direction_printed").unwrap_or(true),
    };
    system.conflicts = conditions::conflicts(&mut report, &mut file, &system);
    system.rows = rows::read(&mut report, &mut file, &system, usual);
    file.finish(&mut report);
    let found = report.finish();
    if found.is_empty() {
        Ok(system)
    } else {
        Err(Rejected(found))
    }
}

fn check_size(file_name: &str, bytes: usize) -> Result<(), Rejected> {
    if bytes <= MAX_FILE_BYTES {
        return Ok(());
    }
    let message = format!("the file is larger than {} MiB", MAX_FILE_BYTES >> 20);
    Err(Rejected(vec![
        Diagnostic::error("file-too-large", message).at(file_name),
    ]))
}
