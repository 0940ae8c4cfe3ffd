use super::*;
use crate::host::nat::{Reading, read_iptables, told};

/// What packets for others meet, as a guard that passes them has to know: what is for this host alone is left out.
#[test]
fn packets_for_others_are_followed_where_those_for_this_host_go_back() {
    let kept = vec!["198.51.100.0/24".parse().unwrap()];
    let others = world().for_others(kept);
    for (rules, wanted) in [
        (
            &[
                "-A PREROUTING -m addrtype --dst-type LOCAL -j RETURN",
                "-A PREROUTING -p tcp -m tcp --dport 80 -j REDIRECT --to-ports 1",
            ][..],
            &["tcp 80-80 -> port 1 true"][..],
        ),
        (
            &[
                "-A PREROUTING -p tcp -m addrtype ! --dst-type LOCAL,BROADCAST -m tcp --dport 80 -j REDIRECT",
            ],
            &["tcp 80-80 -> this host true"],
        ),
        (
            &["-A PREROUTING -p tcp -m addrtype --dst-type LOCAL -m tcp --dport 80 -j REDIRECT"],
            &[],
        ),
        (
            &[
                "-A PREROUTING -d 192.0.2.1/32 -p tcp -m tcp --dport 80 -j REDIRECT",
                "-A PREROUTING -d 198.51.100.7/32 -p tcp -m tcp --dport 81 -j REDIRECT",
                "-A PREROUTING ! -d 192.0.2.1/32 -p tcp -m tcp --dport 82 -j REDIRECT",
                "-A PREROUTING -d 192.0.2.0/24 -p tcp -m tcp --dport 83 -j REDIRECT",
            ],
            &[
                "tcp 82-82 -> this host true",
                "tcp 83-83 maybe -> this host true",
            ],
        ),
        (
            &[
                "-A PREROUTING -p tcp -m tcp --dport 80 -j DNAT --to-destination 192.0.2.0-192.0.2.9",
                "-A PREROUTING -p tcp -m tcp --dport 81 -j DNAT --to-destination 198.51.100.7",
                "-A PREROUTING -p tcp -m tcp --dport 82 -j DNAT --to-destination 224.0.0.1",
                "-A PREROUTING -p tcp -m tcp --dport 83 -j DNAT --to-destination 203.0.113.1-203.0.113.9",
            ],
            &[
                "tcp 80-80 -> 192.0.2.0-192.0.2.9 true",
                "tcp 81-81 -> 198.51.100.7 true",
                "tcp 82-82 -> 224.0.0.1 true",
                "tcp 83-83 -> 203.0.113.1-203.0.113.9 false",
            ],
        ),
    ] {
        let text = format!(
            "*nat\n:PREROUTING ACCEPT [0:0]\n{}\nCOMMIT\n",
            rules.join("\n")
        );
        let reading = read_iptables("ip", &text, &others);
        let told = told(&reading).into_iter().zip(&reading.published);
        let told: Vec<String> = told
            .map(|(told, one)| format!("{told} {}", one.is_host))
            .collect();
        assert_eq!(told, wanted, "{rules:?}");
        assert_eq!(reading.unread, [], "{rules:?}");
    }
}

fn world() -> World {
    World {
        interfaces: ["eth0".to_owned()].into(),
        addresses: vec!["192.0.2.1".parse().unwrap(), "fd00::1".parse().unwrap()],
        others: None,
    }
}

/// Rules of the table `nat` whose packets begin in the chain `PREROUTING`.
fn read(family: &'static str, rules: &[&str]) -> Reading {
    let chains = ":PREROUTING ACCEPT [0:0]\n:DOCKER - [0:0]\n:OTHER - [0:0]\n";
    let text = format!("*nat\n{chains}{}\nCOMMIT\n", rules.join("\n"));
    read_iptables(family, &text, &world())
}

#[test]
fn what_docker_writes() {
    let reading = read(
        "ip",
        &[
            "-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER",
            "-A DOCKER -i docker0 -j RETURN",
            "-A DOCKER ! -i docker0 -p tcp -m tcp --dport 8080 -j DNAT --to-destination 172.17.0.2:80",
            "-A DOCKER -d 192.0.2.1/32 ! -i docker0 -p udp -m udp --dport 53 -j DNAT --to-destination 172.17.0.3:53",
        ],
    );
    assert_eq!(
        told(&reading),
        [
            "tcp 8080-8080 -> 172.17.0.2:80",
            "udp 53-53 -> 172.17.0.3:53"
        ]
    );
    let [first, _] = &reading.published[..] else {
        panic!("{reading:?}")
    };
    assert_eq!(first.inner_ports(), 80..=80);
    assert!(!first.is_host && reading.unread.is_empty());
    assert!(
        first
            .rule
            .to_string()
            .starts_with("iptables ip nat DOCKER `-A DOCKER !")
    );
}

#[test]
fn ports_conditions_and_order() {
    for (rules, wanted) in [
        // Ranges, lists and what a rule is not for.
        (
            &[
                "-A PREROUTING -p udp -m udp --dport 8000:8010 -j DNAT --to-destination 10.88.0.2:8000-8010/8000",
            ][..],
            &["udp 8000-8010 -> 10.88.0.2:8000-8010/8000"][..],
        ),
        (
            &[
                "-A PREROUTING -p tcp -m multiport --dports 80,90:91 -m comment --comment \"a -j DROP b\" -j REDIRECT --to-ports 8080",
            ],
            &["tcp 80-80 -> port 8080", "tcp 90-91 -> port 8080"],
        ),
        (
            &["-A PREROUTING -p tcp -m tcp ! --dport 1:65535 -j DNAT --to-destination 10.0.0.1:1"],
            &["tcp 0-0 -> 10.0.0.1:1"],
        ),
        (
            &["-A PREROUTING -p sctp -j REDIRECT"],
            &["sctp 0-65535 -> this host"],
        ),
        // Order: what ended before, what ended for some, and what goes back.
        (
            &[
                "-A PREROUTING -p tcp -m tcp --dport 80 -j ACCEPT",
                "-A PREROUTING -p tcp -m tcp --dport 79:81 -j REDIRECT --to-ports 1",
            ],
            &["tcp 79-79 -> port 1", "tcp 81-81 -> port 1"],
        ),
        (
            &[
                "-A PREROUTING -s 10.0.0.0/8 -j ACCEPT",
                "-A PREROUTING -p tcp -m tcp --dport 80 -j REDIRECT --to-ports 1",
            ],
            &["tcp 80-80 maybe -> port 1"],
        ),
        (
            &[
                "-A PREROUTING -g DOCKER",
                "-A PREROUTING -p tcp -m tcp --dport 80 -j REDIRECT --to-ports 1",
                "-A DOCKER -p tcp -m tcp --dport 81 -j REDIRECT --to-ports 2",
            ],
            &["tcp 81-81 -> port 2"],
        ),
        (
            &[
                "-A PREROUTING -j DOCKER",
                "-A PREROUTING -p tcp -m tcp --dport 80 -j REDIRECT --to-ports 1",
                "-A DOCKER -j RETURN",
                "-A DOCKER -p tcp -m tcp --dport 81 -j REDIRECT --to-ports 2",
            ],
            &["tcp 80-80 -> port 1"],
        ),
        // For others than this host, or by where nothing comes from.
        (
            &[
                "-A PREROUTING -i eth1 -p tcp -m tcp --dport 80 -j REDIRECT --to-ports 1",
                "-A PREROUTING -i eth+ -p tcp -m tcp --dport 81 -j REDIRECT --to-ports 1",
            ],
            &["tcp 81-81 -> port 1"],
        ),
        (
            &[
                "-A PREROUTING -d 127.0.0.0/8 -p tcp -m tcp --dport 80 -j REDIRECT --to-ports 1",
                "-A PREROUTING -d 192.0.2.9/32 -p tcp -m tcp --dport 81 -j DNAT --to-destination 10.0.0.1",
            ],
            &["tcp 81-81 maybe -> 10.0.0.1"],
        ),
        (
            &[
                "-A PREROUTING -p tcp -m tcp --dport 80 -m statistic --mode random --probability 0.5 -j DNAT --to-destination 10.0.0.1",
            ],
            &["tcp 80-80 maybe -> 10.0.0.1"],
        ),
        (
            &["-A OTHER -p tcp -m tcp --dport 80 -j REDIRECT --to-ports 1"],
            &[],
        ),
    ] {
        let reading = read("ip", rules);
        assert_eq!(told(&reading), wanted, "{rules:?}");
        assert_eq!(reading.unread, [], "{rules:?}");
    }
}

#[test]
fn what_stays_on_this_host_is_told_apart() {
    let to_itself =
        ["-A PREROUTING -p tcp -m tcp --dport 80 -j DNAT --to-destination 192.0.2.1:8080"];
    assert!(read("ip", &to_itself).published[0].is_host);
    let six = ["-A PREROUTING -p tcp -m tcp --dport 80 -j DNAT --to-destination [fd00::2]:8080"];
    let six = read("ip6", &six);
    assert_eq!(told(&six), ["tcp 80-80 -> [fd00::2]:8080"]);
    assert_eq!(six.published[0].inner_ports(), 8080..=8080);
}

#[test]
fn what_is_not_understood_is_said() {
    for (rule, why) in [
        (
            "-A PREROUTING -p tcp -j NOVEL --to 1",
            "the target `NOVEL` is not known",
        ),
        (
            "-A PREROUTING -p tcp -j NFQUEUE --queue-num 5",
            crate::host::nat::QUEUED,
        ),
        (
            "-A PREROUTING -p tcp -m tcp --dport http -j REDIRECT",
            "ports as `http`",
        ),
        (
            "-A PREROUTING -p tcp -j DNAT --to-destination a.example",
            "sends to `a.example`",
        ),
    ] {
        let reading = read("ip", &[rule]);
        assert_eq!(reading.published, [], "{rule}");
        let [unread] = &reading.unread[..] else {
            panic!("{rule}: {reading:?}")
        };
        assert_eq!(unread.why, why);
        assert!(unread.rule.to_string().contains(rule));
    }
}
