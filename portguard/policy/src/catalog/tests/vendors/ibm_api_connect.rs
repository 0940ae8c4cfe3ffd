//! IBM API Connect.

use std::collections::{BTreeMap, BTreeSet};

use super::{condition, opens, peers, row, sections, system};
use crate::catalog::{Direction, Inert, PortSpec};

#[test]
fn ibm_api_connect_has_every_row_of_its_document() {
    let system = system("ibm-api-connect");
    let t3 = "Firewall port requirements on Kubernetes > Table 3 > ";
    let sections: BTreeMap<&str, usize> = sections(&system).into_iter().collect();
    assert_eq!(
        sections,
        BTreeMap::from([
            // 18 lines. Two ends for 6, 8, 9, 15, 16, one for the other 12, of which line 2 is two; line 7 is two flows of two ends.
            ("Required Ports between zones > Table 1", 5 * 2 + 13 + 4),
            ("Firewall port requirements on Kubernetes > Table 2", 5),
            (&*format!("{t3}Management Service"), 5),
            (&*format!("{t3}Developer Portal"), 1),
            (&*format!("{t3}Analytics"), 2),
            (&*format!("{t3}Gateway Server"), 8),
            // Gateways among themselves, and two ends towards management.
            ("Communications inside the Gateway cluster", 1 + 2),
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
fn configuration_is_pushed_to_3000_and_fetched_from_443() {
    let system = system("ibm-api-connect");
    let ends = |id| {
        let row = row(&system, id);
        (row.role.as_str(), row.direction, peers(row))
    };
    assert_eq!(
        ends("usage-7-3000/in"),
        ("gateway", Direction::In, vec!["role management".into()])
    );
    assert_eq!(
        ends("usage-7-443/in"),
        ("management", Direction::In, vec!["role gateway".into()])
    );
    assert!(!opens(&system, "management", 3000) && opens(&system, "gateway", 3000));
}

#[test]
fn what_must_be_enabled_is_conditional_and_what_has_no_number_is_listed() {
    let system = system("ibm-api-connect");
    for (id, option) in [
        ("gateway-5554", "rest-management"),
        ("gateway-9022", "gateway-ssh"),
        ("gateway-9090", "web-console"),
        ("usage-2-9090/in", "web-console"),
        ("management-ldap", "ldap-user-registry"),
        ("usage-12", "analytics-offload"),
        ("management-automated-test", "automated-test-behavior"),
    ] {
        assert_eq!(
            condition(row(&system, id)),
            format!("option {option}"),
            "{id}"
        );
    }
    assert_eq!(
        row(&system, "developer-portal-more").inert,
        Some(Inert::NoNumber)
    );
    // These ask for a connection whose number is the site's to give.
    for id in [
        "usage-12",
        "analytics-offload",
        "management-automated-test",
        "gateway-cluster",
    ] {
        let row = row(&system, id);
        assert_eq!(
            (&row.ports[..], row.inert),
            (&[PortSpec::Unprinted][..], None),
            "{id}"
        );
    }
    assert_eq!(peers(row(&system, "common-44135")), ["unprinted"]);
}
