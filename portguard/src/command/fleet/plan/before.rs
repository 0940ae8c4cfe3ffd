//! What a release follows on.

use std::collections::BTreeMap;
use std::fs;

use portguard_fleet::follow::{FollowError, Published, position, published, view};
use portguard_fleet::release::{HostEntry, KeySet, Manifest, Release, Target, Trust};
use portguard_fleet::rollout::control::View;
use portguard_fleet::rollout::{Phase, Position};
use portguard_fleet::status::State;
use portguard_fleet::store::{AnyStore, Store as _, StoreError};
use portguard_fleet::{Hash, layout, now};
use portguard_policy::error::Fault;

use super::super::project::Project;
use super::super::sign::MANIFEST;
use super::{block_on, follow_fault, store_fault, warn_if_open};
use crate::stderr::say;

/// The release that is published, or, where that cannot be read, the last one that was believed here.
#[derive(Debug)]
pub(super) struct Before {
    pub(super) serial: u64,
    pub(super) keys: KeySet,
    pub(super) key_changes: Vec<u64>,
    /// What a release that follows on it goes back to.
    pub(super) way_back: Option<Target>,
    /// What was signed of each host; empty where it cannot be read any more.
    pub(super) hosts: BTreeMap<String, HostEntry>,
}

impl Before {
    fn of(manifest: &Manifest, hosts: BTreeMap<String, HostEntry>, was_in_force: bool) -> Self {
        let way_back = if was_in_force {
            Some(Target {
                serial: manifest.serial,
                sha256: Hash::of(manifest.canonical().as_bytes()),
            })
        } else {
            manifest.rollback_to.clone()
        };
        Self {
            serial: manifest.serial,
            keys: manifest.keys.clone(),
            key_changes: manifest.key_changes.clone(),
            way_back,
            hosts,
        }
    }
}

/// Whether a release was in force, and nobody thought better of it: only then it is gone back to.
fn was_in_force(published: &Published, position: &Position, seen: &View) -> bool {
    match position.phase {
        Phase::Halted | Phase::Aborted | Phase::RollingBack | Phase::RolledBack => false,
        Phase::Done => true,
        // A wave is done only when its hosts have confirmed.
        Phase::Auditing | Phase::Running | Phase::Paused => {
            let has_begun = position.wave > 0 || position.done_at.is_some();
            // Where every host audits, nobody need start anything: then it is their word that counts.
            let enforces = published.hosts.values().any(|host| host.enforce);
            let states = || seen.values().map(|host| host.state);
            let is_adopted = states().any(|state| state == State::Confirmed)
                && states()
                    .all(|state| matches!(state, State::Confirmed | State::Held | State::Silent));
            has_begun || (!enforces && is_adopted)
        }
    }
}

/// What is published now, if anything is.
pub(super) fn look(project: &Project, repair: bool) -> anyhow::Result<Option<Before>> {
    let store = project.store()?;
    let mut trust = project.trust()?;
    let found = block_on(async {
        warn_if_open(&store).await;
        let error = match published(&store, &mut trust).await {
            Ok(published) => {
                let serial = published.manifest.serial;
                let (position, _) = position(&store, serial, now())
                    .await
                    .map_err(|error| store_fault(&error))?;
                let seen = view(&store, &published, now())
                    .await
                    .map_err(|error| store_fault(&error))?;
                let was_in_force = was_in_force(&published, &position, &seen);
                return Ok(Some(Before::of(
                    &published.manifest,
                    published.hosts,
                    was_in_force,
                )));
            }
            Err(error) => error,
        };
        match (&error, &trust.seen) {
            (FollowError::Empty, _) => Ok(None),
            (
                FollowError::Lost(_)
                | FollowError::Refused(_)
                | FollowError::Store(StoreError::Invalid(_) | StoreError::TooLarge(_)),
                Some((serial, hash)),
            ) if repair => {
                say(&format!(
                    "{error}: going on from release {serial}, the last that this directory saw"
                ));
                recover(project, &store, &trust, *serial, hash)
                    .await
                    .map(Some)
            }
            _ => Err(follow_fault(&error).into()),
        }
    })?;
    project.keep_trust(&trust);
    Ok(found)
}

/// The last release that was believed here: from the store, or from what was published here.
async fn recover(
    project: &Project,
    store: &AnyStore,
    trust: &Trust,
    serial: u64,
    hash: &Hash,
) -> anyhow::Result<Before> {
    let mut texts = Vec::new();
    // It may be this very entry that cannot be read.
    if let Ok(Some(entry)) = store.get(&layout::release(serial)).await
        && let Ok(release) = Release::parse(&entry.value)
    {
        texts.push(release.manifest);
    }
    texts.extend(fs::read_to_string(project.next().join(MANIFEST)).ok());
    // What was signed here may be with hosts, whatever became of it: its serial is never signed twice.
    let signed = texts
        .last()
        .filter(|_| project.is_signed())
        .and_then(|text| Manifest::parse(text).ok())
        .map_or(serial, |manifest| manifest.serial.max(serial));
    let text = texts.iter().find(|text| Hash::of(text.as_bytes()) == *hash);
    if let Some(text) = text {
        let manifest =
            Manifest::parse(text).map_err(|refused| Fault::usage(refused.to_string()))?;
        let position = position(store, serial, now()).await;
        let is_done = position.is_ok_and(|(position, _)| position.phase == Phase::Done);
        let before = Before::of(&manifest, BTreeMap::new(), is_done);
        return Ok(Before {
            serial: signed,
            ..before
        });
    }
    if trust.keys.version > 1 {
        return Err(Fault::usage(format!(
            "release {serial} is neither in the store nor in next/, and keys have changed before it"
        ))
        .hint("put its file back into the store, from a backup or another publisher's directory")
        .into());
    }
    Ok(Before {
        serial: signed,
        keys: trust.keys.clone(),
        key_changes: Vec::new(),
        way_back: None,
        hosts: BTreeMap::new(),
    })
}
