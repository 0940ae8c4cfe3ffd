//! What a host believes: which fleet, which keys, and the highest serial that it has seen.

use serde::{Deserialize, Serialize};

use super::{KeySet, Manifest, Release, Target};
use crate::Hash;

/// Why a release is not believed. What was in force stays in force.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It cannot be read.
    #[error("the release is malformed: {0}")]
    Malformed(String),
    /// Its keys cannot be keys.
    #[error("the release's keys are wrong: {0}")]
    Keys(String),
    /// Too few signatures, a wrong one, or one of an unknown key.
    #[error("the release is not properly signed: {0}")]
    Signature(String),
    /// A document is not what was signed.
    #[error("a document of the release is not what was signed: {0}")]
    Object(String),
    /// It is for others.
    #[error("the release does not name host `{0}`: its site no longer does")]
    NotNamed(String),
    /// Of another fleet.
    #[error("the release is for fleet `{found}`, this host is of fleet `{wanted}`")]
    OtherFleet {
        /// The release's.
        found: String,
        /// Ours.
        wanted: String,
    },
    /// Older than what this host has seen.
    #[error("release {found} is older than release {seen}, which this host has seen")]
    Older {
        /// The release's serial.
        found: u64,
        /// The highest seen.
        seen: u64,
    },
    /// Not the release that was asked for, or another with the serial of one that was seen.
    #[error("release {0} is not the expected one")]
    Swapped(u64),
    /// Its time is over.
    #[error("release {0} is no longer valid")]
    Expired(u64),
    /// It wants a newer tool.
    #[error("the release wants portguard {0} or newer")]
    Tool(String),
    /// The releases in which keys changed are not all there.
    #[error("how the keys changed up to release {0} cannot be verified: {1}")]
    Chain(u64, String),
}

/// Kept on the host's disk; it only ever grows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trust {
    /// Which fleet.
    pub fleet: String,
    /// Who signs.
    pub keys: KeySet,
    /// The highest serial seen, and the hash of that manifest: a serial means one release for ever.
    pub seen: Option<(u64, Hash)>,
}

impl Trust {
    /// Of a host that has seen nothing yet.
    pub fn new(fleet: impl Into<String>, keys: KeySet) -> Self {
        Self {
            fleet: fleet.into(),
            keys,
            seen: None,
        }
    }

    /// Whether it has seen all that another has: what is kept of the two is this one.
    pub fn covers(&self, other: &Self) -> bool {
        let serial = |trust: &Self| trust.seen.as_ref().map(|(serial, _)| *serial);
        serial(self) >= serial(other) && self.keys.version >= other.keys.version
    }

    /// Judges the release that the store says is the newest. If it is believed, `self` is what to write to the disk before
    /// anything is done about it.
    ///
    /// `fetch` gets the releases in which keys changed that this host did not see.
    ///
    /// # Errors
    /// [`Refused`]; `self` is unchanged then.
    pub fn accept(
        &mut self,
        serial: u64,
        bytes: &[u8],
        now: u64,
        fetch: &mut dyn FnMut(u64) -> Result<Vec<u8>, String>,
    ) -> Result<Manifest, Refused> {
        let release = Release::parse(bytes)?;
        let manifest = self.read(serial, &release)?;
        let hash = Hash::of(release.manifest.as_bytes());
        if let Some((seen, known)) = &self.seen {
            if serial < *seen {
                return Err(Refused::Older {
                    found: serial,
                    seen: *seen,
                });
            }
            if serial == *seen && hash != *known {
                return Err(Refused::Swapped(serial));
            }
        }
        let is_new = self.seen.as_ref().is_none_or(|(seen, _)| serial > *seen);
        let keys = if is_new {
            let signers = self.signers(&manifest, fetch)?;
            let changed = (manifest.keys != signers).then_some(&manifest.keys);
            signers.verify(&release.manifest, &release.signatures, changed)?;
            check_change(&signers, &manifest)?;
            manifest.keys.clone()
        } else {
            // The very bytes that were believed before; its keys are ours by now.
            self.keys.clone()
        };
        if is_new && manifest.valid_until <= now {
            return Err(Refused::Expired(serial));
        }
        if is_newer(&manifest.least_tool, env!("CARGO_PKG_VERSION")) {
            return Err(Refused::Tool(manifest.least_tool));
        }
        self.keys = keys;
        self.seen = Some((serial, hash));
        Ok(manifest)
    }

    /// Judges the older release that a believed one names as the way back: its hash was signed.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn accept_named(&self, target: &Target, bytes: &[u8]) -> Result<Manifest, Refused> {
        let release = Release::parse(bytes)?;
        if Hash::of(release.manifest.as_bytes()) != target.sha256 {
            return Err(Refused::Swapped(target.serial));
        }
        self.read(target.serial, &release)
    }

    fn read(&self, serial: u64, release: &Release) -> Result<Manifest, Refused> {
        let manifest = Manifest::parse(&release.manifest)?;
        if manifest.fleet != self.fleet {
            return Err(Refused::OtherFleet {
                found: manifest.fleet,
                wanted: self.fleet.clone(),
            });
        }
        if manifest.serial != serial {
            return Err(Refused::Swapped(serial));
        }
        Ok(manifest)
    }

    /// Releases in which keys changed, from the keys that are known here to those that signed this one.
    pub fn changes_to(&self, manifest: &Manifest) -> Vec<u64> {
        let known = usize::try_from(self.keys.version.saturating_sub(1)).unwrap_or(usize::MAX);
        let changes = manifest.key_changes.iter().skip(known).copied();
        changes
            .take_while(|serial| *serial != manifest.serial)
            .collect()
    }

    /// The keys that must have signed it: ours, or those that a chain of signed changes leads to.
    fn signers(
        &self,
        manifest: &Manifest,
        fetch: &mut dyn FnMut(u64) -> Result<Vec<u8>, String>,
    ) -> Result<KeySet, Refused> {
        let broken = |why: String| Refused::Chain(manifest.serial, why);
        let mut keys = self.keys.clone();
        for serial in self.changes_to(manifest) {
            let release = Release::parse(&fetch(serial).map_err(broken)?)?;
            let change = self.read(serial, &release)?;
            keys.verify(&release.manifest, &release.signatures, Some(&change.keys))?;
            check_change(&keys, &change)?;
            keys = change.keys;
        }
        Ok(keys)
    }
}

/// Keys change by one version at a time, in the release that says so; all others have the keys of their signers.
fn check_change(signers: &KeySet, manifest: &Manifest) -> Result<(), Refused> {
    let is_change = manifest.key_changes.last() == Some(&manifest.serial);
    let is_right = if is_change {
        signers.version.checked_add(1) == Some(manifest.keys.version)
    } else {
        manifest.keys == *signers
    };
    if is_right {
        return Ok(());
    }
    Err(Refused::Keys(format!(
        "version {} of the keys cannot follow on version {} in release {}",
        manifest.keys.version, signers.version, manifest.serial
    )))
}

/// Whether the first version is newer than the second; what is no version is newer than any.
fn is_newer(wanted: &str, have: &str) -> bool {
    let parse = |text: &str| -> Option<Vec<u64>> {
        text.split('.').map(|part| part.parse().ok()).collect()
    };
    match (parse(wanted), parse(have)) {
        (Some(wanted), Some(have)) => wanted > have,
        _ => true,
    }
}
