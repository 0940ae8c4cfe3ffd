//! What is said of rows, profiles and modes, and does nothing.

use super::asks::{messages_of, named};
use super::fixture::messages;

fn node(more: &str) -> String {
    format!("[[host]]\nname = \"h\"\naddresses = [\"10.1.0.1\"]\n{more}\n")
}

#[test]
fn an_end_of_a_row_that_has_none_is_refused_with_what_to_write() {
    for key in ["api-manager-10397/in", "api-manager-10397/out"] {
        let text = format!(
            "unprinted_peers = \"none\"\n[systems.wso2.rows]\n\"{key}\" = {{ audit = true }}\n{}",
            node("roles = [\"wso2/api-manager\"]")
        );
        messages_of(
            &named(&text, "h"),
            "unknown-row",
            &[key, "write `api-manager-10397`"],
        );
    }
}

#[test]
fn a_profile_that_no_host_takes_is_refused() {
    let site = |role: &str| {
        format!(
            "[baseline]\nprofiles = [\"kubernetes-node/worker\"]\n{}",
            node(&format!("roles = [\"{role}\"]"))
        )
    };
    messages_of(
        &named(&site("kubernetes-node/control-plane"), "h"),
        "no-effect",
        &["kubernetes-node/worker", "s.toml:7"],
    );
    let used = messages(&named(&site("wso2/api-manager"), "h"));
    assert!(
        !used.iter().any(|line| line.contains("profile")),
        "{used:#?}"
    );
}

#[test]
fn what_stays_in_audit_on_a_host_in_audit_is_reported() {
    let host = |more: &str| {
        let all = format!("roles = [\"thoughtspot/node\"]\naudit_ports = [\"tcp/8000\"]\n{more}");
        messages(&named(&node(&all), "h"))
    };
    let is_reported = |all: &[String]| all.iter().any(|line| line.contains("`audit_ports` and"));
    assert!(is_reported(&host("mode = \"audit\"")));
    assert!(!is_reported(&host("mode = \"enforce\"")));
    assert!(!is_reported(&host(
        "mode = \"audit\"\ninterfaces = { eth0 = { mode = \"enforce\" } }"
    )));
    assert!(!is_reported(&host("")));
}

#[test]
fn why_a_setting_does_nothing_is_said_of_the_row_that_is_nearest_to_opening_something() {
    let text = format!(
        "unprinted_peers = {{ public-service = \"none\", administration = \"none\", infrastructure = \"none\", monitoring = \"none\" }}\n[systems.wso2]\noptions = [\"clustering\"]\nchoices = {{ membership = \"wka\" }}\n{}",
        node("roles = [\"wso2/bps\"]")
    );
    let reported = messages_of(&named(&text, "h"), "no-effect", &["option `clustering`"]);
    assert!(reported.contains("clustering-4000"), "{reported}");
}

#[test]
fn an_option_that_the_document_requires_may_be_repeated_and_not_be_turned_off() {
    let text = |said: &str| {
        format!(
            "unprinted_peers = \"none\"\n[systems.nexthink]\ndeployment = \"on-premises\"\nversion = \"6.20\"\n{said} = [\"collector-udp\"]\n{}",
            node("roles = [\"nexthink/engine\"]")
        )
    };
    let requires = "its document requires the option in this version";
    for (said, level) in [
        ("options", "warning[no-effect]"),
        ("without", "error[no-effect]"),
    ] {
        let reported = messages_of(&named(&text(said), "h"), "no-effect", &[requires]);
        assert!(reported.contains(level), "{reported}");
    }
}

#[test]
fn a_list_that_leaves_nobody_on_one_host_is_refused() {
    let site = |key: &str, who: &str| {
        format!(
            "[systems.interlink-asi]\ndeployment = \"clustered\"\n{}{}systems = {{ interlink-asi = {{ rows = {{ \"{key}\" = {{ only = [\"{who}\"] }} }} }} }}\n{}",
            "[[host]]\nname = \"n1\"\naddresses = [\"10.0.0.1\"]\nroles = [\"interlink-asi/asi\"]\n",
            "[[host]]\nname = \"n2\"\naddresses = [\"10.0.0.2\"]\nroles = [\"interlink-asi/asi\"]\n",
            "[[host]]\nname = \"be\"\naddresses = [\"10.0.0.3\"]\nroles = [\"interlink-asi/bes\"]\n",
        )
    };
    let row = "clustered-internode-5701";
    for (key, who) in [
        (row.to_owned(), "host:be"),
        (format!("{row}/out"), "host:be"),
        (format!("{row}/in"), "10.77.0.0/24"),
    ] {
        for host in ["n1", "n2"] {
            messages_of(
                &named(&site(&key, who), host),
                "only-nobody",
                &["`n2`", row],
            );
        }
        let used = messages(&named(&site(&key, "host:n1"), "n2"));
        assert!(
            !used.iter().any(|line| line.contains("only-nobody")),
            "{used:#?}"
        );
    }
}

#[test]
fn members_are_no_multicast_group() {
    let site = |who: &str| {
        format!(
            "unprinted_peers = \"none\"\n[systems.wso2]\noptions = [\"clustering\"]\nchoices = {{ membership = \"multicast\" }}\npeers = {{ multicast = [\"{who}\"] }}\n{}",
            node("roles = [\"wso2/bps\"]")
        )
    };
    for who in ["10.0.0.9", "host:h", "role:wso2/bps"] {
        messages_of(
            &named(&site(who), "h"),
            "no-multicast-address",
            &["s.toml:"],
        );
    }
    for who in ["228.0.0.4", "ff02::1"] {
        let used = messages(&named(&site(who), "h"));
        assert!(
            !used.iter().any(|line| line.contains("no-multicast")),
            "{used:#?}"
        );
    }
}

#[test]
fn a_row_that_only_sends_is_narrowed_to_where_it_may_connect() {
    let text = |only: &str| {
        format!(
            "unprinted_peers = \"none\"\n[systems.nexthink]\ndeployment = \"on-premises\"\nversion = \"6.20\"\nchoices = {{ directory-channel = \"secure\" }}\nrows = {{ engine-7000 = {{ only = [\"{only}\"] }} }}\n{}{}{}",
            node("roles = [\"nexthink/engine\"]"),
            "[[host]]\nname = \"p\"\naddresses = [\"10.1.0.2\"]\nroles = [\"nexthink/portal\"]\n",
            "[[host]]\nname = \"p2\"\naddresses = [\"10.1.0.3\"]\nroles = [\"nexthink/portal\"]\n",
        )
    };
    let narrowed = named(&text("host:p"), "h");
    let lines = super::asks::of(&narrowed, "nexthink/engine-7000");
    assert_eq!(
        lines,
        ["nexthink/engine-7000 tcp/7000-7003 -> 10.1.0.2/32"],
        "{lines:#?}"
    );
    // The other end is a row of its own, and what stays open there is reported.
    messages_of(&narrowed, "ends-differ", &["portal-7000", "`p2`"]);
    messages_of(
        &named(&text("host:h"), "h"),
        "only-nobody",
        &["engine-7000"],
    );
}

#[test]
fn rows_that_are_narrowed_alike_do_not_keep_each_others_port_open() {
    let text = |rows: &str| {
        format!(
            "unprinted_peers = \"none\"\n[systems.ibm-api-connect]\nrows = {{ {rows} }}\n{}{}{}",
            node("roles = [\"ibm-api-connect/gateway\"]"),
            "[[host]]\nname = \"m1\"\naddresses = [\"10.1.0.2\"]\nroles = [\"ibm-api-connect/management\"]\n",
            "[[host]]\nname = \"m2\"\naddresses = [\"10.1.0.3\"]\nroles = [\"ibm-api-connect/management\"]\n",
        )
    };
    let one = "usage-7-3000 = { only = [\"host:m1\"] }";
    messages_of(
        &named(&text(one), "h"),
        "port-stays-open",
        &["usage-7-3000"],
    );
    let both = format!("{one}, gateway-3000 = {{ only = [\"host:m1\"] }}");
    let reported = messages(&named(&text(&both), "h"));
    assert!(
        !reported.iter().any(|line| line.contains("port-stays-open")),
        "{reported:#?}"
    );
}
