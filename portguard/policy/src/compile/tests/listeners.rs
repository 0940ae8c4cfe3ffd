//! One listener, several rows: which number holds where.

use super::asks::{codes, messages_of, named, of};

/// Two API managers, of which the first says something more, and an analytics server.
fn site(system: &str, first: &str, analytics: &str) -> String {
    format!(
        r#"
unprinted_peers = {{ public-service = "any", administration = "none", infrastructure = "none", monitoring = "none" }}
[systems.wso2]
options = ["publish-analytics"]
choices = {{ throttling-publisher = "binary" }}
peers = {{ traffic-manager = ["192.0.2.9"] }}
{system}
[[host]]
name = "a1"
addresses = ["10.0.0.1"]
roles = ["wso2/api-manager"]
{first}
[[host]]
name = "a2"
addresses = ["10.0.0.2"]
roles = ["wso2/api-manager"]
[[host]]
name = "n1"
addresses = ["10.0.0.3"]
roles = ["wso2/analytics"]
{analytics}
"#
    )
}

#[test]
fn a_changed_number_holds_for_the_listeners_other_row_where_only_that_one_holds() {
    let production = "systems = { wso2 = { without = [\"http-passthru\"] } }";
    for ports in [
        "ports = { api-manager-8280-8243 = { 8243 = 443 } }\noffsets = { analytics = 1 }",
        "ports = { api-manager-8243 = 443 }\noffsets = { analytics = 1 }",
    ] {
        let text = site(ports, production, "");
        for host in ["a1", "a2"] {
            let all = of(&named(&text, host), "wso2/api-manager-82");
            let has = |port: &str| {
                all.iter()
                    .any(|line| line.contains(&format!(" tcp/{port} <-")))
            };
            assert!(has("443") && !has("8243"), "{ports} {host}: {all:#?}");
        }
    }
}

#[test]
fn whether_the_analytics_server_listens_is_a_matter_of_the_number_that_holds() {
    for (system, analytics, is_met) in [
        ("offsets = { analytics = 1 }", "", false),
        ("offsets = { analytics = 2 }", "", true),
        (
            "offsets = { analytics = 2 }\nports = { api-manager-7612 = 7613 }",
            "",
            false,
        ),
        (
            "ports = { api-manager-7612 = 7613 }",
            "offsets = { \"wso2/analytics\" = 2 }",
            false,
        ),
        (
            "offsets = { analytics = 1 }\nports = { api-manager-7612 = 7611 }",
            "",
            true,
        ),
        (
            "offsets = { analytics = 1 }\nports = { api-manager-7612 = 7700 }",
            "",
            true,
        ),
    ] {
        let compiled = named(&site(system, "", analytics), "a1");
        let is_reported = codes(&compiled).contains(&"contradiction");
        assert_eq!(is_reported, is_met, "{system} {analytics}");
    }
}

#[test]
fn an_offset_that_every_server_has_a_nearer_one_for_is_reported_with_where_that_is() {
    let text = site(
        "offsets = { analytics = 1 }",
        "",
        "offsets = { \"wso2/analytics\" = 2 }",
    );
    let nearer = super::asks::line_of(&text, "\"wso2/analytics\" = 2");
    let reported = messages_of(&named(&text, "a1"), "no-effect", &["offset of `analytics`"]);
    assert!(
        reported.contains(&nearer) && reported.contains(" overrides it"),
        "{reported}"
    );
}

#[test]
fn of_two_numbers_for_one_listener_the_nearest_holds() {
    let text = "unprinted_peers = \"none\"\n[systems.ibm-api-connect]\nports = { usage-15 = 8443 }\n\
        [[host]]\nname = \"an\"\naddresses = [\"10.0.0.1\"]\nroles = [\"ibm-api-connect/analytics\"]\n\
        systems = { ibm-api-connect = { ports = { usage-16 = 9443 } } }\n\
        [[host]]\nname = \"m\"\naddresses = [\"10.0.0.2\"]\nroles = [\"ibm-api-connect/management\"]\n";
    let all = of(&named(text, "an"), "ibm-api-connect/usage-15");
    assert!(
        all.iter().any(|line| line.contains(" tcp/9443 <-")),
        "{all:#?}"
    );
    let all = of(&named(text, "m"), "ibm-api-connect/usage-15");
    assert!(
        all.iter().any(|line| line.contains(" tcp/9443 ->")),
        "{all:#?}"
    );
}
