//! Which host is in which wave, and when its turn is.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::Hash;
use crate::release::{Plan, PlanError};

/// What is to be known of a host to assign it.
#[derive(Debug, Clone)]
pub struct Member {
    /// Its name.
    pub name: String,
    /// Its failure domain.
    pub zone: String,
    /// `SYSTEM/ROLE`.
    pub roles: Vec<String>,
    /// Further labels.
    pub labels: BTreeMap<String, String>,
}

impl Member {
    /// A host without labels.
    pub fn new(name: &str, zone: &str, roles: &[&str]) -> Self {
        Self {
            name: name.to_owned(),
            zone: zone.to_owned(),
            roles: roles.iter().map(|role| (*role).to_owned()).collect(),
            labels: BTreeMap::new(),
        }
    }
}

/// The hosts of each wave, in their turn. Within a wave, zones take turns, so that one percent of all hosts is not all of
/// one rack; and a host's place among those of its zone is drawn from its name, so that it is the same every time.
///
/// # Errors
/// If a wave has no hosts, or a host has no wave: nobody is left out in silence.
pub fn assign<'a>(plan: &Plan, hosts: &'a [Member]) -> Result<Vec<Vec<&'a str>>, PlanError> {
    plan.check()?;
    let known: BTreeSet<&str> = hosts
        .iter()
        .flat_map(|host| host.labels.keys().map(String::as_str))
        .collect();
    let mut left: Vec<&Member> = hosts.iter().collect();
    let mut waves = Vec::new();
    for wave in &plan.wave {
        if let Some(label) = wave.hosts.labels().find(|label| !known.contains(label)) {
            return Err(PlanError(format!(
                "wave `{}`: no host has a label `{label}`",
                wave.name
            )));
        }
        let (chosen, rest): (Vec<&Member>, Vec<&Member>) = left.into_iter().partition(|host| {
            wave.hosts
                .selects(&host.name, &host.roles, &host.zone, &host.labels)
        });
        if chosen.is_empty() {
            return Err(PlanError(format!(
                "wave `{}`: no remaining host matches `{}`",
                wave.name, wave.hosts
            )));
        }
        let count = share(chosen.len(), wave.percent);
        let mut turns = spread(&chosen);
        let later: BTreeSet<&str> = turns.split_off(count).into_iter().collect();
        left = rest;
        left.extend(
            chosen
                .into_iter()
                .filter(|host| later.contains(host.name.as_str())),
        );
        waves.push(turns);
    }
    if let Some(host) = left.first() {
        return Err(PlanError(format!(
            "host `{}` and {} others are in no wave: end the plan with one for `*`",
            host.name,
            left.len() - 1
        )));
    }
    Ok(waves)
}

/// That many percent, rounded up: a wave is never nobody.
pub fn share(of: usize, percent: u8) -> usize {
    (of * usize::from(percent)).div_ceil(100)
}

fn spread<'a>(hosts: &[&'a Member]) -> Vec<&'a str> {
    let mut zones: BTreeMap<&str, Vec<(Hash, &'a str)>> = BTreeMap::new();
    for host in hosts {
        let place = Hash::of(host.name.as_bytes());
        zones
            .entry(&host.zone)
            .or_default()
            .push((place, &host.name));
    }
    let mut queues: VecDeque<VecDeque<&str>> = zones
        .into_values()
        .map(|mut zone| {
            zone.sort();
            zone.into_iter().map(|(_, name)| name).collect()
        })
        .collect();
    let mut turns = Vec::new();
    while let Some(mut zone) = queues.pop_front() {
        if let Some(host) = zone.pop_front() {
            turns.push(host);
            queues.push_back(zone);
        }
    }
    turns
}
