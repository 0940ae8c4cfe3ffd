//! Every role of every embedded matrix compiles, and no row of it is lost.

use std::collections::{BTreeMap, BTreeSet};

use super::fixture::inputs;
use crate::catalog::Catalog;
use crate::compile::{Inputs, Selection, compile, domains, review};
use crate::diagnostic::Level;
use crate::site::{Flags, Mode, Site, SystemSite, Unresolved, Who};

#[test]
fn every_row_of_every_role_is_granted_or_listed_with_a_reason() {
    let catalog = Catalog::embedded().unwrap();
    let mut seen = 0;
    for system in catalog.systems.values() {
        let deployments: Vec<_> = system.deployments.keys().map(Some).chain([None]).collect();
        for (role, deployment) in system
            .host_roles()
            .flat_map(|role| deployments.iter().map(move |d| (role, *d)))
        {
            let id = format!("{}/{}", system.id, role.id);
            let mut site = Site {
                unprinted_peers: Some(Who::Any),
                unresolved_peers: Some(Unresolved::Any),
                ..Site::default()
            };
            let place = crate::site::Place::default();
            let deployment = deployment.map(|name| (name.clone(), place));
            site.systems.insert(
                system.id.clone(),
                SystemSite {
                    deployment,
                    ..SystemSite::default()
                },
            );
            let mut inputs = inputs(&catalog, &site, Selection::Roles(vec![id.clone()]));
            let names: BTreeMap<_, Vec<std::net::IpAddr>> = domains(&inputs)
                .into_iter()
                .map(|name| (name, vec!["192.0.2.1".parse().unwrap()]))
                .collect();
            inputs.resolved = &names;
            let compiled = compile(&inputs);
            let errors: Vec<_> = compiled
                .diagnostics
                .iter()
                .filter(|d| d.level == Level::Error)
                .collect();
            assert!(errors.is_empty(), "{id}: {errors:#?}");
            let policy = &compiled.policy;
            let granted = policy
                .inbound
                .iter()
                .chain(&policy.outbound)
                .map(|grant| grant.row.as_str());
            let omitted = policy.omitted.iter().map(|omitted| omitted.row.as_str());
            let accounted: BTreeSet<&str> = granted.chain(omitted).collect();
            for row in system.rows_of(&role.id) {
                assert!(
                    accounted.contains(row.id.as_str()),
                    "{id}: {} is lost",
                    row.id
                );
                assert!(
                    policy.rows.iter().any(|facts| facts.id == row.id),
                    "{id}: {} has no facts",
                    row.id
                );
                seen += 1;
            }
        }
    }
    assert!(seen > 500, "only {seen} rows were seen");
}

#[test]
fn nothing_said_is_refused_in_enforce_and_reported_in_audit() {
    let catalog = Catalog::embedded().unwrap();
    let levels = |mode: Mode| {
        let flags = Flags {
            roles: vec!["thoughtspot/node".to_owned()],
            mode: Some(mode),
            ..Flags::default()
        };
        let site = Site::from_flags(&flags, &catalog).unwrap();
        let compiled = compile(&inputs(&catalog, &site, Selection::Roles(flags.roles)));
        let count = |level| {
            compiled
                .diagnostics
                .iter()
                .filter(|d| d.level == level)
                .count()
        };
        (count(Level::Error), count(Level::Warning))
    };
    let (errors, _) = levels(Mode::Enforce);
    let (none, warnings) = levels(Mode::Audit);
    assert!(
        errors > 0 && none == 0 && warnings >= errors,
        "{errors} {none} {warnings}"
    );
}

/// The reference's example is a site, and says all that its hosts' matrices ask.
#[test]
fn the_example_of_the_guide_compiles_for_each_of_its_hosts() {
    let guide = include_str!("../../../../../docs/site.md");
    let text = guide
        .split("```toml\n")
        .nth(1)
        .and_then(|rest| rest.split("```").next())
        .unwrap();
    let site = Site::parse("site.toml", text.as_bytes()).unwrap();
    let catalog = Catalog::embedded().unwrap();
    for (host, interface) in [
        ("node-1", None),
        ("node-2", None),
        ("api-1", None),
        ("api-1", Some("eth1")),
        ("api-test", None),
    ] {
        let compiled = review(&Inputs {
            interface,
            today: Some("2026-11-21"),
            ..inputs(&catalog, &site, Selection::Name(host.to_owned()))
        });
        let errors: Vec<_> = compiled
            .diagnostics
            .iter()
            .filter(|d| {
                // The page has no addresses that somebody may have.
                d.level == Level::Error && d.code != "example-addresses"
                    || d.code == "no-effect"
                    || d.code == "shared-across-clusters"
            })
            .collect();
        assert!(errors.is_empty(), "{host}: {errors:#?}");
    }
}
