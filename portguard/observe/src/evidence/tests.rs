use std::net::Ipv6Addr;

use super::*;
use portguard_policy::catalog::Transport;
use portguard_policy::policy::{Grant, GrantKind, Peers};

fn policy(ports: &[u16]) -> Policy {
    Policy {
        inbound: ports
            .iter()
            .map(|port| Grant {
                kind: GrantKind::Site,
                transport: Transport::Tcp,
                first: *port,
                last: *port,
                peers: Peers::Any,
                row: format!("site/{port}"),
                until: None,
            })
            .collect(),
        ..Policy::default()
    }
}

fn talkers(packets: u64, at: u64) -> Talkers {
    Talkers {
        heaviest: vec![Talker {
            packets,
            looks: 1,
            first: at * SECOND,
            last: (at + 1) * SECOND,
            ..Talker::example(8080, "10.0.0.9")
        }],
        bound: 0,
        attributed: packets,
    }
}

fn seen<'a>(
    policy: &'a Policy,
    talkers: &'a Talkers,
    made: u64,
    now: u64,
    packets: u64,
) -> Seen<'a> {
    Seen {
        policy,
        loaded_at: now,
        is_first: true,
        made: made * SECOND,
        packets,
        talkers,
        now,
    }
}

#[test]
fn counts_go_on_over_boots_and_gaps_are_no_watching() {
    let policy = policy(&[443]);
    let first = talkers(5, 1010);
    let mut evidence = Evidence::new(&seen(&policy, &first, 1000, 1100, 50));
    evidence.absorb(&seen(&policy, &first, 1000, 1100, 50));
    evidence.absorb(&seen(&policy, &talkers(7, 1010), 1000, 2000, 80));
    // The next boot: the kernel counts from zero, an hour later.
    evidence.absorb(&seen(&policy, &talkers(2, 5700), 5600, 5800, 10));
    assert_eq!(evidence.watched(), 1000 + 200);
    assert_eq!(evidence.judged(), 90);
    assert_eq!(evidence.causes.len(), 1);
    let cause = &evidence.causes[0];
    assert_eq!(
        (cause.packets.total(), cause.first, cause.last),
        (9, 1010, 5701)
    );
    assert_eq!(evidence.hours(), BTreeSet::from([0, 1]));
    let text = serde_json::to_vec(&evidence).unwrap();
    assert_eq!(serde_json::from_slice::<Evidence>(&text).unwrap(), evidence);
}

#[test]
fn who_becomes_a_crowd_is_counted_once() {
    let policy = policy(&[443]);
    let of = |count: u16| {
        let mut all = talkers(0, 1000);
        let [one] = all.heaviest[..] else {
            panic!("{all:?}")
        };
        let peer = |host| Talker {
            peer: Ipv6Addr::new(0xfd66, 0, 0, 1, 0, 0, 0, host).into(),
            packets: 3,
            ..one
        };
        all.heaviest = (0..count).map(peer).collect();
        all
    };
    let (few, many, later) = (of(4), of(40), of(2));
    let mut evidence = Evidence::new(&seen(&policy, &few, 1000, 1000, 12));
    evidence.absorb(&seen(&policy, &few, 1000, 1001, 12));
    assert_eq!(evidence.causes.len(), 4);
    evidence.absorb(&seen(&policy, &many, 1000, 1002, 120));
    // After a boot some of them come again.
    evidence.absorb(&seen(&policy, &later, 2000, 2001, 6));
    evidence.absorb(&seen(&policy, &later, 2000, 2002, 6));
    let [cause] = &evidence.causes[..] else {
        panic!("{evidence:?}")
    };
    assert_eq!((cause.is_crowd, cause.packets.total()), (true, 126));
    assert_eq!(cause.whom().to_string(), "fd66:0:0:1::/64");
}

#[test]
fn guards_that_are_loaded_within_a_second_are_two() {
    let policy = policy(&[443]);
    let first = talkers(3, 1000);
    let mut evidence = Evidence::new(&seen(&policy, &first, 1000, 1000, 3));
    evidence.absorb(&seen(&policy, &first, 1000, 1000, 3));
    let second = talkers(4, 1000);
    let mut anew = seen(&policy, &second, 1000, 1000, 4);
    anew.made += 1;
    evidence.absorb(&anew);
    evidence.absorb(&anew);
    assert_eq!((evidence.judged(), evidence.spans.len()), (7, 2));
    assert_eq!(evidence.causes[0].packets.total(), 7);
}

#[test]
fn a_policy_that_admits_less_begins_anew_and_one_that_admits_more_goes_on() {
    let (wide, narrow) = (policy(&[443, 8443]), policy(&[443]));
    let none = Talkers::default();
    let mut evidence = Evidence::new(&seen(&narrow, &none, 1000, 1000, 0));
    evidence.absorb(&seen(&narrow, &none, 1000, 2000, 10));
    evidence.absorb(&seen(&wide, &none, 1000, 3000, 20));
    assert_eq!((evidence.watched(), evidence.judged()), (2000, 20));
    evidence.absorb(&seen(&narrow, &none, 1000, 4000, 30));
    assert_eq!((evidence.watched(), evidence.judged()), (0, 0));
    evidence.absorb(&seen(&narrow, &none, 1000, 4500, 35));
    assert_eq!((evidence.watched(), evidence.judged()), (500, 5));
}
