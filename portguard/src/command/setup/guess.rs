//! Which roles a host has, by what listens on it. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use portguard_kernel::host::listeners::Listener;
use portguard_policy::catalog::{Catalog, Direction, PortSpec, Row, System, Transport};

/// Ports that many products have say little about one.
const COMMON: [u16; 12] = [22, 25, 53, 80, 111, 123, 161, 389, 443, 514, 636, 8080];

/// A role is likely from so much evidence on: a port that only its system has counts one.
const ENOUGH: f64 = 1.5;

/// A role that was thought of.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Proposal {
    pub(super) role: String,
    /// What speaks for it: a port that only its system has counts one, others less; a process or unit of its name two.
    pub(super) score: f64,
    /// Whether it is proposed.
    pub(super) likely: bool,
    /// Its ports that somebody listens on.
    pub(super) ports: Vec<String>,
    /// Processes and units that have its name.
    pub(super) processes: Vec<String>,
}

impl Proposal {
    /// In words.
    pub(super) fn why(&self) -> String {
        let mut words = Vec::new();
        if !self.ports.is_empty() {
            words.push(format!("listens on {}", self.ports.join(", ")));
        }
        if !self.processes.is_empty() {
            words.push(format!("runs {}", self.processes.join(", ")));
        }
        if words.is_empty() {
            "named".to_owned()
        } else {
            words.join("; ")
        }
    }
}

type Port = (Transport, u16);

/// Single ports that a role listens on by itself.
fn ports_of(rows: &[&Row]) -> BTreeSet<Port> {
    let inbound = rows.iter().filter(|row| {
        row.inert.is_none() && matches!(row.direction, Direction::In | Direction::Both)
    });
    inbound
        .flat_map(|row| {
            let numbers = row
                .ports
                .iter()
                .filter_map(|port| match port.to_string().parse() {
                    Ok(number) if !PortSpec::is_open(port) => Some(number),
                    _ => None,
                });
            let numbers: Vec<u16> = numbers.collect();
            row.transports.iter().flat_map(move |transport| {
                numbers
                    .clone()
                    .into_iter()
                    .map(|number| (*transport, number))
            })
        })
        .collect()
}

/// All roles that something speaks for, likeliest first. Roles that stand on the same node are likely together.
pub(super) fn proposals(catalog: &Catalog, listeners: &[Listener]) -> Vec<Proposal> {
    let open: BTreeSet<Port> = listeners
        .iter()
        .filter(|listener| !listener.is_loopback())
        .map(|listener| (listener.transport, listener.port))
        .collect();
    let names: BTreeSet<String> = listeners
        .iter()
        .flat_map(|listener| &listener.processes)
        .flat_map(|process| std::iter::once(process.name.clone()).chain(process.unit.clone()))
        .map(|name| name.to_lowercase())
        .collect();
    let mut roles: Vec<(&System, String, BTreeSet<Port>)> = Vec::new();
    // How many systems have a port: what all have speaks for none.
    let mut systems: BTreeMap<Port, BTreeSet<&str>> = BTreeMap::new();
    for system in catalog.systems.values() {
        for role in system.host_roles() {
            let rows: Vec<&Row> = system.rows_of(&role.id).collect();
            let ports = ports_of(&rows);
            for port in &ports {
                systems.entry(*port).or_default().insert(&system.id);
            }
            roles.push((system, role.id.clone(), ports));
        }
    }
    let weight = |port: &Port| -> f64 {
        let shared = systems.get(port).map_or(1, BTreeSet::len);
        if COMMON.contains(&port.1) {
            0.1
        } else if shared == 1 {
            1.0
        } else {
            0.4
        }
    };
    let mut found: Vec<(Proposal, BTreeSet<Port>, &str)> = Vec::new();
    for (system, role, ports) in &roles {
        let met: BTreeSet<Port> = ports.intersection(&open).copied().collect();
        let words: Vec<&str> = system
            .id
            .split('-')
            .chain(role.split('-'))
            .filter(|word| {
                word.len() > 3 && !["node", "server", "manager", "connect"].contains(word)
            })
            .collect();
        let processes: Vec<String> = names
            .iter()
            .filter(|name| words.iter().any(|word| name.contains(word)))
            .cloned()
            .collect();
        let named = if processes.is_empty() { 0.0 } else { 2.0 };
        let score = met.iter().map(weight).sum::<f64>() + named;
        if score >= 0.4 {
            let proposal = Proposal {
                role: format!("{}/{role}", system.id),
                score,
                likely: false,
                ports: met
                    .iter()
                    .map(|(transport, port)| format!("{transport}/{port}"))
                    .collect(),
                processes,
            };
            found.push((proposal, met, &system.id));
        }
    }
    found.sort_by(|a, b| {
        b.0.score
            .total_cmp(&a.0.score)
            .then(a.0.role.cmp(&b.0.role))
    });
    // The likeliest system; of its roles those that explain ports which no likelier one does.
    let system = found.first().map(|(.., system)| *system);
    let mut explained: BTreeSet<Port> = BTreeSet::new();
    for (proposal, met, of) in &mut found {
        let news: f64 = met.difference(&explained).map(weight).sum();
        let is_more = explained.is_empty() || news >= 1.0;
        if Some(*of) == system && proposal.score >= ENOUGH && is_more {
            proposal.likely = true;
            explained.extend(met.iter().copied());
        }
    }
    found.into_iter().map(|(proposal, ..)| proposal).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A host where all single ports of a role are listened on has this role proposed, among the likely ones or one whose ports
    /// are the same.
    #[test]
    fn each_role_is_found_by_its_ports() {
        let catalog = Catalog::embedded().unwrap();
        let mut missed = Vec::new();
        for system in catalog.systems.values() {
            for role in system.host_roles() {
                let rows: Vec<&Row> = system.rows_of(&role.id).collect();
                let ports = ports_of(&rows);
                let listeners: Vec<Listener> = ports
                    .iter()
                    .map(|(transport, port)| Listener {
                        transport: *transport,
                        port: *port,
                        address: [0, 0, 0, 0].into(),
                        processes: Vec::new(),
                    })
                    .collect();
                let all = proposals(&catalog, &listeners);
                let likely = all.iter().find(|one| one.likely);
                let is_right = likely.is_some_and(|one| one.role.starts_with(&system.id));
                let has_own = ports
                    .iter()
                    .filter(|(_, port)| !COMMON.contains(port))
                    .count()
                    >= 3;
                if has_own && !is_right {
                    missed.push((format!("{}/{}", system.id, role.id), likely.cloned()));
                }
            }
        }
        assert!(missed.is_empty(), "{missed:#?}");
        assert!(proposals(&catalog, &[]).is_empty());
    }
}
