//! Hosts of several clusters that say unlike things: only the last would hold.

use super::outcome::{Candidate, Outcome, enforcing};
use super::sample;
use super::settings::{self, Level, Setting};
use crate::catalog::System;
use crate::compile::Inputs;
use crate::compile::inventory::clusters_of;
use crate::compile::views::Views;
use crate::diagnostic::Diagnostic;

pub(super) fn conflicts(inputs: &Inputs<'_>) -> Vec<Diagnostic> {
    let whole = enforcing(inputs.site);
    let site = sample::reduced(&whole, &sample::hosts(&whole, None));
    let inputs = Inputs {
        site: &site,
        ..inputs.clone()
    };
    let mut found = Vec::new();
    for system in inputs.catalog.systems.values() {
        let Some(said) = site.systems.get(&system.id) else {
            continue;
        };
        for candidate in Candidate::all(&inputs) {
            let clusters: Vec<&str> = clusters_of(&site, &system.id, candidate.index).collect();
            let speaking = clusters
                .iter()
                .filter(|name| said.clusters.contains_key(**name));
            if clusters.len() > 1 && speaking.count() > 0 && candidate.is_of(&system.id) {
                found.extend(conflict(&inputs, system, &candidate, &clusters));
            }
        }
    }
    found
}

/// What the host opens must be the same whichever of its clusters is asked.
fn conflict(
    inputs: &Inputs<'_>,
    system: &System,
    candidate: &Candidate,
    clusters: &[&str],
) -> Option<Diagnostic> {
    let index = candidate.index?;
    let host = inputs.site.hosts.get(index)?;
    let mut views = Views::new(inputs);
    let mut opened = clusters.iter().map(|cluster| {
        views.as_of(inputs, system, index, cluster);
        Outcome::of(inputs, &views, candidate, &system.id).open
    });
    let first = opened.next()?;
    if opened.all(|open| open == first) {
        return None;
    }
    let is_theirs = |setting: &&Setting| match &setting.level {
        Level::Cluster(name) => clusters.contains(&name.as_str()),
        Level::System | Level::Host(_) => false,
    };
    let all = settings::all(inputs.site, &system.id);
    let mut differing: Vec<String> = Vec::new();
    for setting in all.iter().filter(is_theirs) {
        // Alone of its cluster's words, does it make a difference to this host?
        let without = setting.removed(inputs.site, &system.id);
        let without = Inputs {
            site: &without,
            ..inputs.clone()
        };
        let Level::Cluster(name) = &setting.level else {
            continue;
        };
        let mut views = Views::new(inputs);
        views.as_of(inputs, system, index, name);
        let with = Outcome::of(inputs, &views, candidate, &system.id);
        let mut views = Views::new(&without);
        views.as_of(&without, system, index, name);
        if Outcome::of(&without, &views, candidate, &system.id).open != with.open {
            let place = inputs.site.at(setting.place).unwrap_or_default();
            differing.push(format!("{} of `{name}` ({place})", setting.words()));
        }
    }
    let message = format!(
        "host `{}` is in clusters {}, whose settings of {} differ for it: {}",
        host.name,
        clusters.join(" and "),
        system.id,
        differing.join(", ")
    );
    let hint = format!(
        "set it for the host itself: `systems = {{ {} = {{ ... }} }}`, or put it in one of the clusters only",
        system.id
    );
    let place = host.cluster.first().map_or(host.place, |(_, place)| *place);
    let diagnostic = Diagnostic::error("clusters-differ", message).hint(hint);
    Some(diagnostic.at_known(inputs.site.at(place)))
}
