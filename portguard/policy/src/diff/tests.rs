//! Differences of small policies, and effect against membership.

use super::diff;
use crate::catalog::Transport;
use crate::policy::{Grant, GrantKind, PeerSet, Peers, Policy, ProtocolGrant};

fn policy(sets: &[&[&str]], grants: &[(u16, u16, Peers, &str)]) -> Policy {
    Policy {
        sets: sets
            .iter()
            .enumerate()
            .map(|(index, nets)| PeerSet {
                name: format!("set {index}"),
                prefixes: nets.iter().map(|net| net.parse().unwrap()).collect(),
            })
            .collect(),
        inbound: grants
            .iter()
            .map(|&(first, last, peers, row)| Grant {
                kind: GrantKind::Documented,
                transport: Transport::Tcp,
                first,
                last,
                peers,
                row: row.to_owned(),
                until: None,
            })
            .collect(),
        ..Policy::default()
    }
}

#[test]
fn equal_policies_do_not_differ() {
    let one = policy(&[&["10.0.0.0/8"]], &[(1, 9, Peers::Set(0), "a")]);
    let found = diff(&one, &one);
    assert!(found.same);
    assert_eq!(found.to_string(), "no difference\n");
}

#[test]
fn rows_that_change_places_only_have_no_effect() {
    let one = policy(&[&["10.0.0.0/8"]], &[(1, 9, Peers::Set(0), "a")]);
    let two = policy(
        &[&["10.0.0.0/9"], &["10.128.0.0/9"]],
        &[(1, 9, Peers::Set(0), "b"), (1, 9, Peers::Set(1), "c")],
    );
    let found = diff(&one, &two);
    assert_eq!(
        (found.opened.len(), found.closed.len(), found.rows.len()),
        (0, 0, 3)
    );
    assert!(!found.same);
}

#[test]
fn effect_is_reported_in_words() {
    let one = policy(
        &[&["10.0.0.0/8"]],
        &[
            (443, 443, Peers::Set(0), "web"),
            (22, 22, Peers::Any, "ssh"),
            (100, 200, Peers::Any, "gone"),
        ],
    );
    let mut two = policy(
        &[&["10.0.0.0/8", "192.0.2.0/24"], &["10.1.0.0/16"]],
        &[
            (443, 443, Peers::Set(0), "web"),
            (22, 22, Peers::Set(1), "ssh"),
            (150, 160, Peers::Any, "gone"),
            (7000, 7001, Peers::Any, "new"),
            (7002, 7009, Peers::Any, "new"),
        ],
    );
    two.settings.enforce = true;
    two.echo = Some(Peers::Set(1));
    two.protocols.push(ProtocolGrant {
        protocol: 47,
        peers: Peers::Any,
        row: "site/protocol-47".to_owned(),
    });
    let text = diff(&one, &two).to_string();
    let effect: Vec<&str> = text
        .lines()
        .skip_while(|line| *line != "effect")
        .skip(1)
        .take_while(|line| *line != "rows")
        .collect();
    assert_eq!(
        effect,
        [
            "  + in tcp/443 now open to 192.0.2.0/24 (row web)",
            "  + in tcp/7000-7009 now open to any (row new)",
            "  + in icmp echo now open to 10.1.0.0/16 (row baseline/echo)",
            "  + in protocol 47 now open to any (row site/protocol-47)",
            "  - in tcp/22 now closed to any but 10.1.0.0/16 (row ssh)",
            "  - in tcp/100-149 now closed to any (row gone)",
            "  - in tcp/161-200 now closed to any (row gone)",
        ],
        "{text}"
    );
    assert!(
        text.starts_with("settings\n  enforce: false -> true\n"),
        "{text}"
    );
    assert!(
        text.contains("  changed web (in)\n    - tcp/443 for 10.0.0.0/8 (set 0)\n"),
        "{text}"
    );
    let back = diff(&two, &one);
    assert_eq!((back.opened.len(), back.closed.len()), (3, 4));
}

#[test]
fn rows_that_leave_audit_are_settings() {
    let mut one = policy(&[], &[(1, 1, Peers::Any, "a")]);
    one.rows.push(crate::policy::RowFacts {
        id: "a".to_owned(),
        role: None,
        purpose: String::new(),
        citation: String::new(),
        audit: true,
        peers: String::new(),
    });
    let mut two = one.clone();
    two.rows[0].audit = false;
    let found = diff(&one, &two);
    assert_eq!(found.settings[0].setting, "audit_rows");
    assert!(!found.same);
}
