//! What verbs print with `--json`.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};
use portguard_harness::traffic::exchange_udp;
use serde_json::Value;

use super::Fleet;
use crate::guard::{SHORT, eventually};
use crate::output::page::Page;

/// Needs a server that runs on its own: `cargo xtask demo --fleet` calls it.
const NOT_SHOWN: [(&str, &str, &str); 4] = [
    ("`fleet classes`", "schema", "etcd runs"),
    ("`fleet classes`", "classes[]", "etcd runs"),
    ("`fleet classes`", "classes[].name", "etcd runs"),
    ("`fleet classes`", "classes[].writes[]", "etcd runs"),
];

#[test]
#[expect(clippy::too_many_lines, reason = "one life of a fleet, verb by verb")]
fn json_is_as_its_page_says() -> Result<()> {
    let mut fleet = Fleet::new("enforce")?;
    // A row that ends soon; a key with which minisign itself signs.
    let site = fleet.path("site.toml");
    let text = std::fs::read_to_string(&site)?;
    let row = "[[row]]\nname = \"soon\"\ndirection = \"in\"\ntransport = \"tcp\"\nports = [9]\npeers = \"any\"\n\
               reason = \"a test\"\nexpires = 2099-01-01\n";
    std::fs::write(
        &site,
        text.replace(
            "[[host]]\nname = \"left\"",
            &format!("{row}[[host]]\nname = \"left\""),
        ),
    )?;
    let secret = fleet.path("publisher.key");
    std::fs::write(&secret, fleet.publisher.sk.to_box(None)?.to_string())?;
    let mut page = Page::read(|verb| verb.starts_with("fleet "))?;
    let mut shown = |fleet: &Fleet, verb: &str, line: &str| -> Result<()> {
        let mut words: Vec<&str> = line.split(' ').collect();
        words.push("--json");
        let output = fleet.verb(&words)?;
        let all = serde_json::Deserializer::from_str(&output.stdout).into_iter();
        let all: Vec<Value> = all.collect::<Result<_, _>>()?;
        ensure!(!all.is_empty(), "{line} prints no JSON: {output}");
        for one in all {
            ensure!(one["error"].is_null(), "{line}: {output}");
            page.compare(&format!("fleet {verb}"), &one);
        }
        Ok(())
    };
    let config = fleet.path("fleet.toml");
    let good = std::fs::read_to_string(&config)?;
    std::fs::remove_file(&config)?;
    let key = fleet.publisher.pk.to_base64();
    shown(&fleet, "init", &format!("init test --key {key}"))?;
    std::fs::write(&config, good)?;
    for host in ["left", "right", "nobody"] {
        shown(&fleet, "enroll", &format!("enroll {host}"))?;
    }
    shown(&fleet, "plan", "plan")?;
    shown(&fleet, "diff", "diff")?;
    shown(&fleet, "sign", &format!("sign -s {}", secret.display()))?;
    shown(&fleet, "apply", "apply")?;
    fleet.start("left")?;
    fleet.wait("ready", "host=left")?;
    let documented = SocketAddr::new(fleet.link.left.v4().into(), 9);
    fleet.link.right.host.run(|| {
        let _ = std::net::TcpStream::connect_timeout(&documented, SHORT);
        Ok(())
    })?;
    let sink = SocketAddr::new(fleet.link.left.v4().into(), 4711);
    let listener = fleet
        .link
        .left
        .host
        .run(|| Ok(std::net::UdpSocket::bind(sink)?))?;
    fleet
        .link
        .right
        .host
        .run(|| exchange_udp(sink, b"x", SHORT))?;
    eventually("what was seen is said", || {
        let said = fleet.json(&["drift", "--json"])?;
        let causes = said["causes"].as_array().context("causes")?;
        let is_said = |cause: &Value| {
            cause["listening"]
                .as_array()
                .is_some_and(|all| !all.is_empty())
        };
        Ok(causes.iter().any(is_said))
    })?;
    eventually("what speaks against enforcing is said", || {
        let said = fleet.verb(&["evidence", "left", "--json"])?.stdout;
        Ok(said.contains("\"against\":[\""))
    })?;
    for verb in [
        "evidence left",
        "counters",
        "drift --expiring 100y",
        "report --expiring 100y",
    ] {
        shown(&fleet, verb.split(' ').next().unwrap_or_default(), verb)?;
    }
    shown(&fleet, "status", "status --wait confirmed --timeout 0")?;
    fleet.start("right")?;
    fleet.wait("ready", "host=right")?;
    shown(&fleet, "rollout", "rollout start")?;
    let controller = fleet.control()?;
    fleet.wait("confirmed", "role=wso2/identity-server")?;
    shown(&fleet, "hold", "hold right --because tested --for 1h")?;
    shown(&fleet, "unhold", "unhold right")?;
    shown(&fleet, "revoke", "revoke nobody --because tested")?;
    // What was published before is what is gone back to, once all of it was in force.
    eventually("the rollout is done", || {
        let said = fleet.json(&["status", "--json"])?;
        Ok(said["position"]["phase"] == "done")
    })?;
    shown(&fleet, "status", "status")?;
    drop(controller);
    let text = std::fs::read_to_string(&site)?.replace("ports = [9]", "ports = [10]");
    let text = text.replace("name = \"right\"", "name = \"new\"");
    std::fs::write(&site, text)?;
    shown(&fleet, "plan", "plan")?;
    shown(&fleet, "diff", "diff")?;
    fleet.sign()?;
    shown(&fleet, "apply", "apply --start")?;
    shown(
        &fleet,
        "sign",
        &format!("sign --rollback -s {}", secret.display()),
    )?;
    shown(&fleet, "rollout", "rollback --because tested")?;
    shown(&fleet, "rollout", "rollout history")?;
    shown(&fleet, "status", "status")?;
    drop(listener);
    page.agree(&NOT_SHOWN)
}
