//! From the store to the disk, and from the disk again: both ways everything is checked against what was signed.

use std::fs;
use std::path::{Path, PathBuf};

use super::{Agent, Disk, Guard};
use crate::layout;
use crate::release::{
    HostEntry, Manifest, Object, Refused, Shard, Target, document, unpack, unpack_small,
};
use crate::store::{Store, StoreError};

/// Manifest and signatures, as they came.
const RELEASE: &str = "release";
/// This host's piece of the inventory, as it came.
const SHARD: &str = "shard";

/// The documents of a release, on this host's disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Documents {
    /// Of the release.
    pub serial: u64,
    /// Where they are.
    pub directory: PathBuf,
    /// What is signed about this host.
    pub entry: HostEntry,
}

impl Documents {
    /// The site file.
    pub fn site(&self) -> PathBuf {
        self.directory.join(document::SITE)
    }

    /// What the compiler may not ask a host.
    pub fn frozen(&self) -> PathBuf {
        self.directory.join(document::FROZEN)
    }
}

type Found = Result<(Manifest, Documents), Refused>;

impl<S: Store, G: Guard> Agent<S, G> {
    /// Fetches the head. What it trusts is on the disk before anything is done about it.
    pub(super) async fn fetch(&mut self, serial: u64) -> Result<Found, StoreError> {
        let Some(entry) = self.store.get(&layout::release(serial)).await? else {
            return Ok(Err(Refused::Object(format!(
                "release {serial} is not in the store"
            ))));
        };
        // Releases in which keys changed, of those that this host did not see.
        let mut others = std::collections::BTreeMap::new();
        if let Ok(release) = crate::release::Release::parse(&entry.value)
            && let Ok(manifest) = Manifest::parse(&release.manifest)
        {
            for serial in self.trust.changes_to(&manifest) {
                if let Some(entry) = self.store.get(&layout::release(serial)).await? {
                    others.insert(serial, entry.value);
                }
            }
        }
        let mut trust = self.trust.clone();
        let mut other = |serial: u64| {
            others
                .get(&serial)
                .cloned()
                .ok_or_else(|| format!("release {serial} is not in the store"))
        };
        let accepted = trust.accept(serial, &entry.value, crate::now(), &mut other);
        let manifest = match accepted {
            Ok(manifest) => manifest,
            Err(refused) => return Ok(Err(refused)),
        };
        if let Err(why) = self.disk.keep_trust(&trust) {
            return Ok(Err(Refused::Object(why)));
        }
        self.trust = trust;
        self.bring(manifest, &entry.value).await
    }

    /// The release that a believed one names; from the disk, if it is there.
    pub(super) async fn fetch_named(&mut self, target: &Target) -> Result<Found, StoreError> {
        if let Ok(found) = self.stored(target) {
            return Ok(Ok(found));
        }
        let Some(entry) = self.store.get(&layout::release(target.serial)).await? else {
            return Ok(Err(Refused::Object(format!(
                "release {} is not in the store",
                target.serial
            ))));
        };
        match self.trust.accept_named(target, &entry.value) {
            Ok(manifest) => self.bring(manifest, &entry.value).await,
            Err(refused) => Ok(Err(refused)),
        }
    }

    /// The same, from the disk alone.
    pub(super) fn stored(&self, target: &Target) -> Result<(Manifest, Documents), String> {
        let path = self.disk.release(target.serial);
        let bytes = fs::read(path.join(RELEASE)).map_err(|error| error.to_string())?;
        let manifest = self.trust.accept_named(target, &bytes);
        let manifest = manifest.map_err(|refused| refused.to_string())?;
        let documents = self.check(&path, &manifest);
        Ok((manifest, documents.map_err(|refused| refused.to_string())?))
    }

    /// The release that this host went by when it ended.
    pub(super) fn recall(&self, serial: u64) -> Result<(Manifest, Documents), String> {
        let path = self.disk.release(serial);
        let bytes = fs::read(path.join(RELEASE)).map_err(|error| error.to_string())?;
        let mut none = |serial: u64| Err(format!("release {serial} is not on the disk"));
        let manifest = self
            .trust
            .clone()
            .accept(serial, &bytes, crate::now(), &mut none)
            .map_err(|refused| refused.to_string())?;
        let documents = self
            .check(&path, &manifest)
            .map_err(|refused| refused.to_string())?;
        Ok((manifest, documents))
    }

    /// Brings what is not on the disk yet.
    async fn bring(&mut self, manifest: Manifest, release: &[u8]) -> Result<Found, StoreError> {
        let path = self.disk.release(manifest.serial);
        if let Ok(documents) = self.check(&path, &manifest) {
            return Ok(Ok((manifest, documents)));
        }
        let host = &self.identity.host;
        let mut files: Vec<(PathBuf, Vec<u8>)> = Vec::new();
        for (name, object) in &manifest.objects {
            if !is_file(name) {
                return Ok(Err(Refused::Object(format!(
                    "`{name}` is not a valid document name"
                ))));
            }
            // Often only the site changes: what is the same is not fetched again.
            let bytes = match self.known(name, object) {
                Some(bytes) => bytes,
                None => match self.object(name, object).await? {
                    Ok(bytes) => bytes,
                    Err(refused) => return Ok(Err(refused)),
                },
            };
            files.push((path.join(name), bytes));
        }
        let index = Manifest::shard_of(manifest.hosts.len(), host);
        let Some(hash) = manifest.hosts.get(index) else {
            return Ok(Err(Refused::Object(
                "the release names no hosts".to_owned(),
            )));
        };
        let Some(shard) = self.store.get(&layout::object(hash)).await? else {
            return Ok(Err(Refused::Object(
                "the inventory is not in the store".to_owned(),
            )));
        };
        files.push((path.join(SHARD), shard.value));
        // Last: what is whole has it.
        files.push((path.join(RELEASE), release.to_vec()));
        for (file, bytes) in &files {
            if let Err(why) = Disk::put(file, bytes) {
                return Ok(Err(Refused::Object(why)));
            }
        }
        Ok(self
            .check(&path, &manifest)
            .map(|documents| (manifest, documents)))
    }

    async fn object(
        &self,
        name: &str,
        object: &Object,
    ) -> Result<Result<Vec<u8>, Refused>, StoreError> {
        if object.bytes > crate::release::MAX_OBJECT {
            return Ok(Err(Refused::Object(format!("`{name}` is too large"))));
        }
        let mut chunks = Vec::new();
        for hash in &object.chunks {
            let Some(entry) = self.store.get(&layout::object(hash)).await? else {
                return Ok(Err(Refused::Object(format!(
                    "`{name}`: a chunk is not in the store"
                ))));
            };
            chunks.push(entry.value);
        }
        Ok(unpack(object, &chunks)
            .map_err(|refused| Refused::Object(format!("`{name}`: {refused}"))))
    }

    /// The same document of another release.
    fn known(&self, name: &str, object: &Object) -> Option<Vec<u8>> {
        let current = self.current.as_ref()?;
        let is_same = current.manifest.objects.get(name)? == object;
        let bytes = fs::read(current.documents.directory.join(name)).ok()?;
        (is_same && crate::Hash::of(&bytes) == object.sha256).then_some(bytes)
    }

    /// Whether the disk has all of it, as it was signed.
    fn check(&self, path: &Path, manifest: &Manifest) -> Result<Documents, Refused> {
        let read = |name: &str| {
            let file = path.join(name);
            fs::read(&file).map_err(|error| Refused::Object(format!("{}: {error}", file.display())))
        };
        for (name, object) in &manifest.objects {
            if !is_file(name) || crate::Hash::of(&read(name)?) != object.sha256 {
                return Err(Refused::Object(format!("`{name}` is not what was signed")));
            }
        }
        for wanted in [document::SITE, document::FROZEN] {
            if !manifest.objects.contains_key(wanted) {
                return Err(Refused::Object(format!("the release has no `{wanted}`")));
            }
        }
        let host = &self.identity.host;
        let index = Manifest::shard_of(manifest.hosts.len(), host);
        let hash = manifest.hosts.get(index);
        let hash = hash.ok_or_else(|| Refused::Object("the release names no hosts".to_owned()))?;
        let shard = unpack_small(hash, &read(SHARD)?)?;
        let mut shard: Shard = serde_json::from_slice(&shard)
            .map_err(|error| Refused::Object(format!("the inventory: {error}")))?;
        let entry = shard
            .remove(host)
            .ok_or_else(|| Refused::NotNamed(host.clone()))?;
        Ok(Documents {
            serial: manifest.serial,
            directory: path.to_owned(),
            entry,
        })
    }
}

/// A relative path of names: it cannot leave the release's directory.
fn is_file(name: &str) -> bool {
    layout::is_key(name) && ![RELEASE, SHARD].contains(&name)
}
