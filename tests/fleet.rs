//! The fleet, end to end: the verbs, real guards in namespaces, a store in a directory; minisign's own implementation signs.

mod json;
mod many;
mod publisher;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use minisign::KeyPair;
use portguard_harness::net::{End, Host, Interface, Lab, Link, Output, Process, unique_name};
use portguard_harness::traffic::exchange_udp;
use serde_json::Value;

use super::guard::{Guarded, LONG, SHORT, eventually};

/// For the slowest machine: what is awaited comes in seconds.
const SOON: Duration = Duration::from_mins(3);

struct Fleet {
    directory: tempfile::TempDir,
    publisher: KeyPair,
    link: Link,
    agents: Vec<Process>,
}

impl Fleet {
    fn new(mode: &str) -> Result<Self> {
        let link = Lab::new()?.pair()?;
        let publisher = KeyPair::generate_unencrypted_keypair()?;
        let fleet = Self {
            directory: tempfile::tempdir()?,
            publisher,
            link,
            agents: Vec::new(),
        };
        fleet.site(mode, "audit")?;
        let key = fleet.publisher.pk.to_base64();
        fleet.verb(&["init", "test", "--key", &key])?.success()?;
        let path = fleet.path("fleet.toml");
        let text = std::fs::read_to_string(&path)?;
        let (head, _) = text.split_once("[[wave]]").context("waves")?;
        let waves = "[[wave]]\nname = \"first\"\nhosts = \"host=left\"\n[[wave]]\nname = \"rest\"\nhosts = \"*\"\n\
                     [gate]\naudit = \"0\"\nwould_drop = 10\nconfirm = \"1m\"\n";
        std::fs::write(&path, format!("{head}{waves}"))?;
        Ok(fleet)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn site(&self, mode: &str, outbound: &str) -> Result<()> {
        let (left, right) = (&self.link.left.name, &self.link.right.name);
        let text = format!(
            r#"schema = 1
mode = "{mode}"
outbound = "{outbound}"
unprinted_peers = "any"
unresolved_peers = "none"
unresolved_ports = "none"
[management]
allow = ["tcp/22"]
[[host]]
name = "left"
addresses = ["10.77.0.1"]
roles = ["wso2/identity-server"]
[host.interfaces.{left}]
[[host]]
name = "right"
addresses = ["10.77.0.2"]
roles = ["wso2/identity-server"]
[host.interfaces.{right}]
"#
        );
        std::fs::write(self.path("site.toml"), text)?;
        Ok(())
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_portguard"));
        command
            .arg("fleet")
            .args(arguments)
            .args(["--directory".as_ref(), self.directory.path().as_os_str()])
            .env_remove("PORTGUARD_CONFIG");
        command
    }

    fn verb(&self, arguments: &[&str]) -> Result<Output> {
        self.link
            .left
            .host
            .output(&mut self.command(arguments), SOON)
    }

    fn json(&self, arguments: &[&str]) -> Result<Value> {
        let output = self.verb(arguments)?;
        serde_json::from_str(&output.stdout).with_context(|| output.stderr.clone())
    }

    fn sign(&self) -> Result<()> {
        self.sign_file("next/manifest.json")
    }

    fn sign_file(&self, name: &str) -> Result<()> {
        let path = self.path(name);
        let bytes = std::fs::read(&path)?;
        let (pk, sk) = (&self.publisher.pk, &self.publisher.sk);
        let signature = minisign::sign(Some(pk), sk, bytes.as_slice(), None, None)?;
        std::fs::write(
            path.with_file_name("publisher.minisig"),
            signature.to_string(),
        )?;
        Ok(())
    }

    fn publish(&self) -> Result<Value> {
        self.verb(&["plan"])?.success()?;
        self.sign()?;
        self.json(&["apply", "--json"])
    }

    fn start(&mut self, name: &str) -> Result<()> {
        let side = if name == "left" {
            &self.link.left
        } else {
            &self.link.right
        };
        let host = side.host.clone();
        self.start_on(
            &host,
            name,
            &["--fleet-every=1", "--fleet-evidence-every=1"],
        )
    }

    fn start_on(&mut self, host: &Host, name: &str, more: &[&str]) -> Result<()> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_portguard"));
        command
            .arg("agent")
            .args(more)
            .env(
                "PORTGUARD_STORE",
                format!("file:{}", self.path("store").display()),
            )
            .arg("--fleet-identity")
            .arg(self.path("enrolled").join(name))
            .arg("--fleet-state")
            .arg(self.path("state").join(name))
            .arg(format!("--history={}", self.path("history").display()))
            .env("STATE_DIRECTORY", self.kept(name)?)
            .env_remove("PORTGUARD_CONFIG");
        self.agents.push(host.start(&mut command)?);
        Ok(())
    }

    /// What a host keeps over boots.
    fn kept(&self, name: &str) -> Result<PathBuf> {
        let path = self.path("kept").join(name);
        std::fs::create_dir_all(&path)?;
        Ok(path)
    }

    /// Waits until a host gives a reason for where it is.
    fn wait_for_reason(&self, host: &str, words: &[&str]) -> Result<()> {
        let mut last = Value::Null;
        eventually("a reason", || {
            last = self.json(&["status", "--json", "-l", &format!("host={host}")])?;
            let why = last["hosts"][0]["why"].as_str().unwrap_or_default();
            Ok(words.iter().all(|word| why.contains(word)))
        })
        .with_context(|| format!("{words:?}: {last:#}"))
    }

    fn wait(&self, state: &str, selector: &str) -> Result<Value> {
        let said = self.json(&[
            "status",
            "--json",
            "--wait",
            state,
            "-l",
            selector,
            "--timeout",
            "2m",
        ])?;
        let hosts = said["hosts"].as_array().context("hosts")?;
        let logs: Vec<String> = self.agents.iter().map(Process::stderr).collect();
        ensure!(
            hosts.iter().all(|host| host["state"] == state),
            "{said:#}\n{}",
            logs.join("\n---\n")
        );
        Ok(said)
    }

    fn mode(host: &Host) -> Result<String> {
        Self::said(host, "mode")
    }

    fn outbound(host: &Host) -> Result<String> {
        Self::said(host, "outbound")
    }

    /// A field of the host's status.
    fn said(host: &Host, field: &str) -> Result<String> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_portguard"));
        let output = host.output(command.args(["status", "--json"]), SOON)?;
        let said: Value = serde_json::from_str(&output.stdout)?;
        Ok(said["interfaces"][0][field]
            .as_str()
            .unwrap_or_default()
            .to_owned())
    }

    /// Steps of a controller until the rollout stands.
    fn control(&self) -> Result<Process> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_portguard"));
        command
            .args(["fleet", "rollout", "--follow", "--directory"])
            .arg(self.directory.path());
        self.link.left.host.start(&mut command)
    }
}

#[test]
fn a_site_goes_from_the_publisher_to_enforced_on_every_host_and_back() -> Result<()> {
    let mut fleet = Fleet::new("enforce")?;
    // Before anybody enrolled, the plan says so.
    let planned = fleet.json(&["plan", "--json"])?;
    assert_eq!(
        planned["not_enrolled"].as_array().map(Vec::len),
        Some(2),
        "{planned:#}"
    );
    for host in ["left", "right"] {
        fleet.verb(&["enroll", host])?.success()?;
        let identity = fleet.path("enrolled").join(host).join("identity.json");
        assert_eq!(mode_of(&identity)?, 0o600);
    }
    fleet.verb(&["plan"])?.success()?;
    let unsigned = fleet.verb(&["apply"])?;
    assert_eq!(unsigned.status.code(), Some(2), "{}", unsigned.stderr);
    fleet.sign()?;
    let applied = fleet.json(&["apply", "--json"])?;
    assert_eq!(applied["serial"], 1, "{applied:#}");
    // Hosts that say nothing are no clean bill.
    for verb in ["drift", "counters", "report"] {
        let output = fleet.verb(&[verb, "--json"])?;
        assert_eq!(output.code(), 1, "{verb}: {output}");
    }
    for host in ["left", "right"] {
        fleet.start(host)?;
    }
    fleet.wait("ready", "host=left")?;
    fleet.wait("ready", "host=right")?;
    assert_eq!(Fleet::mode(&fleet.link.left.host)?, "audit");
    let (_link, own) = an_operator_loads(&fleet.link.left.host)?;
    let controller = fleet.control()?;
    fleet.verb(&["rollout", "start"])?.success()?;
    let begun = Instant::now();
    fleet.wait("confirmed", "role=wso2/identity-server")?;
    // What somebody loaded there for himself is for him to confirm.
    let status = ["status", "--interface", &own, "--json"];
    let left = &fleet.link.left.host;
    let said = left
        .output(&mut Guarded::command(&status), LONG)?
        .success()?;
    let said: Value = serde_json::from_str(&said.stdout)?;
    let seconds = &said["interfaces"][0]["confirm_seconds_left"];
    assert!(seconds.as_u64() > Some(0), "{said:#}");
    println!("from start to confirmed on both: {:?}", begun.elapsed());
    for host in [&fleet.link.left.host, &fleet.link.right.host] {
        assert_eq!(Fleet::mode(host)?, "enforce");
    }
    let evidence = fleet.verb(&["evidence", "left"])?;
    assert!(
        evidence.stdout.contains("watched_seconds"),
        "{}",
        evidence.stderr
    );
    what_was_seen_is_one_view(&fleet)?;

    // A second release, which a held host does not take.
    fleet
        .verb(&["hold", "right", "--because", "a test"])?
        .success()?;
    fleet.site("enforce", "enforce")?;
    let applied = fleet.publish()?;
    assert_eq!(applied["serial"], 2);
    fleet.wait("held", "host=right")?;
    assert_eq!(Fleet::mode(&fleet.link.right.host)?, "enforce");
    fleet.verb(&["rollout", "start"])?.success()?;
    fleet.wait("confirmed", "host=left")?;
    assert_eq!(Fleet::outbound(&fleet.link.left.host)?, "enforce");
    // Nobody goes back without the publishers; what they are to sign is there.
    let refused = fleet.verb(&["rollback", "--because", "a test"])?;
    assert_eq!(refused.code(), 2, "{refused}");
    assert!(refused.stderr.contains("did not sign"), "{refused}");
    fleet.sign_file("back/order.txt")?;
    fleet
        .verb(&["rollback", "--because", "a test"])?
        .success()?;
    let said = fleet.wait("reverted", "host=left")?;
    // Violations are counted on after the watch has ended; what was seen during the watch is not said of now.
    let host = &said["hosts"][0];
    assert!(host["violations"].as_u64() > Some(0), "{host:#}");
    assert_eq!(host.get("packets"), None, "{host:#}");
    assert_eq!(Fleet::mode(&fleet.link.left.host)?, "enforce");
    // What was signed may drop less than what is in force.
    assert_eq!(Fleet::outbound(&fleet.link.left.host)?, "audit");
    let history = fleet.verb(&["rollout", "history"])?;
    assert!(
        history.stdout.contains("rolling-back"),
        "{}",
        history.stdout
    );
    drop(controller);
    Ok(())
}

/// Guards an interface of a host that is none of the fleet's, without confirming it.
fn an_operator_loads(host: &Host) -> Result<(Link, String)> {
    let lab = Lab::new()?;
    // The last by name.
    let name = unique_name("zz");
    let end = End::new(&name).address("10.79.0.1/24");
    let link = lab.connect(host, &end, &lab.host("neighbour")?, &End::new("n0"))?;
    let load = [
        "load",
        "--role",
        "wso2/identity-server",
        "--interface",
        &name,
        "--enforce",
        "--confirm-within",
        "30m",
        "--unprinted-peers",
        "any",
        "--unresolved-ports",
        "none",
        "--management",
        "tcp/22",
    ];
    host.output(&mut Guarded::command(&load), LONG)?.success()?;
    Ok((link, name))
}

/// What both hosts saw is added up: each cause once, with the hosts that have it.
fn what_was_seen_is_one_view(fleet: &Fleet) -> Result<()> {
    let send = |from: &Interface, to: &Interface| {
        let target = SocketAddr::new(to.v4().into(), 4711);
        from.host.run(|| exchange_udp(target, b"x", SHORT))
    };
    send(&fleet.link.left, &fleet.link.right)?;
    send(&fleet.link.right, &fleet.link.left)?;
    let mut last = Value::Null;
    eventually("both hosts say so", || {
        last = fleet.json(&["drift", "--json"])?;
        let causes = last["causes"].as_array().context("causes")?;
        Ok(causes.iter().any(|cause| {
            cause["what"] == "udp/4711"
                && cause["direction"] == "in"
                && cause["hosts"].as_array().map(Vec::len) == Some(2)
        }))
    })
    .with_context(|| format!("{last:#}"))?;
    assert_eq!(last["without"], serde_json::json!({}), "{last:#}");
    let counters = fleet.verb(&["counters"])?;
    assert_eq!(counters.code(), 0, "{counters}");
    assert_eq!(last["effective"]["enforce"], 2, "{last:#}");
    // Nobody uses the identity server's ports here.
    assert!(
        !last["unused"].as_object().context("rows")?.is_empty(),
        "{last:#}"
    );
    let drift = fleet.verb(&["drift"])?;
    assert_eq!(drift.code(), 1, "{drift}");
    assert!(drift.stdout.contains("udp/4711"), "{drift}");
    let counters = fleet.json(&["counters", "--json", "-l", "host=left"])?;
    assert_eq!(counters["selected"], 1);
    assert!(
        counters["reasons"]["in undocumented-port"]["packets"].as_u64() > Some(0),
        "{counters:#}"
    );
    let page = fleet.path("fleet.html");
    let output = fleet.verb(&["report", "--output", &page.display().to_string()])?;
    assert_eq!(output.code(), 1, "{output}");
    let page = std::fs::read_to_string(page)?;
    assert!(
        page.starts_with("<!doctype html>") && page.contains("udp/4711"),
        "{page}"
    );
    Ok(())
}

fn mode_of(path: &Path) -> Result<u32> {
    use std::os::unix::fs::PermissionsExt as _;
    Ok(std::fs::metadata(path)?.permissions().mode() & 0o777)
}

#[test]
fn flows_are_named_and_accepted_for_all_hosts_and_off_stays_off() -> Result<()> {
    let mut fleet = Fleet::new("enforce")?;
    let config = fleet.path("fleet.toml");
    let text = std::fs::read_to_string(&config)?;
    // Only one of the hosts is there.
    let gate = |lines: &str| {
        let lines = format!("reporting = 0\n{lines}");
        std::fs::write(&config, text.replace("would_drop = 10", &lines))
    };
    gate("accept = [\"tcp/none\"]")?;
    let refused = fleet.verb(&["enroll", "left"])?;
    ensure!(
        refused.code() == 2 && refused.stderr.contains("tcp/none"),
        "{refused}"
    );
    gate("")?;
    fleet.verb(&["enroll", "left"])?.success()?;
    fleet.publish()?;
    fleet.start("left")?;
    fleet.wait("ready", "host=left")?;
    let sink = SocketAddr::new(fleet.link.left.v4().into(), 4711);
    let right = &fleet.link.right;
    right.host.run(|| exchange_udp(sink, b"x", SHORT))?;
    let flow = format!("udp/4711={}", right.v4());
    fleet.wait_for_reason("left", &["would drop 1 flow", &flow])?;

    gate(&format!("accept = [\"{flow}\"]"))?;
    fleet.publish()?;
    fleet.wait("ready", "host=left")?;
    let controller = fleet.control()?;
    fleet.verb(&["rollout", "start"])?.success()?;
    fleet.wait("confirmed", "host=left")?;
    drop(controller);

    let mut unload = Command::new(env!("CARGO_BIN_EXE_portguard"));
    unload
        .args(["unload", "--stay-off"])
        .env("STATE_DIRECTORY", fleet.kept("left")?);
    let host = fleet.link.left.host.clone();
    host.output(&mut unload, SOON)?.success()?;
    fleet.wait_for_reason("left", &["switched off", "--switch-on"])?;
    ensure!(Fleet::mode(&host)?.is_empty(), "it is guarded");
    Ok(())
}
