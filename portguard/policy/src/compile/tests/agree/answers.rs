//! What else a site says, at random: rows switched off and narrowed, and every way to say who a document means.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use proptest::prelude::*;

use super::draft::{Draft, PLACE, address, of_draft, pick};
use crate::catalog::{Catalog, Direction, Peer, PeerClass, System, Transport};
use crate::site::{
    Access, Group, Interface, Management, OwnRow, Ports, RowSite, Site, Term, Terms, Who,
};

/// Who is meant: how it is written, which host, which role.
type Answer = (u8, u8, u8);

/// One more thing that a site says.
#[derive(Debug, Clone)]
pub(super) struct Extra {
    kind: u8,
    /// Which row, role or class.
    at: u8,
    /// Of this host alone, or of a cluster.
    of: Option<u8>,
    who: Vec<Answer>,
}

pub(super) fn extra() -> impl Strategy<Value = Extra> {
    let who = prop::collection::vec((0_u8..8, any::<u8>(), any::<u8>()), 1..3);
    (0_u8..12, any::<u8>(), prop::option::of(any::<u8>()), who)
        .prop_map(|(kind, at, of, who)| Extra { kind, at, of, who })
}

/// Names of all hosts that a draft may have.
fn names() -> impl Iterator<Item = (String, IpAddr)> {
    (0_u8..8).map(|index| (format!("h{index}"), address(index)))
}

pub(super) fn resolved() -> BTreeMap<String, Vec<IpAddr>> {
    names()
        .map(|(name, address)| (format!("{name}.test"), vec![address]))
        .collect()
}

pub(super) fn files() -> BTreeMap<String, Vec<IpNet>> {
    names()
        .map(|(name, address)| (format!("{name}.txt"), vec![address.into()]))
        .collect()
}

/// Hosts of the site by whatever words, never a network that only holds them.
fn term(catalog: &Catalog, site: &mut Site, (shape, host, role): Answer) -> Term {
    let index = host % u8::try_from(site.hosts.len()).unwrap();
    let name = site.hosts[usize::from(index)].name.clone();
    let roles: Vec<String> = catalog
        .systems
        .values()
        .filter(|system| site.systems.contains_key(&system.id))
        .flat_map(|system| {
            system
                .roles
                .keys()
                .map(|role| format!("{}/{role}", system.id))
        })
        .collect();
    let role = pick(&roles, role).unwrap();
    match shape {
        0 => Term::Prefix(address(index).into()),
        1 => Term::Host(name),
        2 => Term::Role(role),
        3 => Term::Role(format!("{role}@*")),
        4 => Term::Role(format!("{role}@a")),
        5 => Term::Domain(format!("{name}.test")),
        6 => Term::File(format!("{name}.txt")),
        _ => {
            let group = format!("of-{name}");
            let members = Terms(vec![(Term::Host(name), PLACE)]);
            let place = PLACE;
            site.groups.insert(group.clone(), Group { members, place });
            Term::Group(group)
        }
    }
}

/// All keys that a system's `peers` may have.
fn keys(system: &System) -> Vec<String> {
    let printed = system.rows.iter().flat_map(|row| &row.peers);
    let printed = printed.filter_map(|peer| match peer {
        Peer::Group(name) => Some(name.clone()),
        Peer::Asn(number) => Some(format!("asn:{number}")),
        Peer::Domain(name) => Some(format!("domain:{name}")),
        Peer::Multicast => Some("multicast".to_owned()),
        Peer::Role(role) => Some(role.clone()),
        Peer::SameRole | Peer::Unprinted | Peer::Prefix(_) | Peer::Itself => None,
    });
    let mut keys: Vec<String> = printed.chain(system.roles.keys().cloned()).collect();
    keys.sort_unstable();
    keys.dedup();
    keys
}

/// Says it, whatever comes of it.
pub(super) fn say(catalog: &Catalog, draft: &Draft, site: &mut Site, extra: &Extra) {
    let system = of_draft(catalog, draft);
    let rows: Vec<&str> = system
        .rows
        .iter()
        .map(|row| row.id.split('/').nth(1).unwrap())
        .collect();
    let row = pick(&rows, extra.at).unwrap().to_owned();
    let terms = extra
        .who
        .iter()
        .map(|answer| (term(catalog, site, *answer), PLACE));
    let who = Who::These(Terms(terms.collect()));
    let of = extra.of.map(|of| usize::from(of) % site.hosts.len());
    match extra.kind {
        5 => {
            let host = &mut site.hosts[of.unwrap_or_default()];
            let interface = Interface {
                without_rows: vec![(format!("{}/{row}", system.id), PLACE)],
                ..Interface::default()
            };
            host.interfaces.insert("eth0".to_owned(), interface);
            return;
        }
        6 => return site.unprinted_peers = Some(who),
        7 => return site.rows.push(own_row(site, extra, who)),
        8 => {
            let access = Access {
                transport: Transport::Tcp,
                ports: (22, 22),
                peers: who,
                place: PLACE,
            };
            site.management = Some(Management {
                allow: vec![access],
                place: PLACE,
            });
            return;
        }
        _ => {}
    }
    let said = match of {
        Some(of) => site.hosts[of].systems.entry(system.id.clone()).or_default(),
        None => site.systems.get_mut(&system.id).unwrap(),
    };
    let off = Some("spare".to_owned());
    let (key, settings) = match extra.kind {
        0 => (
            row,
            RowSite {
                off,
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
        4 => {
            let class = pick(PeerClass::ALL, extra.at).unwrap();
            said.unprinted_classes.insert(class, (who, PLACE));
            return;
        }
        _ => {
            let key = pick(&keys(system), extra.at).unwrap();
            said.peers.insert(key, (who, PLACE));
            return;
        }
    };
    said.rows.insert(key, settings);
}

fn own_row(site: &Site, extra: &Extra, peers: Who) -> OwnRow {
    let of = extra.of.and_then(|of| pick(&site.hosts, of));
    OwnRow {
        name: format!("own-{}", extra.at),
        direction: [Direction::In, Direction::Out][usize::from(extra.at % 2)],
        transports: vec![Transport::Udp],
        ports: vec![Ports { first: 7, last: 9 }],
        peers,
        reason: "try".to_owned(),
        expires: None,
        hosts: of.into_iter().map(|host| (host.name, PLACE)).collect(),
        roles: Vec::new(),
        audit: false,
        place: PLACE,
    }
}
