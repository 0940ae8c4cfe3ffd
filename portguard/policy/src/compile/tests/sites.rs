//! What sites need of the embedded matrices: clusters, several servers, settings by host, shared addresses, interfaces, a
//! profile, words of their own.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::asks::{Ask, ask, codes, named, of};
use super::fixture::{inputs, lines, messages, omitted};
use crate::catalog::Catalog;
use crate::compile::{Inputs, Selection, compile};
use crate::site::Site;

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
    assert!(codes(&new).contains(&"ends-differ"), "{:?}", messages(&new));
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
    let asked: Vec<_> = messages(&unanswered)
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
    let compiled = compile(&Inputs {
        local_addresses: &["10.0.1.11".parse().unwrap()],
        ..inputs(&catalog, &site, Selection::Name("worker-1".to_owned()))
    });
    // The overlay is a tunnel, which is said.
    assert_eq!(codes(&compiled), ["tunnel"], "{:?}", messages(&compiled));
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
    let has_one =
        |facts, cluster| codes(&named(&site(facts, cluster), "a")).contains(&"contradiction");
    assert!(has_one("deployment = \"standalone\"", ""));
    assert!(!has_one("deployment = \"clustered\"", ""));
    assert!(!has_one(
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
