//! What the loader says about mistakes, to the letter, and where.

use super::{AFTER_HEAD, HEAD, ROW, errors};
use crate::catalog::{MAX_FILE_BYTES, load_bytes};

/// What is said about `ROW` with one line replaced, with the place relative to the row.
fn row_errors(line: &str, replacement: &str) -> Vec<String> {
    assert!(ROW.contains(line), "{line}");
    let head_lines = HEAD.lines().count();
    assert_eq!(head_lines + 1, AFTER_HEAD);
    let text = format!("{HEAD}{}", ROW.replace(line, replacement));
    let shift = |error: String| {
        let mut parts = error.splitn(3, ':');
        let (_, number, rest) = (parts.next(), parts.next().unwrap(), parts.next().unwrap());
        format!("{}:{rest}", number.parse::<usize>().unwrap() - head_lines)
    };
    errors(&text).into_iter().map(shift).collect()
}

#[test]
fn every_line_of_a_bad_file_is_reported_at_its_place() {
    let text =
        format!("{HEAD}{ROW}").replace("read = \"2026-11-21\"", "read = \"today\"\nnmae = 1");
    let text = text
        .replace("ports = [443]", "port = [443]")
        .replace("\"tcp\"", "\"tpc\"");
    assert_eq!(
        errors(&text),
        [
            "shop.toml:6:8: error[bad-day]: `today` is not a date\n  hint: write `YYYY-MM-DD`",
            "shop.toml:7:1: error[unknown-key]: unknown key `nmae`\n  hint: did you mean `name`?",
            "shop.toml:27:1: error[no-port]: the row has no port\n  hint: a rule without a number is written `ports = []` and `inert = \"no-number\"`",
            "shop.toml:31:13: error[unknown-name]: unknown transport `tpc`\n  hint: did you mean `tcp`?",
            "shop.toml:32:1: error[unknown-key]: unknown key `port`\n  hint: did you mean `ports`?",
        ]
    );
}

#[test]
fn wrong_cells_are_reported_at_the_cell() {
    let cases = [
        (
            "id = \"web\"",
            "id = \"Web App\"",
            "2:6: error[bad-id]: `Web App` is not a kebab-case id\n  hint: write lower case letters and digits, in words joined by single hyphens",
        ),
        (
            "id = \"web\"",
            "id = 7",
            "2:6: error[wrong-type]: expected a string, found an integer",
        ),
        (
            "id = \"web\"\n",
            "",
            "1:1: error[missing-key]: `id` is missing",
        ),
        (
            "role = \"server\"",
            "role = \"sever\"",
            "3:8: error[unknown-name]: unknown role `sever`\n  hint: did you mean `server`?",
        ),
        (
            "direction = \"in\"",
            "direction = \"inbound\"",
            "4:13: error[unknown-name]: unknown direction `inbound`\n  hint: known: `in`, `out`, `both`",
        ),
        (
            "[443]",
            "[80, 70000]",
            "6:14: error[port-out-of-range]: port `70000` is not between 1 and 65535",
        ),
        (
            "[443]",
            "[\"90-80\"]",
            "6:10: error[reversed-range]: the range `90-80` is reversed\n  hint: write `80-90`",
        ),
        (
            "[443]",
            "[443, \"443\"]",
            "6:15: error[duplicate-entry]: `443` is listed twice",
        ),
        (
            "[443]",
            "[443.5]",
            "6:10: error[wrong-type]: expected a string, found a float",
        ),
        (
            "[443]",
            "[\"1+offset(database)\"]",
            "6:10: error[no-offset]: role `database` has no port offset\n  hint: write `offset = true` in `[roles.database]`",
        ),
        (
            "\"group:users\"",
            "\"group:user\"",
            "7:10: error[unknown-name]: unknown group `user`\n  hint: did you mean `users`?",
        ),
        (
            "\"group:users\"",
            "\"role:web\"",
            "7:10: error[unknown-name]: unknown role `web`\n  hint: known: `database`, `host`, `server`",
        ),
        (
            "\"group:users\"",
            "\"prefix:10.0.0.0/99\"",
            "7:10: error[bad-prefix]: `10.0.0.0/99` is neither an address nor a prefix\n  hint: write an address, or a prefix such as `192.0.2.0/24`",
        ),
        (
            "[\"group:users\"]",
            "[]",
            "1:1: error[no-peer]: the row has nothing in `peers`\n  hint: where the document prints no peer, write `unprinted`",
        ),
        (
            "\"web\"\ncite",
            "\" \"\ncite",
            "8:11: error[empty-text]: this text is empty",
        ),
        (
            "\"web\"\ncite",
            "\"a\\u001b[2J\"\ncite",
            "8:11: error[control-character]: this text has control characters\n  hint: write it as one line of printable text",
        ),
        (
            "row = \"443\"",
            "raw = \"443\"",
            "9:8: error[missing-key]: `row` is missing",
        ),
    ];
    for (line, replacement, expected) in cases {
        let found = row_errors(line, replacement);
        assert!(
            found.iter().any(|error| error == expected),
            "{expected}\nin {found:#?}"
        );
    }
}

#[test]
fn conditions_and_picks_refer_to_the_head() {
    let cases = [
        (
            "when = { deployment = \"singel\" }",
            "10:23: error[unknown-name]: unknown deployment `singel`\n  hint: did you mean `single`?",
        ),
        (
            "when = { option = [\"metric\"] }",
            "10:20: error[unknown-name]: unknown option `metric`\n  hint: did you mean `metrics`?",
        ),
        (
            "when = { option = \"metrics\", without = \"metrics\" }",
            "10:8: error[impossible-condition]: option `metrics` must be both on and off",
        ),
        (
            "when = { choice = { mial = \"25\" } }",
            "10:21: error[unknown-name]: unknown choice `mial`\n  hint: did you mean `mail`?",
        ),
        (
            "when = { choice = { mail = \"26\" } }",
            "10:28: error[unknown-name]: unknown value of choice `mail`: `26`\n  hint: did you mean `25`?",
        ),
        (
            "when = { version = \"4.5\" }",
            "10:20: error[bad-version]: `4.5` is not a version comparison\n  hint: write `>=4.5.1`, `<5`, or several with commas between",
        ),
        (
            "pick = \"mial\"",
            "10:8: error[unknown-name]: unknown choice `mial`\n  hint: did you mean `mail`?",
        ),
        (
            "pick = \"mail\"",
            "10:8: error[pick-mismatch]: choice `mail` picks one of 25, 587, the row has 443\n  hint: the values of the choice are the ports of the row, as text",
        ),
        (
            "inert = \"no-number\"",
            "1:1: error[bad-inert]: the row is `inert = \"no-number\"` and has ports\n  hint: remove one of the two",
        ),
        (
            "inert = \"ipmi\"",
            "10:9: error[unknown-name]: unknown `inert` `ipmi`\n  hint: known: `out-of-band`, `loopback`, `other-device`, `no-number`",
        ),
    ];
    for (line, expected) in cases {
        let cite = "cite = { section = \"Ports\", row = \"443\" }\n";
        assert_eq!(row_errors(cite, &format!("{cite}{line}\n")), [expected]);
    }
}

#[test]
fn the_head_is_checked() {
    let replaced = |from: &str, to: &str| {
        assert!(HEAD.contains(from), "{from}");
        errors(&format!("{}{ROW}", HEAD.replacen(from, to, 1)))
    };
    assert_eq!(
        replaced("schema = 1", "schema = 2"),
        [
            "shop.toml:1:10: error[unknown-schema]: schema 2 is unknown to this version\n  hint: this version reads `schema = 1`"
        ]
    );
    assert_eq!(
        replaced("\"shop\"", "\"Shop\""),
        [
            "shop.toml:2:10: error[bad-id]: `Shop` is not a kebab-case id\n  hint: write lower case letters and digits, in words joined by single hyphens"
        ]
    );
    assert_eq!(
        replaced("includes = [\"host\"]", "includes = [\"hots\"]"),
        ["shop.toml:19:13: error[unknown-name]: unknown role `hots`\n  hint: did you mean `host`?"]
    );
    assert_eq!(
        replaced("abstract = true", "includes = [\"server\"]"),
        [
            "shop.toml:23:13: error[include-cycle]: role `host` includes itself: host > server > host"
        ]
    );
    assert_eq!(
        replaced(", 587 = \"secure SMTP\"", ""),
        ["shop.toml:12:10: error[no-alternatives]: choice `mail` has fewer than two values"]
    );
    assert_eq!(
        errors(HEAD),
        ["shop.toml:1:1: error[no-row]: the file has no rows and no flows"]
    );
    assert_eq!(
        errors("system = = 1"),
        [
            "shop.toml:1:10: error[syntax]: extra `=`",
            "shop.toml:1:12: error[syntax]: unexpected key or value, expected newline, `#`"
        ]
    );
}

#[test]
fn row_ids_are_unique() {
    let found = errors(&format!("{HEAD}{ROW}{ROW}"));
    assert_eq!(
        found,
        [
            "shop.toml:36:6: error[duplicate-id]: the row id `web` is taken\n  hint: it is first used at shop.toml:27"
        ]
    );
}

#[test]
fn files_that_are_no_text_or_too_large_are_refused() {
    let said = |bytes: &[u8]| load_bytes("f", bytes).unwrap_err().to_string();
    assert_eq!(
        said(b"a = 1\nb\xff"),
        "f:2:2: error[invalid-utf8]: the file is not UTF-8 text\n  hint: save the file in UTF-8"
    );
    assert_eq!(
        said(&vec![b'#'; MAX_FILE_BYTES + 1]),
        "f: error[file-too-large]: the file is larger than 4 MiB"
    );
    assert!(!said(&vec![b'#'; MAX_FILE_BYTES]).contains("large"));
}

#[test]
fn a_flood_of_errors_is_cut() {
    let text = format!("{HEAD}{}", "[[row]]\n".repeat(200));
    let found = errors(&text);
    assert_eq!(found.len(), 101);
    assert!(
        found[100].contains("more errors are not shown"),
        "{}",
        found[100]
    );
}

#[test]
fn judgements_are_of_known_kinds_that_rows_have() {
    let with = |judgement: &str| errors(&format!("{HEAD}[judgements]\n{judgement}\n{ROW}"));
    let line = AFTER_HEAD + 1;
    assert_eq!(
        with("inferred-direction = \"why\""),
        [format!(
            "shop.toml:{line}:1: error[no-effect]: no row has the kind `inferred-direction`\n  hint: remove the judgement"
        )]
    );
    assert_eq!(
        with("inferred-transports = \"why\""),
        [format!(
            "shop.toml:{line}:1: error[unknown-name]: unknown kind of rows `inferred-transports`\n  hint: did you mean `inferred-transport`?"
        )]
    );
}

#[test]
fn a_device_or_a_pipe_is_no_catalog() {
    let error = crate::catalog::read_file(std::path::Path::new("/dev/null")).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the catalog `/dev/null` is not a regular file"
    );
}
