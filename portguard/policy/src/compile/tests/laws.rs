//! What holds for any site: compile is deterministic, adding takes nothing away, and the mode changes settings only.

use std::net::{IpAddr, Ipv4Addr};

use proptest::prelude::*;

use super::fixture::{SITE, catalog, compiled_site, port, row};
use crate::catalog::{Direction, Peer};
use crate::compile::Selection;
use crate::policy::{Compiled, Grant, Peers, Policy};
use crate::site::{
    Chosen, Group, Host, Mode, Place, Site, SystemSite, Term, Terms, Unresolved, Who,
};

const ROLES: [&str; 5] = [
    "acme/node",
    "acme/worker",
    "acme/all",
    "acme/server-a",
    "acme/server-b",
];

/// Hosts with one to two roles and an address or two each; a group; whoever is said or not.
fn site() -> impl Strategy<Value = Site> {
    let host = (
        prop::collection::vec(0..ROLES.len(), 1..3),
        prop::collection::vec(1_u8..60, 1..3),
        0_u16..3,
    );
    let hosts = prop::collection::vec(host, 1..6);
    let group = prop::collection::vec((0_u8..4, 8_u8..33), 1..4);
    (hosts, group, any::<[bool; 6]>(), 0_u8..4).prop_map(|(hosts, group, said, unresolved)| {
        let place = Place::default();
        let mut site = Site::default();
        let members = group.into_iter().map(|(byte, length)| {
            let net = ipnet::IpNet::new(Ipv4Addr::new(10, byte, 0, 0).into(), length)
                .unwrap()
                .trunc();
            (Term::Prefix(net), place)
        });
        site.groups.insert(
            "g".to_owned(),
            Group {
                members: Terms(members.collect()),
                place,
            },
        );
        let these = || Who::These(Terms(vec![(Term::Group("g".to_owned()), place)]));
        let mut acme = SystemSite {
            deployment: said[0].then(|| ("clustered".to_owned(), place)),
            version: said[1].then(|| (vec![4, 5], place)),
            ..SystemSite::default()
        };
        if said[2] {
            acme.choices.insert(
                "mail".to_owned(),
                Chosen {
                    values: vec!["25".to_owned()],
                    ..Chosen::default()
                },
            );
        }
        if said[3] {
            acme.peers.insert("support".to_owned(), (these(), place));
        }
        site.unprinted_peers = said[4].then(these);
        if said[5] {
            acme.peers.insert("worker".to_owned(), (these(), place));
        }
        site.systems.insert("acme".to_owned(), acme);
        site.unresolved_peers = [
            None,
            Some(Unresolved::Refuse),
            Some(Unresolved::Any),
            Some(Unresolved::None),
        ][usize::from(unresolved)];
        for (index, (roles, addresses, offset)) in hosts.into_iter().enumerate() {
            site.hosts.push(new_host(index, &roles, &addresses, offset));
        }
        site
    })
}

fn new_host(index: usize, roles: &[usize], addresses: &[u8], offset: u16) -> Host {
    let place = Place::default();
    let third = u8::try_from(index).unwrap();
    let mut host = Host {
        name: format!("h{index}"),
        ..Host::default()
    };
    host.roles = roles
        .iter()
        .map(|role| (ROLES[*role].to_owned(), place))
        .collect();
    host.addresses = addresses
        .iter()
        .map(|last| (IpAddr::from([10, 0, third, *last]), place))
        .collect();
    host.offsets
        .insert("acme/server-a".to_owned(), (vec![offset], place));
    host
}

fn compile(site: &Site) -> Compiled {
    compiled_site(&catalog(), site, Selection::Name("h0".to_owned()))
}

/// Whether every flow that `grant` of `before` allows is allowed by grants of the same row in `after`.
fn kept(before: &Policy, after: &Policy, side: fn(&Policy) -> &[Grant]) -> Result<(), String> {
    for grant in side(before) {
        let same = side(after).iter().filter(|g| {
            g.row == grant.row
                && g.transport == grant.transport
                && g.first <= grant.first
                && g.last >= grant.last
        });
        let mut nets = Vec::new();
        let mut any = false;
        for other in same {
            match other.peers {
                Peers::Any => any = true,
                Peers::Set(index) => nets.extend(&after.sets[index as usize].prefixes),
            }
        }
        let lost = match grant.peers {
            Peers::Any => !any,
            Peers::Set(index) => {
                let nets = ipnet::IpNet::aggregate(&nets);
                let wanted = &before.sets[index as usize].prefixes;
                !any && wanted
                    .iter()
                    .any(|net| !nets.iter().any(|outer| outer.contains(net)))
            }
        };
        if lost {
            return Err(format!("{grant:?} is lost"));
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_same_inputs_give_the_same_policy(site in site()) {
        let (one, two) = (compile(&site), compile(&site.clone()));
        prop_assert_eq!(one.policy.digest(), two.policy.digest());
        prop_assert_eq!(one.policy, two.policy);
        prop_assert_eq!(one.diagnostics, two.diagnostics);
    }

    #[test]
    fn audit_and_enforce_differ_only_in_settings(site in site()) {
        let mut other = site.clone();
        other.mode = Mode::Enforce;
        let (audit, mut enforce) = (compile(&site).policy, compile(&other).policy);
        prop_assert!(enforce.settings.enforce && !audit.settings.enforce);
        enforce.settings.enforce = false;
        prop_assert_eq!(audit, enforce);
    }

    /// Peers that were missing (judged as any) may become known by the new host: only what was given is compared.
    #[test]
    fn a_new_host_takes_nothing_away(site in site(), roles in prop::collection::vec(0..ROLES.len(), 1..3), address in 60_u8..90) {
        let mut site = site;
        site.unresolved_peers = Some(Unresolved::None);
        let before = compile(&site).policy;
        site.hosts.push(new_host(site.hosts.len(), &roles, &[address], 0));
        let after = compile(&site).policy;
        kept(&before, &after, |policy| &policy.inbound).map_err(TestCaseError::fail)?;
        kept(&before, &after, |policy| &policy.outbound).map_err(TestCaseError::fail)?;
    }

    #[test]
    fn a_new_peer_takes_nothing_away(site in site(), byte in 0_u8..8) {
        let mut site = site;
        let before = compile(&site).policy;
        let net = ipnet::IpNet::new(IpAddr::from([172, 16, byte, 0]), 24).unwrap();
        site.groups.get_mut("g").unwrap().members.0.push((Term::Prefix(net), Place::default()));
        let after = compile(&site).policy;
        kept(&before, &after, |policy| &policy.inbound).map_err(TestCaseError::fail)?;
        kept(&before, &after, |policy| &policy.outbound).map_err(TestCaseError::fail)?;
    }

    #[test]
    fn a_new_row_takes_nothing_away(site in site(), number in 1_u16..=u16::MAX, role in 0_usize..3, kind in 0_usize..4) {
        let mut catalog = catalog();
        let host = || Selection::Name("h0".to_owned());
        let before = compiled_site(&catalog, &site, host()).policy;
        let peer = [Peer::SameRole, Peer::Unprinted, Peer::Group("support".to_owned()), Peer::Role("worker".to_owned())][kind].clone();
        let role = ["node", "worker", "abstract-base"][role];
        let new = row("acme", "new-row", role, Direction::Both, &[port(number)], &[peer]);
        catalog.systems.get_mut("acme").unwrap().rows.insert(3, new);
        let after = compiled_site(&catalog, &site, host()).policy;
        kept(&before, &after, |policy| &policy.inbound).map_err(TestCaseError::fail)?;
        kept(&before, &after, |policy| &policy.outbound).map_err(TestCaseError::fail)?;
    }

    /// A site with a hole or a repetition in it is refused or compiled, never a panic.
    #[test]
    fn damaged_sites_do_not_panic(start in 0..SITE.len(), length in 0_usize..40, copy in any::<bool>(), from in 0..SITE.len()) {
        let end = (start + length).min(SITE.len());
        let patch = SITE.get(from..(from + length).min(SITE.len())).filter(|_| copy).unwrap_or("");
        let text = format!("{}{patch}{}", &SITE[..start], &SITE[end..]);
        if let Ok(site) = Site::parse("s.toml", text.as_bytes()) {
            for host in ["node1", "all1", "b1"] {
                let _ = compiled_site(&catalog(), &site, Selection::Name(host.to_owned()));
            }
        }
    }
}
