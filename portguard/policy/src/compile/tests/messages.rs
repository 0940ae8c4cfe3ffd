//! What the compiler says, word for word.

use super::fixture::{SITE, catalog, compiled, compiled_site, messages};
use crate::catalog::Catalog;
use crate::compile::{Inputs, Selection, compile};
use crate::diagnostic::Level;
use crate::site::{Flags, Mode, Site};

fn with(from: &str, to: &str) -> Vec<String> {
    assert!(SITE.contains(from), "{from}");
    messages(&compiled(&SITE.replacen(from, to, 1), "node1"))
}

#[test]
fn what_is_not_given_is_refused_with_the_rows_that_want_it() {
    assert_eq!(
        with("peers = { support = [\"203.0.113.0/24\"] }\n", ""),
        [
            "site.toml:13:10: error[unresolved-peer]: acme names support (the support desk), which the site does not define: rows `acme/desk`\n  hint: write `support = [...]` under [systems.acme.peers], or `--peer acme/support=CIDR,...`"
        ]
    );
    assert_eq!(
        with("unprinted_peers = [\"admins\"]\n", ""),
        [
            "site.toml:12:10: error[unprinted-peers]: acme does not name the peers of some rows: rows `acme/blank`\n  hint: write `unprinted_peers = [...]` or `\"any\"` under [systems.acme], or `--unprinted-peers any|CIDR,...`"
        ]
    );
    assert_eq!(
        with("deployment = \"clustered\"\n", ""),
        [
            "site.toml:13:10: error[deployment-not-said]: no deployment of acme is given; rows that depend on it are open: `acme/only-clustered`\n  hint: write `deployment = \"clustered\"` (or \"standalone\") under [systems.acme], or `--deployment clustered`"
        ]
    );
    assert_eq!(
        with("choices = { mail = \"587\" }\n", ""),
        [
            "site.toml:13:10: warning[choice-not-said]: acme offers mail, and the site chooses none; rows that depend on it are open: `acme/relay`\n  hint: write `choices.mail = \"25\"` (or \"587\") under [systems.acme], or `--choose mail=25`"
        ]
    );
}

#[test]
fn what_is_unclear_is_refused_only_where_its_direction_enforces() {
    let enforced = "mode = \"enforce\"\noutbound = \"enforce\"";
    let site = SITE.replacen("choices = { mail = \"587\" }\n", "", 1);
    let site = site.replacen("mode = \"enforce\"", enforced, 1);
    let reported = messages(&compiled(&site, "node1"));
    assert!(
        reported
            .iter()
            .any(|line| line.starts_with("site.toml:14:10: error[choice-not-said]")),
        "{reported:?}"
    );
}

#[test]
fn audit_warns_where_enforce_refuses() {
    let site = SITE.replacen("peers = { support = [\"203.0.113.0/24\"] }\n", "", 1);
    let site = site.replacen("mode = \"enforce\"", "mode = \"audit\"", 1);
    let reported = messages(&compiled(&site, "node1"));
    assert_eq!(reported.len(), 1);
    assert!(
        reported[0].contains("warning[unresolved-peer]"),
        "{}",
        reported[0]
    );
    assert!(
        reported[0].contains("rows `acme/desk`; in audit they match any"),
        "{}",
        reported[0]
    );
}

#[test]
fn names_that_nobody_knows_get_the_nearest() {
    for (from, to, wanted) in [
        (
            "\"ops\"]",
            "\"opps\"]",
            "site.toml:7:26: error[unknown-group]: there is no group `opps`\n  hint: did you mean `ops`?",
        ),
        (
            "deployment = \"clustered\"",
            "deployment = \"clusterd\"",
            "site.toml:14:14: error[unknown-deployment]: acme has no deployment `clusterd`\n  hint: did you mean `clustered`?",
        ),
        (
            "mail = \"587\"",
            "mail = \"588\"",
            "site.toml:16:13: error[unknown-choice]: acme has no mail of `588`\n  hint: did you mean `587`?",
        ),
        (
            "{ support =",
            "{ suport = [\"ops\"], support =",
            "site.toml:17:11: error[unknown-peer]: acme has no peer `suport`\n  hint: did you mean `support`?",
        ),
    ] {
        let reported = with(from, to);
        assert!(
            reported.iter().any(|line| line == wanted),
            "{wanted}\n{reported:#?}"
        );
    }
}

/// One typo is one error, wherever a name stands and whatever its loss leaves without peers.
#[test]
fn a_name_that_nobody_has_is_reported_once() {
    let admins = "admins = [\"10.9.0.0/24\", \"ops\"]";
    for (from, to) in [
        ("\"tcp/22=admins\"", "\"tcp/22=admnis\""),
        (admins, "admins = [\"opps\"]"),
        (admins, "admins = [\"host:nobody\"]"),
        (admins, "admins = [\"role:acme/nothing\"]"),
        (admins, "admins = [\"file:nothing.txt\"]"),
    ] {
        let reported = with(from, to);
        let errors: Vec<_> = reported
            .iter()
            .filter(|line| line.contains("error["))
            .collect();
        assert_eq!(errors.len(), 1, "{to}: {reported:#?}");
        assert!(
            !reported.iter().any(|line| line.contains("empty-peers")),
            "{to}: {reported:#?}"
        );
    }
}

#[test]
fn circles_of_groups_are_reported_once() {
    let reported = with(
        "ops = [\"10.8.0.1\"]",
        "ops = [\"10.8.0.1\", \"more\"]\nmore = [\"admins\"]",
    );
    assert_eq!(
        reported,
        [
            "site.toml:9:9: error[cyclic-group]: group `admins` contains itself: admins -> ops -> more -> admins\n  hint: remove one of these references"
        ]
    );
}

#[test]
fn fixed_ports_stay_fixed() {
    let reported = with("[[host]]", "[systems.acme.ports]\ndesk = 401\n\n[[host]]");
    assert_eq!(
        reported,
        [
            "site.toml:20:1: error[fixed-ports]: the document does not allow the ports of row `acme/desk` to be changed\n  hint: switch the row `off` and write a `[[row]]` of your own"
        ]
    );
}

#[test]
fn wide_openings_are_reported() {
    let reported = with(
        "[[host]]",
        "[[row]]\nname = \"wide\"\ndirection = \"in\"\ntransport = \"tcp\"\nports = [\"30000-65535\"]\npeers = \"any\"\nreason = \"r\"\n\n[[row]]\nname = \"all\"\ndirection = \"in\"\ntransport = \"tcp\"\nports = [7]\npeers = [\"0.0.0.0/0\"]\nreason = \"r\"\n\n[[host]]",
    );
    assert_eq!(
        reported,
        [
            "warning[default-route]: the peers `0.0.0.0/0` have a prefix of length 0, which means everybody\n  hint: write \"any\" if that is what you mean",
            "site.toml:19:1: warning[ephemeral-any]: row `site/wide` opens tcp/30000-65535 to any: most of the ports of the host's own connections\n  hint: narrow the row with `only`, or give it fewer ports",
        ]
    );
}

#[test]
fn management_is_never_silently_absent() {
    let reported = with("[management]\nallow = [\"tcp/22=admins\"]\n", "");
    assert_eq!(
        reported,
        [
            "note[default-management]: no management access is given: tcp/22 stays open to any\n  hint: write `[management]` with `allow = [\"tcp/22=GROUP\"]`, or `--management tcp/22=CIDR,...`"
        ]
    );
    let reported = with("allow = [\"tcp/22=admins\"]", "none = true");
    assert_eq!(
        reported,
        [
            "site.toml:10:1: warning[no-management]: no management access: a wrong policy can only be corrected at the console"
        ]
    );
}

#[test]
fn nobody_enforces_with_an_example_as_the_only_way_in() {
    let codes = |allow: &str, mode: &str| {
        let site = format!(
            "schema = 1\nmode = \"{mode}\"\noutbound = \"audit\"\nunprinted_peers = \"none\"\n[groups]\nours = [\"10.1.0.0/24\"]\nexample = [\"192.0.2.0/28\"]\n[management]\nallow = [{allow}]\n\
             [[host]]\nname = \"h\"\naddresses = [\"10.1.0.1\"]\nroles = [\"thoughtspot/node\"]\n"
        );
        let compiled = compiled_site(
            &Catalog::embedded().unwrap(),
            &Site::parse("s.toml", site.as_bytes()).unwrap(),
            Selection::Name("h".to_owned()),
        );
        let found = compiled
            .diagnostics
            .iter()
            .filter(|one| ["example-addresses", "impossible-peers"].contains(&one.code));
        found.map(|one| one.level).collect::<Vec<_>>()
    };
    for networks in [
        "=example",
        "=203.0.113.7",
        "=198.51.100.0/25",
        "=2001:db8:1::/48",
        "=3fff:0:1::/48",
        "=127.0.0.1",
        "=::1",
        "=0.0.0.0",
        "=::",
        "=224.0.0.1",
        "=ff02::1",
        "=255.255.255.255",
        "=240.0.0.1",
        "=host:h",
        "=10.1.0.1",
        "=10.1.0.1,203.0.113.7,127.0.0.0/8",
    ] {
        let only = format!("\"tcp/22{networks}\"");
        assert_eq!(codes(&only, "audit"), [Level::Warning], "{networks}");
        assert_eq!(codes(&only, "enforce"), [Level::Error], "{networks}");
        let also = format!("{only}, \"tcp/9022=ours\"");
        assert_eq!(codes(&also, "enforce"), [Level::Warning], "{networks}");
    }
    for networks in [
        "=ours",
        "=192.0.0.0/16",
        "=0.0.0.0/0",
        "=::/0",
        "=host:h,10.1.0.2",
        "",
    ] {
        let only = format!("\"tcp/22{networks}\"");
        assert_eq!(codes(&only, "enforce"), [], "{networks}");
    }
}

#[test]
fn servers_with_the_same_offset_conflict() {
    let reported = with(
        "\"acme/node\"]",
        "\"acme/node\", \"acme/server-a\", \"acme/server-b\"]",
    );
    assert!(reported[0].ends_with("warning[role-conflict]: acme: roles server-a and server-b have the same port offset 0 on one host\n  hint: give all but one an offset of its own with `offsets`"), "{reported:#?}");
}

fn local(addresses: &[&str], hostname: &str) -> (Option<String>, Vec<String>) {
    let site = Site::parse("site.toml", SITE.as_bytes()).unwrap();
    let resolved = [(
        "updates.example".to_owned(),
        vec!["198.51.100.7".parse().unwrap()],
    )]
    .into();
    let addresses: Vec<_> = addresses
        .iter()
        .map(|address| address.parse().unwrap())
        .collect();
    let compiled = compile(&Inputs {
        catalog: &catalog(),
        site: &site,
        host: Selection::Local,
        interface: None,
        local_addresses: &addresses,
        hostname: Some(hostname),
        resolved: &resolved,
        files: &std::collections::BTreeMap::new(),
        today: None,
    });
    (compiled.policy.host.clone(), messages(&compiled))
}

#[test]
fn a_machine_finds_itself() {
    assert_eq!(
        local(&["10.0.0.2", "172.17.0.1"], "other"),
        (Some("node2".to_owned()), Vec::new())
    );
    assert_eq!(
        local(&[], "NODE1.example.com"),
        (Some("node1".to_owned()), Vec::new())
    );
    assert_eq!(
        local(&["10.0.0.1", "10.0.0.2"], "node2"),
        (Some("node2".to_owned()), Vec::new())
    );
    let (host, reported) = local(&["10.0.0.1", "10.0.0.2"], "other");
    assert_eq!(host, None);
    assert_eq!(
        reported,
        [
            "error[which-host]: several hosts of the inventory could be this machine\n  hint: choose one with `--host NAME`: node1, node2"
        ]
    );
    let (_, reported) = local(&["10.77.0.1"], "other");
    assert_eq!(
        reported,
        [
            "error[which-host]: no host of the inventory has this machine's addresses or name\n  hint: choose one with `--host NAME`: node1, node2, all1, a1, a2, b1"
        ]
    );
}

#[test]
fn flags_are_checked_against_the_catalog() {
    let words = |list: &[&str]| {
        list.iter()
            .map(|word| (*word).to_owned())
            .collect::<Vec<_>>()
    };
    let flags = Flags {
        roles: words(&["acme/node"]),
        peers: words(&["suport=10.0.0.0/24", "nothing", "support=10.0.0.1/24"]),
        choices: words(&["mail=25", "mail=587"]),
        management: words(&["tcp"]),
        ..Flags::default()
    };
    assert_eq!(
        Site::from_flags(&flags, &catalog())
            .unwrap_err()
            .to_string(),
        "--management: error[bad-access]: `tcp` is not in the form PROTO/PORT\n  hint: write e.g. `tcp/22`\n\
         --peer: error[unknown-name]: `suport` is not a known peer of acme\n  hint: did you mean `support`?\n\
         --peer: error[bad-peer]: `nothing` is not in the form NAME=CIDR,...\n  hint: e.g. `--peer support=203.0.113.0/24`\n\
         --peer: error[bad-prefix]: `10.0.0.1/24` has host bits set\n  hint: write `10.0.0.0/24`, or `10.0.0.1` for the single address\n\
         --choose: error[exclusive-alternatives]: `mail` is chosen twice, but its values exclude each other\n  hint: choose one"
    );
}

#[test]
fn enforce_wants_outbound() {
    let mut site = Site::parse("site.toml", SITE.as_bytes()).unwrap();
    site.outbound = crate::policy::Outbound::Off;
    site.mode = Mode::Enforce;
    let compiled = compiled_site(&catalog(), &site, Selection::Name("node1".to_owned()));
    assert_eq!(
        messages(&compiled),
        [
            "error[enforce-without-outbound]: enforce needs outbound: without it, replies to the host's own connections are not recognised\n  hint: write `outbound = \"audit\"`, or stay in audit"
        ]
    );
}
