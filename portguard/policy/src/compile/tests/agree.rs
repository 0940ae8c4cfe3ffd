//! Both sides agree: what one host may send to another, the other accepts from it, and the reverse, or a lint names the row.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::OnceLock;

use proptest::prelude::*;

use crate::catalog::{Catalog, Direction, Peer, Transport};
use crate::compile::{Inputs, Selection, compile, review};
use crate::policy::{Compiled, Grant, GrantKind, Policy};
use crate::site::{
    ChangedPorts, Chosen, Host, Interface, Place, Ports, RowSite, Site, SystemSite, Term, Terms,
    Unresolved, Who,
};

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
    asked(catalog, site, host, compile)
}

/// A host on the one interface that it has, if it has any.
fn asked(catalog: &Catalog, site: &Site, host: &str, how: fn(&Inputs<'_>) -> Compiled) -> Compiled {
    let (resolved, files) = (BTreeMap::new(), BTreeMap::new());
    let interfaces = site.host(host).map(|host| &host.interfaces);
    how(&Inputs {
        catalog,
        site,
        host: Selection::Name(host.to_owned()),
        interface: interfaces
            .and_then(|all| all.keys().next())
            .map(String::as_str),
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

/// One more thing that a site says: which row or role, what of it, of which host alone, and whom it names.
type Extra = (u8, u8, Option<u8>, u8);

/// Says it, whatever comes of it.
fn say(catalog: &Catalog, draft: &Draft, site: &mut Site, (at, kind, of, whom): Extra) {
    let systems: Vec<_> = catalog.systems.values().collect();
    let system = systems[usize::from(draft.system) % systems.len()];
    let rows: Vec<&str> = system
        .rows
        .iter()
        .map(|row| row.id.split('/').nth(1).unwrap())
        .collect();
    let row = pick(&rows, at).unwrap().to_owned();
    let whom = pick(&site.hosts, whom).unwrap().addresses[0].0;
    let who = Who::These(Terms(vec![(Term::Prefix(whom.into()), PLACE)]));
    let of = of.map(|of| usize::from(of) % site.hosts.len());
    if kind == 5 {
        let host = &mut site.hosts[of.unwrap_or_default()];
        let interface = Interface {
            without_rows: vec![(format!("{}/{row}", system.id), PLACE)],
            ..Interface::default()
        };
        host.interfaces.insert("eth0".to_owned(), interface);
        return;
    }
    let said = match of {
        Some(of) => site.hosts[of]
            .systems
            .entry(system.id.clone())
            .or_insert(SystemSite::EMPTY),
        None => site.systems.get_mut(&system.id).unwrap(),
    };
    let roles: Vec<_> = system.host_roles().map(|role| role.id.clone()).collect();
    let (key, settings) = match kind {
        0 => (
            row,
            RowSite {
                off: Some("spare".to_owned()),
                ..RowSite::default()
            },
        ),
        1 => (
            row,
            RowSite {
                only: Some(who),
                ..RowSite::default()
            },
        ),
        2 => (
            format!("{row}/out"),
            RowSite {
                only: Some(who),
                ..RowSite::default()
            },
        ),
        3 => (
            row,
            RowSite {
                unprinted_peers: Some(who),
                ..RowSite::default()
            },
        ),
        _ => {
            said.peers.insert(pick(&roles, at).unwrap(), (who, PLACE));
            return;
        }
    };
    said.rows.insert(key, settings);
}

/// Whether hosts of the system are at the other end of a row, not only whoever has an address that it is for.
fn has_two_ends(catalog: &Catalog, id: &str) -> bool {
    let rows = &catalog.systems[id.split('/').next().unwrap()].rows;
    let row = rows.iter().find(|row| row.id == id).unwrap();
    row.direction == Direction::Both
        || row
            .peers
            .iter()
            .any(|peer| matches!(peer, Peer::Role(_) | Peer::SameRole))
}

/// Looks a reason up in the site, with none of the compiler's tables.
fn is_true(catalog: &Catalog, site: &Site, own: &Host, reason: &str) -> bool {
    let word = |after: &str| {
        let rest = reason.split_once(after)?.1;
        Some(
            rest.split([' ', ';', '`', ','])
                .next()
                .unwrap_or_default()
                .to_owned(),
        )
    };
    let has = |host: &Host, id: &str| {
        let (system, role) = id.split_once('/').unwrap();
        host.roles.iter().any(|(own, _)| {
            let (of, own) = own.split_once('/').unwrap();
            of == system && catalog.systems[of].closure(own).contains(role)
        })
    };
    let clusters = |host: &Host| {
        host.cluster
            .iter()
            .map(|(name, _)| name.clone())
            .collect::<Vec<_>>()
    };
    let others = |id: &str| {
        let hosts = site
            .hosts
            .iter()
            .filter(|host| host.name != own.name && has(host, id));
        hosts
            .map(|host| clusters(host) == clusters(own))
            .collect::<Vec<bool>>()
    };
    if reason.starts_with("no other host of the site is") {
        return reason
            .split("role ")
            .skip(1)
            .all(|rest| others(rest.split([',', ';', ' ']).next().unwrap()).is_empty());
    }
    if reason.contains("are of other clusters") {
        let others = others(&word("are role ").unwrap());
        return !others.is_empty() && others.iter().all(|is_related| !is_related);
    }
    if reason.starts_with("members of a cluster are of one kind") {
        let id = word("the role ").unwrap();
        let mut hosts = site
            .hosts
            .iter()
            .filter(|host| host.name != own.name && clusters(host) == clusters(own));
        return !others(&id).is_empty()
            && !hosts.any(|host| host.roles.iter().any(|(own, _)| *own == id));
    }
    if let Some(name) =
        word("towards `").or_else(|| word("`").filter(|_| reason.contains("no other role")))
    {
        return site
            .host(&name)
            .is_some_and(|other| other.name != own.name && clusters(other) == clusters(own));
    }
    if reason.starts_with("the site does not say who") {
        let key = word("who `").unwrap();
        let said = site.systems.values().chain(own.systems.values());
        return !said
            .flat_map(|said| said.peers.keys())
            .any(|known| *known == key);
    }
    reason == "a host is never its own peer"
        || reason.starts_with("the site's `only` leaves nobody")
        || reason.starts_with("domain ")
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

// These compile all hosts several times a case.
proptest! {
    #![proptest_config(ProptestConfig { cases: cases() / 8, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_said_both_ends_agree_or_it_is_told(
        draft in draft(),
        extras in prop::collection::vec((any::<u8>(), 0_u8..6, prop::option::of(any::<u8>()), any::<u8>()), 1..3),
    ) {
        let catalog = embedded();
        let mut site = site(catalog, &draft);
        for extra in &extras {
            say(catalog, &draft, &mut site, *extra);
        }
        let all: Vec<_> = site.hosts.iter().map(|host| (host, compiled(catalog, &site, &host.name).policy)).collect();
        for (own, ours) in &all {
            let mut told = None;
            for (other, theirs) in all.iter().filter(|(other, _)| other.name != own.name) {
                let (here, there) = (own.addresses[0].0, other.addresses[0].0);
                for (open, far) in [(&ours.outbound, &theirs.inbound), (&ours.inbound, &theirs.outbound)] {
                    let mut open = towards(ours, open, there);
                    let is_named = |row: &str| ours.outbound.iter().chain(&ours.inbound)
                        .any(|grant| grant.row == row && grant.peers != crate::policy::Peers::Any);
                    open.retain(|(.., row)| is_named(row) && has_two_ends(catalog, row));
                    let far = towards(theirs, far, here);
                    let lacking = lacking(&open, &far);
                    if lacking.is_empty() {
                        continue;
                    }
                    let told = told.get_or_insert_with(|| asked(catalog, &site, &own.name, review).diagnostics);
                    let name = format!("`{}`", other.name);
                    // A row that is named wrongly is refused before anything is compared.
                    let is_refused = told.iter().any(|one| one.code == "unknown-row");
                    let is_told = is_refused || told.iter().any(|one| matches!(one.code, "ends-differ" | "address-without-role") && one.message.contains(&name));
                    // Members that the site gives by address are outside, whoever has the address.
                    prop_assert!(is_told, "{} and {}: {:?} with {extras:?}: {:#?}", own.name, other.name, lacking, told);
                }
            }
        }
    }

    #[test]
    fn reasons_for_which_a_row_is_for_nobody_are_true(
        draft in draft(),
        extra in (any::<u8>(), 0_u8..6, prop::option::of(any::<u8>()), any::<u8>()),
    ) {
        let catalog = embedded();
        let mut site = site(catalog, &draft);
        say(catalog, &draft, &mut site, extra);
        for own in &site.hosts {
            for omitted in compiled(catalog, &site, &own.name).policy.omitted.iter().filter(|one| one.reason == "no-peer") {
                for reason in omitted.detail.split("; ") {
                    prop_assert!(is_true(catalog, &site, own, reason), "{}: {}: {reason}", own.name, omitted.row);
                }
            }
        }
    }
}
