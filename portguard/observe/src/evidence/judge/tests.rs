use super::super::accept::Flow;
use super::State::{Accepted as A, Admitted as P, Unexplained as U};
use super::*;
use crate::evidence::Sum;
use portguard_policy::catalog::Catalog;
use portguard_policy::policy::{Grant, GrantKind, PeerSet, Settings};

fn cause(reason: &str, protocol: u8, port: u16, peer: &str) -> Cause {
    Cause {
        direction: "in".to_owned(),
        reason: reason.to_owned(),
        protocol,
        port,
        to_client: false,
        service: 0,
        peer: peer.parse().unwrap(),
        is_crowd: false,
        packets: Sum::default(),
        error: Sum::default(),
        first: 1,
        last: 2,
    }
}

#[test]
fn only_what_enforcing_drops_and_nobody_accepted_is_unexplained() {
    let policy = Policy {
        settings: Settings {
            enforce: true,
            ..Settings::default()
        },
        ..Policy::default()
    };
    let catalog = Catalog::embedded().unwrap();
    let explainer = Explainer::new(&policy, &catalog).unwrap();
    let causes = [
        cause("undocumented-port", protocol::TCP, 8080, "10.0.0.9"),
        cause("undocumented-port", protocol::TCP, 8080, "10.0.1.9"),
        cause("malformed", protocol::TCP, 3, "10.0.0.9"),
        cause("strict-fragment", protocol::UDP, 0, "10.0.0.9"),
    ];
    let states = |accepted: &[&str]| -> Vec<State> {
        let accepted: Vec<Accepted> = accepted
            .iter()
            .map(|text| Accepted {
                flow: Flow::parse(text).unwrap(),
                by: "a".to_owned(),
                at: 1,
                why: "b".to_owned(),
            })
            .collect();
        let judged = judge(
            &causes,
            &[],
            &policy,
            &explainer,
            &accepted,
            &Sockets::default(),
            &InForce::default(),
        );
        judged.iter().map(|one| one.state).collect()
    };
    assert_eq!(states(&[]), [U, U, U, P]);
    assert_eq!(states(&["tcp/8080=10.0.0.0/24"]), [U, U, A, P]);
    assert_eq!(states(&["tcp/8080", "malformed"]), [A, A, A, P]);
    assert_eq!(states(&["out:tcp/8080", "udp/8080"]), [U, U, U, P]);
    assert_eq!(states(&["tcp/8000-8100=10.0.0.0/24"]), [U, U, A, P]);
    assert_eq!(states(&["tcp/8081-8100", "tcp/from-8080"]), [U, U, U, P]);
}

/// What becomes of causes and findings when nothing is accepted.
fn judged(
    causes: &[Cause],
    findings: &[Finding],
    inbound: Vec<Grant>,
    sockets: &Sockets,
) -> Vec<Judged> {
    let policy = Policy {
        settings: Settings {
            enforce: true,
            outbound: Outbound::Enforce,
            ..Settings::default()
        },
        inbound,
        ..Policy::default()
    };
    let catalog = Catalog::embedded().unwrap();
    let explainer = Explainer::new(&policy, &catalog).unwrap();
    judge(
        causes,
        findings,
        &policy,
        &explainer,
        &[],
        sockets,
        &InForce::default(),
    )
}

#[test]
fn a_scan_is_one_flow_also_when_no_counter_is_left_of_it() {
    let scanned =
        (2_000..2_040_u16).map(|port| cause("undocumented-port", protocol::TCP, port, "10.0.0.9"));
    // Few packets each, like a scan; but somebody listens at one, and another is tried often.
    let mut causes: Vec<Cause> = scanned.collect();
    let packets: Sum = serde_json::from_str(r#"{"earlier": 500, "now": 0}"#).unwrap();
    causes.push(Cause {
        packets,
        ..cause("undocumented-port", protocol::TCP, 3_000, "10.0.0.9")
    });
    let sockets = Sockets {
        listening: [(Transport::Tcp, 2_007)].into(),
        ..Sockets::default()
    };
    let all = judged(&causes, &[], Vec::new(), &sockets);
    let mut names: Vec<&str> = all.iter().map(|one| one.what.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["scan", "tcp/2007", "tcp/3000"]);
    // So few ports are none.
    let few = judged(
        causes.get(..15).unwrap(),
        &[],
        Vec::new(),
        &Sockets::default(),
    );
    assert_eq!(few.len(), 15);
}

#[test]
fn answers_from_elsewhere_get_a_row_that_lets_the_next_one_in() {
    let answer = Cause {
        to_client: true,
        service: 161,
        ..cause("undocumented-port", protocol::UDP, 0, "10.0.0.9")
    };
    for client_ports in [(32_768, 60_999), (15_000, 20_000)] {
        let sockets = Sockets {
            client_ports,
            ..Sockets::default()
        };
        let all = judged(std::slice::from_ref(&answer), &[], Vec::new(), &sockets);
        let [one] = &all[..] else { panic!("{all:?}") };
        assert_eq!(one.state, U);
        let (first, last) = client_ports;
        let ports = format!("ports = [\"{first}-{last}\"]");
        assert!(one.site.as_ref().unwrap().contains(&ports), "{one:?}");
        let row = Grant {
            kind: GrantKind::Site,
            transport: Transport::Udp,
            first,
            last,
            peers: Peers::Any,
            row: "site/agent".to_owned(),
            until: None,
        };
        let all = judged(std::slice::from_ref(&answer), &[], vec![row], &sockets);
        assert_eq!(all.first().map(|one| one.state), Some(P));
    }
}

#[test]
fn whatever_is_unexplained_can_be_accepted_as_it_is_called() {
    for &kind in Kind::ALL {
        for (last, source_port) in [(9_000, None), (9_005, None), (9_000, Some(161))] {
            for direction in ["in", "out"] {
                let finding = Finding {
                    kind,
                    direction,
                    what: "udp: 12 ports, or words".to_owned(),
                    transport: Some(Transport::Udp),
                    port_first: Some(9_000),
                    port_last: Some(last),
                    ports: 1,
                    source_port,
                    listening: false,
                    admitted: false,
                    admitted_part: 0,
                    violations: 7,
                    answers: 0,
                    estimated: false,
                    rows: Vec::new(),
                    left_out: Vec::new(),
                    peers_known: 0,
                    peers: Vec::new(),
                    first: None,
                    last: None,
                    near: None,
                };
                for one in judged(&[], &[finding], Vec::new(), &Sockets::default()) {
                    let flow = Flow::parse(&one.what);
                    assert!(flow.is_ok(), "{kind:?} {direction}: {}", one.what);
                }
            }
        }
    }
}

#[test]
fn what_is_dropped_already_speaks_against_nothing() {
    let enforcing = |audit: &[(Transport, u16, u16)]| Policy {
        settings: Settings {
            enforce: true,
            outbound: Outbound::Enforce,
            audit_ports: audit.to_vec(),
            ..Settings::default()
        },
        ..Policy::default()
    };
    let (policy, audits) = (enforcing(&[]), enforcing(&[(Transport::Tcp, 8080, 8080)]));
    let catalog = Catalog::embedded().unwrap();
    let explainer = || Explainer::new(&policy, &catalog).unwrap();
    let causes = [
        cause("undocumented-port", protocol::TCP, 8080, "10.0.0.9"),
        cause("malformed", protocol::TCP, 3, "10.0.0.9"),
        Cause {
            direction: "out".to_owned(),
            ..cause("undocumented-destination", protocol::TCP, 2379, "10.0.0.9")
        },
    ];
    let states = |now: &InForce<'_>| -> Vec<(String, State)> {
        let judged = judge(
            &causes,
            &[],
            &policy,
            &explainer(),
            &[],
            &Sockets::default(),
            now,
        );
        let mut all: Vec<(String, State)> = judged
            .into_iter()
            .map(|one| (one.what, one.state))
            .collect();
        all.sort();
        all
    };
    let state = |now: &InForce<'_>, what: &str| {
        let all = states(now);
        all.iter().find(|(one, _)| one == what).unwrap().1
    };
    let both = InForce {
        inbound: true,
        outbound: true,
        policies: vec![explainer()],
    };
    assert!(
        states(&both)
            .iter()
            .all(|(_, state)| *state == State::Dropped)
    );
    // What only audits drops nothing; nor does a port that the policy in force leaves in audit.
    let inbound = InForce {
        outbound: false,
        policies: vec![explainer()],
        ..InForce {
            inbound: true,
            ..InForce::default()
        }
    };
    assert_eq!(state(&inbound, "tcp/8080"), State::Dropped);
    assert_eq!(
        states(&inbound)
            .iter()
            .filter(|(_, state)| *state == U)
            .count(),
        1
    );
    let lax = InForce {
        inbound: true,
        outbound: true,
        policies: vec![explainer(), Explainer::new(&audits, &catalog).unwrap()],
    };
    assert_eq!(
        state(&lax, "tcp/8080"),
        U,
        "it may be that nothing drops it now"
    );
    // Nobody knows what is in force: nothing is excused.
    let unknown = InForce {
        inbound: true,
        outbound: true,
        policies: Vec::new(),
    };
    assert!(states(&unknown).iter().all(|(_, state)| *state == U));
}

#[test]
fn what_is_accepted_is_read_back_as_it_is_shown() {
    for text in [
        "tcp/8080",
        "out:udp/53=192.0.2.0/24",
        "malformed=fd00::/64",
        "unlisted",
        "scan=10.0.0.0/8",
        "tcp/8000-8100=192.0.2.0/24",
        "udp/from-161",
        "udp/to-clients",
    ] {
        assert_eq!(Flow::parse(text).unwrap().to_string(), text);
    }
    for wrong in [
        "",
        "tcp/x",
        "tcp/80=host",
        "Malformed",
        "tcp/99999",
        "tcp/9-8",
        "udp/from-x",
    ] {
        assert!(Flow::parse(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn one_address_of_a_network_speaks_for_none_of_the_others() {
    let (own, stranger) = ("fd66::12", "fd66::7");
    let policy = Policy {
        settings: Settings {
            enforce: true,
            ..Settings::default()
        },
        sets: vec![PeerSet {
            name: "role a/b".to_owned(),
            prefixes: vec!["fd66::12/128".parse().unwrap()],
        }],
        inbound: vec![Grant {
            kind: GrantKind::Documented,
            transport: Transport::Tcp,
            first: 2181,
            last: 2181,
            peers: Peers::Set(0),
            row: "a/talk".to_owned(),
            until: None,
        }],
        ..Policy::default()
    };
    let catalog = Catalog::embedded().unwrap();
    let explainer = Explainer::new(&policy, &catalog).unwrap();
    let judged = |causes: &[Cause], accepted: &[&str]| -> Vec<(State, String)> {
        let accept = |text: &&str| Accepted {
            flow: Flow::parse(text).unwrap(),
            by: "a".to_owned(),
            at: 1,
            why: "b".to_owned(),
        };
        let accepted: Vec<Accepted> = accepted.iter().map(accept).collect();
        let (sockets, in_force) = (Sockets::default(), InForce::default());
        let all = judge(
            causes,
            &[],
            &policy,
            &explainer,
            &accepted,
            &sockets,
            &in_force,
        );
        let of = |one: Judged| (one.state, one.peer.unwrap_or_default());
        all.into_iter().map(of).collect()
    };
    let to = |peer| cause("undocumented-peer", protocol::TCP, 2181, peer);
    assert_eq!(
        judged(&[to(own), to(stranger)], &[]),
        [(U, stranger.to_owned()), (P, own.to_owned())]
    );
    // A crowd is judged by all that it stands for, whoever was seen last.
    let crowd = Cause {
        is_crowd: true,
        ..to(own)
    };
    let network = "fd66::/64".to_owned();
    let crowds = std::slice::from_ref(&crowd);
    assert_eq!(judged(crowds, &[]), [(U, network.clone())]);
    assert_eq!(
        judged(crowds, &["tcp/2181=fd66::12"]),
        [(U, network.clone())]
    );
    assert_eq!(judged(crowds, &["tcp/2181=fd66::/64"]), [(A, network)]);
    assert!(
        crowd
            .site_lines((1, 2))
            .unwrap()
            .contains("[\"fd66::/64\"]")
    );
    assert!(
        to(stranger)
            .site_lines((1, 2))
            .unwrap()
            .contains("[\"fd66::7\"]")
    );
}

/// A range is accepted as a whole: of what comes to clients, which has another port each time, the whole range of clients.
#[test]
fn a_range_is_accepted_as_a_whole() {
    let clients = (32_768, 60_999);
    let answer = Cause {
        to_client: true,
        service: 161,
        ..cause("undocumented-port", protocol::UDP, 0, "10.0.0.9")
    };
    for (accepted, wanted) in [
        ("udp/32768-60999", true),
        ("udp/1024-65535=10.0.0.0/24", true),
        ("udp/from-161", true),
        ("udp/32768-50000", false),
        ("udp/40000", false),
        ("tcp/1024-65535", false),
        ("out:udp/1024-65535", false),
    ] {
        let flow = Flow::parse(accepted).unwrap();
        assert_eq!(flow.covers(&answer, clients), wanted, "{accepted}");
    }
    for (accepted, wanted) in [("udp/9000-9005", true), ("udp/9000", false)] {
        let flow = Flow::parse(accepted).unwrap();
        assert_eq!(
            flow.covers_ports("udp", (9_000, 9_005)),
            wanted,
            "{accepted}"
        );
    }
}
