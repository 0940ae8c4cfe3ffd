//! Sites at random, of what the catalog knows.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::OnceLock;

use proptest::prelude::*;

use crate::catalog::{Catalog, System};
use crate::site::{ChangedPorts, Chosen, Host, Place, Ports, Site, SystemSite, Unresolved};

pub(super) const PLACE: Place = Place { line: 0, column: 0 };

/// Read once: a case is cheap beside it.
pub(super) fn embedded() -> &'static Catalog {
    static CATALOG: OnceLock<Catalog> = OnceLock::new();
    CATALOG.get_or_init(|| Catalog::embedded().unwrap())
}

/// What a system, a cluster or a host says, drawn from what the catalog knows.
#[derive(Debug, Clone)]
struct Words {
    deployment: u8,
    version: Option<u8>,
    options: u16,
    without: u16,
    choices: u16,
    ports: Option<(u8, u16)>,
}

/// Roles, a role of the next system, cluster, offset, and what is said of the host alone.
type DraftHost = (Vec<u8>, Option<u8>, Option<u8>, u8, Option<Words>);

#[derive(Debug, Clone)]
pub(super) struct Draft {
    system: u8,
    hosts: Vec<DraftHost>,
    said: Words,
    cluster: Option<Words>,
}

fn words() -> impl Strategy<Value = Words> {
    let parts = (
        any::<u8>(),
        prop::option::of(0_u8..60),
        any::<u16>(),
        any::<u16>(),
        any::<u16>(),
    );
    let ports = prop::option::weighted(0.3, (any::<u8>(), 20_000_u16..30_000));
    (parts, ports).prop_map(
        |((deployment, version, options, without, choices), ports)| Words {
            deployment,
            version,
            options,
            without,
            choices,
            ports,
        },
    )
}

pub(super) fn draft() -> impl Strategy<Value = Draft> {
    let host = (
        prop::collection::vec(any::<u8>(), 1..3),
        prop::option::weighted(0.2, any::<u8>()),
        prop::option::of(0_u8..2),
        0_u8..3,
        prop::option::weighted(0.2, words()),
    );
    let hosts = prop::collection::vec(host, 2..7);
    (0_u8..5, hosts, words(), prop::option::of(words())).prop_map(
        |(system, hosts, said, cluster)| Draft {
            system,
            hosts,
            said,
            cluster,
        },
    )
}

pub(super) fn pick<T: Clone>(all: &[T], at: u8) -> Option<T> {
    all.get(usize::from(at) % all.len().max(1)).cloned()
}

fn said(system: &System, words: &Words) -> SystemSite {
    let mut said = SystemSite::default();
    let deployments: Vec<_> = system.deployments.keys().cloned().collect();
    said.deployment = pick(&deployments, words.deployment).map(|name| (name, PLACE));
    said.version = words
        .version
        .map(|minor| (vec![u32::from(minor % 8), u32::from(minor)], PLACE));
    for (index, option) in system.options.keys().enumerate() {
        if words.options >> (index % 16) & 1 == 1 {
            said.options.insert(option.clone(), PLACE);
        } else if words.without >> (index % 16) & 1 == 1 {
            said.without.insert(option.clone(), PLACE);
        }
    }
    for (index, (id, choice)) in system.choices.iter().enumerate() {
        let values: Vec<_> = choice.values.keys().cloned().collect();
        let at = u8::try_from(words.choices >> (index % 8) & 3).unwrap();
        let chosen = Chosen {
            values: pick(&values, at).into_iter().collect(),
            ..Chosen::default()
        };
        said.choices.insert(id.clone(), chosen);
    }
    let changeable: Vec<_> = system
        .rows
        .iter()
        .filter(|row| row.customisable && row.ports.len() == 1)
        .map(|row| row.id.split('/').nth(1).unwrap().to_owned())
        .collect();
    if let Some((row, port)) = words.ports
        && let Some(row) = pick(&changeable, row)
    {
        let new = ChangedPorts::All(vec![Ports {
            first: port,
            last: port,
        }]);
        said.ports.insert(row, (new, PLACE));
    }
    said
}

/// Of a host by its place in the inventory.
pub(super) fn address(index: u8) -> IpAddr {
    IpAddr::from([10, index, 0, 1])
}

/// The system that a draft is of.
pub(super) fn of_draft<'c>(catalog: &'c Catalog, draft: &Draft) -> &'c System {
    let mut systems = catalog.systems.values().cycle();
    systems.nth(usize::from(draft.system)).unwrap()
}

pub(super) fn site(catalog: &Catalog, draft: &Draft) -> Site {
    let system = of_draft(catalog, draft);
    let roles: Vec<_> = system.host_roles().collect();
    let systems: Vec<_> = catalog.systems.values().collect();
    let next = systems[usize::from(draft.system + 1) % systems.len()];
    let next_roles: Vec<_> = next.host_roles().collect();
    let mut site = Site {
        unresolved_peers: Some(Unresolved::None),
        ..Site::default()
    };
    let mut own = said(system, &draft.said);
    for (name, words) in ["a", "b"].into_iter().zip(&draft.cluster) {
        own.clusters.insert(name.to_owned(), said(system, words));
    }
    site.systems.insert(system.id.clone(), own);
    for (index, (own, other, cluster, offset, words)) in draft.hosts.iter().enumerate() {
        let net = u8::try_from(index).unwrap();
        let mut host = Host {
            name: format!("h{index}"),
            addresses: vec![(address(net), PLACE)],
            shared_addresses: vec![(IpAddr::from([10, 99, 0, net / 2]), PLACE)],
            ..Host::default()
        };
        let own: BTreeSet<&str> = own
            .iter()
            .filter_map(|at| pick(&roles, *at))
            .map(|role| role.id.as_str())
            .collect();
        for role in own {
            let id = format!("{}/{role}", system.id);
            host.offsets.insert(
                id.clone(),
                (vec![u16::from(*offset), u16::from(*offset) + 7], PLACE),
            );
            host.roles.push((id, PLACE));
        }
        if let Some(role) = other.and_then(|at| pick(&next_roles, at)) {
            host.roles.push((format!("{}/{}", next.id, role.id), PLACE));
            site.systems.entry(next.id.clone()).or_default();
        }
        let cluster = cluster.map(|at| ["a", "b"][usize::from(at)]);
        host.cluster
            .extend(cluster.map(|name| (name.to_owned(), PLACE)));
        if let Some(words) = words {
            host.systems.insert(system.id.clone(), said(system, words));
        }
        site.hosts.push(host);
    }
    site
}
