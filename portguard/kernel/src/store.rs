//! The last policy that was in force for good, on disk: what the next boot loads, without site file, resolver or network.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Context as _, Error, Kind};
use crate::generation::{Live, aside};
use crate::pins::bpffs::Layout;
use crate::pins::meta::{Sources, XdpModeName};
use portguard_policy::policy::Policy;

/// Whether this network namespace is that of the first process, the container's: it is there again when that starts anew.
fn is_of_process_one() -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let inode = |process: &str| {
        let namespace = fs::metadata(format!("/proc/{process}/ns/net")).ok()?;
        Some(namespace.ino())
    };
    inode("thread-self").is_some_and(|own| inode("1") == Some(own))
}

/// Where systemd says that state goes, or else where it goes.
const VARIABLE: &str = "STATE_DIRECTORY";
const DIRECTORY: &str = "/var/lib/portguard";
/// How the files of policies end.
const STORED: &str = ".policy.json";
/// Version of the file's format.
const SCHEMA: u32 = 1;

/// What a file holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stored {
    schema: u32,
    /// Interface.
    pub interface: String,
    /// Digest of the policy.
    pub digest: String,
    /// XDP mode.
    pub xdp_mode: XdpModeName,
    /// What it was compiled from.
    #[serde(flatten)]
    pub sources: Sources,
    /// The policy.
    pub policy: Policy,
}

/// The directory; `None` where nothing is stored: in a network namespace of its own there is no next boot.
pub fn directory(layout: &Layout) -> Option<PathBuf> {
    if let Ok(said) = std::env::var(VARIABLE) {
        // systemd separates several by colons.
        return said.split(':').next().map(PathBuf::from);
    }
    let has_boot = layout.namespace().is_none() || is_of_process_one();
    has_boot.then(|| PathBuf::from(DIRECTORY))
}

/// The mark that an interface stays unguarded, whatever is stored, until somebody loads a policy.
fn off(layout: &Layout) -> Option<PathBuf> {
    let (interface, _) = layout.interface();
    directory(layout).map(|directory| directory.join(format!("{interface}.off")))
}

/// Keeps an interface unguarded over boots. Says whether there is anything to keep it from.
///
/// # Errors
/// If the disk refuses.
pub fn switch_off(layout: &Layout) -> crate::Result<bool> {
    let Some(path) = off(layout) else {
        return Ok(false);
    };
    let directory = path.parent().unwrap_or(Path::new("/"));
    write(directory, &path, b"").with_context(|| format!("cannot write `{}`", path.display()))?;
    Ok(true)
}

/// Whether an interface is to stay unguarded.
pub fn is_off(layout: &Layout) -> bool {
    off(layout).is_some_and(|path| path.exists())
}

/// Interfaces that are to stay unguarded.
pub fn all_off() -> Vec<String> {
    all(".off")
}

/// Interfaces of which a policy is stored.
pub fn all_stored() -> Vec<String> {
    all(STORED)
}

/// Interfaces that have a file of a kind.
fn all(kind: &str) -> Vec<String> {
    let Some(directory) = directory(&Layout::of("")) else {
        return Vec::new();
    };
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            name.strip_suffix(kind).map(str::to_owned)
        })
        .collect();
    names.sort();
    names
}

/// Whether a policy is stored that the next boot would load.
pub fn is_stored(layout: &Layout) -> bool {
    let (interface, _) = layout.interface();
    directory(layout).is_some_and(|directory| file(&directory, &interface).exists())
}

fn file(directory: &Path, interface: &str) -> PathBuf {
    directory.join(format!("{interface}{STORED}"))
}

/// Stores what is in force, if it is there for good. Says whether it did.
///
/// # Errors
/// If the disk refuses; what was stored before is still there then.
pub fn keep(layout: &Layout, live: &Live) -> crate::Result<bool> {
    let (interface, _) = layout.interface();
    let Some(directory) =
        directory(layout).filter(|_| live.is_confirmed && !aside::is_aside(layout))
    else {
        return Ok(false);
    };
    let stored = Stored {
        schema: SCHEMA,
        interface: interface.clone(),
        digest: live.meta.policy.digest(),
        xdp_mode: live.meta.xdp_mode,
        sources: live.meta.sources.clone(),
        policy: live.meta.policy.clone(),
    };
    let path = file(&directory, &interface);
    write(&directory, &path, &serde_json::to_vec(&stored)?)
        .with_context(|| format!("cannot store the policy in `{}`", path.display()))?;
    if let Some(off) = off(layout) {
        let _ = fs::remove_file(off);
    }
    Ok(true)
}

/// The whole file or the old one, also if the power fails.
pub fn write(directory: &Path, path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)?;
    let next = path.with_extension("next");
    let result = (|| {
        // Policies name peers and ports: nobody else's to read.
        let _ = fs::remove_file(&next);
        let mut options = OpenOptions::new();
        let mut file = options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&next)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&next, path)?;
        File::open(directory)?.sync_all()
    })();
    if result.is_err() {
        let _ = fs::remove_file(&next);
    }
    result
}

/// Reads what was stored for an interface.
///
/// # Errors
/// [`Error`] if there is nothing, or it is damaged.
pub fn read(layout: &Layout) -> crate::Result<Stored> {
    let (interface, _) = layout.interface();
    let directory = directory(layout).unwrap_or_else(|| PathBuf::from(DIRECTORY));
    let path = file(&directory, &interface);
    let bytes = fs::read(&path).map_err(|error| {
        let what = format!(
            "no policy is stored for `{interface}`: `{}`",
            path.display()
        );
        Error::new(Kind::NotThere, what)
            .hint("`portguard load` without `--last-good` stores one")
            .caused_by(error)
    })?;
    let damaged = |why: String| {
        Error::new(
            Kind::Damaged,
            format!("`{}` is damaged: {why}", path.display()),
        )
        .hint("`portguard load` without `--last-good` stores it anew")
    };
    let stored: Stored =
        serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
    if stored.schema != SCHEMA {
        return Err(damaged(format!(
            "format {}, expected {SCHEMA}",
            stored.schema
        )));
    }
    if stored.policy.digest() != stored.digest {
        return Err(damaged("its digest is not that of its policy".to_owned()));
    }
    Ok(stored)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_that_fails_leaves_the_old_file() {
        let directory =
            std::env::temp_dir().join(format!("portguard-store-{}", std::process::id()));
        let path = file(&directory, "eth0");
        write(&directory, &path, b"old").unwrap();
        // The place of the new file is taken by a directory: creating it fails, as on a full disk.
        fs::create_dir(path.with_extension("next")).unwrap();
        assert!(write(&directory, &path, b"new").is_err());
        assert_eq!(fs::read(&path).unwrap(), b"old");
        fs::remove_dir(path.with_extension("next")).unwrap();
        write(&directory, &path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 1);
        fs::remove_dir_all(&directory).unwrap();
    }
}
