//! Each shape of row and site, to the grants that come of it.

use super::fixture::{SITE, catalog, compiled, compiled_site, inputs, lines, messages, omitted};
use crate::compile::Selection;
use crate::policy::Outbound;
use crate::site::{Flags, Mode, Site, UnresolvedPorts};

/// The lines of one row.
fn of(row: &str, site: &str, host: &str) -> Vec<String> {
    let all = lines(&compiled(site, host));
    all.into_iter()
        .filter(|line| line.starts_with(&format!("acme/{row} ")))
        .collect()
}

fn with(from: &str, to: &str) -> String {
    assert!(SITE.contains(from), "{from}");
    SITE.replacen(from, to, 1)
}

#[test]
fn every_shape_of_row_of_a_node() {
    let compiled = compiled(SITE, "node1");
    assert_eq!(messages(&compiled), Vec::<String>::new());
    assert_eq!(
        lines(&compiled),
        [
            "management/tcp-22 tcp/22 <- 10.8.0.1/32 10.9.0.0/24",
            "baseline/dhcp udp/68 <- any",
            "baseline/dhcp6 udp/546 <- any",
            "acme/base tcp/100 <- 10.0.0.2/31",
            "acme/blank tcp/500 <- 10.8.0.1/32 10.9.0.0/24",
            "acme/cluster tcp/2100 <- 10.0.0.2/31",
            "acme/cluster tcp/2200-2202 <- 10.0.0.2/31",
            "acme/desk tcp/400 <- 203.0.113.0/24",
            "acme/from-worker tcp/300 <- 10.0.0.3/32",
            "acme/jmx tcp/900 <- 10.0.0.2/31",
            "acme/new tcp/800 <- 10.0.0.2/31",
            "acme/only-clustered tcp/700 <- 10.0.0.2/31",
            "baseline/dhcp udp/67 -> any",
            "baseline/dhcp6 udp/547 -> any",
            "baseline/dns tcp/53 -> any",
            "baseline/dns udp/53 -> any",
            "baseline/ntp udp/123 -> any",
            "acme/cluster tcp/2100 -> 10.0.0.2/31",
            "acme/cluster tcp/2200-2202 -> 10.0.0.2/31",
            "acme/names tcp/443 -> 198.51.100.7/32",
            "acme/relay tcp/587 -> 192.0.2.25/32",
        ]
    );
    let left_out = [
        "acme/dyn: dynamic",
        "acme/ipmi: out-of-band",
        "acme/self: loopback",
    ];
    assert_eq!(omitted(&compiled), left_out);
    let names: Vec<_> = compiled
        .policy
        .sets
        .iter()
        .map(|set| set.name.as_str())
        .collect();
    assert_eq!(
        names,
        [
            "group admins",
            "role acme/abstract-base, role acme/node",
            "role acme/worker",
            "acme support",
            "192.0.2.25",
            "domain Updates.example"
        ]
    );
}

#[test]
fn conditions_close_rows_and_say_why() {
    let site = with("deployment = \"clustered\"", "deployment = \"standalone\"");
    let site = site.replace(
        "version = \"4.5.1\"",
        "version = \"4.4\"\nwithout = [\"jmx\"]",
    );
    let compiled = compiled(&site, "node1");
    let details: Vec<_> = compiled
        .policy
        .omitted
        .iter()
        .filter(|o| o.reason == "condition")
        .collect();
    let details: Vec<_> = details
        .iter()
        .map(|o| format!("{}: {}", o.row, o.detail))
        .collect();
    assert_eq!(
        details,
        [
            "acme/jmx: needs option jmx, which is off",
            "acme/new: needs version >=4.5, but the site has 4.4",
            "acme/only-clustered: needs deployment clustered, but the site has standalone",
        ]
    );
}

#[test]
fn ports_are_changed_only_where_the_document_lets_them() {
    let ports =
        "[systems.acme.ports]\ncluster = [3000, \"3100-3101\"]\ndyn = \"40000-40010\"\n\n[[host]]";
    let site = with("[[host]]", ports);
    let wanted = [
        "acme/cluster tcp/3000 <- 10.0.0.2/31",
        "acme/cluster tcp/3100-3101 <- 10.0.0.2/31",
        "acme/cluster tcp/3000 -> 10.0.0.2/31",
        "acme/cluster tcp/3100-3101 -> 10.0.0.2/31",
    ];
    assert_eq!(of("cluster", &site, "node1"), wanted);
    assert_eq!(
        of("dyn", &site, "node1"),
        ["acme/dyn tcp/40000-40010 <- 10.0.0.2/31"]
    );
}

#[test]
fn offsets_move_the_server_and_those_who_connect_to_it() {
    assert_eq!(
        of("console/in", SITE, "a1"),
        ["acme/console/in tcp/9445 <- 10.0.2.1/32"]
    );
    assert_eq!(
        of("console/in", SITE, "a2"),
        ["acme/console/in tcp/9443 <- 10.0.2.1/32"]
    );
    let wanted = [
        "acme/console/out tcp/9443 -> 10.0.1.2/32",
        "acme/console/out tcp/9445 -> 10.0.1.1/32",
    ];
    assert_eq!(of("console/out", SITE, "b1"), wanted);
    let site = with("choices =", "offsets = { server-a = 1 }\nchoices =");
    let wanted = [
        "acme/console/out tcp/9444 -> 10.0.1.2/32",
        "acme/console/out tcp/9445 -> 10.0.1.1/32",
    ];
    assert_eq!(of("console/out", &site, "b1"), wanted);
    let wanted = [
        "acme/data tcp/7712 -> 10.0.1.2/32",
        "acme/data tcp/7713 -> 10.0.1.1/32",
    ];
    assert_eq!(of("data", &site, "b1"), wanted);
}

#[test]
fn rows_are_narrowed_switched_off_and_kept_in_audit() {
    let rows = "[systems.acme.rows]\ncluster = { only = [\"10.0.0.2\", \"10.7.0.0/16\"] }\ndesk = { audit = true }\nblank = { unprinted_peers = [\"ops\"] }\nbase = { off = true, reason = \"unused\" }\n\n[[host]]";
    let site = with("[[host]]", rows);
    let compiled = compiled(&site, "node1");
    assert_eq!(messages(&compiled), Vec::<String>::new());
    assert_eq!(
        of("cluster", &site, "node1")[0],
        "acme/cluster tcp/2100 <- 10.0.0.2/32"
    );
    assert_eq!(
        of("blank", &site, "node1"),
        ["acme/blank tcp/500 <- 10.8.0.1/32"]
    );
    assert_eq!(of("base", &site, "node1"), Vec::<String>::new());
    assert!(omitted(&compiled).contains(&"acme/base: off".to_owned()));
    let audit: Vec<_> = compiled
        .policy
        .rows
        .iter()
        .filter(|row| row.audit)
        .map(|row| row.id.as_str())
        .collect();
    assert_eq!(audit, ["acme/desk"]);
}

#[test]
fn a_role_given_by_address_counts_beside_the_inventory() {
    let site = with(
        "peers = { support",
        "peers = { worker = [\"10.5.0.0/24\"], support",
    );
    assert_eq!(
        of("from-worker", &site, "node1"),
        ["acme/from-worker tcp/300 <- 10.0.0.3/32 10.5.0.0/24"]
    );
    // `worker` includes `abstract-base`, and so does what is given for it.
    assert_eq!(
        of("base", &site, "node1"),
        ["acme/base tcp/100 <- 10.0.0.2/31 10.5.0.0/24"]
    );
}

#[test]
fn own_rows_expire_and_keep_to_their_hosts() {
    let rows = "[[row]]\nname = \"backup\"\ndirection = \"in\"\ntransport = \"tcp\"\nports = [9102]\npeers = [\"host:node2\"]\nreason = \"nightly\"\nexpires = 2026-11-21\nroles = [\"acme/abstract-base\"]\n\n\
        [[row]]\nname = \"old\"\ndirection = \"out\"\ntransport = [\"tcp\", \"udp\"]\nports = [1]\npeers = \"any\"\nreason = \"was\"\nexpires = 2026-11-20\n\n[[host]]";
    let site = with("[[host]]", rows);
    let node = compiled(&site, "node1");
    assert!(lines(&node).contains(&"site/backup tcp/9102 <- 10.0.0.2/32".to_owned()));
    assert_eq!(
        messages(&node),
        [
            "site.toml:29:1: warning[expired-row]: row `old` expired on 2026-11-20: it opens nothing\n  hint: remove it, or give it a later day"
        ]
    );
    let server = compiled(&site, "a1");
    assert!(!lines(&server).iter().any(|line| line.contains("backup")));
}

#[test]
fn without_outbound_nothing_is_said_of_it() {
    let mut site = Site::parse("site.toml", SITE.as_bytes()).unwrap();
    site.outbound = Outbound::Off;
    site.mode = Mode::Audit;
    let compiled = compiled_site(&catalog(), &site, Selection::Name("node1".to_owned()));
    assert_eq!(compiled.policy.outbound, []);
    assert!(omitted(&compiled).contains(&"acme/relay: outbound-off".to_owned()));
    assert_eq!(messages(&compiled), Vec::<String>::new());
}

#[test]
fn flags_alone_make_a_policy() {
    let words = |list: &[&str]| {
        list.iter()
            .map(|word| (*word).to_owned())
            .collect::<Vec<_>>()
    };
    let flags = Flags {
        roles: words(&["acme/node"]),
        peers: words(&[
            "node=10.0.0.0/24",
            "acme/support=203.0.113.9",
            "worker=none",
        ]),
        unprinted_peers: Some("none".to_owned()),
        unresolved_ports: Some(UnresolvedPorts::None),
        management: words(&["tcp/22=10.1.0.0/16"]),
        mode: Some(Mode::Enforce),
        deployments: words(&["clustered"]),
        versions: words(&["acme=5"]),
        choices: words(&["mail=25"]),
        ..Flags::default()
    };
    let catalog = catalog();
    let site = Site::from_flags(&flags, &catalog).unwrap();
    let compiled = compiled_site(&catalog, &site, Selection::Roles(flags.roles.clone()));
    assert_eq!(messages(&compiled), Vec::<String>::new());
    let lines = lines(&compiled);
    for line in [
        "management/tcp-22 tcp/22 <- 10.1.0.0/16",
        "acme/base tcp/100 <- 10.0.0.0/24",
        "acme/desk tcp/400 <- 203.0.113.9/32",
        "acme/relay tcp/25 -> 192.0.2.25/32",
    ] {
        assert!(lines.contains(&line.to_owned()), "{line} in {lines:#?}");
    }
    assert!(omitted(&compiled).contains(&"acme/blank: no-peer".to_owned()));
}

#[test]
fn an_interface_serves_its_own_roles_in_its_own_mode() {
    let extra = "[[host]]\nname = \"two\"\naddresses = [\"10.0.3.1\"]\nmode = \"audit\"\nroles = [\"acme/worker\"]\ninterfaces = { eth0 = { roles = [\"acme/node\"], mode = \"enforce\" }, eth1 = {} }\n\n[[host]]";
    let site = Site::parse("site.toml", with("[[host]]", extra).as_bytes()).unwrap();
    let catalog = catalog();
    let roles = |interface: Option<&str>| {
        let compiled = crate::compile::compile(&crate::compile::Inputs {
            interface,
            ..inputs(&catalog, &site, Selection::Name("two".to_owned()))
        });
        (compiled.policy.roles, compiled.policy.settings.enforce)
    };
    let both = vec!["acme/node".to_owned(), "acme/worker".to_owned()];
    assert_eq!(roles(None), (both.clone(), false));
    assert_eq!(roles(Some("eth0")), (both, true));
    assert_eq!(roles(Some("eth1")), (vec!["acme/worker".to_owned()], false));
}
