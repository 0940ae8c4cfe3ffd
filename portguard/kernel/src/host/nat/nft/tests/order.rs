//! Which rule a packet comes to.

use super::*;

#[test]
fn chains_order_and_conditions() {
    let all = || json!([dport("tcp", "==", json!({"range": [80, 82]})), redirect(1)]);
    // What ended before.
    reads(&[json!([{"accept": null}]), all()], &[]);
    reads(
        &[
            json!([dport("tcp", "==", 81.into()), {"return": null}]),
            all(),
        ],
        &["tcp 80-80 -> port 1", "tcp 82-82 -> port 1"],
    );
    // What ended for some: nobody knows which.
    let from = meta("mark", "==", 1.into());
    reads(
        &[json!([from.clone(), {"accept": null}]), all()],
        &["tcp 80-82 maybe -> port 1"],
    );
    reads(
        &[json!([
            from.clone(),
            meta("l4proto", "!=", json!({"set": ["udp", "gre"]})),
            dport("th", "!=", 0.into()),
            redirect(2)
        ])],
        &[
            "tcp 1-65535 maybe -> port 2",
            "sctp 1-65535 maybe -> port 2",
        ],
    );
    reads(
        &[json!([{"limit": {"rate": 5}}, dport("tcp", "==", 6.into()), redirect(2)])],
        &["tcp 6-6 maybe -> port 2"],
    );
    // By the interface.
    reads(
        &[json!([
            meta("iifname", "==", "docker0".into()),
            redirect(2)
        ])],
        &[],
    );
    reads(
        &[
            json!([meta("iifname", "!=", "docker0".into()), {"accept": null}]),
            all(),
        ],
        &[],
    );
    reads(
        &[
            json!([meta("iifname", "==", json!({"set": ["eth1", "br*"]})), {"accept": null}]),
            all(),
        ],
        &["tcp 80-82 maybe -> port 1"],
    );
    reads(
        &[json!([
            meta("iifname", "==", "eth*".into()),
            all()[0],
            redirect(3)
        ])],
        &["tcp 80-82 -> port 3"],
    );
    // What is always so for a packet from outside for this host, and what never.
    let fib = |op: &str| json!({"match": {"op": op, "left": {"fib": {"result": "type", "flags": ["daddr"]}}, "right": "local"}});
    let new = json!({"match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": "new"}});
    reads(&[json!([fib("=="), new, {"accept": null}]), all()], &[]);
    reads(
        &[json!([fib("!="), {"accept": null}]), all()],
        &["tcp 80-82 -> port 1"],
    );
    // There and back, there for good, and there by a condition.
    let inner = || {
        rule(
            "other",
            90,
            json!([dport("tcp", "==", 81.into()), {"accept": null}]),
        )
    };
    let lead = |how: &str| rule("pre", 1, json!([{how: {"target": "other"}}]));
    let last = || rule("pre", 2, all());
    assert_eq!(
        told(&read(&[lead("jump"), last(), inner()])),
        ["tcp 80-80 -> port 1", "tcp 82-82 -> port 1"]
    );
    assert_eq!(told(&read(&[lead("goto"), last(), inner()])), [""; 0]);
    let some = rule("pre", 1, json!([from, {"jump": {"target": "other"}}]));
    assert_eq!(
        told(&read(&[some, last(), inner()])),
        [
            "tcp 80-80 -> port 1",
            "tcp 81-81 maybe -> port 1",
            "tcp 82-82 -> port 1"
        ]
    );
    // What the host itself sends does not come from outside.
    assert_eq!(told(&read(&[rule("out", 1, all())])), [""; 0]);
}

#[test]
fn a_rule_for_one_family_leaves_the_other_alone() {
    let all = || json!([dport("tcp", "==", json!({"range": [80, 82]})), redirect(1)]);
    let four = json!([{"match": {"op": "==", "left": {"payload": {"protocol": "ip", "field": "protocol"}}, "right": "tcp"}},
        {"accept": null}]);
    reads(&[four, all()], &["tcp 80-82 -> port 1"]);
    let to = |family: &str, address: &str| json!([dport("tcp", "==", 80.into()), {"dnat": {"family": family, "addr": address}}]);
    reads(
        &[
            to("ip", "10.0.0.2"),
            to("ip6", "fd00::9"),
            to("ip", "10.0.0.3"),
        ],
        &["tcp 80-80 -> 10.0.0.2", "tcp 80-80 -> fd00::9"],
    );
    let own = json!([{"match": {"op": "==", "left": {"payload": {"protocol": "ip6", "field": "daddr"}}, "right": "fd00::1"}},
        {"accept": null}]);
    let six = json!([meta("nfproto", "==", "ipv6".into()), {"accept": null}]);
    reads(&[own.clone(), six, all()], &["tcp 80-82 -> port 1"]);
    reads(
        &[
            own,
            json!([meta("nfproto", "==", "ipv6".into()), all()[0], redirect(4)]),
        ],
        &[],
    );
}

#[test]
fn what_stays_on_this_host_is_told_apart() {
    let reading = read(&[
        rule(
            "pre",
            1,
            json!([dport("tcp", "==", 80.into()), redirect(8080)]),
        ),
        rule(
            "pre",
            2,
            json!([dport("tcp", "==", 81.into()), {"dnat": {"addr": "192.0.2.1", "port": 8081}}]),
        ),
        rule(
            "pre",
            3,
            json!([dport("tcp", "==", 82.into()), {"tproxy": {"addr": "127.0.0.1", "port": 8082}}]),
        ),
        rule(
            "pre",
            4,
            json!([dport("tcp", "==", 83.into()), {"dnat": {"addr": "10.0.0.1", "port": {"range": [1, 2]}}}]),
        ),
    ]);
    let hosts: Vec<bool> = reading.published.iter().map(|one| one.is_host).collect();
    assert_eq!(hosts, [true, true, true, false], "{reading:?}");
    assert_eq!(reading.published[3].inner_ports(), 1..=2);
    assert_eq!(
        reading.published[3].rule.to_string(),
        "nft inet t pre handle 4"
    );
}

#[test]
fn what_is_not_understood_is_said_and_hides_nothing_after_it() {
    let port = || dport("tcp", "==", 80.into());
    for (steps, why) in [
        (
            json!([port(), {"xt": {"type": "target", "name": "DNAT"}}]),
            "a statement of iptables (DNAT)",
        ),
        (json!([port(), {"xt": null}]), "a statement of iptables,"),
        (json!([port(), {"novel": {"a": 1}}]), "`novel` is not known"),
        (
            json!([dport("tcp", "==", "http".into()), redirect(1)]),
            "ports as `\"http\"`",
        ),
        (
            json!([dport("tcp", "==", "@gone".into()), redirect(1)]),
            "the set `gone` is not there",
        ),
        (
            json!([port(), {"jump": {"target": "gone"}}]),
            "leads to `gone`",
        ),
        (
            json!([port(), {"mangle": {"key": {"payload": {"protocol": "tcp", "field": "dport"}}, "value": 9}}]),
            "rewrites where",
        ),
        (
            json!([port(), {"fwd": {"dev": "eth1"}}]),
            "another interface",
        ),
    ] {
        // Something to send, so that the table is of interest.
        let after = rule(
            "pre",
            8,
            json!([dport("tcp", "==", json!({"range": [79, 81]})), redirect(2)]),
        );
        let reading = read(&[rule("pre", 7, steps.clone()), after]);
        let [unread] = &reading.unread[..] else {
            panic!("{steps}: {reading:?}")
        };
        assert!(unread.why.contains(why), "{}", unread.why);
        assert_eq!(unread.rule.to_string(), "nft inet t pre handle 7");
        // It may have taken what comes after it.
        assert!(
            told(&reading)
                .iter()
                .any(|one| one.contains("80 maybe") || one.contains("81 maybe")),
            "{steps}: {reading:?}"
        );
    }
    // Beyond the reach of packets, it is of no matter.
    let unreached = read(&[
        rule("pre", 1, json!([{"accept": null}])),
        rule("pre", 2, json!([port(), {"novel": null}])),
    ]);
    assert_eq!(unreached, Reading::default());
    // A loop of chains does not hold for ever: the kernel allows none, yet whoever wrote the text may.
    let there = rule("pre", 1, json!([{"jump": {"target": "other"}}]));
    let round = read(&[
        there,
        rule("other", 2, json!([{"jump": {"target": "other"}}])),
        rule("other", 3, json!([redirect(1)])),
    ]);
    assert!(!round.unread.is_empty());
}
