//! Whatever answers a printed peer: what is open at one end only is reported at both.

use super::asks::{messages_of, named};

/// A node, a data hub and a database of one system, a server of another, and one more thing that is said.
fn site(said: &str) -> String {
    let (system, said) = said.split_once('|').unwrap_or((said, ""));
    format!(
        r#"
[groups]
operators = ["host:dh"]
[systems.interlink-asi]
deployment = "clustered"
{system}
[systems.wso2]
unprinted_peers = "none"
{said}
[[host]]
name = "a1"
addresses = ["10.1.0.1"]
roles = ["interlink-asi/asi"]
[[host]]
name = "dh"
addresses = ["10.1.0.5"]
roles = ["interlink-asi/datahub"]
[[host]]
name = "lb"
addresses = ["10.1.0.6"]
roles = ["interlink-asi/load-balancer"]
[[host]]
name = "w"
addresses = ["10.1.0.7"]
roles = ["wso2/api-manager"]
"#
    )
}

#[test]
fn whoever_is_named_for_a_printed_peer_is_reported_where_his_own_end_is_closed() {
    let bes = "interlink-asi/clustered-bes-50050/in";
    let users = "interlink-asi/clustered-users-443";
    let own = "[[row]]\nname = \"feed\"\ndirection = \"in\"\ntransport = \"udp\"\nports = [7000]\nreason = \"x\"\nhosts = [\"a1\"]\npeers = ";
    for (said, row, open, closed) in [
        (
            "peers = { bes = [\"role:interlink-asi/datahub@*\"] }",
            bes,
            "a1",
            "dh",
        ),
        ("peers = { bes = [\"role:wso2/carbon\"] }", bes, "a1", "w"),
        ("peers = { bes = [\"host:dh\"] }", bes, "a1", "dh"),
        ("peers = { bes = [\"10.1.0.5\"] }", bes, "a1", "dh"),
        ("peers = { bes = [\"operators\"] }", bes, "a1", "dh"),
        ("peers = { users = [\"operators\"] }", users, "lb", "dh"),
        (
            "peers = { users = [\"role:interlink-asi/asi-module\"] }",
            users,
            "lb",
            "a1",
        ),
        (
            &format!("|{own}[\"role:wso2/carbon\"]"),
            "site/feed",
            "a1",
            "w",
        ),
        (
            "|[management]\nallow = [\"tcp/22=operators\"]",
            "management/tcp-22",
            "a1",
            "dh",
        ),
        (
            "|[baseline]\ndns = [\"host:dh\"]",
            "baseline/dns",
            "a1",
            "dh",
        ),
    ] {
        let text = site(said);
        for (host, other) in [(open, closed), (closed, open)] {
            messages_of(
                &named(&text, host),
                "ends-differ",
                &[&format!("row `{row}"), &format!("`{other}`")],
            );
        }
    }
}

#[test]
fn a_host_without_a_role_that_stands_for_one_is_reported() {
    let text = site("peers = { bes = [\"10.1.0.9\"] }")
        + "[[host]]\nname = \"bare\"\naddresses = [\"10.1.0.9\"]\n";
    let reported = messages_of(
        &named(&text, "a1"),
        "ends-differ",
        &["clustered-bes-50050/in", "`bare`"],
    );
    assert!(
        reported.contains("warning[") && reported.contains("no role"),
        "{reported}"
    );
    // Whoever is in a group is as likely not guarded at all.
    let text = text.replace("bes =", "users =");
    let reported = messages_of(
        &named(&text, "lb"),
        "ends-differ",
        &["clustered-users-443/in", "`bare`"],
    );
    assert!(reported.contains("note["), "{reported}");
}

#[test]
fn what_would_accept_is_no_reason_why_nothing_may_be_sent() {
    let text = "unprinted_peers = { public-service = [\"role:wso2/traffic-manager\"], default = \"none\" }\n[systems.wso2]\nchoices = { throttling-publisher = \"binary\", spark-mode = \"local\" }\n\
        [[host]]\nname = \"d\"\naddresses = [\"10.0.0.1\"]\nroles = [\"wso2/data-analytics-server\"]\n\
        [[host]]\nname = \"t\"\naddresses = [\"10.0.0.2\"]\nroles = [\"wso2/traffic-manager\"]\n";
    let reported = messages_of(&named(text, "d"), "ends-differ", &["tcp/7611", "`t`"]);
    assert!(reported.contains("there no row opens it"), "{reported}");
}

#[test]
fn what_to_do_about_ends_that_differ_is_said_by_why_they_do() {
    let closed = "systems = { interlink-asi = { rows = { clustered-datahub-50005 = { off = true, reason = \"x\" } } } }";
    let text = site("").replace("name = \"dh\"\n", &format!("name = \"dh\"\n{closed}\n"));
    messages_of(
        &named(&text, "a1"),
        "ends-differ",
        &["clustered-datahub-50005", "switch it `off` at both ends"],
    );
}

#[test]
fn of_hosts_that_share_an_address_each_has_to_accept_what_is_sent_to_it() {
    let text = r#"
[systems.interlink-asi]
deployment = "clustered"
[[host]]
name = "n1"
addresses = ["10.1.0.1"]
roles = ["interlink-asi/asi"]
[[host]]
name = "db1"
addresses = ["10.1.0.4"]
shared_addresses = ["10.1.0.8"]
roles = ["interlink-asi/database"]
[[host]]
name = "db2"
addresses = ["10.1.0.5"]
shared_addresses = ["10.1.0.8"]
roles = ["interlink-asi/database", "interlink-asi/authenticator"]
"#;
    let sent = ["tcp/50443", "db1", "does not accept"];
    messages_of(&named(text, "n1"), "ends-differ", &sent);
    messages_of(
        &named(text, "db1"),
        "ends-differ",
        &["tcp/50443", "n1", "does not accept"],
    );
}
