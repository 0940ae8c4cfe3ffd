//! Nexthink: counts, conditions, and ends that have to meet.

use super::{condition, opens, peers, row, sections, system};
use crate::catalog::{Direction, Inert, Peer, Row};

#[test]
fn nexthink_by_section() {
    let nexthink = system("nexthink");
    assert_eq!(
        sections(&nexthink),
        [
            ("Overview", 2 * 3),
            (
                "Overview > Connections required for rule-based Collector Assignment",
                1
            ),
            // 23 printed rows, of which two join two cases.
            ("Engine", 23 + 2),
            // 26 printed rows, of which one joins two cases.
            ("Portal", 26 + 1),
            ("Local License Manager", 1),
            ("Mobile Bridge", 3),
            ("Finder", 9),
            // Three printed rows for one, two and four cases; two numbers in the prose below.
            ("Collector", 1 + 2 + 4 + 2),
        ]
    );
}

#[test]
fn nexthink_ends_meet() {
    let nexthink = system("nexthink");
    let plays = |row: &Row, role: &str| {
        nexthink.closure(role).contains(row.role.as_str()) && row.inert.is_none()
    };
    // Who connects to a role by the initiator's table finds the port open by the listener's, and for that peer.
    for out in nexthink
        .rows
        .iter()
        .filter(|row| row.direction != Direction::In && row.inert.is_none())
    {
        for other in out.peers.iter().filter_map(Peer::as_role) {
            let met = nexthink.rows.iter().any(|row| {
                row.direction != Direction::Out
                    && plays(row, other)
                    && row.ports == out.ports
                    && row.transports == out.transports
                    && (row
                        .peers
                        .iter()
                        .any(|peer| peer.as_role() == Some(&out.role)))
            });
            assert!(met, "{} to {other}", out.id);
        }
    }
}

#[test]
fn nexthink_peers_and_conditions() {
    let nexthink = system("nexthink");
    for (id, expected) in [
        (
            "engine-443-collector",
            "deployment on-premises; version >=6.24; collector-channel = 443",
        ),
        ("engine-8443-cloud", "deployment nexthink-cloud"),
        ("engine-1671", "deployment on-premises; version >=6, <7"),
        ("engine-999-udp", "option collector-udp"),
        ("overview-udp/in", "option collector-udp"),
        ("portal-8300", "version >=6.19; option collector-assignment"),
        (
            "overview-8301",
            "version >=6.19; option collector-assignment; no option engine-consensus",
        ),
        (
            "collector-135",
            "version >=6.19; collector-platform = windows",
        ),
    ] {
        assert_eq!(condition(row(&nexthink, id)), expected, "{id}");
    }
    for (id, expected) in [
        ("engine-22-federation", &["same-role", "role portal"][..]),
        ("portal-22-cli", &["unprinted"]),
        ("engine-8301", &["role portal", "same-role"]),
        (
            "engine-443-updates",
            &[
                "domain updates-v6.nexthink.com",
                "domain updates-centos-v6.nexthink.com",
            ],
        ),
        ("finder-443-updates", &["role portal"]),
    ] {
        assert_eq!(peers(row(&nexthink, id)), expected, "{id}");
    }
    assert_eq!(row(&nexthink, "portal-8100").inert, Some(Inert::Loopback));
    assert!(!opens(&nexthink, "portal", 8100));
    // Responses are no listener.
    assert!(!opens(&nexthink, "collector", 49152) && !opens(&nexthink, "collector", 65535));
    let both = nexthink
        .rows
        .iter()
        .filter(|row| row.direction == Direction::Both && !row.implied)
        .count();
    assert_eq!(
        both,
        3 + 3 + 1,
        "merged IN OUT cells of Engine and Portal, and the prose on 8301"
    );
}
