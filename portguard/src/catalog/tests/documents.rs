//! The embedded matrices, counted against their documents.

use std::collections::{BTreeMap, BTreeSet};

use super::embedded;
use crate::catalog::*;

fn rows_by_section(system: &System) -> Vec<(&str, usize)> {
    let mut sections: Vec<(&str, usize)> = Vec::new();
    for row in &system.rows {
        match sections
            .iter_mut()
            .find(|(section, _)| *section == row.citation.section)
        {
            Some((_, count)) => *count += 1,
            None => sections.push((&row.citation.section, 1)),
        }
    }
    sections
}

#[test]
fn thoughtspot_has_every_row_of_its_document() {
    let system = &embedded().systems["thoughtspot"];
    assert_eq!(
        rows_by_section(system),
        [
            // 41 lines of the table, and the dynamic ports of the prose.
            ("Required ports for intracluster operation", 42),
            (
                "Required ports for inbound and outbound cluster access",
                4 + 5
            ),
            (
                "Required port for outbound connectivity to partner services",
                1
            ),
            ("Callhome", 3),
            (
                "Required ports for IPMI (Intelligent Platform Management Interface)",
                1
            ),
        ]
    );
    assert!(system.rows.iter().all(|row| row.role == "node"));
    // `TCP` stands in the protocol cell of these only.
    let printed: Vec<_> = system
        .rows
        .iter()
        .filter(|row| row.transport_printed)
        .map(|row| row.id.as_str())
        .collect();
    assert_eq!(
        printed,
        [
            "thoughtspot/intracluster-80",
            "thoughtspot/intracluster-443",
            "thoughtspot/intracluster-2181",
            "thoughtspot/support-12345",
            "thoughtspot/outbound-ldap"
        ]
    );
    let admin = Peer::Group("admin-addresses".into());
    assert_eq!(
        system
            .rows
            .iter()
            .filter(|row| row.peers.contains(&admin))
            .count(),
        12
    );
    let out = system
        .rows
        .iter()
        .filter(|row| row.direction == Direction::Out)
        .count();
    assert_eq!(out, 5 + 1 + 3);
}

#[test]
fn ibm_api_connect_has_every_row_of_its_document() {
    let system = &embedded().systems["ibm-api-connect"];
    let t3 = "Firewall port requirements on Kubernetes > Table 3 > ";
    let sections: BTreeMap<&str, usize> = rows_by_section(system).into_iter().collect();
    assert_eq!(
        sections,
        BTreeMap::from([
            // 18 lines. Two ends for 6, 8, 9, 15, 16, one for the other 12; line 7 is two flows of two ends.
            ("Required Ports between zones > Table 1", 5 * 2 + 12 + 4),
            ("Firewall port requirements on Kubernetes > Table 2", 5),
            (&*format!("{t3}Management Service"), 5),
            (&*format!("{t3}Developer Portal"), 1),
            (&*format!("{t3}Analytics"), 2),
            (&*format!("{t3}Gateway Server"), 8),
            ("Communications inside the Gateway cluster", 2),
            // Two sentences, for management and for the portal.
            ("Port requirement for Stripe billing service", 4),
        ])
    );
    let lines: BTreeSet<u32> = system
        .rows
        .iter()
        .filter(|row| row.citation.section.ends_with("Table 1"))
        .map(|row| row.citation.row.parse().unwrap())
        .collect();
    assert!(lines.iter().copied().eq(1..=18));
    for role in ["gateway", "management", "developer-portal", "analytics"] {
        assert!(system.rows_of(role).count() > 8, "{role}");
    }
    let has_22 = |role| {
        system
            .rows_of(role)
            .any(|row| row.id == "ibm-api-connect/common-22")
    };
    assert!(has_22("management") && has_22("developer-portal") && !has_22("analytics"));
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
