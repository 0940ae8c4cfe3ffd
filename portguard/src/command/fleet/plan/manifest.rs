//! What is signed: waves, documents and hosts by their hashes.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use portguard_fleet::release::{Manifest, PlanError, SCHEMA, Shard, pack, pack_small, shards};
use portguard_fleet::rollout::waves::{Member, assign};
use portguard_fleet::{Hash, now};
use portguard_policy::error::Fault;
use serde::Serialize;

use super::super::project::{Project, seconds, write};
use super::super::sign::{CHUNKS, MANIFEST};
use super::Before;
use crate::stderr::say;

/// Hosts that are named; the rest is counted.
const NAMED: usize = 5;

#[derive(Debug, Serialize)]
pub(super) struct PlannedWave {
    pub(super) name: String,
    pub(super) hosts: usize,
    pub(super) first: Vec<String>,
}

/// Gives every host its wave and its turn.
pub(super) fn waves(project: &Project, hosts: &mut Shard) -> anyhow::Result<Vec<PlannedWave>> {
    let members: Vec<Member> = hosts
        .iter()
        .map(|(name, entry)| Member {
            name: name.clone(),
            zone: entry.zone.clone(),
            roles: entry.roles.clone(),
            labels: entry.labels.clone(),
        })
        .collect();
    let plan = project.plan();
    let assigned = assign(&plan, &members)
        .map_err(|PlanError(why)| Fault::usage(why).hint("see `[[wave]]` in fleet.toml"))?;
    let mut waves = Vec::new();
    for (index, (wave, names)) in plan.wave.iter().zip(&assigned).enumerate() {
        for (turn, name) in names.iter().enumerate() {
            if let Some(entry) = hosts.get_mut(*name) {
                entry.wave = u32::try_from(index).unwrap_or(u32::MAX);
                entry.turn = u32::try_from(turn).unwrap_or(u32::MAX);
            }
        }
        waves.push(PlannedWave {
            name: wave.name.clone(),
            hosts: names.len(),
            first: names
                .iter()
                .take(NAMED)
                .map(|name| (*name).to_owned())
                .collect(),
        });
    }
    Ok(waves)
}

pub(super) fn manifest(
    project: &Project,
    before: Option<&Before>,
    documents: &BTreeMap<String, Vec<u8>>,
    hosts: Shard,
) -> anyhow::Result<Manifest> {
    let refused = |refused: portguard_fleet::release::Refused| Fault::usage(refused.to_string());
    let chunks = project.draft().join(CHUNKS);
    let keep = |hash: &Hash, chunk: &[u8]| write(&chunks.join(hash.as_str()), chunk);
    let mut objects = BTreeMap::new();
    for (name, content) in documents {
        let packed = pack(content).map_err(refused)?;
        for (hash, chunk) in &packed.chunks {
            keep(hash, chunk)?;
        }
        objects.insert(name.clone(), packed.object);
    }
    let mut pieces = Vec::new();
    for shard in shards(hosts) {
        let (hash, chunk) = pack_small(&serde_json::to_vec(&shard)?).map_err(refused)?;
        keep(&hash, &chunk)?;
        pieces.push(hash);
    }
    let last = before;
    let serial = last.map_or(1, |last| last.serial + 1);
    let mut key_changes = last
        .map(|last| last.key_changes.clone())
        .unwrap_or_default();
    let mut keys = project.keys(key_changes.len() as u64 + 1);
    if last.is_some_and(|last| last.keys != keys) {
        keys.version += 1;
        key_changes.push(serial);
        say("the keys change with this release: the old ones sign it, the new ones the next");
    }
    let now = now();
    Ok(Manifest {
        schema: SCHEMA,
        fleet: project.config.fleet.clone(),
        serial,
        previous: last.map(|last| last.serial),
        rollback_to: before.and_then(|before| before.way_back.clone()),
        rollback_within: seconds(&project.config.rollback_within).map_err(Fault::usage)?,
        issued: now,
        valid_until: now.saturating_add(seconds(&project.config.valid).map_err(Fault::usage)?),
        least_tool: env!("CARGO_PKG_VERSION").to_owned(),
        keys,
        key_changes,
        plan: project.plan(),
        objects,
        hosts: pieces,
    })
}

pub(super) fn save(project: &Project, manifest: &Manifest) -> anyhow::Result<u64> {
    let text = manifest.canonical();
    write(&project.draft().join(MANIFEST), text.as_bytes())?;
    write(
        &project.draft().join("hosts.json"),
        &serde_json::to_vec(&manifest.hosts)?,
    )?;
    let mut size = text.len() as u64;
    for hash in manifest.chunks() {
        let path: PathBuf = project.draft().join(CHUNKS).join(hash.as_str());
        size += fs::metadata(&path).map_or(0, |meta| meta.len());
    }
    Ok(size)
}
