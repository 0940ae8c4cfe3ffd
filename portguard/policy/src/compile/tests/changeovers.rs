//! Both alternatives for a time, and rows that end.

use std::collections::BTreeSet;

use super::asks::{Ask, ask, codes, named, of};
use crate::compile::Selection;
use crate::policy::Compiled;

/// An engine and a collector that change from the default port to their own.
const ENGINE: &str = r#"
unprinted_peers = "none"
[systems.nexthink]
deployment = "on-premises"
version = "V6.24"
choices = { collector-channel = { both = ["443", "custom"], until = 2026-12-31 }, directory-channel = "secure", collector-platform = "macos" }
[[host]]
name = "e"
addresses = ["10.1.0.1"]
roles = ["nexthink/engine"]
[[host]]
name = "c"
addresses = ["10.1.0.2"]
roles = ["nexthink/collector"]
"#;

/// Seconds since the epoch of the midnight that begins 2027.
const NEW_YEAR: u64 = 1_798_761_600;

/// When the grants of a row end, without repetition.
fn endings(compiled: &Compiled, row: &str) -> Vec<Option<u64>> {
    let policy = &compiled.policy;
    let grants = policy.inbound.iter().chain(&policy.outbound);
    let of_row = grants.filter(|grant| grant.row.starts_with(row));
    let all: BTreeSet<_> = of_row.map(|grant| grant.until).collect();
    all.into_iter().collect()
}

#[test]
fn both_alternatives_hold_until_the_last_day_of_a_change_over() {
    let on = |today| {
        let compiled = ask(
            ENGINE,
            Ask {
                host: Selection::Name("e".to_owned()),
                interface: None,
                addresses: &[],
                today,
            },
        );
        let ports = ["engine-443-collector", "engine-8443-custom"];
        let open = ports.map(|row| !of(&compiled, &format!("nexthink/{row}")).is_empty());
        (open, codes(&compiled).contains(&"change-over-ended"))
    };
    assert_eq!(on("2026-12-31"), ([true, true], false));
    assert_eq!(on("2027-01-01"), ([false, true], true));
}

#[test]
fn what_a_change_over_leaves_behind_ends_with_its_last_day() {
    let compiled = named(ENGINE, "e");
    let row = |name: &str| endings(&compiled, &format!("nexthink/{name}"));
    assert_eq!(row("engine-443-collector"), [Some(NEW_YEAR)]);
    assert_eq!(row("engine-8443-custom"), [None]);
    assert_eq!(row("engine-999-portal"), []);
    // One of two numbers of one row.
    let node = r#"
[systems.thoughtspot]
version = "4.5.1"
choices = { mail-port = { both = ["25", "587"], until = 2026-12-31 }, directory-port = "636" }
[systems.thoughtspot.peers]
smtp-relay = ["10.9.0.1"]
ldap-server = ["10.9.0.2"]
[[host]]
name = "n"
addresses = ["10.1.0.1"]
roles = ["thoughtspot/node"]
[[row]]
name = "backup"
direction = "in"
transport = "tcp"
ports = [9102]
peers = ["10.9.0.3"]
reason = "nightly"
expires = 2026-12-31
"#;
    let compiled = named(node, "n");
    let mail = compiled.policy.outbound.iter();
    let mail = mail.filter(|grant| grant.row == "thoughtspot/outbound-mail");
    let mail: Vec<_> = mail.map(|grant| (grant.first, grant.until)).collect();
    assert_eq!(mail, [(25, Some(NEW_YEAR)), (587, None)]);
    assert_eq!(endings(&compiled, "thoughtspot/outbound-ldap"), [None]);
    assert_eq!(endings(&compiled, "site/backup"), [Some(NEW_YEAR)]);
}
