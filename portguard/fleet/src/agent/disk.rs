//! What a host keeps: whom it trusts, what it has seen, and the releases that it may need without the store.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::Hash;
use crate::release::Trust;

/// Readable to nobody else.
const MODE: u32 = 0o600;

/// A directory of the host's own.
#[derive(Debug, Clone)]
pub struct Disk {
    root: PathBuf,
}

/// What happened here.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Kept {
    /// The release that was made final last.
    pub in_force: Option<u64>,
    /// The one before.
    pub enforced_before: Option<u64>,
    /// When the one in force was enforced for good.
    pub enforced_at: Option<u64>,
    /// What these two are, so that what the kernel has can be told, and put in force again.
    pub known: BTreeMap<u64, Known>,
    /// What is being enforced and was not confirmed yet.
    pub attempt: Option<Attempt>,
    /// A release, and how often this host went down while it was being enforced.
    pub cut_short: Option<(u64, u32)>,
    /// The release that was enforced and went back by itself; it is not tried again.
    pub reverted: Option<u64>,
    /// Why.
    pub reverted_why: String,
    /// The release from which a rollback could not be confirmed; it is not tried again either.
    pub not_left: Option<u64>,
}

/// A release, as far as this host needs it later.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    /// Of its manifest.
    pub sha256: Hash,
    /// What the kernel has of it: digest by interface.
    pub digests: BTreeMap<String, String>,
    /// Whether it drops anything here.
    pub enforces: bool,
}

/// A swap, written before it is begun.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// Of the release.
    pub serial: u64,
    /// The release that a rollback leaves by it.
    pub leaves: Option<u64>,
    /// What it is.
    pub known: Known,
    /// The generations before: where they are still so, nothing was swapped.
    pub before: BTreeMap<String, u64>,
}

impl Disk {
    /// The directory, made if it is not there.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn open(root: &Path) -> Result<Self, String> {
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true).mode(0o700);
        builder.create(root).map_err(|error| said(root, &error))?;
        Ok(Self {
            root: root.to_owned(),
        })
    }

    /// Whom this host trusts, once it has seen a release.
    ///
    /// # Errors
    /// If it cannot be read: it is never taken for missing, which would forget the highest serial.
    pub fn trust(&self) -> Result<Option<Trust>, String> {
        self.read("trust.json")
    }

    /// Writes it, before anything is done about a release.
    ///
    /// # Errors
    /// If the disk refuses.
    pub fn keep_trust(&self, trust: &Trust) -> Result<(), String> {
        self.write("trust.json", trust)
    }

    /// What happened here.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn kept(&self) -> Result<Kept, String> {
        Ok(self.read("kept.json")?.unwrap_or_default())
    }

    /// Writes it.
    ///
    /// # Errors
    /// If the disk refuses.
    pub fn keep(&self, kept: &Kept) -> Result<(), String> {
        self.write("kept.json", kept)
    }

    /// Where a release is.
    pub fn release(&self, serial: u64) -> PathBuf {
        self.root.join(format!("release-{serial}"))
    }

    /// Writes a file, whole or not at all.
    pub(super) fn put(path: &Path, bytes: &[u8]) -> Result<(), String> {
        let parent = path.parent().unwrap_or(Path::new("."));
        let next = path.with_extension("next");
        let result = (|| {
            let mut builder = fs::DirBuilder::new();
            builder.recursive(true).mode(0o700).create(parent)?;
            let mut options = OpenOptions::new();
            options.write(true).create(true).truncate(true).mode(MODE);
            let mut file = options.open(&next)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            fs::rename(&next, path)?;
            File::open(parent)?.sync_all()
        })();
        result.map_err(|error| said(path, &error))
    }

    /// Removes releases that nobody needs any more: all but these, and those newer than them.
    pub(super) fn prune(&self, needed: &[Option<u64>]) -> Result<(), String> {
        let newest = needed.iter().flatten().max().copied().unwrap_or_default();
        let entries = fs::read_dir(&self.root).map_err(|error| said(&self.root, &error))?;
        for entry in entries.flatten() {
            let name = entry.file_name();
            let serial = name
                .to_str()
                .and_then(|name| name.strip_prefix("release-")?.parse::<u64>().ok());
            if let Some(serial) = serial
                && serial < newest
                && !needed.contains(&Some(serial))
            {
                let path = entry.path();
                fs::remove_dir_all(&path).map_err(|error| said(&path, &error))?;
            }
        }
        Ok(())
    }

    fn read<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, String> {
        let path = self.root.join(name);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(said(&path, &error)),
        };
        serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|error| format!("{}: {error}", path.display()))
    }

    fn write(&self, name: &str, value: &impl Serialize) -> Result<(), String> {
        let bytes = serde_json::to_vec(value).map_err(|error| error.to_string())?;
        Self::put(&self.root.join(name), &bytes)
    }
}

fn said(path: &Path, error: &std::io::Error) -> String {
    format!("{}: {error}", path.display())
}
