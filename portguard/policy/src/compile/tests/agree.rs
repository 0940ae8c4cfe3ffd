//! Both sides agree: what one host may send to another, the other accepts from it, and the reverse, or a lint names the row.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::OnceLock;

use proptest::prelude::*;

use crate::catalog::{Catalog, Transport};
use crate::compile::{Inputs, Selection, compile};
use crate::policy::{Compiled, Grant, GrantKind, Policy};
use crate::site::{ChangedPorts, Chosen, Host, Place, Ports, Site, SystemSite, Unresolved};

const PLACE: Place = Place { line: 0, column: 0 };

/// Read once: a case is cheap beside it.
fn embedded() -> &'static Catalog {
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

/// Roles, cluster, offset, and what is said of the host alone.
type DraftHost = (Vec<u8>, Option<u8>, u8, Option<Words>);

#[derive(Debug, Clone)]
struct Draft {
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

fn draft() -> impl Strategy<Value = Draft> {
    let host = (
        prop::collection::vec(any::<u8>(), 1..3),
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

fn pick<T: Clone>(all: &[T], at: u8) -> Option<T> {
    all.get(usize::from(at) % all.len().max(1)).cloned()
}

fn said(system: &crate::catalog::System, words: &Words) -> SystemSite {
    let mut said = SystemSite::EMPTY;
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

fn site(catalog: &Catalog, draft: &Draft) -> Site {
    let systems: Vec<_> = catalog.systems.values().collect();
    let system = systems[usize::from(draft.system) % systems.len()];
    let roles: Vec<_> = system.host_roles().collect();
    let mut site = Site {
        unresolved_peers: Some(Unresolved::None),
        ..Site::default()
    };
    let mut own = said(system, &draft.said);
    for (name, words) in ["a", "b"].into_iter().zip(&draft.cluster) {
        own.clusters.insert(name.to_owned(), said(system, words));
    }
    site.systems.insert(system.id.clone(), own);
    for (index, (own, cluster, offset, words)) in draft.hosts.iter().enumerate() {
        let net = u8::try_from(index).unwrap();
        let mut host = Host {
            name: format!("h{index}"),
            addresses: vec![(IpAddr::from([10, net, 0, 1]), PLACE)],
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

fn compiled(catalog: &Catalog, site: &Site, host: &str) -> Compiled {
    let (resolved, files) = (BTreeMap::new(), BTreeMap::new());
    compile(&Inputs {
        catalog,
        site,
        host: Selection::Name(host.to_owned()),
        interface: None,
        local_addresses: &[],
        hostname: None,
        resolved: &resolved,
        files: &files,
        today: None,
    })
}

/// What documented grants say of one address: transport, first and last port, row.
fn towards(
    policy: &Policy,
    grants: &[Grant],
    address: IpAddr,
) -> Vec<(Transport, u16, u16, String)> {
    grants
        .iter()
        .filter(|grant| grant.kind == GrantKind::Documented && policy.admits(grant.peers, address))
        .map(|grant| (grant.transport, grant.first, grant.last, grant.row.clone()))
        .collect()
}

/// Ports of one side that the other does not have.
fn lacking<'g>(
    one: &'g [(Transport, u16, u16, String)],
    other: &[(Transport, u16, u16, String)],
) -> Vec<&'g (Transport, u16, u16, String)> {
    let has = |transport: Transport, port: u16| {
        other
            .iter()
            .any(|(t, first, last, _)| *t == transport && (*first..=*last).contains(&port))
    };
    one.iter()
        .filter(|(transport, first, last, _)| !has(*transport, *first) || !has(*transport, *last))
        .collect()
}

/// Sites that are tried; the usual variable of proptest asks for more.
fn cases() -> u32 {
    let said = std::env::var("PROPTEST_CASES").ok();
    said.and_then(|said| said.parse().ok()).unwrap_or(400)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_one_host_sends_the_other_accepts(draft in draft()) {
        let catalog = embedded();
        let site = site(catalog, &draft);
        let all: Vec<_> = site.hosts.iter().map(|host| (host, compiled(catalog, &site, &host.name).policy)).collect();
        for (client, theirs) in &all {
            for (server, ours) in &all {
                if client.name == server.name {
                    continue;
                }
                let (from, to) = (client.addresses[0].0, server.addresses[0].0);
                // Unprinted peers are judged as any here: only what names a host says that it means it.
                let named = |grants: &[Grant], policy: &Policy, address| {
                    let mut found = towards(policy, grants, address);
                    let is_named = |row: &str| policy.outbound.iter().chain(&policy.inbound)
                        .any(|grant| grant.row == row && grant.peers != crate::policy::Peers::Any);
                    found.retain(|(.., row)| is_named(row));
                    found
                };
                let sent = named(&theirs.outbound, theirs, to);
                let accepted = towards(ours, &ours.inbound, from);
                prop_assert_eq!(lacking(&sent, &accepted), Vec::<&(Transport, u16, u16, String)>::new(), "{} to {}", client.name, server.name);
                let accepted = named(&ours.inbound, ours, from);
                let sent = towards(theirs, &theirs.outbound, to);
                prop_assert_eq!(lacking(&accepted, &sent), Vec::<&(Transport, u16, u16, String)>::new(), "{} from {}", server.name, client.name);
            }
        }
    }

    #[test]
    fn hosts_of_different_clusters_are_strangers(draft in draft()) {
        let catalog = embedded();
        let site = site(catalog, &draft);
        for host in &site.hosts {
            let policy = compiled(catalog, &site, &host.name).policy;
            let clusters = |host: &Host| host.cluster.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
            for other in site.hosts.iter().filter(|other| clusters(other) != clusters(host)) {
                for set in &policy.sets {
                    let address = other.addresses[0].0;
                    prop_assert!(!set.prefixes.iter().any(|net| net.contains(&address)), "{} admits {}", host.name, other.name);
                }
            }
        }
    }
}
