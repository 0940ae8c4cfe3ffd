//! ThoughtSpot.

use super::{condition, peers, row, sections, system};
use crate::catalog::{Direction, Inert, Peer};

#[test]
fn thoughtspot_has_every_row_of_its_document() {
    let system = system("thoughtspot");
    assert_eq!(
        sections(&system),
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
        .filter(|row| row.transport_printed && !row.implied)
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
        .filter(|row| row.direction == Direction::Out && !row.implied)
        .count();
    assert_eq!(out, 5 + 1 + 3);
}

#[test]
fn garbled_cells_are_repaired_with_a_note() {
    let system = system("thoughtspot");
    let noted = |id| !row(&system, id).notes.is_empty();
    assert_eq!(
        peers(row(&system, "outbound-mixpanel")),
        ["domain api.mixpanel.com"]
    );
    assert_eq!(peers(row(&system, "outbound-mail")), ["group smtp-relay"]);
    assert_eq!(peers(row(&system, "outbound-ldap")), ["group ldap-server"]);
    assert!(
        ["outbound-mixpanel", "outbound-mail", "outbound-ldap"]
            .into_iter()
            .all(noted)
    );
    assert_eq!(
        row(&system, "outbound-mail").pick.as_deref(),
        Some("mail-port")
    );
    assert_eq!(
        row(&system, "outbound-ldap").pick.as_deref(),
        Some("directory-port")
    );
    assert_eq!(row(&system, "ipmi-80").inert, Some(Inert::OutOfBand));
}

#[test]
fn influxcloud_moves_to_another_port_with_version_4_5_1() {
    let system = system("thoughtspot");
    let (old, new) = (
        row(&system, "outbound-influxcloud-8086"),
        row(&system, "partner-influxcloud-443"),
    );
    assert_eq!(
        (condition(old), condition(new)),
        ("version <4.5.1".into(), "version >=4.5.1".into())
    );
}
