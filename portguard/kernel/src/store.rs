//! The last policy that was in force for good, on disk: what the next boot loads, without site file, resolver or network.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use crate::generation::Live;
use crate::pins::bpffs::Layout;
use crate::pins::meta::XdpModeName;
use portguard_policy::error::Fault;
use portguard_policy::policy::Policy;

/// Where systemd says that state goes, or else where it goes.
const VARIABLE: &str = "STATE_DIRECTORY";
const DIRECTORY: &str = "/var/lib/portguard";
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
    /// The site file, to be shown.
    pub site: Option<String>,
    /// The policy.
    pub policy: Policy,
}

/// The directory; `None` where nothing is stored: in a network namespace of its own there is no next boot.
pub fn directory(layout: &Layout) -> Option<PathBuf> {
    if let Ok(said) = std::env::var(VARIABLE) {
        // systemd separates several by colons.
        return said.split(':').next().map(PathBuf::from);
    }
    let is_of_the_host = !layout.directory.to_string_lossy().contains('@');
    is_of_the_host.then(|| PathBuf::from(DIRECTORY))
}

fn file(directory: &Path, interface: &str) -> PathBuf {
    directory.join(format!("{interface}.policy.json"))
}

/// Stores what is in force, if it is there for good. Says whether it did.
///
/// # Errors
/// If the disk refuses; what was stored before is still there then.
pub fn keep(layout: &Layout, live: &Live) -> anyhow::Result<bool> {
    let (interface, _) = layout.interface();
    let Some(directory) = directory(layout).filter(|_| live.is_confirmed) else {
        return Ok(false);
    };
    let stored = Stored {
        schema: SCHEMA,
        interface: interface.clone(),
        digest: live.meta.digest.clone(),
        xdp_mode: live.meta.xdp_mode,
        site: live.meta.site.clone(),
        policy: live.meta.policy.clone(),
    };
    let path = file(&directory, &interface);
    write(&directory, &path, &serde_json::to_vec(&stored)?)
        .with_context(|| format!("cannot store the policy in `{}`", path.display()))?;
    Ok(true)
}

/// The whole file or the old one, also if the power fails.
pub fn write(directory: &Path, path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    fs::create_dir_all(directory)?;
    let next = path.with_extension("next");
    let result = (|| {
        let mut file = File::create(&next)?;
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
/// [`Fault`] if there is nothing, or it is damaged.
pub fn read(layout: &Layout) -> anyhow::Result<Stored> {
    let (interface, _) = layout.interface();
    let directory = directory(layout).unwrap_or_else(|| PathBuf::from(DIRECTORY));
    let path = file(&directory, &interface);
    let bytes = fs::read(&path).map_err(|error| {
        anyhow::Error::new(error).context(
            Fault::usage(format!(
                "there is no stored policy for `{interface}`: `{}`",
                path.display()
            ))
            .hint("`portguard load` without `--last-good` stores one"),
        )
    })?;
    let damaged = |why: String| {
        Fault::system(format!("`{}` is damaged: {why}", path.display()))
            .hint("`portguard load` without `--last-good` stores it anew")
    };
    let stored: Stored =
        serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
    if stored.schema != SCHEMA {
        return Err(damaged(format!("format {}, expected {SCHEMA}", stored.schema)).into());
    }
    if stored.policy.digest() != stored.digest {
        return Err(damaged("its digest is not that of its policy".to_owned()).into());
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
