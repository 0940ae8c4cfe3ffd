//! What the site says of each system, as one host sees it: its own words, then its cluster's, then the system's.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use super::changes::Change;
use super::inventory::{self, clusters_of};
use super::{Inputs, endings, facts};
use crate::catalog::{Row, System};
use crate::site::{Site, SystemSite};

/// What holds for some hosts.
#[derive(Debug, Default)]
pub(super) struct View {
    pub(super) site: SystemSite,
    /// Port numbers that are not the document's.
    pub(super) changes: Vec<Change>,
}

/// All views of a site.
#[derive(Debug, Default)]
pub(super) struct Views {
    /// By system: hosts that say nothing themselves.
    base: BTreeMap<String, Rc<View>>,
    /// By system and host.
    hosts: BTreeMap<String, BTreeMap<usize, Rc<View>>>,
    silent: View,
}

impl Views {
    pub(super) fn new(inputs: &Inputs<'_>) -> Self {
        let mut views = Self::default();
        let site = inputs.site;
        for system in inputs.catalog.systems.values() {
            let said = site.systems.get(&system.id);
            let own = said.cloned().unwrap_or_default();
            let clusters = own.cluster.iter().map(|(name, _)| name.as_str());
            if said.is_some() {
                let view = view(inputs, system, layered(&own, clusters));
                views.base.insert(system.id.clone(), Rc::new(view));
            }
            let prefix = format!("{}/", system.id);
            let mut alike: BTreeMap<Vec<&str>, Rc<View>> = BTreeMap::new();
            for (index, host) in site.hosts.iter().enumerate() {
                let nearer = host.systems.get(&system.id);
                let has_role =
                    || inventory::roles_of(host).any(|(role, _)| role.starts_with(&prefix));
                let is_of_cluster = !own.clusters.is_empty()
                    && clusters_of(site, &system.id, Some(index)).next().is_some();
                if nearer.is_none() && !(is_of_cluster && has_role()) {
                    continue;
                }
                let clusters: Vec<&str> = clusters_of(site, &system.id, Some(index)).collect();
                let view = match nearer {
                    Some(nearer) => {
                        let said = layered(&own, clusters.iter().copied()).with(nearer);
                        Rc::new(view(inputs, system, said))
                    }
                    // Most hosts of a cluster say nothing themselves.
                    None => Rc::clone(alike.entry(clusters.clone()).or_insert_with(|| {
                        Rc::new(view(
                            inputs,
                            system,
                            layered(&own, clusters.iter().copied()),
                        ))
                    })),
                };
                let hosts = views.hosts.entry(system.id.clone()).or_default();
                hosts.insert(index, view);
            }
            views.join_changes(site, system);
        }
        views
    }

    /// A number that the site changes where the row holds is changed for the listener's other rows, too, and some of these
    /// may hold where the row itself does not.
    fn join_changes(&mut self, site: &Site, system: &System) {
        let Some(hosts) = self.hosts.get_mut(&system.id) else {
            return;
        };
        let base = self.base.get(&system.id);
        let all = || hosts.values().chain(base);
        if all().all(|view| view.site.ports.is_empty()) {
            return;
        }
        let mut distinct: BTreeMap<*const View, &Rc<View>> = BTreeMap::new();
        distinct.extend(all().map(|view| (Rc::as_ptr(view), view)));
        let is_held = |row: &&Row| {
            let mut views = distinct.values();
            views.any(|view| holds(row, system, &view.site))
        };
        let rows = system.rows.iter().filter(is_held);
        let held: BTreeSet<&str> = rows.map(|row| row.id.as_str()).collect();
        let join = |(at, view): (_, &Rc<View>)| {
            let is_held = |row: &Row| held.contains(row.id.as_str());
            let mut changes = Change::all(system, &view.site, is_held);
            nearest_first(&mut changes, site, system);
            let site = view.site.clone();
            (at, Rc::new(View { site, changes }))
        };
        let joined: BTreeMap<*const View, Rc<View>> = distinct.into_iter().map(join).collect();
        let base = self.base.get_mut(&system.id);
        for view in hosts.values_mut().chain(base) {
            if let Some(joined) = joined.get(&Rc::as_ptr(view)) {
                *view = Rc::clone(joined);
            }
        }
    }

    /// Lets a host of several clusters be of one of them.
    pub(super) fn as_of(
        &mut self,
        inputs: &Inputs<'_>,
        system: &System,
        index: usize,
        cluster: &str,
    ) {
        let own = inputs
            .site
            .systems
            .get(&system.id)
            .cloned()
            .unwrap_or_default();
        let mut said = layered(&own, std::iter::once(cluster));
        let host = inputs.site.hosts.get(index);
        if let Some(nearer) = host.and_then(|host| host.systems.get(&system.id)) {
            said = said.with(nearer);
        }
        let hosts = self.hosts.entry(system.id.clone()).or_default();
        hosts.insert(index, Rc::new(view(inputs, system, said)));
    }

    /// What holds for a host; `None`: for one that is in no inventory.
    pub(super) fn at(&self, system: &str, host: Option<usize>) -> &View {
        let own = || self.hosts.get(system)?.get(&host?);
        own()
            .or_else(|| self.base.get(system))
            .map_or(&self.silent, Rc::as_ref)
    }

    /// Whether hosts of a system differ in what holds for them.
    pub(super) fn vary(&self, system: &str) -> bool {
        self.hosts.contains_key(system)
    }
}

fn layered<'s>(system: &SystemSite, clusters: impl Iterator<Item = &'s str>) -> SystemSite {
    let named = clusters.filter_map(|name| system.clusters.get(name));
    named.fold(system.clone(), |said, cluster| said.with(cluster))
}

fn view(inputs: &Inputs<'_>, system: &System, mut site: SystemSite) -> View {
    for chosen in site.choices.values_mut() {
        let is_over = chosen
            .until
            .as_deref()
            .is_some_and(|until| endings::is_over(until, inputs.today));
        if is_over && let Some(last) = chosen.values.pop() {
            chosen.values = vec![last];
        }
    }
    let mut changes = Change::all(system, &site, |row| holds(row, system, &site));
    nearest_first(&mut changes, inputs.site, system);
    View { site, changes }
}

/// Of several rows of one listener, what a host says goes before what its cluster says, and that before the system's words.
fn nearest_first(changes: &mut [Change], site: &Site, system: &System) {
    let Some(said) = site.systems.get(&system.id) else {
        return;
    };
    changes.sort_by_key(|change| {
        let is_here = |said: &SystemSite| {
            let place = said.ports.get(&change.key).map(|(_, place)| *place);
            place == Some(change.place)
        };
        match (is_here(said), said.clusters.values().any(is_here)) {
            (true, _) => 2,
            (false, true) => 1,
            (false, false) => 0,
        }
    });
}

fn holds(row: &Row, system: &System, site: &SystemSite) -> bool {
    !matches!(facts::judge_row(row, system, site), facts::Truth::Fails(_))
}
