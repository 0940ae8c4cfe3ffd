//! A release: all documents of a site at one time, named by their hashes in a manifest that k of n keys signed.
//!
//! The manifest is canonical JSON: it is refused unless writing what was read gives the same bytes. So is the envelope
//! around it with its signatures: there is no bit in a release that could be another.

mod keys;
mod object;
mod plan;
mod verify;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use keys::{KeySet, Signatures, normalized};
pub use object::{CHUNK, MAX_OBJECT, Object, Packed, pack, pack_small, unpack, unpack_small};
pub use plan::{Closing, Gate, Plan, PlanError, Selector, Wave};
pub use verify::{Refused, Trust};

use crate::Hash;

/// Version of the manifest's format.
pub const SCHEMA: u32 = 1;
/// Larger envelopes are refused unread.
pub const MAX_RELEASE: usize = 1 << 20;

/// The most changes of keys in the life of a fleet.
const MAX_KEY_CHANGES: usize = 1000;

/// A release that may be gone back to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// Its serial.
    pub serial: u64,
    /// Of its manifest.
    pub sha256: Hash,
}

/// Names of the documents that every release has.
pub mod document {
    /// The site file.
    pub const SITE: &str = "site.toml";
    /// What the compiler may not ask a host: the day, and what names resolved to.
    pub const FROZEN: &str = "frozen.json";
}

/// What is signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Which fleet: a release of another one, signed by the same keys, is not for us.
    pub fleet: String,
    /// Grows by one.
    pub serial: u64,
    /// The release before.
    pub previous: Option<u64>,
    /// What `rollback` goes back to; nothing else can be gone back to.
    pub rollback_to: Option<Target>,
    /// For how many seconds after a host enforced this release a rollback is obeyed that nobody signed.
    pub rollback_within: u64,
    /// Seconds since the epoch.
    pub issued: u64,
    /// After that, hosts that have it keep it and raise an alert; hosts that do not have it refuse it.
    pub valid_until: u64,
    /// Older tools refuse it.
    pub least_tool: String,
    /// Who signs the next release.
    pub keys: KeySet,
    /// Every release in which keys changed, this one included if it does: a host that was away follows them one by one.
    pub key_changes: Vec<u64>,
    /// Waves and gate.
    pub plan: Plan,
    /// Documents by name.
    pub objects: BTreeMap<String, Object>,
    /// Pieces of the inventory, each the hash of a chunk: [`Manifest::shard_of`] says where a host is.
    pub hosts: Vec<Hash>,
}

/// What the publisher says of one host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostEntry {
    /// `SYSTEM/ROLE`.
    pub roles: Vec<String>,
    /// Failure domain, over which waves are spread.
    pub zone: String,
    /// Further labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// The host's own public key, base64: its statuses are signed with it. Without one it is not enrolled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Digest of the policy by interface; `*` where the site names none.
    pub digests: BTreeMap<String, String>,
    /// Whether the site has it enforce.
    pub enforce: bool,
    /// Index of its wave.
    pub wave: u32,
    /// Its turn in that wave, from 0.
    pub turn: u32,
}

/// A piece of the inventory.
pub type Shard = BTreeMap<String, HostEntry>;

impl Manifest {
    /// The bytes that are signed.
    ///
    /// # Panics
    /// Never: the manifest has only types that JSON has.
    pub fn canonical(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Reads what [`Self::canonical`] wrote, and nothing else.
    ///
    /// # Errors
    /// [`Refused::Malformed`].
    pub fn parse(text: &str) -> Result<Self, Refused> {
        let manifest: Self =
            serde_json::from_str(text).map_err(|error| Refused::Malformed(error.to_string()))?;
        if manifest.canonical() != text {
            return Err(Refused::Malformed("not in canonical form".to_owned()));
        }
        if manifest.schema != SCHEMA {
            return Err(Refused::Malformed(format!(
                "schema {} is not known here",
                manifest.schema
            )));
        }
        manifest.keys.check()?;
        manifest.check_key_changes()?;
        manifest
            .plan
            .check()
            .map_err(|error| Refused::Malformed(error.to_string()))?;
        Ok(manifest)
    }

    /// The version of the keys counts their changes.
    fn check_key_changes(&self) -> Result<(), Refused> {
        let changes = &self.key_changes;
        let is_sorted = changes.windows(2).all(|pair| pair.first() < pair.last());
        let is_past = changes.last().is_none_or(|last| *last <= self.serial);
        let is_counted = self.keys.version == changes.len() as u64 + 1;
        if is_sorted && is_past && is_counted && changes.len() <= MAX_KEY_CHANGES {
            Ok(())
        } else {
            Err(Refused::Malformed(
                "the key changes are inconsistent".to_owned(),
            ))
        }
    }

    /// Which of `hosts` a host is in.
    pub fn shard_of(count: usize, host: &str) -> usize {
        let hash = Hash::of(host.as_bytes());
        let first = hash.as_str().get(..8).unwrap_or_default();
        let number = u32::from_str_radix(first, 16).unwrap_or_default();
        usize::try_from(number).unwrap_or_default() % count.max(1)
    }

    /// Every chunk that the release needs.
    pub fn chunks(&self) -> impl Iterator<Item = &Hash> {
        let objects = self.objects.values().flat_map(|object| &object.chunks);
        objects.chain(&self.hosts)
    }
}

/// Cuts an inventory into shards of about sixty hosts: a host fetches one.
pub fn shards(hosts: Shard) -> Vec<Shard> {
    const EACH: usize = 60;
    const MOST: usize = 256;
    let count = hosts.len().div_ceil(EACH).clamp(1, MOST);
    let mut shards = vec![Shard::new(); count];
    for (name, entry) in hosts {
        if let Some(shard) = shards.get_mut(Manifest::shard_of(count, &name)) {
            shard.insert(name, entry);
        }
    }
    shards
}

/// A manifest and its signatures, as the store has them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Release {
    /// The text that is signed.
    pub manifest: String,
    /// In minisign's format, one a key.
    pub signatures: Signatures,
}

impl Release {
    /// As the store has it.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Reads what [`Self::to_bytes`] wrote, and nothing else. Proves nothing yet: see [`Trust`].
    ///
    /// # Errors
    /// [`Refused::Malformed`].
    pub fn parse(bytes: &[u8]) -> Result<Self, Refused> {
        if bytes.len() > MAX_RELEASE {
            return Err(Refused::Malformed(format!(
                "{} bytes are more than {MAX_RELEASE}",
                bytes.len()
            )));
        }
        let release: Self =
            serde_json::from_slice(bytes).map_err(|error| Refused::Malformed(error.to_string()))?;
        if release.to_bytes() != bytes {
            return Err(Refused::Malformed("not in canonical form".to_owned()));
        }
        Ok(release)
    }
}
