//! Which catalog a verb reads: one way for all of them.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use crate::stderr::stderr;
use portguard_kernel::pins::meta::Meta;
use portguard_policy::catalog::{Catalog, LoadError};
use portguard_policy::human::plain;

/// The embedded matrices, the profiles that any of these roles (`SYSTEM/ROLE`) is of, and the files of these directories.
///
/// # Errors
/// As [`Catalog::with_directory`].
pub(super) fn read<'r>(
    roles: impl Iterator<Item = &'r str>,
    directories: impl IntoIterator<Item = impl AsRef<Path>>,
) -> anyhow::Result<Catalog> {
    let catalog = Catalog::embedded()?.with_profiles(roles)?;
    directories
        .into_iter()
        .try_fold(catalog, |catalog, directory| {
            catalog.with_directory(directory.as_ref()).map_err(unloaded)
        })
}

/// What is wrong, as every verb reports it.
pub(super) fn unloaded(error: LoadError) -> anyhow::Error {
    match error {
        LoadError::Rejected(rejected) => rejected.into(),
        LoadError::Unreadable(fault) => fault.into(),
    }
}

/// The catalog that the policies in force were compiled with, as it is now. A directory that cannot be read any more is
/// said, and its rows are not there: what is in force does not depend on it.
///
/// # Errors
/// If the embedded catalog is damaged.
pub(super) fn in_force<'m>(metas: impl Iterator<Item = &'m Meta>) -> anyhow::Result<Catalog> {
    let (catalog, unread) = found(metas)?;
    for warning in unread {
        let _ = writeln!(stderr(), "warning: {warning}");
    }
    Ok(catalog)
}

/// As [`in_force`]; what cannot be read is handed back.
///
/// # Errors
/// If the embedded catalog is damaged.
pub(super) fn found<'m>(
    metas: impl Iterator<Item = &'m Meta>,
) -> anyhow::Result<(Catalog, Vec<String>)> {
    let mut roles: BTreeSet<&str> = BTreeSet::new();
    let mut directories: BTreeSet<&PathBuf> = BTreeSet::new();
    for meta in metas {
        roles.extend(meta.policy.roles.iter().map(String::as_str));
        directories.extend(&meta.sources.catalogs);
    }
    let mut catalog = Catalog::embedded()?.with_profiles(roles.into_iter())?;
    let mut unread = Vec::new();
    for directory in directories {
        match catalog.clone().with_directory(directory) {
            Ok(more) => catalog = more,
            Err(error) => unread.push(format!(
                "the catalog in {} was part of the policy in force and cannot be read now: {}",
                plain(&directory.display().to_string()),
                plain(&format!("{error:#}"))
            )),
        }
    }
    Ok((catalog, unread))
}
