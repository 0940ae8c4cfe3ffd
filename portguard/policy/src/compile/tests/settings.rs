//! Changed listeners, numbers that are given, and no setting without effect.

use std::net::IpAddr;

use super::asks::{Ask, ask, codes, line_of, messages_of, named, of};
use super::fixture::{compiled_site, lines, messages};
use crate::catalog::Catalog;
use crate::compile::Selection;
use crate::diagnostic::Level;
use crate::site::Site;

#[test]
fn rows_of_one_listener_are_changed_together() {
    let site = |ports: &str| {
        format!(
            r#"
unprinted_peers = "none"
[systems.nexthink]
deployment = "on-premises"
version = "6.24"
options = ["collector-assignment"]
choices = {{ collector-channel = "custom", directory-channel = "secure", portal-access = "secure", collector-platform = "macos" }}
[systems.nexthink.ports]
{ports}
[[host]]
name = "e"
addresses = ["10.1.0.1"]
roles = ["nexthink/engine"]
[[host]]
name = "p"
addresses = ["10.1.0.2"]
roles = ["nexthink/portal"]
[[host]]
name = "c"
addresses = ["10.1.0.3"]
roles = ["nexthink/collector"]
"#
        )
    };
    for row in [
        "engine-8443-custom",
        "overview-8443",
        "collector-8443-custom-portal",
    ] {
        let site = site(&format!("{row} = 9443"));
        for host in ["e", "p", "c"] {
            let all = lines(&named(&site, host));
            assert!(
                !all.iter().any(|line| line.contains("/8443 ")),
                "{row} {host}: {all:#?}"
            );
            assert!(
                all.iter().any(|line| line.contains("tcp/9443 ")),
                "{row} {host}: {all:#?}"
            );
        }
    }
    let twice = named(
        &site("engine-8443-custom = 9443\noverview-8443 = 9444"),
        "e",
    );
    assert!(
        codes(&twice).contains(&"contradiction"),
        "{:?}",
        messages(&twice)
    );
    let asi = "[systems.interlink-asi]\ndeployment = \"clustered\"\nports = { clustered-bes-58090 = 6000 }\n[[host]]\nname = \"a\"\naddresses = [\"10.1.0.1\"]\nroles = [\"interlink-asi/management-service\"]\n[[host]]\nname = \"b\"\naddresses = [\"10.1.0.2\"]\nroles = [\"interlink-asi/core\"]\n";
    for host in ["a", "b"] {
        let all = lines(&named(asi, host));
        assert!(!all.iter().any(|line| line.contains("/58090 ")), "{all:#?}");
        assert!(
            all.iter().any(|line| line.contains("tcp/6000 ")),
            "{all:#?}"
        );
    }
}

#[test]
fn numbers_that_the_document_does_not_print_can_be_given() {
    let site = r#"
unprinted_peers = { infrastructure = ["10.9.0.1"], default = "none" }
[systems.ibm-api-connect]
options = ["automated-test-behavior", "analytics-offload"]
ports = { management-automated-test = "8000-8100", analytics-offload = 9092 }
[[host]]
name = "m"
addresses = ["10.1.0.1"]
roles = ["ibm-api-connect/management", "ibm-api-connect/analytics"]
"#;
    let all = lines(&named(site, "m"));
    for line in [
        "ibm-api-connect/management-automated-test tcp/8000-8100 -> 10.9.0.1/32",
        "ibm-api-connect/analytics-offload tcp/9092 -> 10.9.0.1/32",
        "ibm-api-connect/usage-12 udp/9092 -> 10.9.0.1/32",
    ] {
        assert!(all.contains(&line.to_owned()), "{line} in {all:#?}");
    }
    let strict = site.replace(", analytics-offload = 9092", "");
    let text = format!("unresolved_ports = \"refuse\"{strict}");
    let whole = format!(
        "schema = 1\nmode = \"enforce\"\noutbound = \"enforce\"\nunresolved_peers = \"none\"\n{text}"
    );
    let site = Site::parse("s.toml", whole.as_bytes()).unwrap();
    let catalog = Catalog::embedded().unwrap();
    let compiled = compiled_site(&catalog, &site, Selection::Name("m".to_owned()));
    assert!(
        codes(&compiled).contains(&"unresolved-ports"),
        "{:?}",
        messages(&compiled)
    );
}

#[test]
fn no_setting_is_without_effect() {
    let host =
        "[[host]]\nname = \"h\"\naddresses = [\"10.1.0.1\"]\nroles = [\"thoughtspot/node\"]\n";
    for (text, wanted) in [
        ("[systems.thoughtspot.ports]\nipmi-80 = 81\n", "no-effect"),
        (
            "[systems.thoughtspot.rows]\nipmi-80 = { audit = true }\n",
            "no-effect",
        ),
        (
            "[systems.thoughtspot.rows]\nsupport-22 = { unprinted_peers = \"any\" }\n",
            "no-effect",
        ),
        (
            "[systems.thoughtspot]\nunprinted_peers = { monitoring = \"any\" }\n",
            "no-effect",
        ),
        (
            "[systems.thoughtspot.clusters.x]\nversion = \"1\"\n",
            "no-effect",
        ),
        (
            "[systems.thoughtspot]\noffsets = { node = 1 }\n",
            "no-effect",
        ),
        (
            "[systems.wso2.ports]\nesb-8243 = { 8244 = 1 }\n",
            "no-effect",
        ),
        (
            "[systems.wso2.ports]\nelastic-load-balancer-8280-8243 = 1\n",
            "which-port",
        ),
        (
            "[systems.ibm-api-connect.ports]\ndeveloper-portal-more = 1\n",
            "no-effect",
        ),
    ] {
        let compiled = named(&format!("{text}{host}"), "h");
        let found = compiled.diagnostics.iter().find(|d| d.code == wanted);
        let found = found.unwrap_or_else(|| panic!("{text}: {:#?}", messages(&compiled)));
        assert!(
            found
                .location
                .as_ref()
                .is_some_and(|at| at.starts_with("s.toml:")),
            "{found}"
        );
        assert!(found.hint.is_some(), "{found}");
    }
    for (key, value) in [
        ("offsets", "{ \"wso2/esb\" = 1 }"),
        ("audit_roles", "[\"wso2/esb\"]"),
        ("systems", "{ wso2 = { version = \"1\" } }"),
    ] {
        let compiled = named(&format!("{host}{key} = {value}\n"), "h");
        assert!(
            codes(&compiled).contains(&"no-effect"),
            "{key}: {:#?}",
            messages(&compiled)
        );
    }
}

#[test]
fn facts_that_contradict_each_other_are_reported() {
    let site = |facts: &str, roles: &str| {
        format!(
            "unprinted_peers = \"none\"\n{facts}\n[[host]]\nname = \"h\"\naddresses = [\"10.1.0.1\"]\nroles = [{roles}]\n"
        )
    };
    let nexthink = "[systems.nexthink]\ndeployment = \"on-premises\"\n";
    for (facts, roles, wanted) in [
        (format!("{nexthink}version = \"V6.23\"\nchoices = {{ collector-channel = \"443\" }}"), "\"nexthink/engine\"", "no-effect"),
        (format!("{nexthink}version = \"6.18\"\noptions = [\"collector-assignment\"]"), "\"nexthink/engine\"", "no-effect"),
        (format!("{nexthink}version = \"6.24\"\noptions = [\"collector-assignment\"]"), "\"nexthink/engine\", \"nexthink/portal\"", "contradiction"),
        (nexthink.to_owned(), "\"nexthink/local-license-manager\"", "contradiction"),
        ("[systems.wso2]\noptions = [\"publish-analytics\"]".to_owned(), "\"wso2/analytics\"", "contradiction"),
        ("[systems.wso2]\noptions = [\"publish-analytics\"]\noffsets = { analytics = 2 }".to_owned(), "\"wso2/analytics\"", "contradiction"),
        (format!("{nexthink}version = \"V6.20\"\nwithout = [\"collector-udp\"]"), "\"nexthink/engine\"", "no-effect"),
        ("[systems.ibm-api-connect]\noptions = [\"stripe\"]".to_owned(), "\"ibm-api-connect/management\"", "contradiction"),
        (
            "[systems.interlink-asi]\ndeployment = \"clustered\"\npeers = { authenticator = [\"10.1.0.1\"] }".to_owned(),
            "\"interlink-asi/core\"",
            "address-without-role",
        ),
    ] {
        let compiled = named(&site(&facts, roles), "h");
        assert!(codes(&compiled).contains(&wanted), "{facts}: {:#?}", messages(&compiled));
    }
    let fine = site(
        "[systems.wso2]\noptions = [\"publish-analytics\"]\noffsets = { analytics = 1 }",
        "\"wso2/analytics\"",
    );
    assert!(!codes(&named(&fine, "h")).contains(&"contradiction"));
}

/// Hosts by name, last part of their address, and role; `more` goes to the host that it names.
fn hosts(all: &[(&str, u8, &str)], more: (&str, &str)) -> String {
    let host = |(name, last, role): &(&str, u8, &str)| {
        let own = if *name == more.0 { more.1 } else { "" };
        format!(
            "[[host]]\nname = \"{name}\"\naddresses = [\"10.1.0.{last}\"]\nroles = [\"{role}\"]\n{own}\n"
        )
    };
    all.iter().map(host).collect::<Vec<_>>().concat()
}

/// Two engines, two collectors and a portal of Nexthink, with `said` of the system and `more` (`HOST:LINE`) of one host.
fn nexthink(said: &str, more: &str) -> String {
    let all = [
        ("e1", 1, "nexthink/engine"),
        ("e2", 2, "nexthink/engine"),
        ("c1", 3, "nexthink/collector"),
        ("c2", 4, "nexthink/collector"),
        ("p", 5, "nexthink/portal"),
    ];
    let hosts = hosts(&all, more.split_once(':').unwrap_or_default());
    format!(
        "unprinted_peers = \"none\"\n[systems.nexthink]\ndeployment = \"on-premises\"\nversion = \"6.24\"\n\
         choices = {{ collector-channel = \"443\", directory-channel = \"secure\", portal-access = \"secure\", collector-platform = \"macos\" }}\n{said}\n{hosts}"
    )
}

/// Two legacy modules that ask two hosts of the other product, in one row of the document; what is said of the system, and of `d1`.
fn datahub(said: &str, d1: &str) -> String {
    let all = [
        ("l1", 1, "interlink-asi/legacy"),
        ("l2", 2, "interlink-asi/legacy"),
        ("d1", 3, "interlink-asi/datahub"),
        ("d2", 4, "interlink-asi/datahub"),
    ];
    let hosts = hosts(&all, ("d1", d1));
    format!("[systems.interlink-asi]\ndeployment = \"clustered\"\n{said}\n{hosts}")
}

/// What opens `clustered-datahub-50005` at each host, without the words before the arrow.
fn asked(text: &str) -> [Vec<String>; 4] {
    ["l1", "l2", "d1", "d2"].map(|host| {
        let lines = of(&named(text, host), "interlink-asi/clustered-datahub-50005").into_iter();
        lines
            .map(|line| line.split("50005 ").nth(1).unwrap().to_owned())
            .collect()
    })
}

#[test]
fn only_says_who_may_connect_and_both_ends_follow() {
    let whole = "<- 10.1.0.1/32 10.1.0.2/32";
    let text = datahub(
        "rows = { clustered-datahub-50005 = { only = [\"host:l1\"] } }",
        "",
    );
    let expected = [
        vec!["-> 10.1.0.3/32 10.1.0.4/32"],
        vec![],
        vec!["<- 10.1.0.1/32"],
        vec!["<- 10.1.0.1/32"],
    ];
    assert_eq!(
        asked(&text),
        expected.map(|lines| lines.into_iter().map(str::to_owned).collect::<Vec<_>>())
    );
    for host in ["l1", "l2", "d1"] {
        assert!(
            !codes(&named(&text, host)).contains(&"ends-differ"),
            "{:#?}",
            messages(&named(&text, host))
        );
    }
    // Where to connect to is said of the other end, and those who listen follow.
    let text = datahub(
        "rows = { \"clustered-datahub-50005/out\" = { only = [\"host:d1\"] } }",
        "",
    );
    let expected = [
        vec!["-> 10.1.0.3/32"],
        vec!["-> 10.1.0.3/32"],
        vec![whole],
        vec![],
    ];
    assert_eq!(
        asked(&text),
        expected.map(|lines| lines.into_iter().map(str::to_owned).collect::<Vec<_>>())
    );
    // Said of one listener, it is what others follow towards that one; groups and roles mean their members.
    for only in ["[\"g\"]", "[\"10.1.0.0/31\"]", "[\"host:l1\"]"] {
        let d1 = format!(
            "systems = {{ interlink-asi = {{ rows = {{ clustered-datahub-50005 = {{ only = {only} }} }} }} }}"
        );
        let text = format!(
            "[groups]\ng = [\"h\"]\nh = [\"host:l1\"]\n{}",
            datahub("", &d1)
        );
        let expected = [
            vec!["-> 10.1.0.3/32 10.1.0.4/32"],
            vec!["-> 10.1.0.4/32"],
            vec!["<- 10.1.0.1/32"],
            vec![whole],
        ];
        assert_eq!(
            asked(&text),
            expected.map(|lines| lines.into_iter().map(str::to_owned).collect::<Vec<_>>()),
            "{only}"
        );
    }
}

#[test]
fn a_fact_that_the_document_asks_for_is_never_useless() {
    let reported = messages(&named(&datahub("", ""), "l1"));
    assert!(
        !reported.iter().any(|line| line.contains("no-effect")),
        "{reported:#?}"
    );
}

#[test]
fn what_is_switched_off_at_one_end_is_closed_at_both_and_reported() {
    let d1 = "systems = { interlink-asi = { rows = { clustered-datahub-50005 = { off = true, reason = \"spare\" } } } }";
    let text = datahub("", d1);
    let open = asked(&text);
    assert_eq!(open.map(|lines| lines.len()), [1, 1, 0, 1]);
    assert_eq!(
        of(&named(&text, "l1"), "interlink-asi/clustered-datahub-50005")[0]
            .split("-> ")
            .nth(1),
        Some("10.1.0.4/32")
    );
    messages_of(
        &named(&text, "l1"),
        "ends-differ",
        &["`d1`", "switched off (spare)"],
    );
    // The document prints the Portal's end by itself: it is compared as it is compiled.
    let text = nexthink(
        "rows = { engine-999-portal = { off = true, reason = \"x\" } }",
        "",
    );
    messages_of(&named(&text, "p"), "ends-differ", &["portal-999", "`e1`"]);
}

#[test]
fn a_row_that_is_served_on_no_interface_is_closed_at_both_ends_and_reported() {
    let text = datahub(
        "",
        "[host.interfaces]\neth0 = { without_rows = [\"interlink-asi/clustered-datahub-50005\"] }",
    );
    assert_eq!(
        of(&named(&text, "l1"), "interlink-asi/clustered-datahub-50005")[0]
            .split("-> ")
            .nth(1),
        Some("10.1.0.4/32")
    );
    messages_of(
        &named(&text, "l1"),
        "ends-differ",
        &["`d1`", "no interface"],
    );
}

#[test]
fn rows_of_one_listener_that_stay_open_beside_one_that_is_off_are_reported() {
    let text = nexthink(
        "rows = { engine-443-collector = { off = true, reason = \"x\" } }",
        "",
    );
    messages_of(
        &named(&text, "e1"),
        "port-stays-open",
        &["engine-443-collector", "engine-443-audit-trail"],
    );
}

#[test]
fn a_row_that_is_narrowed_to_nobody_is_refused() {
    for only in ["\"none\"", "[\"host:p\"]"] {
        let text = nexthink(
            &format!("rows = {{ engine-443-collector = {{ only = {only} }} }}"),
            "",
        );
        let reported = messages_of(
            &named(&text, "e1"),
            "only-nobody",
            &["engine-443-collector"],
        );
        assert!(
            reported.starts_with(&line_of(&text, "rows =")),
            "{reported}"
        );
    }
}

#[test]
fn clusters_of_one_host_that_say_unlike_things_are_refused() {
    let site = |host: &str| {
        format!(
            r#"
unprinted_peers = {{ administration = ["10.9.0.1"], default = "none" }}
[systems.ibm-api-connect.peers]
protected-zone = ["10.8.0.0/16"]
backup-server = ["10.7.0.1"]
[systems.ibm-api-connect.clusters.a]
peers = {{ backup-server = ["10.7.0.2"] }}
[systems.ibm-api-connect.clusters.b]
peers = {{ backup-server = ["10.7.0.3"] }}
[[host]]
name = "m"
addresses = ["10.1.0.1"]
cluster = ["b", "a"]
roles = ["ibm-api-connect/management"]
{host}
[[host]]
name = "ma"
addresses = ["10.1.0.2"]
cluster = "a"
roles = ["ibm-api-connect/management"]
[[host]]
name = "mb"
addresses = ["10.1.0.3"]
cluster = "b"
roles = ["ibm-api-connect/management"]
"#
        )
    };
    let text = site("");
    let reported = messages_of(
        &named(&text, "ma"),
        "clusters-differ",
        &["`m`", "backup-server"],
    );
    for line in ["10.7.0.2", "10.7.0.3"] {
        assert!(reported.contains(&line_of(&text, line)), "{reported}");
    }
    let own =
        site("systems = { ibm-api-connect = { peers = { backup-server = [\"10.7.0.4\"] } } }");
    assert!(!codes(&named(&own, "ma")).contains(&"clusters-differ"));
}

#[test]
fn installations_on_one_kubernetes_cluster_have_clusters_of_their_own() {
    let text = r#"
[baseline]
profiles = ["kubernetes-node/worker"]
[systems.kubernetes-node]
choices = { cni = "flannel" }
[[host]]
name = "a"
addresses = ["10.1.0.1"]
cluster = "prod"
roles = ["interlink-asi/core"]
systems = { kubernetes-node = { cluster = "k8s" } }
[[host]]
name = "b"
addresses = ["10.1.0.2"]
cluster = "test"
roles = ["interlink-asi/events"]
systems = { kubernetes-node = { cluster = "k8s" } }
[systems.interlink-asi]
deployment = "clustered"
"#;
    let a = named(text, "a");
    assert_eq!(
        of(&a, "kubernetes-node/flannel"),
        [
            "kubernetes-node/flannel-vxlan udp/8472 <- 10.1.0.2/32",
            "kubernetes-node/flannel-vxlan udp/8472 -> 10.1.0.2/32"
        ]
    );
    assert!(
        !lines(&a)
            .iter()
            .any(|line| line.starts_with("interlink-asi") && line.contains("10.1.0.2"))
    );
}

#[test]
fn servers_of_one_host_need_a_port_each() {
    let site = |ports: &str| {
        format!(
            "unprinted_peers = \"any\"\n[systems.wso2]\nports = {{ api-manager-9099 = {ports} }}\n\
             [[host]]\nname = \"h\"\naddresses = [\"10.1.0.1\"]\nroles = [\"wso2/api-manager\"]\noffsets = {{ \"wso2/api-manager\" = [0, 10] }}\n"
        )
    };
    messages_of(
        &named(&site("9500"), "h"),
        "one-port-for-several",
        &["api-manager-9099", "offset 10"],
    );
    let two = named(&site("[9500, 9600]"), "h");
    assert!(
        !codes(&two).contains(&"one-port-for-several"),
        "{:#?}",
        messages(&two)
    );
    assert_eq!(of(&two, "wso2/api-manager-9099").len(), 2);
}

#[test]
fn numbers_on_which_something_else_listens_are_reported() {
    let text = "unprinted_peers = \"any\"\n[systems.wso2]\nports = { api-manager-9099 = 9443 }\n\
                [[host]]\nname = \"h\"\naddresses = [\"10.1.0.1\"]\nroles = [\"wso2/api-manager\"]\n";
    messages_of(
        &named(text, "h"),
        "port-conflict",
        &["tcp/9443", "api-manager-9099", "console-9443"],
    );
    let text = text.replace("9443", "22");
    messages_of(
        &named(&text, "h"),
        "port-conflict",
        &["tcp/22", "management/tcp-22"],
    );
}

#[test]
fn addresses_of_other_hosts_and_other_clusters_are_reported() {
    let text = nexthink("peers = { engine = [\"10.1.0.0/29\"] }", "");
    messages_of(
        &named(&text, "c1"),
        "address-without-role",
        &["`c1`", "`p`"],
    );
    let text = nexthink(
        "",
        "p:cluster = \"other\"\nsystems = { nexthink = { peers = { engine = [\"host:e1\"] } } }",
    );
    messages_of(
        &named(&text, "p"),
        "ends-differ",
        &["`e1`", "cluster `other`"],
    );
    let shared = "shared_addresses = [\"10.1.9.9\"]";
    let text = nexthink("", &format!("p:{shared}\ncluster = \"other\""));
    let text = text.replace(
        "addresses = [\"10.1.0.1\"]",
        &format!("addresses = [\"10.1.0.1\"]\n{shared}"),
    );
    messages_of(
        &named(&text, "e1"),
        "shared-across-clusters",
        &["10.1.9.9", "`e1`", "`p`"],
    );
}

#[test]
fn change_overs_that_end_on_different_days_are_reported() {
    let both = |day: &str| {
        format!(
            "choices = {{ collector-channel = {{ both = [\"443\", \"custom\"], until = 2027-01-{day} }} }}"
        )
    };
    let text = nexthink(
        "",
        &format!("e1:systems = {{ nexthink = {{ {} }} }}", both("10")),
    );
    let text = text.replace(
        "collector-channel = \"443\",",
        "collector-channel = { both = [\"443\", \"custom\"], until = 2027-01-20 },",
    );
    messages_of(&named(&text, "c1"), "ends-differ", &["`e1`", "2027-01-11"]);
}

#[test]
fn settings_of_roles_and_rows_that_nobody_has_are_refused() {
    for (more, words) in [
        ("ports = { overview-8443 = 9443 }", "overview-8443"),
        (
            "options = [\"collector-udp\"]\nrows = { engine-443-finder = { off = true, reason = \"x\" } }",
            "engine-443-finder",
        ),
        (
            "rows = { finder-999 = { only = [\"host:c1\"] } }",
            "the role `finder`",
        ),
        (
            "clusters.x.options = [\"engine-consensus\"]",
            "no host is in cluster",
        ),
    ] {
        let text = nexthink(more, "");
        let compiled = named(&text, "e1");
        let reported = messages_of(&compiled, "no-effect", &[words]);
        assert!(
            reported.starts_with("s.toml:") && reported.contains("error["),
            "{reported}"
        );
    }
    // Where other hosts have what it wants, a setting has its effect.
    let custom = "systems = { nexthink = { choices = { collector-channel = \"custom\" } } }";
    let text = nexthink("ports = { overview-8443 = 9443 }", &format!("e1:{custom}"));
    let text = text.replace("name = \"c1\"\n", &format!("name = \"c1\"\n{custom}\n"));
    assert!(
        !codes(&named(&text, "e2")).contains(&"no-effect"),
        "{:#?}",
        messages(&named(&text, "e2"))
    );
}

#[test]
fn numbers_that_a_document_rules_out_or_that_differ_for_one_listener_are_errors() {
    let node = |range: &str| {
        format!(
            "[systems.thoughtspot]\nversion = \"4.5.1\"\nchoices = {{ mail-port = \"25\", directory-port = \"389\" }}\n\
             ports = {{ intracluster-dynamic = {range} }}\n\
             [[host]]\nname = \"n\"\naddresses = [\"10.1.0.1\"]\nroles = [\"thoughtspot/node\"]\n"
        )
    };
    let is_refused = |text: &str| codes(&named(text, "n")).contains(&"port-out-of-range");
    assert!(is_refused(&node("\"19999-30000\"")));
    assert!(is_refused(&node("[40000, 1024]")));
    assert!(!is_refused(&node("\"20000-20100\"")));
    let offload = |other: u16| {
        format!(
            "unprinted_peers = \"none\"\n[systems.ibm-api-connect]\noptions = [\"analytics-offload\"]\n\
             ports = {{ usage-12 = 9092, analytics-offload = {other} }}\n\
             [[host]]\nname = \"n\"\naddresses = [\"10.1.0.1\"]\nroles = [\"ibm-api-connect/analytics\"]\n"
        )
    };
    assert!(codes(&named(&offload(9093), "n")).contains(&"contradiction"));
    assert!(!codes(&named(&offload(9092), "n")).contains(&"contradiction"));
}

#[test]
fn a_role_of_the_host_is_on_all_of_its_interfaces_and_naming_it_for_one_is_refused() {
    let text = datahub(
        "",
        "[host.interfaces]\neth0 = { roles = [\"interlink-asi/datahub\"] }",
    );
    messages_of(
        &named(&text, "l1"),
        "no-effect",
        &["interlink-asi/datahub", "all of its interfaces"],
    );
}

#[test]
fn unprinted_peers_that_differ_at_the_two_ends_are_reported() {
    let site = |said: &str| {
        let all = [("a1", 1, "wso2/api-manager"), ("a2", 2, "wso2/api-manager")];
        format!(
            "unprinted_peers = {{ public-service = \"none\", administration = \"none\", infrastructure = \"none\", monitoring = \"none\" }}\n[systems.wso2]\noptions = [\"clustering\"]\nchoices = {{ membership = \"wka\", throttling-publisher = \"binary\" }}\n{}",
            hosts(&all, ("a2", said))
        )
    };
    for said in [
        "systems = { wso2 = { unprinted_peers = { cluster-members = \"none\" } } }",
        "systems = { wso2 = { rows = { api-manager-10397 = { unprinted_peers = [\"10.7.0.0/24\"] } } } }",
    ] {
        messages_of(
            &named(&site(said), "a1"),
            "ends-differ",
            &["api-manager-10397", "`a2`"],
        );
    }
}

#[test]
fn offsets_of_one_host_may_stand_with_what_else_it_says() {
    let text = "unprinted_peers = \"any\"\n[systems.wso2]\noffsets = { api-manager = 1 }\n"
        .to_owned()
        + &hosts(
            &[("a", 1, "wso2/api-manager"), ("b", 2, "wso2/api-manager")],
            (
                "a",
                "systems = { wso2 = { offsets = { api-manager = 5 } } }",
            ),
        );
    assert_eq!(
        of(&named(&text, "a"), "wso2/api-manager-9099"),
        ["wso2/api-manager-9099 tcp/9104 <- any"]
    );
    assert_eq!(
        of(&named(&text, "b"), "wso2/api-manager-9099"),
        ["wso2/api-manager-9099 tcp/9100 <- any"]
    );
}

/// What a product has not is so, whatever else keeps the rows of it closed, and is not its own reason.
#[test]
fn an_option_that_the_product_has_not_is_no_error_where_its_rows_are_closed_anyway() {
    let text = "unprinted_peers = \"none\"\n[systems.wso2]\nwithout = [\"embedded-ldap\"]\n\
                [[host]]\nname = \"a1\"\naddresses = [\"10.0.0.1\"]\nroles = [\"wso2/api-manager\"]\n";
    let compiled = named(text, "a1");
    let words = ["`without` option `embedded-ldap`"];
    let reported = messages_of(&compiled, "no-effect", &words);
    assert!(reported.contains("warning[no-effect]"), "{reported}");
    assert!(!reported.contains("which is off"), "{reported}");
}

#[test]
fn a_host_with_rows_of_its_own_needs_no_role() {
    let host = "[management]\nallow = [\"tcp/22\"]\n\
                [[host]]\nname = \"own\"\naddresses = [\"10.0.0.1\"]\n";
    let row = "[[row]]\nname = \"web\"\ndirection = \"in\"\ntransport = \"tcp\"\nports = [8080]\npeers = \"any\"\n\
               reason = \"a test\"\n";
    for (text, level) in [
        (host.to_owned(), Level::Warning),
        (format!("{host}{row}"), Level::Note),
    ] {
        let compiled = named(&text, "own");
        let all = compiled.diagnostics.iter();
        let found: Vec<Level> = all
            .filter(|one| one.code == "no-role")
            .map(|one| one.level)
            .collect();
        assert_eq!(found, [level], "{text}");
    }
}

/// Two hosts of a site, each with the lines of its own.
fn two(head: &str, first: &str) -> String {
    format!(
        "{head}\nunprinted_peers = \"none\"\n[systems.wso2]\n[[host]]\nname = \"h\"\naddresses = [\"10.1.0.1\"]\n\
         roles = [\"wso2/esb\"]\n{first}\n[[host]]\nname = \"o\"\naddresses = [\"10.1.0.2\", \"fd01::2\"]\nroles = [\"wso2/esb\"]\n"
    )
}

/// Addresses of the machine that compiles say which host it is, and are in no policy.
#[test]
fn a_policy_is_the_same_on_whatever_machine_it_is_compiled() {
    for scope in ["scope = \"all\"", "scope = \"host-addresses\""] {
        let text = two(scope, "");
        for host in ["h", "o"] {
            let on = |addresses: &[IpAddr]| {
                let host = Selection::Name(host.to_owned());
                let compiled = ask(
                    &text,
                    Ask {
                        host,
                        interface: None,
                        addresses,
                        today: "2026-11-28",
                    },
                );
                assert!(!compiled.policy.inbound.is_empty());
                (compiled.policy.digest(), compiled.policy)
            };
            let here = on(&[]);
            // Its own, those of the other host, and some that are nobody's.
            for addresses in [
                &["10.1.0.1"][..],
                &["10.1.0.2", "fd01::2"],
                &["192.0.2.9", "2001:db8::9", "127.0.0.1"],
            ] {
                let addresses: Vec<IpAddr> = addresses.iter().map(|a| a.parse().unwrap()).collect();
                assert_eq!(on(&addresses), here, "{scope}, {host}: {addresses:?}");
            }
        }
    }
}

/// A role, or an interface, that is left in audit is what its rows, or the host, would be.
#[test]
fn what_is_left_in_audit_is_the_same_by_whatever_word() {
    let at = |text: &str, interface: &str| {
        let host = Selection::Name("h".to_owned());
        let compiled = ask(
            text,
            Ask {
                host,
                interface: Some(interface),
                addresses: &[],
                today: "2026-11-28",
            },
        );
        compiled.policy
    };
    let plain = two("", "");
    let enforces = at(&plain, "eth0");
    assert!(enforces.settings.enforce && enforces.rows.iter().all(|row| !row.audit));
    let by_host = two("", "mode = \"audit\"");
    let by_interface = two(
        "",
        "interfaces = { eth0 = { mode = \"audit\" }, eth1 = {} }",
    );
    let audits = at(&by_host, "eth0");
    assert!(!audits.settings.enforce);
    assert_eq!(at(&by_interface, "eth0").digest(), audits.digest());
    assert_eq!(at(&by_interface, "eth1").digest(), enforces.digest());
    // Each row of the role, and nothing else.
    let by_role = at(&two("", "audit_roles = [\"wso2/esb\"]"), "eth0");
    assert!(by_role.settings.enforce);
    let of_role = by_role
        .rows
        .iter()
        .filter(|row| row.id.starts_with("wso2/"));
    assert!(of_role.clone().count() > 0 && of_role.clone().all(|row| row.audit));
    let mut rows = by_role.clone();
    for row in &mut rows.rows {
        row.audit = false;
    }
    assert_eq!(rows.digest(), enforces.digest());
}
