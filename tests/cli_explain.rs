//! `explain`, `export` and `diff` through the built command.
#![cfg(test)]

use std::path::PathBuf;
use std::process::{Command, Output};

use portguard_harness::frames::{Frame, Ipv4, Tcp};

const SITE: &str = "schema = 1\nmode = \"enforce\"\nunprinted_peers = \"any\"\nunresolved_peers = \"any\"\nunresolved_ports = \"none\"\n\
    [management]\nallow = [\"tcp/2222=admins\"]\n[groups]\nadmins = [\"10.1.0.0/16\"]\n\
    [systems.thoughtspot]\nversion = \"9.8\"\nchoices = { directory-port = \"636\", mail-port = \"587\" }\n\
    [[row]]\nname = \"backup\"\ndirection = \"in\"\ntransport = \"tcp\"\nports = [9999]\npeers = [\"192.0.2.0/24\"]\nreason = \"nightly\"\n\
    [[host]]\nname = \"a\"\naddresses = [\"10.9.0.1\"]\nroles = [\"thoughtspot/node\"]\n\
    [[host]]\nname = \"b\"\naddresses = [\"10.9.0.2\"]\nroles = [\"thoughtspot/node\"]\n";

/// A file that is gone when the test is.
struct Temporary(PathBuf);

impl Temporary {
    fn new(content: &[u8]) -> Self {
        let name = portguard_harness::net::unique_name("pgx");
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, content).unwrap();
        Self(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // Best effort: it is only a file among the temporary ones.
        let _ = std::fs::remove_file(&self.0);
    }
}

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_portguard"))
        .args(arguments)
        .env_remove("PORTGUARD_CONFIG")
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn json(output: &Output) -> serde_json::Value {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}{}", text(&output.stdout), text(&output.stderr)))
}

fn explain(site: &Temporary, words: &[&str]) -> (Option<i32>, serde_json::Value) {
    let mut arguments = vec!["explain", "-c", site.path(), "--host", "a", "--json"];
    arguments.extend(words);
    let output = run(&arguments);
    (output.status.code(), json(&output))
}

/// Where interfaces differ, no verdict is right for all of them.
#[test]
fn each_interface_has_its_verdict() {
    let own =
        "addresses = [\"10.9.0.1\"]\ninterfaces = { eth0 = {}, eth1 = { mode = \"audit\" } }\n";
    let site = SITE.replacen("addresses = [\"10.9.0.1\"]\n", own, 1);
    let site = Temporary::new(site.as_bytes());
    let packet = ["tcp", "198.51.100.1", "9998"];
    let base = ["explain", "-c", site.path(), "--host", "a"];
    let said = run(&[&base[..], &packet].concat());
    let shown = text(&said.stdout);
    assert_eq!(said.status.code(), Some(1), "{shown}{}", text(&said.stderr));
    let (eth0, eth1) = shown.split_once("eth1:\n").unwrap();
    assert!(eth0.starts_with("eth0:\n"), "{shown}");
    assert!(!eth0.contains("not dropped"), "{shown}");
    assert!(eth1.contains("audit: counted, not dropped"), "{shown}");
    // One document has one verdict.
    let json = [&base[..], &["--json"], &packet].concat();
    let refused = run(&json);
    assert_eq!(refused.status.code(), Some(2));
    let why = text(&refused.stderr);
    assert!(why.contains("`--interface`: eth0, eth1"), "{why}");
    let one = run(&[&json[..], &["--interface", "eth1"]].concat());
    assert_eq!(one.status.code(), Some(1), "{}", text(&one.stderr));
    // Where they do not differ, there is one.
    let alike = SITE.replacen(
        "addresses = [\"10.9.0.1\"]\n",
        "addresses = [\"10.9.0.1\"]\ninterfaces = { eth0 = {}, eth1 = {} }\n",
        1,
    );
    let alike = Temporary::new(alike.as_bytes());
    let base = ["explain", "-c", alike.path(), "--host", "a"];
    let said = run(&[&base[..], &packet].concat());
    assert!(
        !text(&said.stdout).contains("eth1"),
        "{}",
        text(&said.stdout)
    );
}

#[test]
fn tuples_are_explained_by_row_and_exit_code() {
    let site = Temporary::new(SITE.as_bytes());
    let (code, answer) = explain(&site, &["tcp", "10.1.2.3", "2222"]);
    assert_eq!(code, Some(0));
    assert_eq!(answer["schema"], 1);
    assert_eq!(answer["verdict"], "pass");
    assert_eq!(answer["reason"], "management");
    assert_eq!(answer["rows"], serde_json::json!(["management/tcp-2222"]));
    assert_eq!(answer["mode"], "enforce");

    let (code, answer) = explain(&site, &["--in", "tcp", "198.51.100.1", "9999"]);
    assert_eq!(code, Some(1));
    assert_eq!(answer["verdict"], "drop");
    assert_eq!(answer["reason"], "undocumented-peer");
    assert_eq!(answer["rows"], serde_json::json!([]));
    assert_eq!(answer["nearest"][0]["kind"], "same-port-other-peer");
    assert_eq!(answer["nearest"][0]["row"], "site/backup");

    let (code, answer) = explain(&site, &["--out", "udp", "198.51.100.1", "53"]);
    assert_eq!(
        (code, answer["reason"].as_str()),
        (Some(0), Some("baseline"))
    );
    assert_eq!(answer["mode"], "audit");
    let (code, answer) = explain(&site, &["47", "198.51.100.1"]);
    assert_eq!(
        (code, answer["reason"].as_str()),
        (Some(1), Some("undocumented-protocol"))
    );
    let (code, answer) = explain(&site, &["icmp", "2001:db8::1"]);
    assert_eq!(
        (code, answer["reason"].as_str()),
        (Some(0), Some("icmp-echo"))
    );
}

#[test]
fn wrong_packets_are_usage_errors() {
    let site = Temporary::new(SITE.as_bytes());
    let base = ["explain", "-c", site.path(), "--host", "a"];
    for (words, message) in [
        (&["tcp", "10.0.0.1"][..], "which port?"),
        (&["http", "10.0.0.1", "80"], "`http` is not a protocol"),
        (&["icmp", "10.0.0.1", "300"], "300 is not an ICMP type"),
        (&["47", "10.0.0.1", "80"], "protocol 47 has no ports"),
        (&["--frame", "abc"], "an odd number of hexadecimal digits"),
        (
            &["--pcap", "/does/not/exist"],
            "cannot open /does/not/exist",
        ),
        (&["--pcap", site.path()], "not a valid pcap or pcapng file"),
    ] {
        let output = run(&[&base, words].concat());
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{words:?}: {stderr}");
        assert!(stderr.contains(message), "{words:?}: {stderr}");
        assert_eq!(text(&output.stdout), "", "{words:?}");
    }
}

fn syn(source: [u8; 4], port: u16) -> Vec<u8> {
    Frame::new([2; 6], [4; 6])
        .ipv4(Ipv4::new(source.into(), [10, 9, 0, 1].into()))
        .tcp(Tcp::syn(40_000, port))
        .payload(vec![0; 40])
        .build()
}

fn pcap(frames: &[Vec<u8>], snap: usize) -> Vec<u8> {
    let mut out = Vec::new();
    for word in [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 65_535, 1] {
        out.extend_from_slice(&word.to_le_bytes());
    }
    for frame in frames {
        let kept = &frame[..frame.len().min(snap)];
        for word in [0, 0, kept.len(), frame.len()] {
            out.extend_from_slice(&u32::try_from(word).unwrap().to_le_bytes());
        }
        out.extend_from_slice(kept);
    }
    out
}

fn pcapng(frames: &[Vec<u8>]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut block = |kind: u32, body: &[u8]| {
        let length = u32::try_from(12 + body.len()).unwrap();
        out.extend_from_slice(&kind.to_le_bytes());
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(body);
        out.extend_from_slice(&length.to_le_bytes());
    };
    let mut section = 0x1a2b_3c4d_u32.to_le_bytes().to_vec();
    section.extend_from_slice(&[1, 0, 0, 0]);
    section.extend_from_slice(&u64::MAX.to_le_bytes());
    block(0x0a0d_0d0a, &section);
    block(1, &[1, 0, 0, 0, 0, 0, 0, 0]);
    for frame in frames {
        let mut body = vec![0; 12];
        for _ in 0..2 {
            body.extend_from_slice(&u32::try_from(frame.len()).unwrap().to_le_bytes());
        }
        body.extend_from_slice(frame);
        body.resize(body.len().next_multiple_of(4), 0);
        block(6, &body);
    }
    out
}

#[test]
fn frames_and_captures_are_judged_one_by_one() {
    let site = Temporary::new(SITE.as_bytes());
    let frames = vec![
        syn([10, 1, 0, 1], 2222),
        syn([10, 2, 0, 1], 2222),
        syn([192, 0, 2, 9], 9999),
        vec![0; 9],
    ];
    let hex = format!("{:02x?}", frames[0]).replace(['[', ']', ','], "");
    let (code, answer) = explain(&site, &["--frame", &hex]);
    assert_eq!(
        (code, answer["reason"].as_str()),
        (Some(0), Some("management"))
    );

    for file in [pcap(&frames, 70), pcapng(&frames)] {
        let file = Temporary::new(&file);
        let output = run(&[
            "explain",
            "-c",
            site.path(),
            "--host",
            "a",
            "--json",
            "--pcap",
            file.path(),
        ]);
        assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
        let lines: Vec<serde_json::Value> = text(&output.stdout)
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let reasons: Vec<_> = lines[..4]
            .iter()
            .map(|l| l["reason"].as_str().unwrap())
            .collect();
        assert_eq!(
            reasons,
            ["management", "undocumented-peer", "site", "malformed"]
        );
        assert_eq!(lines[2]["rows"], serde_json::json!(["site/backup"]));
        assert_eq!(lines[3]["cause"], "truncated");
        assert_eq!(lines[4]["summary"].as_array().unwrap().len(), 4);
        assert!(lines.iter().all(|line| line["schema"] == 1));
    }
    // Of a file that ends within a frame, those before it are judged, and what is missing is said.
    for whole in [pcap(&frames[..2], 70), pcapng(&frames[..2])] {
        let file = Temporary::new(&whole[..whole.len() - 5]);
        let words = ["explain", "-c", site.path(), "--host", "a", "--pcap"];
        let output = run(&[&words[..], &[file.path()]].concat());
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        assert!(
            out.contains("management") && !out.contains("undocumented"),
            "{out}"
        );
        assert!(err.contains("ends within a frame"), "{err}");
    }
    // Cut behind its headers, a frame is judged as if whole; cut before or within the header, it is not judged.
    for (snap, wanted) in [(60, Some("management")), (30, None)] {
        let file = Temporary::new(&pcap(&frames[..1], snap));
        let output = run(&[
            "explain",
            "-c",
            site.path(),
            "--host",
            "a",
            "--json",
            "--pcap",
            file.path(),
        ]);
        let first = text(&output.stdout);
        let line: serde_json::Value = serde_json::from_str(first.lines().next().unwrap()).unwrap();
        assert_eq!(line["reason"].as_str(), wanted, "{line}");
        assert_eq!(line.get("error").is_some(), wanted.is_none());
    }
}

#[test]
fn two_site_files_are_compared() {
    let before = Temporary::new(SITE.as_bytes());
    let changed = SITE
        .replace("192.0.2.0/24", "192.0.2.0/25")
        .replace("tcp/2222=admins", "tcp/2222=any");
    let after = Temporary::new(changed.as_bytes());
    let run = |a: &Temporary, b: &Temporary| {
        run(&[
            "diff",
            "--host",
            "a",
            "--json",
            "--between",
            a.path(),
            b.path(),
        ])
    };
    let output = run(&before, &before);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(json(&output)["same"], true);
    let output = run(&before, &after);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    let found = &json(&output)["comparisons"][0];
    assert_eq!(found["opened"][0]["what"], "tcp/2222");
    assert_eq!(found["opened"][0]["peers"], serde_json::json!(["any"]));
    assert_eq!(
        found["opened"][0]["except"],
        serde_json::json!(["10.1.0.0/16"])
    );
    assert_eq!(found["closed"][0]["what"], "tcp/9999");
    assert_eq!(
        found["closed"][0]["peers"],
        serde_json::json!(["192.0.2.128/25"])
    );
    assert_eq!(found["rows"].as_array().unwrap().len(), 2);
}

#[test]
fn both_formats_are_exported() {
    let site = Temporary::new(SITE.as_bytes());
    let export = |format: &str| {
        run(&[
            "export",
            "-c",
            site.path(),
            "--host",
            "a",
            "--format",
            format,
        ])
    };
    let nft = export("nftables");
    assert_eq!(nft.status.code(), Some(0), "{}", text(&nft.stderr));
    let rules = text(&nft.stdout);
    assert!(rules.contains("counter in/site/backup {}"), "{rules}");
    assert!(rules.contains("9999 : goto in_tcp_9999"), "{rules}");
    let document = json(&export("json"));
    assert_eq!(document["schema"], 1);
    assert_eq!(document["policy"]["host"], "a");
}

/// What is no file beside the site is not read: no pipe, no device, nothing elsewhere, whose words would be in a message.
#[test]
fn only_regular_files_beside_the_site_are_read() -> anyhow::Result<()> {
    let directory = std::env::temp_dir().join(format!("portguard-files-{}", std::process::id()));
    std::fs::create_dir_all(directory.join("site/below"))?;
    let pipe = directory.join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU)?;
    std::fs::write(directory.join("secret"), "hidden words\n")?;
    std::os::unix::fs::symlink(directory.join("secret"), directory.join("site/link"))?;
    std::fs::write(directory.join("site/below/list"), "192.0.2.0/24\n")?;
    let site = directory.join("site/site.toml");
    let check = |path: &std::path::Path| -> anyhow::Result<Output> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_portguard"));
        command.args(["check", "--role", "thoughtspot/node", "-c"]);
        Ok(command.arg(path).output()?)
    };
    for path in [&pipe, std::path::Path::new("/dev/zero"), &directory] {
        let output = check(path)?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains("not a regular file"), "{said}");
    }
    let secret = directory.join("secret").display().to_string();
    for (list, is_read) in [
        ("below/list", true),
        ("../secret", false),
        ("below/../../secret", false),
        ("link", false),
        (secret.as_str(), false),
    ] {
        let text = format!(
            "schema = 1\nunprinted_peers = [\"file:{list}\"]\nunresolved_peers = \"any\"\n"
        );
        std::fs::write(&site, text)?;
        let output = check(&site)?;
        let said = format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        assert!(!said.contains("hidden"), "{list}: {said}");
        assert_eq!(
            said.contains("outside the directory"),
            !is_read,
            "{list}: {said}"
        );
    }
    std::fs::remove_dir_all(directory)?;
    Ok(())
}
