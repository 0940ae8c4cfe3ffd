//! What sites need of the embedded matrices: clusters, several servers, settings by host, change-overs, shared addresses,
//! interfaces, classes of unprinted peers, changed listeners, and no setting without effect.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::fixture::{lines, omitted, told};
use crate::catalog::Catalog;
use crate::compile::{Inputs, Selection, compile};
use crate::policy::Compiled;
use crate::site::Site;

struct Ask<'a> {
    host: Selection,
    interface: Option<&'a str>,
    addresses: &'a [IpAddr],
    today: &'a str,
}

fn ask(text: &str, ask: Ask<'_>) -> Compiled {
    let text = format!(
        "schema = 1\nmode = \"enforce\"\noutbound = \"enforce\"\nunresolved_peers = \"none\"\nunresolved_ports = \"none\"\n{text}"
    );
    let site = Site::parse("s.toml", text.as_bytes()).unwrap_or_else(|e| panic!("{e}"));
    let catalog = Catalog::embedded().unwrap();
    let (resolved, files) = (BTreeMap::new(), BTreeMap::new());
    compile(&Inputs {
        catalog: &catalog,
        site: &site,
        host: ask.host,
        interface: ask.interface,
        local_addresses: ask.addresses,
        hostname: None,
        resolved: &resolved,
        files: &files,
        today: Some(ask.today),
    })
}

fn named(text: &str, host: &str) -> Compiled {
    ask(
        text,
        Ask {
            host: Selection::Name(host.to_owned()),
            interface: None,
            addresses: &[],
            today: "2026-11-28",
        },
    )
}

/// Lines of the rows whose id begins so.
fn of(compiled: &Compiled, row: &str) -> Vec<String> {
    let all = lines(compiled).into_iter();
    all.filter(|line| line.starts_with(row)).collect()
}

fn codes(compiled: &Compiled) -> Vec<&'static str> {
    compiled.diagnostics.iter().map(|d| d.code).collect()
}

const TWO_CLUSTERS: &str = r#"
unprinted_peers = "none"
[systems.ibm-api-connect]
cluster = "prod"
[systems.ibm-api-connect.ports]
gateway-cluster = 16380
[[host]]
name = "g1"
addresses = ["10.1.0.1"]
roles = ["ibm-api-connect/gateway"]
[[host]]
name = "g2"
addresses = ["10.1.0.2"]
roles = ["ibm-api-connect/gateway"]
[[host]]
name = "g3"
addresses = ["10.2.0.1"]
cluster = "test"
roles = ["ibm-api-connect/gateway"]
[[host]]
name = "g4"
addresses = ["10.2.0.2"]
cluster = "test"
roles = ["ibm-api-connect/gateway"]
[[host]]
name = "m"
addresses = ["10.9.0.1"]
cluster = ["prod", "test"]
roles = ["ibm-api-connect/management"]
"#;

#[test]
fn peers_by_role_are_those_of_the_same_cluster() {
    let g1 = named(TWO_CLUSTERS, "g1");
    assert_eq!(
        of(&g1, "ibm-api-connect/gateway-cluster"),
        [
            "ibm-api-connect/gateway-cluster tcp/16380 <- 10.1.0.2/32",
            "ibm-api-connect/gateway-cluster tcp/16380 -> 10.1.0.2/32"
        ]
    );
    let shared = of(&named(TWO_CLUSTERS, "m"), "ibm-api-connect/usage-7-3000");
    assert_eq!(
        shared,
        [
            "ibm-api-connect/usage-7-3000/out tcp/3000 -> 10.1.0.1/32 10.1.0.2/32 10.2.0.1/32 10.2.0.2/32"
        ]
    );
}

#[test]
fn servers_of_one_role_on_a_host_have_an_offset_each() {
    let site = r#"
unprinted_peers = { public-service = "any", administration = "none", infrastructure = "none", monitoring = "none" }
[[host]]
name = "a"
addresses = ["10.1.0.1"]
roles = ["wso2/api-manager"]
offsets = { "wso2/api-manager" = [0, 10] }
[[host]]
name = "b"
addresses = ["10.1.0.2"]
roles = ["wso2/api-manager"]
"#;
    let a = of(&named(site, "a"), "wso2/api-manager-9099");
    assert_eq!(
        a,
        [
            "wso2/api-manager-9099 tcp/9099 <- any",
            "wso2/api-manager-9099 tcp/9109 <- any"
        ]
    );
    let b = of(&named(site, "b"), "wso2/api-manager-10397 tcp/10407");
    assert_eq!(b, ["wso2/api-manager-10397 tcp/10407 -> 10.1.0.1/32"]);
}

const LAYERS: &str = r#"
unprinted_peers = ["10.0.0.0/24"]
[systems.wso2]
version = "2.1"
[systems.wso2.clusters.prod]
without = ["jmx"]
[[host]]
name = "old"
addresses = ["10.1.0.1"]
roles = ["wso2/enterprise-mobility-manager"]
systems = { wso2 = { version = "1.0.p3" } }
[[host]]
name = "new"
addresses = ["10.1.0.2"]
roles = ["wso2/enterprise-mobility-manager"]
[[host]]
name = "prod"
addresses = ["10.1.0.3"]
cluster = "prod"
roles = ["wso2/enterprise-mobility-manager"]
[[host]]
name = "loud"
addresses = ["10.1.0.4"]
cluster = "prod"
roles = ["wso2/enterprise-mobility-manager"]
systems = { wso2 = { options = ["jmx"] } }
"#;

#[test]
fn the_nearest_word_wins_host_before_cluster_before_system() {
    let opens = |host: &str, row: &str| !of(&named(LAYERS, host), row).is_empty();
    for (host, emm, jmx) in [
        ("old", false, true),
        ("new", true, true),
        ("prod", true, false),
        ("loud", true, true),
    ] {
        assert_eq!(opens(host, "wso2/emm-8280-8243"), emm, "{host}");
        assert_eq!(opens(host, "wso2/jmx-11111"), jmx, "{host}");
    }
    // The two ends of a row differ: closed at both, and said.
    let new = named(LAYERS, "new");
    assert!(codes(&new).contains(&"ends-differ"), "{:?}", told(&new));
}

#[test]
fn both_alternatives_hold_until_the_last_day_of_a_change_over() {
    let site = r#"
unprinted_peers = "none"
[systems.nexthink]
deployment = "on-premises"
version = "V6.24"
choices = { collector-channel = { both = ["443", "custom"], until = 2026-12-31 }, directory-channel = "secure", portal-access = "secure" }
[[host]]
name = "e"
addresses = ["10.1.0.1"]
roles = ["nexthink/engine"]
[[host]]
name = "c"
addresses = ["10.1.0.2"]
roles = ["nexthink/collector"]
systems = { nexthink = { choices = { collector-platform = "macos" } } }
"#;
    let on = |today| {
        let compiled = ask(
            site,
            Ask {
                host: Selection::Name("e".to_owned()),
                interface: None,
                addresses: &[],
                today,
            },
        );
        let ports = ["engine-443-collector", "engine-8443-custom"];
        let open = ports.map(|row| !of(&compiled, &format!("nexthink/{row}")).is_empty());
        (open, codes(&compiled).contains(&"change-over-ended"))
    };
    assert_eq!(on("2026-12-31"), ([true, true], false));
    assert_eq!(on("2027-01-01"), ([false, true], true));
}

/// Seconds since the epoch of the midnight that begins 2027.
const NEW_YEAR: u64 = 1_798_761_600;

/// When the grants of a row end, without repetition.
fn endings(compiled: &Compiled, row: &str) -> Vec<Option<u64>> {
    let policy = &compiled.policy;
    let grants = policy.inbound.iter().chain(&policy.outbound);
    let of_row = grants.filter(|grant| grant.row.starts_with(row));
    let all: BTreeSet<_> = of_row.map(|grant| grant.until).collect();
    all.into_iter().collect()
}

#[test]
fn what_a_change_over_leaves_behind_ends_with_its_last_day() {
    let engine = r#"
unprinted_peers = "none"
[systems.nexthink]
deployment = "on-premises"
version = "V6.24"
choices = { collector-channel = { both = ["443", "custom"], until = 2026-12-31 }, directory-channel = "secure", portal-access = "secure" }
[[host]]
name = "e"
addresses = ["10.1.0.1"]
roles = ["nexthink/engine"]
[[host]]
name = "c"
addresses = ["10.1.0.2"]
roles = ["nexthink/collector"]
"#;
    let compiled = named(engine, "e");
    let row = |name: &str| endings(&compiled, &format!("nexthink/{name}"));
    assert_eq!(row("engine-443-collector"), [Some(NEW_YEAR)]);
    assert_eq!(row("engine-8443-custom"), [None]);
    assert_eq!(row("engine-999-portal"), []);
    // One of two numbers of one row.
    let node = r#"
[systems.thoughtspot]
version = "4.5.1"
choices = { mail-port = { both = ["25", "587"], until = 2026-12-31 }, directory-port = "636" }
[systems.thoughtspot.peers]
smtp-relay = ["10.9.0.1"]
ldap-server = ["10.9.0.2"]
[[host]]
name = "n"
addresses = ["10.1.0.1"]
roles = ["thoughtspot/node"]
[[row]]
name = "backup"
direction = "in"
transport = "tcp"
ports = [9102]
peers = ["10.9.0.3"]
reason = "nightly"
expires = 2026-12-31
"#;
    let compiled = named(node, "n");
    let mail = compiled.policy.outbound.iter();
    let mail = mail.filter(|grant| grant.row == "thoughtspot/outbound-mail");
    let mail: Vec<_> = mail.map(|grant| (grant.first, grant.until)).collect();
    assert_eq!(mail, [(25, Some(NEW_YEAR)), (587, None)]);
    assert_eq!(endings(&compiled, "thoughtspot/outbound-ldap"), [None]);
    assert_eq!(endings(&compiled, "site/backup"), [Some(NEW_YEAR)]);
}

const SHARED: &str = r#"
unprinted_peers = "none"
[systems.interlink-asi]
deployment = "clustered"
peers = { users = "any" }
[[host]]
name = "lb1"
addresses = ["10.1.0.1"]
shared_addresses = ["10.1.0.100"]
roles = ["interlink-asi/load-balancer"]
[[host]]
name = "lb2"
addresses = ["10.1.0.2"]
shared_addresses = ["10.1.0.100"]
roles = ["interlink-asi/load-balancer"]
[[host]]
name = "asi"
addresses = ["10.1.0.3"]
roles = ["interlink-asi/asi"]
"#;

#[test]
fn a_shared_address_counts_as_its_owners_and_decides_over_nobody() {
    let backend = of(&named(SHARED, "asi"), "interlink-asi/clustered-users-52000");
    assert_eq!(
        backend,
        [
            "interlink-asi/clustered-users-52000/in tcp/52000 <- 10.1.0.1/32 10.1.0.2/32 10.1.0.100/32"
        ]
    );
    let found = |addresses: &[&str]| {
        let addresses: Vec<IpAddr> = addresses.iter().map(|a| a.parse().unwrap()).collect();
        let compiled = ask(
            SHARED,
            Ask {
                host: Selection::Local,
                interface: None,
                addresses: &addresses,
                today: "2026-11-28",
            },
        );
        compiled.policy.host
    };
    for with in [vec!["10.1.0.2"], vec!["10.1.0.2", "10.1.0.100"]] {
        assert_eq!(found(&with).as_deref(), Some("lb2"), "{with:?}");
    }
    assert_eq!(found(&["10.1.0.100"]), None);
}

#[test]
fn interfaces_serve_their_own_rows() {
    let site = r#"
unprinted_peers = { public-service = "any", default = "none" }
[systems.ibm-api-connect]
peers = { public-zone = "any", protected-zone = ["10.8.0.0/16"] }
[[host]]
name = "g"
addresses = ["10.1.0.1", "10.2.0.1"]
roles = ["ibm-api-connect/gateway"]
[host.interfaces.eth0]
rows = ["ibm-api-connect/usage-1"]
[host.interfaces.eth1]
without_rows = ["ibm-api-connect/usage-1"]
"#;
    let opens = |interface, row: &str| {
        let compiled = ask(
            site,
            Ask {
                host: Selection::Name("g".to_owned()),
                interface,
                addresses: &[],
                today: "2026-11-28",
            },
        );
        !of(&compiled, &format!("ibm-api-connect/{row}")).is_empty()
    };
    for (interface, api, admin) in [
        (Some("eth0"), true, false),
        (Some("eth1"), false, true),
        (None, true, true),
    ] {
        assert_eq!(opens(interface, "usage-1/"), api, "{interface:?}");
        assert_eq!(opens(interface, "usage-2/"), admin, "{interface:?}");
    }
}

#[test]
fn each_class_of_unprinted_peers_has_its_own_answer() {
    let site = |answers: &str| {
        format!(
            "{answers}\n[[host]]\nname = \"a\"\naddresses = [\"10.1.0.1\"]\nroles = [\"wso2/api-manager\"]\n\
             [[host]]\nname = \"b\"\naddresses = [\"10.1.0.2\"]\nroles = [\"wso2/api-manager\"]\n"
        )
    };
    let some = site(
        "unprinted_peers = { public-service = \"any\", administration = [\"10.9.0.0/24\"], infrastructure = \"none\", monitoring = \"none\" }",
    );
    let compiled = named(&some, "a");
    for line in [
        "wso2/api-manager-9099 tcp/9099 <- any",
        "wso2/console-9443 tcp/9443 <- 10.9.0.0/24",
        "wso2/api-manager-5672 tcp/5672 <- 10.1.0.2/32",
        "wso2/api-manager-5672 tcp/5672 -> 10.1.0.2/32",
    ] {
        assert!(lines(&compiled).contains(&line.to_owned()), "{line}");
    }
    assert!(omitted(&compiled).contains(&"wso2/jmx-11111: no-peer".to_owned()));
    let unanswered = named(&site(""), "a");
    let asked: Vec<_> = told(&unanswered)
        .into_iter()
        .filter(|line| line.contains("[unprinted-peers]"))
        .collect();
    assert_eq!(
        asked.len(),
        4,
        "a question a class, and none for members: {asked:#?}"
    );
    // A printed peer stays what it is, whatever is said of unprinted ones.
    let ibm = "unprinted_peers = \"any\"\n[[host]]\nname = \"g\"\naddresses = [\"10.1.0.1\"]\nroles = [\"ibm-api-connect/gateway\"]\n[[host]]\nname = \"m\"\naddresses = [\"10.1.0.2\"]\nroles = [\"ibm-api-connect/management\"]\n";
    assert_eq!(
        of(&named(ibm, "g"), "ibm-api-connect/gateway-3000"),
        ["ibm-api-connect/gateway-3000 tcp/3000 <- 10.1.0.2/32"]
    );
}

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
        told(&twice)
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
    let (resolved, files) = (BTreeMap::new(), BTreeMap::new());
    let compiled = compile(&Inputs {
        catalog: &catalog,
        site: &site,
        host: Selection::Name("m".to_owned()),
        interface: None,
        local_addresses: &[],
        hostname: None,
        resolved: &resolved,
        files: &files,
        today: None,
    });
    assert!(
        codes(&compiled).contains(&"unresolved-ports"),
        "{:?}",
        told(&compiled)
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
        let found = found.unwrap_or_else(|| panic!("{text}: {:#?}", told(&compiled)));
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
            told(&compiled)
        );
    }
}

/// The page's example is a site, and what it leaves open is said.
#[test]
fn a_kubernetes_node_has_its_profile() {
    let page = include_str!("../../../../../docs/kubernetes.md");
    let text = page
        .split("```toml\n")
        .nth(1)
        .and_then(|rest| rest.split("```").next());
    let site = Site::parse("s.toml", text.unwrap().as_bytes()).unwrap();
    let catalog = Catalog::embedded().unwrap();
    assert!(!catalog.systems.contains_key("kubernetes-node"));
    let catalog = catalog.with_profiles(site.roles()).unwrap();
    let (resolved, files) = (BTreeMap::new(), BTreeMap::new());
    let compiled = compile(&Inputs {
        catalog: &catalog,
        site: &site,
        host: Selection::Name("worker-1".to_owned()),
        interface: None,
        local_addresses: &["10.0.1.11".parse().unwrap()],
        hostname: None,
        resolved: &resolved,
        files: &files,
        today: None,
    });
    // The overlay is a tunnel, which is said.
    assert_eq!(codes(&compiled), ["tunnel"], "{:?}", told(&compiled));
    let all = lines(&compiled);
    for line in [
        "kubernetes-node/kubelet/in tcp/10250 <- 10.0.1.1/32",
        "kubernetes-node/api-server/out tcp/6443 -> 10.0.1.1/32",
        "kubernetes-node/flannel-vxlan udp/8472 <- 10.0.1.1/32",
        "kubernetes-node/flannel-vxlan udp/8472 -> 10.0.1.1/32",
    ] {
        assert!(all.contains(&line.to_owned()), "{line} in {all:#?}");
    }
    assert!(
        !all.iter()
            .any(|line| line.contains("/2379 ") || line.contains("calico")),
        "{all:#?}"
    );
}

#[test]
fn facts_that_contradict_each_other_are_told() {
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
        assert!(codes(&compiled).contains(&wanted), "{facts}: {:#?}", told(&compiled));
    }
    let fine = site(
        "[systems.wso2]\noptions = [\"publish-analytics\"]\noffsets = { analytics = 1 }",
        "\"wso2/analytics\"",
    );
    assert!(!codes(&named(&fine, "h")).contains(&"contradiction"));
}

#[test]
fn rows_that_mean_the_same_hosts_keep_their_own_words() {
    let compiled = named(
        r#"
unprinted_peers = "none"
[systems.nexthink]
deployment = "on-premises"
version = "V6.20"
choices = { collector-channel = "custom", directory-channel = "secure", portal-access = "secure" }
peers = { mail-server = ["10.1.0.2"], active-directory = ["10.1.0.2"] }
[[host]]
name = "e"
addresses = ["10.1.0.1"]
roles = ["nexthink/engine"]
[[host]]
name = "p"
addresses = ["10.1.0.2"]
roles = ["nexthink/portal"]
"#,
        "e",
    );
    let policy = &compiled.policy;
    let words = |row: &str| {
        let grants = policy.inbound.iter().chain(&policy.outbound);
        let mut of_row = grants.filter(|grant| grant.row == row);
        let grant = of_row.next().unwrap_or_else(|| panic!("{row}"));
        policy.row_peers_words(row, grant.peers)
    };
    assert_eq!(words("nexthink/engine-25"), "p (group mail-server)");
    assert_eq!(words("nexthink/engine-636"), "p (group active-directory)");
    assert_eq!(words("nexthink/engine-7000"), "p (role portal)");
}

#[test]
fn addresses_given_for_ones_own_role_are_no_other_subsystem() {
    let site = |roles: &str| {
        format!(
            r#"
unprinted_peers = "none"
[systems.ibm-api-connect.peers]
management = ["10.2.0.1"]
analytics = ["10.2.0.2"]
[[host]]
name = "h"
addresses = ["10.1.0.1"]
roles = [{roles}]
"#
        )
    };
    let admits = |roles: &str, address: &str| {
        let compiled = named(&site(roles), "h");
        let policy = &compiled.policy;
        let address: IpAddr = address.parse().unwrap();
        [&policy.inbound, &policy.outbound].map(|grants| {
            let mut common = grants
                .iter()
                .filter(|one| one.row == "ibm-api-connect/common-443");
            common.any(|grant| policy.admits(grant.peers, address))
        })
    };
    let one = "\"ibm-api-connect/management\"";
    assert_eq!(admits(one, "10.2.0.1"), [false, false]);
    assert_eq!(admits(one, "10.2.0.2"), [true, true]);
    // With both, each is another subsystem to the other.
    let both = "\"ibm-api-connect/management\", \"ibm-api-connect/analytics\"";
    assert_eq!(admits(both, "10.2.0.1"), [true, true]);
    assert_eq!(admits(both, "10.2.0.2"), [true, true]);
}

#[test]
fn a_standalone_system_is_one_node_of_its_cluster() {
    let site = |facts: &str, cluster: &str| {
        format!(
            "unprinted_peers = \"none\"\n[systems.interlink-asi]\n{facts}\n\
             [[host]]\nname = \"a\"\naddresses = [\"10.1.0.1\"]\nroles = [\"interlink-asi/asi\"]\n\
             [[host]]\nname = \"b\"\naddresses = [\"10.1.0.2\"]\n{cluster}roles = [\"interlink-asi/core\"]\n"
        )
    };
    let told =
        |facts, cluster| codes(&named(&site(facts, cluster), "a")).contains(&"contradiction");
    assert!(told("deployment = \"standalone\"", ""));
    assert!(!told("deployment = \"clustered\"", ""));
    assert!(!told(
        "deployment = \"standalone\"",
        "cluster = \"second\"\n"
    ));
}

const CHANNELS: &str = r#"
unprinted_peers = "none"
[systems.nexthink]
deployment = "on-premises"
version = "V6.19"
options = ["collector-assignment"]
choices = { collector-channel = "custom", collector-platform = "macos", directory-channel = "secure", portal-access = "secure" }
ports = { engine-8443-custom = 9443, engine-999-udp = 9999 }
[[host]]
name = "e"
addresses = ["10.1.0.1"]
roles = ["nexthink/engine"]
systems = { nexthink = { version = "V6.22" } }
[[host]]
name = "p"
addresses = ["10.1.0.2"]
roles = ["nexthink/portal"]
[[host]]
name = "c"
addresses = ["10.1.0.3"]
roles = ["nexthink/collector"]
"#;

/// Ports of rows that one host has towards another.
fn towards(site: &str, host: &str, transport: &str, sign: &str, peer: &str) -> BTreeSet<String> {
    let all = lines(&named(site, host)).into_iter();
    let (transport, peer) = (format!(" {transport}/"), format!("{sign} {peer}/32"));
    all.filter_map(|line| {
        let port = line.split(&transport).nth(1)?.split(' ').next()?;
        line.ends_with(&peer).then(|| port.to_owned())
    })
    .collect()
}

#[test]
fn in_the_version_that_cannot_change_it_a_number_stays_where_it_is() {
    let (c, p) = ("10.1.0.3", "10.1.0.2");
    assert!(towards(CHANNELS, "p", "tcp", "<-", c).contains("8443"));
    assert!(towards(CHANNELS, "c", "tcp", "->", p).contains("8443"));
    assert!(codes(&named(CHANNELS, "p")).contains(&"port-stays-open"));
    let later = CHANNELS.replace("\"V6.19\"", "\"V6.20\"");
    assert!(towards(&later, "p", "tcp", "<-", c).contains("9443"));
    assert!(towards(&later, "c", "tcp", "->", p).contains("9443"));
    assert!(!towards(&later, "p", "tcp", "<-", c).contains("8443"));
}

#[test]
fn what_one_version_requires_and_another_offers_is_one_channel() {
    let (c, e) = ("10.1.0.3", "10.1.0.1");
    // The Engine does not offer what the Collector needs: closed at both ends, and said.
    assert!(towards(CHANNELS, "e", "udp", "<-", c).is_empty());
    assert!(towards(CHANNELS, "c", "udp", "->", e).is_empty());
    assert!(codes(&named(CHANNELS, "c")).contains(&"ends-differ"));
    let offered = CHANNELS.replace("\"V6.22\" }", "\"V6.22\", options = [\"collector-udp\"] }");
    for site in [offered.as_str(), &CHANNELS.replace("V6.22", "V6.20")] {
        let changed = BTreeSet::from(["9999".to_owned()]);
        assert_eq!(towards(site, "e", "udp", "<-", c), changed);
        assert_eq!(towards(site, "c", "udp", "->", e), changed);
    }
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
