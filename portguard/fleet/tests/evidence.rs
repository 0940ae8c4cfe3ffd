//! What hosts saw: it always fits, says whose it is, and adds up.

use portguard_fleet::evidence::{Cause, Evidence, Seen};
use portguard_fleet::status::{Doubt, HostKey, MAX_EVIDENCE};

fn cause(what: &str, violations: u64) -> Cause {
    Cause {
        direction: "in".to_owned(),
        kind: "undocumented-port".to_owned(),
        what: what.to_owned(),
        violations,
        listening: violations > 10,
        peers: vec!["192.0.2.1".to_owned()],
    }
}

fn evidence(host: &str) -> Evidence {
    Evidence {
        host: host.to_owned(),
        interface: "eth0".to_owned(),
        effective: "audit".to_owned(),
        ..Evidence::default()
    }
}

#[test]
fn however_much_a_host_saw_it_fits_and_the_heaviest_is_there() {
    let mut all = evidence("a");
    all.causes = (0..5000).map(|n| cause(&format!("tcp/{n}"), n)).collect();
    all.causes.push(cause(&"ä".repeat(5000), 3));
    all.unused = (0..3000)
        .map(|n| format!("a-row-with-a-long-name-{n}"))
        .collect();
    all.listening = (0..2000).map(|n| format!("tcp/{n} something")).collect();
    all.against = vec!["x".repeat(100_000)];
    let key = HostKey::parse(&HostKey::generate().unwrap(), "test").unwrap();
    let sealed = key.evidence(&all.fitted());
    assert!(sealed.len() <= MAX_EVIDENCE, "{} bytes", sealed.len());
    assert!(
        sealed.len() > MAX_EVIDENCE / 2,
        "it has as much as fits: {}",
        sealed.len()
    );
    let public = key.public();
    let read = Evidence::read("test", "a", "eth0", Some(&public), &sealed).unwrap();
    assert_eq!(read.causes[0].what, "tcp/4999");
    let there = read.causes.len() + read.unused.len() + read.listening.len() + read.against.len();
    let all = all.causes.len() + all.unused.len() + all.listening.len() + all.against.len();
    assert_eq!(
        read.left_off,
        (all - there) as u64,
        "what has no room is counted"
    );
}

#[test]
fn evidence_of_another_host_interface_or_fleet_does_not_count() {
    let key = HostKey::parse(&HostKey::generate().unwrap(), "test").unwrap();
    let other = HostKey::parse(&HostKey::generate().unwrap(), "test").unwrap();
    let sealed = key.evidence(&evidence("a").fitted());
    let (ours, theirs) = (key.public(), other.public());
    let read = |fleet: &str, host: &str, interface: &str, key: &str| {
        Evidence::read(fleet, host, interface, Some(key), &sealed)
    };
    read("test", "a", "eth0", &ours).unwrap();
    assert!(matches!(
        read("test", "b", "eth0", &ours),
        Err(Doubt::OtherHost(_))
    ));
    assert!(matches!(
        read("test", "a", "eth1", &ours),
        Err(Doubt::OtherHost(_))
    ));
    assert_eq!(read("other", "a", "eth0", &ours), Err(Doubt::Signature));
    assert_eq!(read("test", "a", "eth0", &theirs), Err(Doubt::Signature));
    let nobody = Evidence::read("test", "a", "eth0", None, &sealed);
    assert_eq!(nobody, Err(Doubt::NotEnrolled));
}

#[test]
fn a_cause_is_one_line_with_all_hosts_that_have_it_and_a_row_is_unused_only_if_nobody_uses_it() {
    let [mut a, mut b] = ["a", "b"].map(evidence);
    a.causes = vec![cause("tcp/1", 5), cause("tcp/2", 100)];
    b.causes = vec![cause("tcp/1", 7)];
    b.effective = "enforce".to_owned();
    a.reasons.insert("in documented".to_owned(), 10);
    b.reasons.insert("in documented".to_owned(), 20);
    a.unused = ["x", "y"].map(str::to_owned).into();
    b.unused = ["x".to_owned()].into();
    b.used = ["y".to_owned()].into();
    let seen = Seen::of([&a, &b]);
    let first = &seen.causes[0];
    assert_eq!(
        (first.what.as_str(), first.violations, first.hosts.len()),
        ("tcp/1", 12, 2)
    );
    assert_eq!(seen.causes[1].listening, ["a".to_owned()].into());
    assert_eq!(seen.unused, [("x".to_owned(), 2)].into());
    assert_eq!(seen.reasons["in documented"].packets, 30);
    assert_eq!(seen.effective.len(), 2);
}
