//! The loader against good and bad files.

mod damage;
mod errors;
mod vendors;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use super::*;
use crate::catalog::LoadError;
use crate::diagnostic::Rejected;
use crate::error::{Exit, Fault};

/// A file without mistakes, to which tests add some.
const HEAD: &str = r#"schema = 1
system = "shop"
name = "Shop"
document = "Shop: Ports"
source = "shop.html"
read = "2026-11-21"

[deployments]
single = "one host"
[options]
metrics = { title = "metrics are on" }
[choices.mail]
title = "port of the mail relay"
values = { 25 = "SMTP", 587 = "secure SMTP" }
[groups]
users = "people"
[roles.server]
name = "server"
includes = ["host"]
offset = true
[roles.host]
name = "host"
abstract = true
[roles.database]
name = "database"
"#;

/// Line of the first line after `HEAD`.
const AFTER_HEAD: usize = 26;

const ROW: &str = r#"[[row]]
id = "web"
role = "server"
direction = "in"
transport = "tcp"
ports = [443]
peers = ["group:users"]
purpose = "web"
cite = { section = "Ports", row = "443" }
"#;

fn errors(text: &str) -> Vec<String> {
    let Err(Rejected(found)) = load_str("shop.toml", text) else {
        panic!("accepted:\n{text}")
    };
    found.iter().map(ToString::to_string).collect()
}

fn embedded() -> Catalog {
    Catalog::embedded().unwrap_or_else(|rejected| panic!("{rejected}"))
}

#[test]
fn a_flow_is_a_row_for_every_role_at_either_end() {
    let flow = r#"[[flow]]
id = "sql"
from = ["role:server", "group:users"]
to = ["role:database", "role:server"]
transport = "tcp"
ports = [5432]
purpose = "queries"
cite = { section = "Ports", row = "5432" }
"#;
    let system = load_str("shop.toml", &format!("{HEAD}{flow}")).unwrap();
    let rows: Vec<_> = system
        .rows
        .iter()
        .map(|row| {
            (
                row.id.as_str(),
                row.role.as_str(),
                row.direction,
                row.peers.as_slice(),
            )
        })
        .collect();
    let group = || Peer::Group("users".into());
    assert_eq!(
        rows,
        [
            (
                "shop/sql/out",
                "server",
                Direction::Out,
                &[Peer::Role("database".into()), Peer::SameRole][..]
            ),
            (
                "shop/sql/in-database",
                "database",
                Direction::In,
                &[Peer::Role("server".into()), group()][..]
            ),
            (
                "shop/sql/in-server",
                "server",
                Direction::In,
                &[Peer::SameRole, group()][..]
            ),
        ]
    );
    assert_eq!(system.rows[0].location, format!("shop.toml:{AFTER_HEAD}"));
    let nobody = flow
        .replace("role:server", "self")
        .replace("role:database", "unprinted")
        .replace(", \"self\"", "");
    assert!(errors(&format!("{HEAD}{nobody}"))[0].contains("neither end of the flow is a role"));
}

#[test]
fn roles_include_transitively_and_names_are_resolved() {
    let system = load_str(
        "shop.toml",
        &format!("{HEAD}{}", ROW.replace("\"server\"", "\"host\"")),
    )
    .unwrap();
    assert_eq!(system.closure("server"), BTreeSet::from(["host", "server"]));
    assert_eq!(system.rows_of("server").count(), 1);
    assert_eq!(system.rows_of("database").count(), 0);
    let catalog = Catalog {
        systems: BTreeMap::from([("shop".into(), system)]),
    };
    assert_eq!(catalog.role("shop/server").unwrap().1.id, "server");
    let said = |name| catalog.role(name).unwrap_err().to_string();
    assert_eq!(
        said("shop/srever"),
        "error[unknown-name]: unknown role of `shop`: `srever`\n  hint: did you mean `server`?"
    );
    assert_eq!(
        said("shpo/server"),
        "error[unknown-name]: unknown system `shpo`\n  hint: did you mean `shop`?"
    );
    assert_eq!(
        said("shop"),
        "error[unknown-name]: `shop` names a system, not a role\n  hint: write one of: shop/database, shop/server"
    );
    assert_eq!(
        said("shop/host"),
        "error[abstract-role]: no host has the role `shop/host` by itself\n  hint: write a role that includes it: shop/server"
    );
}

#[test]
fn a_directory_adds_systems_and_cannot_replace_one() {
    let dir = std::env::temp_dir().join(format!("portguard-catalog-{}", std::process::id()));
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join("shop.toml"), format!("{HEAD}{ROW}")).unwrap();
    fs::write(dir.join("notes.txt"), "no catalog").unwrap();
    let catalog = embedded().with_directory(&dir).unwrap();
    assert_eq!(catalog.systems.len(), embedded_files().len() + 1);
    let again = catalog.with_directory(&dir).unwrap_err();
    fs::remove_dir_all(&dir).unwrap();
    let LoadError::Rejected(Rejected(found)) = again else {
        panic!("{again}");
    };
    assert_eq!(found[0].code, "duplicate-system");
    let missing = embedded().with_directory(&dir).unwrap_err();
    let LoadError::Unreadable(Fault { exit, message, .. }) = missing else {
        panic!("{missing}");
    };
    assert_eq!(exit, Exit::Usage);
    assert!(
        message.starts_with("cannot read the catalog directory"),
        "{message}"
    );
}

#[test]
fn the_example_of_the_guide_loads() {
    let system = load_str(
        "example-matrix.toml",
        include_str!("../../../../docs/example-matrix.toml"),
    );
    let system = system.unwrap_or_else(|rejected| panic!("{rejected}"));
    assert!(!embedded().systems.contains_key(&system.id));
    assert!(system.rows.len() >= 5);
}

#[test]
fn every_embedded_row_is_complete() {
    for system in embedded().systems.values() {
        let mut ids = BTreeSet::new();
        for row in &system.rows {
            assert!(ids.insert(&row.id), "{} twice", row.id);
            assert!(row.id.starts_with(&format!("{}/", system.id)), "{}", row.id);
            assert!(
                !row.purpose.is_empty()
                    && !row.citation.section.is_empty()
                    && !row.citation.row.is_empty()
            );
            assert!(
                !row.transports.is_empty() && !row.peers.is_empty(),
                "{}",
                row.id
            );
            assert!(
                !row.ports.is_empty() || row.inert == Some(Inert::NoNumber),
                "{}",
                row.id
            );
            assert!(system.roles.contains_key(&row.role), "{}", row.id);
        }
    }
}
