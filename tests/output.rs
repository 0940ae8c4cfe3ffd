//! What every verb prints: JSON as `docs/json.md` says, and text that ends in one newline and counts in good English.

mod complete;
mod events;
mod live;
pub(crate) mod page;
mod reading;
mod refusals;
mod scene;
mod site;
mod text;
mod verbs;

use anyhow::{Context as _, Result, ensure};
use portguard_harness::net::Output;
use serde_json::Value;

use crate::guard::eventually;

use self::page::Page;
use self::scene::Scene;

/// Verbs that need no guard: how they are called, by what section of the page.
const OFFLINE: &[(&str, &str)] = &[
    ("catalog list", "catalog list"),
    ("catalog show", "catalog show wso2"),
    ("catalog show", "catalog show nexthink/portal"),
    ("catalog show", "catalog show thoughtspot"),
    ("catalog show", "catalog show ibm-api-connect"),
    ("catalog show", "catalog show interlink-asi"),
    ("catalog verify", "catalog verify"),
    ("catalog verify", "catalog verify wrong-matrix.toml"),
    ("check", "check -c site.toml --host left"),
    ("check", "check --role thoughtspot/node"),
    (
        "explain",
        "explain -c site.toml --host left tcp right https",
    ),
    (
        "explain",
        "explain -c site.toml --host left tcp 192.0.2.77 9443",
    ),
    (
        "explain",
        "explain -c site.toml --host left tcp 192.0.2.77 8080",
    ),
    ("explain", "explain -c site.toml --host left icmp right"),
    (
        "explain",
        "explain -c site.toml --host left --out tcp right https --from-port 40000",
    ),
    ("explain", "explain -c site.toml --host left --frame 0011"),
    (
        "explain --pcap",
        "explain -c site.toml --host left --pcap two.pcap",
    ),
    ("diff", "diff --between site.toml other.toml --host left"),
    ("export", "export -c site.toml --host left"),
    (
        "export --format nftables",
        "export -c site.toml --host left --format nftables",
    ),
    ("init", "init --role wso2/api-manager"),
    ("setup", "setup --dry-run --role thoughtspot/node"),
    ("schema", "schema"),
    ("completions", "completions bash"),
    ("man", "man"),
    ("man", "man --out pages"),
    ("doctor", "doctor"),
];

/// Those that look at the guard, and those that change it, in this order.
const GUARDED: &[(&str, &str)] = &[
    ("status", "status"),
    ("counters", "counters"),
    ("counters", "counters --by row"),
    ("counters", "counters --by reason"),
    ("counters", "counters --by peer"),
    ("counters", "counters --violations --top 2"),
    ("flows", "flows"),
    ("flows", "flows --live udp 10.77.0.1:40053 10.77.0.2:53"),
    ("flows", "flows --live tcp 10.77.0.1:40000 10.77.0.2:443"),
    ("drift", "drift"),
    ("drift", "drift -c site.toml --host right"),
    ("drift", "drift -c other.toml --host left"),
    ("report", "report"),
    ("diff", "diff -c other.toml --host left"),
    ("explain", "explain --running IF tcp 10.77.0.2 9443"),
    ("load", "load -c site.toml --dry-run"),
    (
        "promote",
        "promote -c site.toml --window 1s --accept scan --because tested",
    ),
    ("promote", "promote -c other.toml --dry-run"),
    ("counters reset", "counters reset --note test"),
    ("counters reset", "counters reset --list"),
    ("status", "status"),
    ("counters", "counters"),
    ("drift", "drift"),
    ("report", "report"),
    (
        "load",
        "load -c site.toml --enforce --force --confirm-within 60s",
    ),
    ("status", "status"),
    ("counters", "counters --by reason"),
    ("confirm", "confirm"),
    ("confirm", "confirm"),
    ("rollback", "rollback"),
    ("unload", "unload --stay-off"),
    ("status", "status"),
    ("load", "load --last-good --interface IF --switch-on"),
    ("unload", "unload"),
    ("unload", "unload --stale"),
];

/// What is wrong, each in its way.
const REFUSED: &[&str] = &[
    "status --nonsense",
    "check -c nowhere.toml",
    "check -c wrong.toml",
    "check --role thoughtspot/nod",
    "check --role thoughtspot/node --option foo",
    "check --role wso2/api-manager --offset wso2/api-manager=70000",
    "explain -c site.toml --host left tcp rigth 443",
    "explain -c site.toml --host left tcp right htps",
    "counters --interface none0",
    "confirm",
    "rollback",
    "diff",
    "drift",
    "promote -c site.toml",
    "load -c site.toml --interface none0",
    "load -c wrong.toml",
    "load --role thoughtspot/node --enforce",
    "setup --role thoughtspot/node --output site.toml --yes",
    "bench",
    "flows --live tcp a b",
    "catalog show nothing",
    "export --format nftables --role nothing/here",
];

/// Fields of the page that no host in a namespace can show, and why.
const NOT_SHOWN: [(&str, &str, &str); 27] = [
    (
        "`setup`",
        "proposals[].rivals[]",
        "two roles listen on the same ports",
    ),
    ("`setup`", "left[]", "the host has other interfaces"),
    ("`setup`", "units[]", "systemd runs"),
    ("`setup`", "peers[]", "a peer is connected"),
    ("`setup`", "peers[].peer", "a peer is connected"),
    ("`setup`", "peers[].addresses[]", "a peer is connected"),
    ("`setup`", "peers[].ports[]", "a peer is connected"),
    (
        "`setup`",
        "proposals[].packages[]",
        "packages of a vendor are installed",
    ),
    (
        "`setup`",
        "proposals[].processes[]",
        "programs of a vendor run",
    ),
    (
        "`setup`",
        "proposals[].beside",
        "several programs of a vendor run",
    ),
    (
        "finding",
        "left_out[]",
        "a row of the host's roles opens nothing here",
    ),
    (
        "talker",
        "last_address",
        "many addresses of one network do the same",
    ),
    (
        "`status`",
        "moved_here[]",
        "an interface came from another network namespace with its guard",
    ),
    ("`unload`", "comes_back[]", "systemd has an enabled unit"),
    ("`unload`", "removed[]", "an interface went for good"),
    (
        "`promote`",
        "interfaces[].flows[].source_port",
        "a sample has answers from elsewhere in it",
    ),
    ("listener", "processes[].unit", "a unit of systemd listens"),
    (
        "`confirm`",
        "failed[]",
        "several interfaces are guarded, and it fails on one",
    ),
    (
        "`confirm`",
        "failed[].name",
        "several interfaces are guarded, and it fails on one",
    ),
    (
        "`confirm`",
        "failed[].message",
        "several interfaces are guarded, and it fails on one",
    ),
    (
        "`confirm`",
        "failed[].hint",
        "several interfaces are guarded, and it fails on one",
    ),
    (
        "`rollback`",
        "failed[]",
        "several interfaces are guarded, and it fails on one",
    ),
    (
        "`rollback`",
        "failed[].name",
        "several interfaces are guarded, and it fails on one",
    ),
    (
        "`rollback`",
        "failed[].message",
        "several interfaces are guarded, and it fails on one",
    ),
    (
        "`rollback`",
        "failed[].hint",
        "several interfaces are guarded, and it fails on one",
    ),
    (
        "`rollback`",
        "gone[]",
        "several interfaces are guarded, and one has gone",
    ),
    (
        "`promote`",
        "site_lines[]",
        "the site file says something else than the command line",
    ),
];

fn words<'w>(line: &'w str, interface: &'w str) -> Vec<&'w str> {
    let words = line.split(' ');
    words
        .map(|word| if word == "IF" { interface } else { word })
        .collect()
}

/// Each line that is a document.
fn documents(text: &str) -> Result<Vec<Value>> {
    let all = serde_json::Deserializer::from_str(text).into_iter();
    all.map(|one| one.with_context(|| text.to_owned()))
        .collect()
}

#[test]
fn json_is_as_its_page_says() -> Result<()> {
    let scene = scene()?;
    let mut page = Page::read(|verb| !verb.starts_with("fleet "))?;
    let mut tell = |verb: &str, output: &Output| -> Result<()> {
        let all = documents(&output.stdout).with_context(|| format!("{verb}: {output}"))?;
        ensure!(!all.is_empty(), "{verb} prints no JSON: {output}");
        for one in all {
            // An error has the same form whichever verb it is of.
            let is_error = one["error"].is_object() && verb != "explain --pcap";
            page.compare(if is_error { "errors" } else { verb }, &one);
        }
        Ok(())
    };
    let as_json = |line: &str| -> Result<Output> {
        let mut args = words(line, scene.guarded.interface());
        args.push("--json");
        scene.run(&args, None)
    };
    for (verb, line) in OFFLINE {
        tell(verb, &as_json(line)?)?;
    }
    for line in REFUSED {
        // A matrix that cannot be loaded is shown all the same.
        let verb = line.split(' ').next().unwrap_or_default();
        tell(verb, &as_json(line)?)?;
    }
    scene.run(&["load", "-c", "site.toml"], None)?.success()?;
    scene.run(&["load", "-c", "site.toml"], None)?.success()?;
    tell("events", &scene.events()?)?;
    scene.settled()?;
    tell("doctor", &as_json("doctor --interface IF")?)?;
    let asked = scene.shell(
        "SSH_CONNECTION='192.0.2.200 50000 10.77.0.1 22' $P setup --yes --json --replace --role interlink-asi/asi \
         --deployment interlink-asi=clustered --output again.toml",
    )?;
    tell("setup", &asked)?;
    scene
        .run(
            &["load", "-c", "site.toml", "--audit", "--allow-weaker"],
            None,
        )?
        .success()?;
    tell("bench", &as_json("bench --rounds 1")?)?;
    tell(
        "counters",
        &scene.shell("$P counters --watch --json | head -n 2")?,
    )?;
    tell("counters", &scene.shell("$P top --json | head -n 1")?)?;
    for (verb, line) in GUARDED {
        tell(verb, &as_json(line)?)?;
    }
    // Nothing was seen that speaks against it, nor is anything on record.
    std::fs::remove_dir_all(scene.path("state"))?;
    scene.run(&["load", "-c", "site.toml"], None)?.success()?;
    let promote = "promote -c site.toml --window 0s --min-packets 0 --force --confirm-within 60s";
    tell("promote", &as_json(promote)?.success()?)?;
    as_json("unload")?;
    // A policy that nobody confirms gives way: what is in force is not what it says.
    scene.run(&["load", "-c", "site.toml"], None)?.success()?;
    let short = [
        "load",
        "-c",
        "site.toml",
        "--enforce",
        "--force",
        "--confirm-within",
        "1s",
        "--json",
    ];
    tell("load", &scene.run(&short, None)?)?;
    eventually("it gives way", || {
        let status = scene.run(&["status", "--json"], None)?;
        Ok(status.stdout.contains("\"because\""))
    })?;
    for verb in ["status", "counters", "report", "drift"] {
        tell(verb, &as_json(verb)?)?;
    }
    page.agree(&NOT_SHOWN)
}

fn scene() -> Result<Scene> {
    let scene = Scene::new()?;
    scene.capture()?;
    let site = std::fs::read_to_string(scene.path("site.toml"))?;
    let other = site
        .replace("ports = [9102]", "ports = [9103]")
        .replace("tcp/9443=192.0.2.0/28", "tcp/9443=admins")
        .replace("schema = 1\n", "schema = 1\nstrict_ethertypes = true\n")
        .replace("smtp-relay = \"any\"", "smtp-relay = [\"192.0.2.25\"]")
        .replacen(
            "[[row]]",
            "[systems.thoughtspot.rows]\nintracluster-443 = { off = true, reason = \"a test\" }\n\
             support-443 = { off = true, reason = \"a test\" }\n[[row]]",
            1,
        );
    std::fs::write(scene.path("other.toml"), other)?;
    Ok(scene)
}
