//! Both sides agree: what one host may send to another, the other accepts from it, and the reverse, or a lint names the row.

mod answers;
mod draft;
mod reasons;

use std::net::IpAddr;

use proptest::prelude::*;

use crate::catalog::{Catalog, Transport};
use crate::compile::survey::ends;
use crate::compile::{Inputs, Selection, compile};
use crate::diagnostic::{Diagnostic, Level};
use crate::policy::{Compiled, Grant, Peers, Policy};
use crate::site::{Host, Site};
use answers::{extra, files, resolved, say};
use draft::{draft, embedded, site};

fn compiled(catalog: &Catalog, site: &Site, host: &str) -> Compiled {
    asked(catalog, site, host, compile)
}

/// Diagnostics of the host and of its ends: a whole review would take far longer.
fn with_ends(inputs: &Inputs<'_>) -> Compiled {
    let mut compiled = compile(inputs);
    let found = ends::differing(inputs, &compiled);
    compiled.diagnostics.extend(found);
    compiled
}

/// A host on the one interface that it has, if it has any.
fn asked(catalog: &Catalog, site: &Site, host: &str, how: fn(&Inputs<'_>) -> Compiled) -> Compiled {
    let (resolved, files) = (resolved(), files());
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

/// Transport, first and last port, row.
type Tuple = (Transport, u16, u16, String);

/// What grants say of one address.
fn towards(policy: &Policy, grants: &[Grant], address: IpAddr) -> Vec<Tuple> {
    grants
        .iter()
        .filter(|grant| policy.admits(grant.peers, address))
        .map(|grant| (grant.transport, grant.first, grant.last, grant.row.clone()))
        .collect()
}

/// Ports of one side that the other does not have.
fn lacking<'g>(one: &'g [Tuple], other: &[Tuple]) -> Vec<&'g Tuple> {
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

/// What one of two hosts may send and the other does not accept, or the reverse, with the row that opens it at the one end.
/// All peers of these sites are hosts by themselves, but for those that are anybody.
fn one_ended((own, ours): (&Host, &Policy), (other, theirs): (&Host, &Policy)) -> Vec<Tuple> {
    let (here, there) = (own.addresses[0].0, other.addresses[0].0);
    let narrow = |policy: &Policy, grants: &[Grant], address| {
        let grants = grants.iter().filter(|grant| grant.peers != Peers::Any);
        towards(policy, &grants.cloned().collect::<Vec<_>>(), address)
    };
    let mut found = Vec::new();
    for (ours_open, theirs_open) in [
        (&ours.outbound, &theirs.inbound),
        (&ours.inbound, &theirs.outbound),
    ] {
        let here_open = towards(ours, ours_open, there);
        let there_open = towards(theirs, theirs_open, here);
        let only_here = narrow(ours, ours_open, there);
        let only_there = narrow(theirs, theirs_open, here);
        found.extend(lacking(&only_here, &there_open).into_iter().cloned());
        found.extend(lacking(&only_there, &here_open).into_iter().cloned());
    }
    found
}

/// Whether a diagnostic is about this row towards that host, or the site is refused before anything is compared.
fn names(reported: &Diagnostic, host: &str, row: &str) -> bool {
    let is_refused = reported.level == Level::Error && reported.code.starts_with("unknown-");
    let names = |word: &str| reported.message.contains(&format!("`{word}`"));
    is_refused || (reported.code == "ends-differ" && names(host) && names(row))
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
                        .any(|grant| grant.row == row && grant.peers != Peers::Any);
                    found.retain(|(.., row)| is_named(row));
                    found
                };
                let sent = named(&theirs.outbound, theirs, to);
                let accepted = towards(ours, &ours.inbound, from);
                prop_assert_eq!(lacking(&sent, &accepted), Vec::<&Tuple>::new(), "{} to {}", client.name, server.name);
                let accepted = named(&ours.inbound, ours, from);
                let sent = towards(theirs, &theirs.outbound, to);
                prop_assert_eq!(lacking(&accepted, &sent), Vec::<&Tuple>::new(), "{} from {}", server.name, client.name);
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
    fn whatever_is_said_both_ends_agree_or_it_is_reported(
        draft in draft(),
        extras in prop::collection::vec(extra(), 1..4),
    ) {
        let catalog = embedded();
        let mut site = site(catalog, &draft);
        for extra in &extras {
            say(catalog, &draft, &mut site, extra);
        }
        let all: Vec<_> = site.hosts.iter().map(|host| (host, compiled(catalog, &site, &host.name).policy)).collect();
        for (own, ours) in &all {
            let mut reported = None;
            for (other, theirs) in all.iter().filter(|(other, _)| other.name != own.name) {
                for lacking in one_ended((own, ours), (other, theirs)) {
                    let reported = reported.get_or_insert_with(|| asked(catalog, &site, &own.name, with_ends).diagnostics);
                    let is_reported = reported.iter().any(|one| names(one, &other.name, &lacking.3));
                    prop_assert!(is_reported, "{} and {}: {:?} with {extras:?}: {:#?}", own.name, other.name, lacking, reported);
                }
            }
        }
    }

    #[test]
    fn reasons_for_which_a_row_is_for_nobody_are_true(
        draft in draft(),
        extra in extra(),
    ) {
        let catalog = embedded();
        let mut site = site(catalog, &draft);
        say(catalog, &draft, &mut site, &extra);
        for own in &site.hosts {
            for omitted in compiled(catalog, &site, &own.name).policy.omitted.iter().filter(|one| one.reason == "no-peer" && !one.row.starts_with("site/")) {
                for reason in omitted.detail.split("; ") {
                    prop_assert!(reasons::is_true(catalog, &site, own, reason), "{}: {}: {reason}", own.name, omitted.row);
                }
            }
        }
    }
}
