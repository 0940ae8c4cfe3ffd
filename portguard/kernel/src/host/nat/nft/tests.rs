#![expect(
    clippy::needless_pass_by_value,
    reason = "values are written where they are used"
)]

mod order;

use serde_json::json;

use super::*;
use crate::host::nat::{Reading, read_nft, told};

fn world() -> World {
    World {
        interfaces: ["eth0".to_owned(), "eth1".to_owned()].into(),
        addresses: vec!["192.0.2.1".parse().unwrap(), "fd00::1".parse().unwrap()],
        others: None,
    }
}

fn chain(name: &str, hook: Option<&str>) -> Value {
    let mut chain = json!({"family": "inet", "table": "t", "name": name});
    if let Some(hook) = hook {
        chain["hook"] = hook.into();
        chain["type"] = "nat".into();
    }
    json!({ "chain": chain })
}

fn rule(chain: &str, handle: u64, steps: Value) -> Value {
    json!({"rule": {"family": "inet", "table": "t", "chain": chain, "handle": handle, "expr": steps}})
}

fn dport(protocol: &str, op: &str, right: Value) -> Value {
    json!({"match": {"op": op, "left": {"payload": {"protocol": protocol, "field": "dport"}}, "right": right}})
}

fn meta(key: &str, op: &str, right: Value) -> Value {
    json!({"match": {"op": op, "left": {"meta": {"key": key}}, "right": right}})
}

fn redirect(port: u16) -> Value {
    json!({"redirect": {"port": port}})
}

/// A table with a chain `pre`, at which packets begin, and a chain `other`.
fn read(objects: &[Value]) -> Reading {
    let mut all = vec![
        json!({"metainfo": {"json_schema_version": 1}}),
        json!({"table": {"family": "inet", "name": "t"}}),
        json!({"set": {"family": "inet", "table": "t", "name": "s", "elem": [80, {"range": [90, 91]},
            {"elem": {"val": 95, "timeout": 60}}]}}),
        json!({"map": {"family": "inet", "table": "t", "name": "m", "map": "ipv4_addr . inet_service",
            "elem": [[81, {"concat": ["10.0.0.2", 8080]}]]}}),
        json!({"map": {"family": "inet", "table": "t", "name": "v", "map": "verdict",
            "elem": [[83, {"jump": {"target": "other"}}], [84, {"drop": null}], ["*", {"goto": {"target": "other"}}]]}}),
        chain("pre", Some("prerouting")),
        chain("other", None),
        chain("out", Some("output")),
    ];
    all.extend_from_slice(objects);
    read_nft(&json!({ "nftables": all }).to_string(), &world()).unwrap()
}

#[track_caller]
fn reads(steps: &[Value], wanted: &[&str]) {
    let rules: Vec<Value> = (0..)
        .zip(steps)
        .map(|(handle, steps)| rule("pre", handle, steps.clone()))
        .collect();
    let reading = read(&rules);
    assert_eq!(told(&reading), wanted, "{steps:?}");
    assert_eq!(reading.unread, [], "{steps:?}");
}

#[test]
fn ports_in_the_rule_in_sets_and_compared() {
    let to = || json!({"dnat": {"addr": "172.17.0.2", "port": 80, "family": "ip"}});
    reads(
        &[json!([dport("tcp", "==", 8080.into()), {"counter": {"packets": 0}}, to()])],
        &["tcp 8080-8080 -> 172.17.0.2:80"],
    );
    reads(
        &[
            json!([dport("udp", "==", json!({"set": [53, {"range": [8000, 8010]}]})), {"dnat": {"addr": "fd00::2"}}]),
        ],
        &["udp 53-53 -> fd00::2", "udp 8000-8010 -> fd00::2"],
    );
    reads(
        &[json!([dport("tcp", "==", "@s".into()), redirect(3128)])],
        &[
            "tcp 80-80 -> port 3128",
            "tcp 90-91 -> port 3128",
            "tcp 95-95 -> port 3128",
        ],
    );
    reads(
        &[json!([
            meta("l4proto", "==", json!({"set": ["tcp", 17]})),
            dport("th", "==", 53.into()),
            redirect(5353)
        ])],
        &["tcp 53-53 -> port 5353", "udp 53-53 -> port 5353"],
    );
    reads(
        &[
            json!([dport("tcp", ">=", 65_000.into()), dport("tcp", "!=", 65_100.into()), {"redirect": null}]),
        ],
        &[
            "tcp 65000-65099 -> this host",
            "tcp 65101-65535 -> this host",
        ],
    );
    reads(
        &[json!([dport("udp", "<", 2.into()), redirect(1)])],
        &["udp 0-1 -> port 1"],
    );
    reads(
        &[json!([meta("l4proto", "==", "tcp".into()), redirect(1)])],
        &["tcp 0-65535 -> port 1"],
    );
    // Masks, and a part of the port by its place in the header: 0x1f00 to 0x1fff.
    let masked = json!({"match": {"op": "==", "left": {"&": [{"payload": {"protocol": "tcp", "field": "dport"}}, 0xff00]}, "right": 0x1f00}});
    reads(
        &[json!([masked, redirect(1)])],
        &["tcp 7936-8191 -> port 1"],
    );
    let high = json!({"match": {"op": "==", "left": {"payload": {"base": "th", "offset": 16, "len": 8}}, "right": 0x1f}});
    reads(
        &[json!([
            high,
            meta("l4proto", "==", "udp".into()),
            redirect(1)
        ])],
        &["udp 7936-8191 -> port 1"],
    );
    let protocol = json!({"match": {"op": "==", "left": {"payload": {"protocol": "ip", "field": "protocol"}}, "right": "gre"}});
    // What has no port is told to be handed on, and no more.
    let gre = read(&[rule("pre", 1, json!([protocol, to()]))]);
    assert_eq!((told(&gre), gre.unread.len()), (vec![], 1));
    assert!(gre.unread[0].why.contains("no port"), "{gre:?}");
    reads(
        &[
            json!([{"match": {"op": "==", "left": {"meta": {"key": "l4proto"}}, "right": "gre"}}, {"accept": null}]),
            json!([
                meta("l4proto", "!=", json!({"set": ["icmp", "udp", "sctp"]})),
                dport("tcp", "==", 7.into()),
                to()
            ]),
        ],
        &["tcp 7-7 -> 172.17.0.2:80"],
    );
}

#[test]
fn maps_of_targets_and_of_verdicts() {
    let key = json!({"payload": {"protocol": "tcp", "field": "dport"}});
    reads(
        &[
            json!([{"dnat": {"family": "ip", "addr": {"map": {"key": key.clone(), "data": {"set": [[85, "10.0.0.2"], [{"range": [86, 87]}, "10.0.0.3"]]}}}}}]),
        ],
        &["tcp 85-85 -> 10.0.0.2", "tcp 86-87 -> 10.0.0.3"],
    );
    reads(
        &[json!([{"dnat": {"family": "ip", "addr": {"map": {"key": key.clone(), "data": "@m"}}}}])],
        &["tcp 81-81 -> 10.0.0.2:8080"],
    );
    reads(
        &[
            json!([{"redirect": {"port": {"map": {"key": key.clone(), "data": {"set": [[120, 1120]]}}}}}]),
        ],
        &["tcp 120-120 -> port 1120"],
    );
    let spread = json!({"numgen": {"mode": "inc", "mod": 2, "offset": 0}});
    reads(
        &[
            json!([dport("tcp", "==", 9.into()), {"dnat": {"addr": {"map": {"key": spread, "data": {"set": [[0, "10.0.0.2"], [1, "10.0.0.3"]]}}}}}]),
        ],
        // Of the second the first took some away: how many is not known.
        &["tcp 9-9 -> 10.0.0.2", "tcp 9-9 maybe -> 10.0.0.3"],
    );
    let inner = rule(
        "other",
        90,
        json!([dport("tcp", "==", json!({"range": [82, 88]})), redirect(1)]),
    );
    let by_map = |data: Value| {
        rule(
            "pre",
            1,
            json!([{"vmap": {"key": key.clone(), "data": data}}]),
        )
    };
    let in_place =
        by_map(json!({"set": [[88, {"jump": {"target": "other"}}], [89, {"accept": null}]]}));
    assert_eq!(
        told(&read(&[in_place, inner.clone()])),
        ["tcp 88-88 -> port 1"]
    );
    // By name, with a case for all others.
    assert_eq!(
        told(&read(&[by_map("@v".into()), inner])),
        ["tcp 82-83 -> port 1", "tcp 85-88 -> port 1"]
    );
}

#[test]
fn several_keys_at_once() {
    let key = json!({"concat": [{"payload": {"protocol": "ip", "field": "daddr"}}, {"payload": {"protocol": "tcp", "field": "dport"}}]});
    let inner = || rule("other", 90, json!([redirect(1)]));
    let by = |address: &str| {
        rule(
            "pre",
            1,
            json!([{"vmap": {"key": key.clone(), "data": {"set": [[{"concat": [address, 443]}, {"jump": {"target": "other"}}]]}}}]),
        )
    };
    assert_eq!(
        told(&read(&[by("192.0.2.1"), inner()])),
        ["tcp 443-443 -> port 1"]
    );
    assert_eq!(
        told(&read(&[by("192.0.2.9"), inner()])),
        ["tcp 443-443 maybe -> port 1"]
    );
    assert_eq!(told(&read(&[by("127.0.0.1"), inner()])), [""; 0]);
    let wide = json!({"match": {"op": "==", "left": key, "right": {"set": [
        {"concat": [{"prefix": {"addr": "192.0.2.0", "len": 24}}, {"range": [500, 600]}]}, {"concat": ["192.0.2.1", 7]}]}}});
    reads(
        &[json!([wide, redirect(1)])],
        &["tcp 7-7 -> port 1", "tcp 500-600 -> port 1"],
    );
}

#[test]
fn tables_that_are_read_elsewhere_are_left() {
    let text = json!({"nftables": [
        {"chain": {"family": "ip", "table": "nat", "name": "PREROUTING", "hook": "prerouting", "type": "nat"}},
        {"rule": {"family": "ip", "table": "nat", "chain": "PREROUTING", "handle": 3, "expr": [{"xt": {"type": "target", "name": "DNAT"}}]}},
    ]});
    let mut ruleset = Ruleset::of(&text).unwrap();
    assert!(ruleset.is_foreign("ip") && !ruleset.is_foreign("ip6"));
    ruleset.leave("ip", "nat", &["OTHER".to_owned()].into());
    assert_eq!(ruleset.tables(&world()).len(), 1);
    ruleset.leave("ip", "nat", &["PREROUTING".to_owned()].into());
    assert_eq!(ruleset.tables(&world()).len(), 0);
}

#[test]
fn ports_by_a_set_that_rules_fill_are_told_and_so_are_copies_sent_elsewhere() {
    for flags in [json!("dynamic"), json!(["timeout", "dynamic"])] {
        let reading = read(&[
            json!({"set": {"family": "inet", "table": "t", "name": "q", "flags": flags, "elem": [9]}}),
            rule(
                "pre",
                7,
                json!([dport("tcp", "==", json!("@q")), redirect(23)]),
            ),
        ]);
        assert_eq!(reading.published, []);
        assert_eq!(reading.unread.len(), 1);
        assert!(
            reading.unread[0].why.contains("`q`"),
            "{:?}",
            reading.unread
        );
    }
    let copied = read(&[rule(
        "pre",
        8,
        json!([dport("tcp", "==", json!(304)), {"dup": {"addr": "10.7.0.5"}}]),
    )]);
    assert_eq!(copied.unread.len(), 1, "{:?}", copied.unread);
}
