//! Domain names in a policy: recorded, and sets that follow them as if the site were compiled anew.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::fixture::{SITE, catalog, lines};
use crate::compile::{Inputs, Selection, compile};
use crate::domains::Answers;
use crate::policy::Compiled;
use crate::site::Site;

fn compiled(site: &Site, resolved: &Answers) -> Compiled {
    compile(&Inputs {
        catalog: &catalog(),
        site,
        host: Selection::Name("node1".to_owned()),
        interface: None,
        local_addresses: &[],
        hostname: None,
        resolved,
        files: &BTreeMap::new(),
        today: Some("2026-11-21"),
    })
}

fn answers(updates: &[&str], own: &[&str]) -> Answers {
    let all = |texts: &[&str]| -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    };
    Answers::from([
        ("updates.example".to_owned(), all(updates)),
        ("own.example".to_owned(), all(own)),
    ])
}

fn site() -> Site {
    // A group of a prefix and a name, a row of its own, and a document's row that is narrowed to that group.
    let more = "\n[[row]]\nname = \"probe\"\ndirection = \"in\"\ntransport = \"tcp\"\nports = [9999]\npeers = [\"mixed\"]\nreason = \"probes\"\n";
    let text = SITE.replacen(
        "[groups]",
        "[groups]\nmixed = [\"192.0.2.64/30\", \"domain:own.example\"]",
        1,
    );
    assert_ne!(text, SITE, "the fixture has groups");
    Site::parse("site.toml", (text + more).as_bytes()).unwrap()
}

#[test]
fn a_policy_that_follows_its_names_is_the_policy_of_the_new_answers() {
    let site = site();
    let old = answers(&["198.51.100.7"], &["203.0.113.5"]);
    let first = compiled(&site, &old);
    assert_eq!(first.policy.domains.names, old);
    let line = |compiled: &Compiled, row: &str| {
        lines(compiled)
            .into_iter()
            .find(|line| line.starts_with(row))
            .unwrap()
    };
    assert_eq!(
        line(&first, "site/probe"),
        "site/probe tcp/9999 <- 192.0.2.64/30 203.0.113.5/32"
    );
    for (updates, own) in [
        (&["198.51.100.8", "2001:db8::8"][..], &["203.0.113.5"][..]),
        (&["198.51.100.7"][..], &["192.0.2.65"][..]),
        (&["203.0.113.1"][..], &["203.0.113.1"][..]),
    ] {
        let new = answers(updates, own);
        let anew = compiled(&site, &new);
        let followed = first.policy.with_answers(&new).unwrap();
        assert_eq!(followed, anew.policy, "{updates:?} {own:?}");
    }
    assert_eq!(first.policy.with_answers(&old), None);
}

#[test]
fn names_without_an_address_are_recorded_and_decide_nothing() {
    let site = site();
    let none = compiled(&site, &answers(&[], &[]));
    assert_eq!(
        none.policy.domains.names["updates.example"],
        [] as [IpAddr; 0]
    );
    assert!(!none.policy.domains.used().contains("updates.example"));
    // A prefix keeps the row: the name can join it later.
    assert!(none.policy.domains.used().contains("own.example"));
    let later = none
        .policy
        .with_answers(&answers(&["198.51.100.7"], &["203.0.113.5"]));
    let later = later.unwrap();
    assert_eq!(later.inbound, none.policy.inbound);
    assert_ne!(later.sets, none.policy.sets);
}
