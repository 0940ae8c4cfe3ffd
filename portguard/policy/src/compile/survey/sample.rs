//! Of a large site, some hosts of each kind: what settings do and where ends differ shows on them, whatever the size.

use std::collections::{BTreeMap, BTreeSet};

use super::settings::{self, Level};
use crate::compile::inventory::{addresses_of, roles_of};
use crate::site::{Site, Term};

/// Sites of fewer hosts are looked at as a whole.
const FEW: usize = 24;
/// Hosts that are looked at.
pub(super) const MOST: usize = 64;
/// Hosts that the site names where it says who is meant.
const NAMED: usize = 16;

/// What tells two hosts apart but for their addresses: roles, clusters, and what is said of them alone.
type Kind = (Vec<String>, Vec<String>, Vec<String>);

/// Hosts by their place in the inventory; `own` is among them.
pub(super) fn hosts(site: &Site, own: Option<usize>) -> BTreeSet<usize> {
    if site.hosts.len() <= FEW {
        return (0..site.hosts.len()).collect();
    }
    let mut found: BTreeSet<usize> = own.into_iter().collect();
    found.extend(named(site).into_iter().take(NAMED));
    let mut said: BTreeMap<usize, Vec<String>> = BTreeMap::new();
    let systems: BTreeSet<&String> = site
        .hosts
        .iter()
        .flat_map(|host| host.systems.keys())
        .collect();
    let offsets = site
        .hosts
        .iter()
        .any(|host| !host.offsets.is_empty() || !host.interfaces.is_empty());
    if offsets || !systems.is_empty() {
        let roles = site.roles().filter_map(|role| role.split_once('/'));
        let systems: BTreeSet<&str> = roles.map(|(system, _)| system).collect();
        for setting in systems
            .into_iter()
            .flat_map(|system| settings::of_hosts(site, system))
        {
            if let Level::Host(index) = setting.level {
                said.entry(index).or_default().push(setting.words());
            }
        }
    }
    let mut kinds: BTreeMap<Kind, Vec<usize>> = BTreeMap::new();
    for (index, host) in site.hosts.iter().enumerate() {
        let mut roles: Vec<String> = roles_of(host).map(|(role, _)| role.clone()).collect();
        roles.sort_unstable();
        let clusters = host.cluster.iter().map(|(name, _)| name.clone()).collect();
        let kind = (roles, clusters, said.remove(&index).unwrap_or_default());
        kinds.entry(kind).or_default().push(index);
    }
    for round in 0..3 {
        let next = kinds.values().filter_map(|hosts| hosts.get(round).copied());
        for index in next {
            if found.len() >= MOST {
                return found;
            }
            found.insert(index);
        }
    }
    found
}

/// Hosts that some term means alone.
fn named(site: &Site) -> BTreeSet<usize> {
    let terms: Vec<&Term> = site.terms().map(|(term, _)| term).collect();
    let names: BTreeSet<&str> = terms
        .iter()
        .filter_map(|term| {
            if let Term::Host(name) = term {
                Some(name.as_str())
            } else {
                None
            }
        })
        .collect();
    let addresses: BTreeSet<_> = terms
        .iter()
        .filter_map(|term| {
            if let Term::Prefix(net) = term {
                Some(*net)
            } else {
                None
            }
        })
        .filter(|net| net.prefix_len() == net.max_prefix_len())
        .map(|net| net.addr())
        .collect();
    let hosts = site.hosts.iter().enumerate();
    let is_named = |host: &crate::site::Host| {
        names.contains(host.name.as_str())
            || addresses_of(host).any(|address| addresses.contains(&address))
    };
    hosts
        .filter(|(_, host)| is_named(host))
        .map(|(index, _)| index)
        .collect()
}

/// The site with these hosts only.
pub(super) fn reduced(site: &Site, hosts: &BTreeSet<usize>) -> Site {
    let mut site = site.clone();
    let mut index = 0;
    site.hosts.retain(|_| {
        let is_kept = hosts.contains(&index);
        index += 1;
        is_kept
    });
    site
}
