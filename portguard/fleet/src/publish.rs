//! Publishing: documents first, then one commit that moves the head.

use std::collections::BTreeSet;

use crate::release::{Manifest, Release};
use crate::rollout::{Hold, Position};
use crate::store::{Compare, Entry, Op, Store, StoreError};
use crate::{Hash, layout};

/// Releases that stay in the store, besides those in which keys changed and the one that can be gone back to.
const KEPT: usize = 5;

/// Why a release is not published.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Somebody else published meanwhile.
    #[error("{} is published, and this release follows on {}", named(*found), named(*wanted))]
    Overtaken {
        /// What is there.
        found: Option<u64>,
        /// What this release was planned on.
        wanted: Option<u64>,
    },
    /// The release has no such chunk.
    #[error("the chunk {0} is missing: plan it again")]
    Missing(Hash),
}

fn named(serial: Option<u64>) -> String {
    serial.map_or_else(
        || "no release".to_owned(),
        |serial| format!("release {serial}"),
    )
}

/// The serial of the head.
///
/// # Errors
/// If the store does not answer.
pub async fn head(store: &impl Store) -> Result<(Option<u64>, Option<Entry>), StoreError> {
    let entry = store.get(layout::HEAD).await?;
    let serial = entry
        .as_ref()
        .and_then(|entry| std::str::from_utf8(&entry.value).ok()?.trim().parse().ok());
    Ok((serial, entry))
}

/// Publishes a signed release, whose signatures the caller has checked. `repair`: whatever the head says now, since what it
/// says is broken or forged.
///
/// # Errors
/// [`PublishError`]; the head is where it was then.
pub async fn publish(
    store: &impl Store,
    release: &Release,
    manifest: &Manifest,
    chunks: &[(Hash, Vec<u8>)],
    position: &Position,
    repair: bool,
) -> Result<(), PublishError> {
    for hash in manifest.chunks() {
        let key = layout::object(hash);
        if store
            .get(&key)
            .await?
            .is_some_and(|there| Hash::of(&there.value) == *hash)
        {
            continue;
        }
        let chunk = chunks.iter().find(|(one, _)| one == hash);
        let (_, chunk) = chunk.ok_or_else(|| PublishError::Missing(hash.clone()))?;
        store.put(&key, chunk.clone()).await?;
    }
    let (found, seen) = head(store).await?;
    let overtaken = |found| PublishError::Overtaken {
        found,
        wanted: manifest.previous,
    };
    if found != manifest.previous && !repair {
        return Err(overtaken(found));
    }
    let position = serde_json::to_vec(position).unwrap_or_default();
    let event = Op::Put(layout::history_now(), position.clone());
    // In this order: where a commit can be cut short, a position for a release that is no head yet moves nobody.
    let ops = [
        Op::Put(layout::release(manifest.serial), release.to_bytes()),
        Op::Put(layout::POSITION.to_owned(), position),
        Op::Put(
            layout::HEAD.to_owned(),
            manifest.serial.to_string().into_bytes(),
        ),
        event,
    ];
    let compare = Compare::unchanged(layout::HEAD, seen.as_ref());
    if !store.commit(&[compare], &ops).await? {
        let (found, _) = head(store).await?;
        return Err(overtaken(found));
    }
    prune(store, manifest).await?;
    Ok(())
}

/// Removes what no release needs any more.
async fn prune(store: &impl Store, newest: &Manifest) -> Result<(), StoreError> {
    // The newest is what was signed, and not what the store says of it.
    let mut manifests = vec![newest.clone()];
    for entry in store.list(layout::RELEASES).await? {
        if let Ok(release) = Release::parse(&entry.value)
            && let Ok(manifest) = Manifest::parse(&release.manifest)
            // What somebody planted pushes out nothing: above the newest, beside its place, or of another fleet.
            && manifest.serial < newest.serial
            && entry.key == layout::release(manifest.serial)
            && manifest.fleet == newest.fleet
        {
            manifests.push(manifest);
        }
    }
    manifests.sort_by_key(|manifest| std::cmp::Reverse(manifest.serial));
    let mut needed = BTreeSet::new();
    let mut gone = Vec::new();
    for (index, manifest) in manifests.iter().enumerate() {
        let is_target = manifests.iter().take(KEPT).any(|one| {
            one.rollback_to
                .as_ref()
                .is_some_and(|to| to.serial == manifest.serial)
        });
        if index < KEPT || is_target {
            needed.extend(manifest.chunks());
        } else if !newest.key_changes.contains(&manifest.serial) {
            gone.push(manifest);
        }
    }
    for manifest in &gone {
        // First the release: one without its documents would be worse than documents without a release.
        let mut ops = vec![Op::Delete(layout::release(manifest.serial))];
        let chunks: BTreeSet<&Hash> = manifest
            .chunks()
            .filter(|hash| !needed.contains(hash))
            .collect();
        ops.extend(
            chunks
                .into_iter()
                .map(|hash| Op::Delete(layout::object(hash))),
        );
        // Below what etcd does in one commit.
        for some in ops.chunks(100) {
            store.commit(&[], some).await?;
        }
    }
    Ok(())
}

/// Holds a host, or lets it go on.
///
/// # Errors
/// What the store says.
pub async fn hold(store: &impl Store, host: &str, hold: Option<&Hold>) -> Result<(), StoreError> {
    let key = layout::hold(host);
    let op = match hold {
        Some(hold) => Op::Put(key, serde_json::to_vec(hold).unwrap_or_default()),
        None => Op::Delete(key),
    };
    store.commit(&[], &[op]).await?;
    Ok(())
}

/// What `revoked/HOST` says: it is the key that counts no more, not the host, which may be given another.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Revocation {
    /// The host's public key.
    pub key: String,
    /// Why.
    pub because: String,
}

impl Revocation {
    /// Why this key is revoked, if it is. What cannot be read revokes any: it can only silence.
    pub fn of(value: &[u8], key: &str) -> Option<String> {
        match serde_json::from_slice::<Self>(value) {
            Ok(revoked) => (revoked.key == key).then_some(revoked.because),
            Err(_) => Some("its entry in the store cannot be read".to_owned()),
        }
    }
}

/// Revokes a host's key, for this release and all to come.
///
/// # Errors
/// What the store says.
pub async fn revoke(
    store: &impl Store,
    host: &str,
    revocation: &Revocation,
) -> Result<(), StoreError> {
    let value = serde_json::to_vec(revocation).unwrap_or_default();
    store.put(&layout::revoked(host), value).await
}
