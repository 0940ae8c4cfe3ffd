//! The same release from a clone in another folder, compared byte for byte.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail, ensure};

use crate::links;
use crate::shell::{capture, say, step};
use crate::workspace::{cargo, root, target};

/// A clone, in another folder and with a build folder of its own.
pub(super) struct Clone {
    folder: PathBuf,
}

/// Clones what is committed, which must be all that there is.
pub(super) fn clone() -> Result<Clone> {
    let mut status = Command::new("git");
    status
        .current_dir(root())
        .args(["status", "--porcelain", "--untracked-files=no"]);
    let changes = capture(&mut status)?;
    ensure!(
        changes.is_empty(),
        "a clone has only what is committed, and these files are changed:\n{changes}"
    );
    let folder = std::path::absolute(target())?.join("reproduce/somewhere/else");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder)?;
    let mut git = Command::new("git");
    git.args(["clone", "--quiet", "--local"])
        .arg(root())
        .arg(folder.join("clone"));
    capture(&mut git)?;
    Ok(Clone { folder })
}

/// Builds it again in the clone, with nothing of the first build, and compares.
pub(super) fn compare(first: &Path, Clone { folder }: Clone, only_here: bool) -> Result<()> {
    let second = folder.join("release");
    let mut command = cargo();
    command
        .current_dir(folder.join("clone"))
        .env("CARGO_TARGET_DIR", folder.join("build"))
        .args(["xtask", "release", "--out"])
        .arg(&second)
        .args(only_here.then_some("--only-here"));
    step("building the release again, elsewhere", &mut command)?;
    let (first, second) = (files(first)?, files(&second)?);
    let differing: Vec<String> = first
        .keys()
        .chain(second.keys())
        .filter(|name| first.get(*name) != second.get(*name))
        .map(|name| name.display().to_string())
        .collect();
    if !differing.is_empty() {
        bail!("two builds differ in: {}", differing.join(", "));
    }
    say(format_args!(
        "reproduced: {} files, byte for byte",
        first.len()
    ));
    fs::remove_dir_all(folder)?;
    Ok(())
}

fn files(folder: &Path) -> Result<BTreeMap<PathBuf, Vec<u8>>> {
    links::all(folder)?
        .into_iter()
        .filter(|path| path.is_file())
        .map(|path| Ok((path.strip_prefix(folder)?.to_owned(), fs::read(&path)?)))
        .collect()
}
