//! Whatever answers a printed peer: what is open at one end only is told at both.

use super::asks::{named, told_of};

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
fn whoever_is_named_for_a_printed_peer_is_told_where_his_own_end_is_closed() {
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
            told_of(
                &named(&text, host),
                "ends-differ",
                &[&format!("row `{row}"), &format!("`{other}`")],
            );
        }
    }
}
