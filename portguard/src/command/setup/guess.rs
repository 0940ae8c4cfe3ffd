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
    /// Installed packages that have its name.
    pub(super) packages: Vec<String>,
    /// How many of its ports nobody listens on.
    pub(super) missing: usize,
    /// Other roles that listen on the very same ports.
    pub(super) rivals: Vec<String>,
    /// The likely role that the document has on the same node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) beside: Option<String>,
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
        if !self.packages.is_empty() {
            words.push(format!("has the package {}", self.packages.join(", ")));
        }
        if let Some(other) = &self.beside {
            words.push(format!("usually runs beside {other}"));
        }
        if !self.rivals.is_empty() {
            words.push(format!(
                "so would {} (`--role` says which)",
                self.rivals.join(", ")
            ));
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

/// Ports that others can reach somebody on.
fn open(listeners: &[Listener]) -> BTreeSet<Port> {
    listeners
        .iter()
        .filter(|listener| !listener.is_loopback())
        .map(|listener| (listener.transport, listener.port))
        .collect()
}

/// Words that a process, unit or package of it would have in its name.
fn words(id: &str) -> impl Iterator<Item = &str> {
    const COMMON_WORDS: [&str; 9] = [
        "node", "server", "manager", "connect", "service", "module", "engine", "core", "database",
    ];
    id.split('-')
        .filter(|word| word.len() > 3 && !COMMON_WORDS.contains(word))
}

/// Names that have a word of the system in them, and whether one has a word of the role, too.
fn named(names: &BTreeSet<String>, system: &str, role: &str) -> (Vec<String>, bool) {
    let has = |name: &&String, id: &str| words(id).any(|word| name.contains(word));
    let of_system: Vec<&String> = names.iter().filter(|name| has(name, system)).collect();
    // Words of a role alone are everywhere: a gateway, a portal.
    let of_role: Vec<String> = of_system
        .iter()
        .filter(|name| has(name, role))
        .map(|name| (*name).clone())
        .collect();
    if of_role.is_empty() {
        (of_system.into_iter().cloned().collect(), false)
    } else {
        (of_role, true)
    }
}

/// What the name of the system in a process or package says for each of its roles, and what that of the role says.
const SYSTEM_NAMED: f64 = 0.5;
const ROLE_NAMED: f64 = 2.0;

/// All roles that something speaks for, likeliest first. Roles that stand on the same node are likely together.
pub(super) fn proposals(
    catalog: &Catalog,
    listeners: &[Listener],
    packages: &BTreeSet<String>,
) -> Vec<Proposal> {
    let open = open(listeners);
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
        let (processes, runs) = named(&names, &system.id, role);
        let (packages, is_installed) = named(packages, &system.id, role);
        let by_name = match (runs || is_installed, processes.len() + packages.len()) {
            (true, _) => ROLE_NAMED,
            (false, 0) => 0.0,
            (false, _) => SYSTEM_NAMED,
        };
        let score = met.iter().map(weight).sum::<f64>() + by_name;
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
                packages,
                missing: ports.len() - met.len(),
                rivals: Vec::new(),
                beside: None,
            };
            found.push((proposal, met, &system.id));
        }
    }
    found.sort_by(|a, b| {
        b.0.score
            .total_cmp(&a.0.score)
            // Of two that explain as much, the one of which less is missing.
            .then(a.0.missing.cmp(&b.0.missing))
            .then(a.0.role.cmp(&b.0.role))
    });
    // The likeliest system; of its roles those that explain ports which no likelier one does.
    let system = found.first().map(|(.., system)| *system);
    let mut explained: BTreeSet<Port> = BTreeSet::new();
    for (proposal, met, of) in &mut found {
        let news: f64 = met.difference(&explained).map(weight).sum();
        let is_own = proposal.score - met.iter().map(weight).sum::<f64>() >= ROLE_NAMED;
        let is_more = explained.is_empty() || news >= 1.0 || is_own;
        if Some(*of) == system && proposal.score >= ENOUGH && is_more {
            proposal.likely = true;
            explained.extend(met.iter().copied());
        }
    }
    name_rivals(&mut found);
    let mut all: Vec<Proposal> = found.into_iter().map(|(proposal, ..)| proposal).collect();
    beside(catalog, &mut all);
    all
}

/// Of a likely role, those that are not likely only since it explains all that they would.
fn name_rivals(found: &mut [(Proposal, BTreeSet<Port>, &str)]) {
    let others: Vec<(String, BTreeSet<Port>)> = found
        .iter()
        .filter(|(proposal, ..)| !proposal.likely)
        .map(|(proposal, met, _)| (proposal.role.clone(), met.clone()))
        .collect();
    for (proposal, met, _) in found
        .iter_mut()
        .filter(|(one, met, _)| one.likely && !met.is_empty())
    {
        let same = others.iter().filter(|(_, other)| other == met);
        proposal.rivals = same.map(|(role, _)| role.clone()).collect();
    }
}

/// A likely role and another that fits as well in everything, if there are two such.
pub(super) fn tie(all: &[Proposal]) -> Option<(&Proposal, &Proposal)> {
    all.iter().filter(|one| one.likely).find_map(|one| {
        let is_as_good = |other: &&Proposal| {
            one.rivals.contains(&other.role)
                && other.score >= one.score
                && other.missing <= one.missing
        };
        Some((one, all.iter().find(is_as_good)?))
    })
}

/// What an answer chooses: a number from 1, a role, or with nothing the first.
pub(super) fn chosen<'p>(answer: &str, choices: &[&'p Proposal]) -> Option<&'p Proposal> {
    let named = || choices.iter().find(|one| one.role == answer);
    let chosen = match answer.parse::<usize>() {
        _ if answer.is_empty() => choices.first(),
        Ok(number) => choices.get(number.checked_sub(1)?),
        Err(_) => named(),
    };
    chosen.copied()
}

/// Roles that the document has on the same node as a likely one: likely themselves if anything speaks for them, and mentioned
/// otherwise.
fn beside(catalog: &Catalog, all: &mut Vec<Proposal>) {
    let likely: Vec<String> = all
        .iter()
        .filter(|one| one.likely)
        .map(|one| one.role.clone())
        .collect();
    for main in likely {
        let Ok((system, role)) = catalog.role(&main) else {
            continue;
        };
        let family = system.closure(&role.id);
        for other in system.host_roles() {
            let stands = other.beside.iter().any(|id| {
                *id == role.id || family.contains(&id.as_str()) || {
                    // A module of what it stands beside.
                    system.closure(id).contains(&role.id.as_str())
                }
            });
            let name = format!("{}/{}", system.id, other.id);
            if !stands || name == main {
                continue;
            }
            match all.iter_mut().find(|one| one.role == name) {
                Some(known) if known.beside.is_none() => {
                    known.likely = true;
                    known.beside = Some(main.clone());
                }
                Some(_) => {}
                None => all.push(Proposal {
                    role: name,
                    score: 0.0,
                    likely: false,
                    ports: Vec::new(),
                    processes: Vec::new(),
                    packages: Vec::new(),
                    missing: 0,
                    rivals: Vec::new(),
                    beside: Some(main.clone()),
                }),
            }
        }
    }
}

/// The deployment of each system of these roles, where what listens belongs to one of them only.
pub(super) fn deployments(
    catalog: &Catalog,
    roles: &[String],
    listeners: &[Listener],
) -> BTreeMap<String, String> {
    let open = open(listeners);
    let mut found = BTreeMap::new();
    for name in roles {
        let Ok((system, role)) = catalog.role(name) else {
            continue;
        };
        // Ports of rows that hold in one deployment only; of all others, in None.
        let mut sets: BTreeMap<Option<&str>, BTreeSet<Port>> = BTreeMap::new();
        for row in system.rows_of(&role.id) {
            let of = row.condition.as_ref().map(|one| one.deployments.as_slice());
            let only = match of {
                Some([only]) => Some(only.as_str()),
                _ => None,
            };
            sets.entry(only).or_default().extend(ports_of(&[row]));
        }
        let met = sets.iter().filter_map(|(only, ports)| {
            let others = sets.iter().filter(|(other, _)| *other != only);
            let others: BTreeSet<&Port> = others.flat_map(|(_, ports)| ports).collect();
            let own = |port: &&Port| open.contains(port) && !others.contains(port);
            (*only).filter(|_| ports.iter().any(|port| own(&port)))
        });
        if let [only] = met.collect::<Vec<_>>().as_slice() {
            found.insert(system.id.clone(), (*only).to_owned());
        }
    }
    found
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
                let all = proposals(&catalog, &listeners, &BTreeSet::new());
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
        assert!(proposals(&catalog, &[], &BTreeSet::new()).is_empty());
    }

    fn listening(ports: &[u16]) -> Vec<Listener> {
        let one = |port: &u16| Listener {
            transport: Transport::Tcp,
            port: *port,
            address: [0, 0, 0, 0].into(),
            processes: Vec::new(),
        };
        ports.iter().map(one).collect()
    }

    fn likely(all: &[Proposal]) -> Vec<&str> {
        let likely = all.iter().filter(|one| one.likely);
        likely.map(|one| one.role.as_str()).collect()
    }

    /// What only listens tells an ESB from an API manager by the ports that it has not.
    #[test]
    fn of_roles_with_the_same_ports_that_is_proposed_which_lacks_least() {
        let catalog = Catalog::embedded().unwrap();
        let system = &catalog.systems["wso2"];
        let of_role = |id: &str| -> Vec<Listener> {
            let rows: Vec<&Row> = system.rows_of(id).collect();
            let all = ports_of(&rows)
                .into_iter()
                .map(|(transport, port)| Listener {
                    transport,
                    port,
                    address: [0, 0, 0, 0].into(),
                    processes: Vec::new(),
                });
            all.collect()
        };
        let mut told = 0;
        for role in system.host_roles() {
            let all = proposals(&catalog, &of_role(&role.id), &BTreeSet::new());
            let id = format!("wso2/{}", role.id);
            let Some(first) = all.iter().find(|one| one.likely) else {
                continue;
            };
            // It is the one, or as good as the one, which says so.
            told += usize::from(first.role == id);
            let is_named = first.role == id || first.rivals.contains(&id);
            assert!(is_named, "{id}: {all:#?}");
        }
        assert!(told > 8, "{told}");
        // A load balancer listens on the very same; an API manager on more.
        let all = proposals(&catalog, &of_role("esb"), &BTreeSet::new());
        let (one, other) = tie(&all).unwrap();
        let both = BTreeSet::from([one.role.as_str(), other.role.as_str()]);
        assert_eq!(both, ["wso2/elastic-load-balancer", "wso2/esb"].into());
        let all = proposals(&catalog, &of_role("api-manager"), &BTreeSet::new());
        assert_eq!(likely(&all).first(), Some(&"wso2/api-manager"), "{all:#?}");
        assert!(tie(&all).is_none(), "{all:#?}");
    }

    #[test]
    fn an_answer_chooses_by_number_or_name_and_none_the_first() {
        let catalog = Catalog::embedded().unwrap();
        let all = proposals(&catalog, &listening(&[8_280, 8_243]), &BTreeSet::new());
        let choices: Vec<&Proposal> = all.iter().take(2).collect();
        let role = |answer: &str| chosen(answer, &choices).map(|one| one.role.as_str());
        let [one, other] = [&choices[0].role, &choices[1].role];
        assert_eq!(role(""), Some(one.as_str()));
        assert_eq!(role("2"), Some(other.as_str()));
        assert_eq!(role(other), Some(other.as_str()));
        for wrong in ["0", "3", "-1", "y", "99999999999999999999"] {
            assert_eq!(role(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn packages_speak_for_a_role_by_its_name_and_for_no_other_system() {
        let catalog = Catalog::embedded().unwrap();
        let packages = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let all = proposals(&catalog, &[], &packages(&["nexthink-portal", "bash"]));
        assert_eq!(likely(&all), ["nexthink/portal"], "{all:#?}");
        assert_eq!(all[0].packages, ["nexthink-portal"]);
        // Of words that any product may have nothing follows.
        let other = packages(&["xdg-desktop-portal", "docker-engine", "api-gateway"]);
        let all = proposals(&catalog, &[], &other);
        assert!(all.is_empty(), "{all:#?}");
    }

    #[test]
    fn roles_of_one_node_are_proposed_together_and_with_their_deployment() {
        let catalog = Catalog::embedded().unwrap();
        let system = &catalog.systems["interlink-asi"];
        let rows: Vec<&Row> = system.rows_of("asi").collect();
        let mut ports: Vec<u16> = ports_of(&rows).iter().map(|(_, port)| *port).collect();
        // Something of the vault, too: the node has both roles.
        let of_vault: Vec<&Row> = system.rows_of("vault").collect();
        ports.extend(ports_of(&of_vault).iter().map(|(_, port)| *port));
        let all = proposals(&catalog, &listening(&ports), &BTreeSet::new());
        let likely = likely(&all);
        assert!(likely.contains(&"interlink-asi/asi"), "{all:#?}");
        assert!(likely.contains(&"interlink-asi/vault"), "{all:#?}");
        let authenticator = all.iter().find(|one| one.role.ends_with("/authenticator"));
        assert!(
            authenticator.is_some_and(|one| one.beside.is_some()),
            "{all:#?}"
        );
        // What only a cluster listens on.
        let clustered = rows.iter().filter(|row| {
            row.condition
                .as_ref()
                .is_some_and(|one| one.deployments == ["clustered"])
        });
        let clustered: Vec<&Row> = clustered.copied().collect();
        let ports: Vec<u16> = ports_of(&clustered).iter().map(|(_, port)| *port).collect();
        let roles = ["interlink-asi/asi".to_owned()];
        let found = deployments(&catalog, &roles, &listening(&ports));
        assert_eq!(found["interlink-asi"], "clustered");
        assert!(deployments(&catalog, &roles, &[]).is_empty());
    }
}
