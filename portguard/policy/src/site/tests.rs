//! What the reader of site files says, word for word; and that no bytes make it panic.

use proptest::prelude::*;

use super::{MAX_BYTES, Site};

fn messages(text: &str) -> String {
    match Site::parse("s.toml", text.as_bytes()) {
        Ok(_) => "fine".to_owned(),
        Err(rejected) => rejected.to_string(),
    }
}

#[expect(clippy::too_many_lines, reason = "a table")]
#[test]
fn every_kind_of_wrong_input_has_its_words() {
    for (text, wanted) in [
        ("schema = 1\n", "fine"),
        (
            "",
            "s.toml:1:1: error[missing-key]: a site file begins with its schema\n  hint: write `schema = 1` on the first line",
        ),
        (
            "schema = 2\n",
            "s.toml:1:10: error[out-of-range]: `schema` must be 1, not 2",
        ),
        (
            "schema = 1\nmod = \"audit\"\n",
            "s.toml:2:1: error[unknown-key]: unknown key `mod` in the site\n  hint: did you mean `mode`?",
        ),
        (
            "schema = 1\nmode = 3\n",
            "s.toml:2:8: error[wrong-type]: `mode` must be a string, not a whole number",
        ),
        (
            "schema = 1\nmode = \"on\"\n",
            "s.toml:2:8: error[unknown-word]: `mode` is `on`\n  hint: write `audit` or `enforce`",
        ),
        (
            "schema = 1\n[groups]\na = [\"10.0.0.0/33\"]\n",
            "s.toml:3:6: error[bad-prefix]: `10.0.0.0/33` is neither an address nor a prefix\n  hint: write e.g. `10.0.0.0/24` or `2001:db8::/32`",
        ),
        (
            "schema = 1\n[groups]\na = []\n",
            "s.toml:3:1: error[empty-group]: group `a` has no members\n  hint: remove it, or list its members",
        ),
        (
            "schema = 1\n[groups]\nany = [\"::1\"]\n",
            "s.toml:3:1: error[bad-name]: `any` cannot name a group\n  hint: letters, digits, `-`, `_` and `.`, beginning with a letter; not `any` or `none`",
        ),
        (
            "schema = 1\nunprinted_peers = []\n",
            "s.toml:2:19: error[empty-list]: `unprinted_peers` names nobody\n  hint: write \"none\" if that is what you mean",
        ),
        (
            "schema = 1\n[baseline]\ndns = true\n",
            "s.toml:3:7: error[wrong-type]: `dns` must be \"any\", \"none\" or a list of peers\n  hint: e.g. `[\"admins\", \"10.0.0.0/24\"]`",
        ),
        (
            "schema = 1\n[management]\nallow = [\"tcp/0\"]\n",
            "s.toml:3:10: error[bad-port]: `0` is not a port\n  hint: ports are 1-65535, ranges `8000-8010`",
        ),
        (
            "schema = 1\n[systems.x.ports]\na = 70000\n",
            "s.toml:3:5: error[out-of-range]: `a` must be between 1 and 65535, not 70000",
        ),
        (
            "schema = 1\n[systems.x.ports]\na = \"20-10\"\n",
            "s.toml:3:5: error[reversed-range]: the range 20-10 is reversed\n  hint: write `10-20`",
        ),
        (
            "schema = 1\n[systems.x.ports]\na = [\"1-5\", 5]\n",
            "s.toml:3:13: error[overlapping-ranges]: 5 and 1-5 overlap\n  hint: list each port once",
        ),
        (
            "schema = 1\n[systems.x]\nchoices = { c = [\"1\", \"2\"] }\n",
            "s.toml:3:13: error[exclusive-alternatives]: `choices.c` has several values, but they exclude each other\n  hint: choose one, or for the time of a change-over write `{ both = [\"OLD\", \"NEW\"], until = 2027-01-31 }`",
        ),
        (
            "schema = 1\n[systems.x.rows.r]\noff = true\n",
            "s.toml:2:17: error[missing-key]: row `r` is switched off without a reason\n  hint: write `reason = \"...\"` beside `off`",
        ),
        (
            "schema = 1\n[[host]]\nname = \"a\"\n[[host]]\nname = \"a\"\n",
            "s.toml:4:1: error[duplicate-host]: host `a` is listed twice\n  hint: the first is on line 2",
        ),
        (
            "schema = 1\n[[host]]\nname = \"a\"\naddresses = [\"10.0.0.1\"]\n[[host]]\nname = \"b\"\naddresses = [\"10.0.0.1\"]\n",
            "s.toml:7:14: error[duplicate-address]: address `10.0.0.1` belongs to two hosts\n  hint: the first is on line 4; an address that several hosts own or that moves between them is written in `shared_addresses` of each",
        ),
        (
            "schema = 1\n[[host]]\nname = \"a\"\naddresses = [\"10.0.0.1/24\"]\n",
            "s.toml:4:14: error[bad-address]: `10.0.0.1/24` is not an address\n  hint: a host has addresses without a length, e.g. `10.0.0.1` or `fd00::1`",
        ),
        (
            "schema = 1\n[[host]]\nname = \"a\"\nroles = [\"node\"]\n",
            "s.toml:4:10: error[bad-role]: `node` is not in the form SYSTEM/ROLE\n  hint: e.g. `wso2/api-manager`",
        ),
        (
            "schema = 1\n[[row]]\nname = \"r\"\ndirection = \"in\"\n",
            "s.toml:2:1: error[missing-key]: row `r` lacks `transport`, `ports`, `peers`, `reason`\n  hint: a row says what it opens, to whom, and why",
        ),
        (
            "schema = 1\n[timeouts]\ntcp_idle = \"4\"\n",
            "s.toml:3:12: error[bad-duration]: `4` is not a duration\n  hint: write e.g. `90s`, `3m`, `4h` or `1d`",
        ),
        (
            "schema = 1\n[baseline]\nprotocols = [{ number = 6, peers = \"any\" }]\n",
            "s.toml:3:14: error[bad-protocol]: protocol 6 is judged by its ports or types\n  hint: TCP, UDP and SCTP ports are opened by `[[row]]`",
        ),
    ] {
        assert_eq!(messages(text), wanted, "of {text:?}");
    }
    assert!(
        messages("schema = \n").starts_with("s.toml:1:10: error[syntax]: not TOML: "),
        "{}",
        messages("schema = \n")
    );
}

#[test]
fn bytes_that_are_no_text_and_files_too_large_are_named() {
    let reported = Site::parse("s.toml", b"schema = 1\n# \xff\n")
        .unwrap_err()
        .to_string();
    assert_eq!(
        reported,
        "s.toml:2: error[invalid-utf8]: byte 13 is not UTF-8\n  hint: save the file as UTF-8"
    );
    let reported = Site::parse("s.toml", &vec![b' '; MAX_BYTES + 1])
        .unwrap_err()
        .to_string();
    assert_eq!(
        reported,
        "s.toml: error[too-large]: the file has 16777217 bytes, more than 16777216\n  hint: put long lists of prefixes into files of their own and name them `file:PATH`"
    );
}

/// Pieces of site files, in any order: more of them parse than of random bytes.
fn pieces() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "schema = 1",
        "\n",
        "[groups]",
        "a",
        " = ",
        "[",
        "]",
        "\"",
        "10.0.0.0/8",
        "group:a",
        "any",
        "[[host]]",
        "[[row]]",
        "name",
        "addresses",
        "roles",
        "{",
        "}",
        ",",
        "systems.x",
        ".",
        "ports",
        "offsets",
        "rows",
        "65536",
        "-1",
        "0x10",
        "1.5",
        "2027-01-31",
        "true",
        "management",
        "allow",
        "tcp/22=a",
        "none",
        "é",
        "\u{0}",
        "peers",
        "'",
        "#",
        "_",
        "1e9",
        "inf",
    ]);
    prop::collection::vec(piece, 0..60).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = Site::parse("s.toml", &bytes);
        let _ = super::prefixes::parse("p", &bytes);
    }

    #[test]
    fn no_pieces_panic(text in pieces()) {
        let _ = Site::parse("s.toml", text.as_bytes());
        let _ = Site::parse("s.toml", format!("schema = 1\n{text}").as_bytes());
    }
}

/// Every list that chooses or narrows something, empty: it could mean nothing, or everything.
#[test]
fn an_empty_list_is_an_error_where_it_could_mean_all() {
    let row = "[[row]]\nname = \"r\"\ndirection = \"in\"\ntransport = \"tcp\"\nports = [1]\npeers = \"any\"\nreason = \"x\"\n";
    let host = "[[host]]\nname = \"h\"\naddresses = [\"10.0.0.1\"]\nroles = [\"a/b\"]\n";
    let system = "[systems.a]\n";
    let cases = [
        ("", "unprinted_peers = []"),
        ("", "unprinted_peers = { monitoring = [] }"),
        ("[baseline]\n", "dns = []"),
        ("[groups]\n", "g = []"),
        (system, "cluster = []"),
        (system, "offsets = { b = [] }"),
        (system, "peers = { g = [] }"),
        (system, "ports = { r = [] }"),
        (system, "ports = { r = { \"1\" = [] } }"),
        (system, "rows = { r = { only = [] } }"),
        (row, "hosts = []"),
        (row, "roles = []"),
        (host, "cluster = []"),
        (host, "interfaces = { eth0 = { roles = [] } }"),
        (host, "interfaces = { eth0 = { rows = [] } }"),
        (
            "[[row]]\nname = \"r\"\ndirection = \"in\"\nports = [1]\npeers = \"any\"\nreason = \"x\"\n",
            "transport = []",
        ),
        (
            "[[row]]\nname = \"r\"\ndirection = \"in\"\ntransport = \"tcp\"\npeers = \"any\"\nreason = \"x\"\n",
            "ports = []",
        ),
        (
            "[[row]]\nname = \"r\"\ndirection = \"in\"\ntransport = \"tcp\"\nports = [1]\nreason = \"x\"\n",
            "peers = []",
        ),
    ];
    for (table, line) in cases {
        let text = format!("schema = 1\n{table}{line}\n");
        let reported = messages(&text);
        assert!(reported.contains("error[empty-"), "{text}: {reported}");
        assert_eq!(
            reported.matches(": error[").count(),
            1,
            "{text}: {reported}"
        );
    }
}
