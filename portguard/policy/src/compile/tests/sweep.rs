//! Each kind of setting of each system: what hosts open differs with it, or a finding on its line says why it does not.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::IpAddr;

use super::fixture::inputs;
use crate::catalog::{Catalog, Peer, System};
use crate::compile::{Inputs, Selection, compile, review};
use crate::policy::{Compiled, Policy};
use crate::site::Site;

/// Rows that are tried; one of so many.
const STEP: usize = 17;

/// A site with every role on two hosts; `setting` is on the last line of what it says of the system.
fn site(system: &System, setting: &str) -> (String, usize) {
    let mut text = format!(
        "schema = 1\nmode = \"enforce\"\noutbound = \"enforce\"\nunresolved_peers = \"any\"\nunresolved_ports = \"none\"\n\
         unprinted_peers = [\"198.51.100.1\"]\n[management]\nallow = [\"tcp/22\"]\n[systems.{}]\nversion = \"6.20\"\n",
        system.id
    );
    if let Some(deployment) = system.deployments.keys().next_back() {
        let _ = writeln!(text, "deployment = \"{deployment}\"");
    }
    for (choice, what) in &system.choices {
        let value = what.values.keys().next().unwrap();
        if !setting.starts_with(&format!("choices.{choice} ")) {
            let _ = writeln!(text, "choices.{choice} = \"{value}\"");
        }
    }
    let line = text.lines().count() + 1;
    let _ = writeln!(text, "{setting}");
    for (role, net) in system.host_roles().zip(1..) {
        for last in [1, 2] {
            let _ = writeln!(
                text,
                "[[host]]\nname = \"{}-{last}\"\naddresses = [\"10.{net}.0.{last}\"]\nroles = [\"{}/{}\"]",
                role.id, system.id, role.id
            );
        }
    }
    (text, line)
}

/// One setting of each kind, for some of the rows.
fn settings(system: &System) -> Vec<String> {
    let rows: BTreeSet<&str> = system
        .rows
        .iter()
        .map(|row| row.id.split('/').nth(1).unwrap())
        .collect();
    let mut all = Vec::new();
    for row in rows.iter().step_by(STEP) {
        all.push(format!("rows.{row} = {{ off = true, reason = \"x\" }}"));
        all.push(format!("rows.{row} = {{ only = [\"10.1.0.1\"] }}"));
        all.push(format!("rows.{row} = {{ audit = true }}"));
        all.push(format!(
            "rows.{row} = {{ unprinted_peers = [\"198.51.100.9\"] }}"
        ));
        all.push(format!("ports.{row} = 4999"));
    }
    let options = system.options.keys();
    all.extend(options.flat_map(|id| {
        [
            format!("options = [\"{id}\"]"),
            format!("without = [\"{id}\"]"),
        ]
    }));
    for (choice, what) in &system.choices {
        all.extend(
            what.values
                .keys()
                .skip(1)
                .map(|value| format!("choices.{choice} = \"{value}\"")),
        );
    }
    let peers = system.groups.keys().chain(system.roles.keys());
    all.extend(
        peers
            .step_by(3)
            .map(|key| format!("peers.{key} = [\"198.51.100.9\"]")),
    );
    all.extend(
        system
            .roles
            .keys()
            .step_by(3)
            .map(|role| format!("offsets.{role} = 3")),
    );
    all
}

fn asked(catalog: &Catalog, site: &Site, host: &str, how: fn(&Inputs<'_>) -> Compiled) -> Compiled {
    let rows = catalog.systems.values().flat_map(|system| &system.rows);
    let names = rows.flat_map(|row| &row.peers).filter_map(|peer| {
        if let Peer::Domain(name) = peer {
            Some(name.to_ascii_lowercase())
        } else {
            None
        }
    });
    let names: BTreeSet<String> = names.collect();
    let names = names.into_iter().zip(1..);
    let resolved = names
        .map(|(name, last)| (name, vec![IpAddr::from([203, 0, 113, last])]))
        .collect();
    how(&Inputs {
        resolved: &resolved,
        ..inputs(catalog, site, Selection::Name(host.to_owned()))
    })
}

/// What each host opens to whom, and what stays in audit.
fn open(catalog: &Catalog, site: &Site) -> Vec<BTreeSet<String>> {
    let lines = |policy: &Policy| {
        let grants = policy
            .inbound
            .iter()
            .map(|one| (one, "in"))
            .chain(policy.outbound.iter().map(|one| (one, "out")));
        let line = |(one, direction): (&crate::policy::Grant, &str)| {
            let is_audit = policy
                .rows
                .iter()
                .any(|facts| facts.id == one.row && facts.audit);
            format!(
                "{direction} {} {}-{} {:?} {is_audit}",
                one.transport,
                one.first,
                one.last,
                policy.peers_text(one.peers)
            )
        };
        grants.map(line).collect()
    };
    let hosts = site.hosts.iter();
    hosts
        .map(|host| lines(&asked(catalog, site, &host.name, compile).policy))
        .collect()
}

#[test]
fn a_setting_changes_something_or_its_line_is_reported() {
    let catalog = Catalog::embedded().unwrap();
    for system in catalog.systems.values() {
        let parse = |text: &str| {
            Site::parse("s.toml", text.as_bytes()).unwrap_or_else(|error| panic!("{text}: {error}"))
        };
        let plain = open(&catalog, &parse(&site(system, "").0));
        for setting in settings(system) {
            let (text, line) = site(system, &setting);
            let said = parse(&text);
            let is_choice = setting.starts_with("choices.");
            let without = is_choice.then(|| {
                open(
                    &catalog,
                    &parse(&text.replace(&format!("{setting}\n"), "\n")),
                )
            });
            if open(&catalog, &said) != *without.as_ref().unwrap_or(&plain) {
                continue;
            }
            // An alternative that holds anyway answers a question all the same.
            let is_asked = |text: &str| {
                let hosts = parse(text).hosts.into_iter();
                let mut reported = hosts.flat_map(|host| {
                    asked(&catalog, &parse(text), &host.name, compile).diagnostics
                });
                reported.any(|one| one.code == "choice-not-said")
            };
            if is_choice && is_asked(&text.replace(&format!("{setting}\n"), "\n")) {
                continue;
            }
            let reported = asked(&catalog, &said, &said.hosts[0].name, review).diagnostics;
            let place = format!("s.toml:{line}:");
            let is_reported = reported.iter().any(|one| {
                one.location
                    .as_ref()
                    .is_some_and(|at| at.starts_with(&place))
            });
            assert!(
                is_reported,
                "{}: `{setting}` changes nothing, and nothing says so: {reported:#?}",
                system.id
            );
        }
    }
}
