//! The fleet, end to end: the verbs, real guards in namespaces, a store in a directory; minisign's own implementation signs.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use minisign::KeyPair;
use portguard_harness::net::{End, Host, Interface, Lab, Link, Output, Process};
use portguard_harness::traffic::exchange_udp;
use serde_json::Value;

use super::guard::{SHORT, eventually};
use super::output::page::Page;

const SOON: Duration = Duration::from_mins(1);
/// For a hundred agents on two processors.
const PATIENCE: Duration = Duration::from_mins(40);

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
                     [gate]\naudit = \"0\"\nwould_drop = 10\nconfirm = \"20s\"\n";
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
            .env_remove("PORTGUARD_CONFIG");
        self.agents.push(host.start(&mut command)?);
        Ok(())
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
            "40s",
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
    for host in ["left", "right"] {
        fleet.start(host)?;
    }
    fleet.wait("ready", "host=left")?;
    fleet.wait("ready", "host=right")?;
    assert_eq!(Fleet::mode(&fleet.link.left.host)?, "audit");
    let controller = fleet.control()?;
    fleet.verb(&["rollout", "start"])?.success()?;
    let begun = Instant::now();
    fleet.wait("confirmed", "role=wso2/identity-server")?;
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
    fleet.wait("reverted", "host=left")?;
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
fn plans_that_would_cut_hosts_or_do_not_compile_are_refused() -> Result<()> {
    let fleet = Fleet::new("enforce")?;
    let site = fleet.path("site.toml");
    let good = std::fs::read_to_string(&site)?;
    let refused = |fleet: &Fleet, text: &str, what: &str| -> Result<()> {
        std::fs::write(&site, text)?;
        let output = fleet.verb(&["plan"])?;
        ensure!(
            output.status.code() == Some(2),
            "{what}: {}\n{}",
            output.stdout,
            output.stderr
        );
        ensure!(output.stderr.contains(what), "{what}: {}", output.stderr);
        Ok(())
    };
    refused(&fleet, &good.replace("[\"tcp/22\"]", "[]"), "management")?;
    refused(
        &fleet,
        &good.replace("wso2/identity-server", "wso2/identity-serve"),
        "identity-serve",
    )?;
    // It looks at the store first; what is not there is no empty store.
    let config = fleet.path("fleet.toml");
    let text = std::fs::read_to_string(&config)?;
    std::fs::write(&config, text.replace("file:store", "etcd://10.77.0.9"))?;
    std::fs::write(&site, &good)?;
    let output = fleet.verb(&["plan"])?;
    assert_eq!(output.status.code(), Some(3), "{}", output.stderr);
    Ok(())
}

/// Head, release or inventory: whatever of the store is broken or forged, whoever publishes goes on.
#[test]
fn a_store_that_was_broken_is_published_to_again() -> Result<()> {
    let fleet = Fleet::new("enforce")?;
    fleet.verb(&["enroll", "left"])?.success()?;
    fleet.publish()?;
    let mut serial = 1;
    let head = fleet.path("store/head");
    let release = |serial: u64| fleet.path(&format!("store/release/{serial:020}"));
    ensure!(release(1).exists(), "where releases are");
    let object = std::fs::read_dir(fleet.path("store/object"))?;
    let objects: Vec<PathBuf> = object.flatten().map(|entry| entry.path()).collect();
    let breaks: [(&str, &dyn Fn() -> Result<()>); 6] = [
        ("a head to come", &|| Ok(std::fs::write(&head, "99")?)),
        ("an old head", &|| Ok(std::fs::write(&head, "1")?)),
        ("no number", &|| Ok(std::fs::write(&head, "x")?)),
        ("no head", &|| Ok(std::fs::remove_file(&head)?)),
        ("half a release", &|| {
            let serial: u64 = std::fs::read_to_string(&head)?.trim().parse()?;
            Ok(std::fs::write(release(serial), "{\"manifest\":")?)
        }),
        ("no inventory", &|| {
            for object in &objects {
                let _ = std::fs::remove_file(object);
            }
            Ok(())
        }),
    ];
    // With one release only, the old head is the head.
    fleet.publish()?;
    serial += 1;
    for (what, harm) in breaks {
        harm().context(what)?;
        let refused = fleet.verb(&["plan"])?;
        ensure!(
            refused.code() == 3 && refused.stderr.contains("plan --repair"),
            "{what}: {refused}"
        );
        let planned = fleet.json(&["plan", "--repair", "--json"])?;
        serial += 1;
        ensure!(planned["serial"] == serial, "{what}: {planned:#}");
        fleet.sign()?;
        fleet.verb(&["apply", "--repair"])?.success()?;
        let said = fleet.json(&["status", "--json"])?;
        ensure!(said["serial"] == serial, "{what}: {said:#}");
    }
    Ok(())
}

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

/// A controller, a second terminal, a copy from yesterday: none of them makes the publisher sign a number twice.
#[test]
fn no_serial_is_ever_signed_twice() -> Result<()> {
    let fleet = Fleet::new("enforce")?;
    fleet.publish()?;
    let yesterday = std::fs::read(fleet.path("trust.json"))?;
    let controller = fleet.control()?;
    fleet.publish()?;
    // Taken away again at once, before anybody else saw it.
    let store = fleet.path("store");
    std::fs::remove_file(store.join(format!("release/{:020}", 2)))?;
    std::fs::write(store.join("head"), "1")?;
    eventually("the controller says that it is older", || {
        Ok(controller.stderr().contains("older than release 2"))
    })?;
    let planned = fleet.json(&["plan", "--repair", "--json"])?;
    assert_eq!(planned["serial"], 3, "{planned:#}");
    fleet.sign()?;
    // Signed, and given to somebody; and the memory of yesterday.
    std::fs::write(fleet.path("trust.json"), yesterday)?;
    drop(controller);
    std::fs::write(store.join("head"), "99")?;
    let planned = fleet.json(&["plan", "--repair", "--json"])?;
    assert_eq!(planned["serial"], 4, "{planned:#}");
    Ok(())
}

#[test]
fn what_is_signed_stays_until_a_new_plan_is_whole() -> Result<()> {
    let fleet = Fleet::new("enforce")?;
    fleet.verb(&["plan"])?.success()?;
    fleet.sign()?;
    let signature = fleet.path("next/publisher.minisig");
    let good = std::fs::read_to_string(fleet.path("site.toml"))?;
    std::fs::write(fleet.path("site.toml"), "schema = 7\n")?;
    assert_eq!(fleet.verb(&["plan"])?.code(), 2);
    assert!(signature.exists(), "a plan that failed took it away");
    std::fs::write(fleet.path("site.toml"), good)?;
    fleet.verb(&["apply"])?.success()?;
    fleet.verb(&["plan"])?.success()?;
    assert!(!signature.exists(), "it is of another plan");
    // A name that nobody has is said; and a site that is not there, how to make it.
    fleet.verb(&["enroll", "nobody"])?.success()?;
    let planned = fleet.json(&["plan", "--json"])?;
    assert_eq!(planned["not_in_site"], serde_json::json!(["nobody"]));
    for verb in [
        &["hold", "nobody", "--because", "a typo"][..],
        &["unhold", "nobody"],
    ] {
        let refused = fleet.verb(verb)?;
        assert_eq!(refused.code(), 2, "{refused}");
        assert!(refused.stderr.contains("has no host `nobody`"), "{refused}");
    }
    std::fs::remove_file(fleet.path("site.toml"))?;
    let refused = fleet.verb(&["plan"])?;
    assert!(refused.stderr.contains("portguard setup"), "{refused}");
    Ok(())
}

/// A hundred in `nightly`; a few in every run, which is a test of the figures.
#[test]
fn what_is_published_is_soon_in_force_on_many_namespaces() -> Result<()> {
    let count: usize = match std::env::var("PORTGUARD_FLEET_NAMESPACES") {
        Ok(count) => count.parse()?,
        Err(_) => 4,
    };
    let mut fleet = Fleet::new("enforce")?;
    let lab = Lab::new()?;
    let hub = lab.host("hub")?;
    let mut hosts = Vec::new();
    for number in 0..count {
        let host = lab.host(&format!("h{number}"))?;
        let (near, far) = (End::new("pgn0"), End::new(&format!("pgn{number}")));
        lab.connect(&host, &near, &hub, &far)?;
        hosts.push(host);
    }
    let file = fleet.path("site.toml");
    let site = |port: u16| -> Result<()> {
        let mut text = format!(
            "schema = 1\nmode = \"enforce\"\noutbound = \"audit\"\nunprinted_peers = \"any\"\nunresolved_peers = \"none\"\n\
             unresolved_ports = \"none\"\n[management]\nallow = [\"tcp/22\"]\n[[row]]\nname = \"r\"\ndirection = \"in\"\n\
             transport = \"tcp\"\nports = [\"4000-{port}\"]\npeers = \"any\"\nreason = \"a test\"\n"
        );
        for number in 0..count {
            writeln!(
                text,
                "[[host]]\nname = \"h{number}\"\naddresses = [\"10.78.{}.{}\"]\nroles = [\"wso2/identity-server\"]",
                number / 250,
                number % 250 + 1
            )?;
        }
        Ok(std::fs::write(&file, text)?)
    };
    site(4000)?;
    let path = fleet.path("fleet.toml");
    let config = std::fs::read_to_string(&path)?;
    let (head, _) = config.split_once("[[wave]]").context("waves")?;
    let head = head.replace("interface = \"eth0\"", "interface = \"pgn0\"");
    let waves =
        "[[wave]]\nname = \"all\"\nhosts = \"*\"\n[gate]\naudit = \"0\"\nconfirm = \"10m\"\n";
    std::fs::write(&path, format!("{head}{waves}"))?;
    for number in 0..count {
        fleet.verb(&["enroll", &format!("h{number}")])?.success()?;
    }
    for (number, host) in hosts.iter().enumerate() {
        fleet.start_on(host, &format!("h{number}"), &["--json"])?;
    }
    let controller = fleet.control()?;
    let wait = [
        "status",
        "--json",
        "--wait",
        "confirmed",
        "--timeout",
        "30m",
    ];
    for (release, port) in [(1, 4000), (2, 4001)] {
        site(port)?;
        fleet.verb(&["plan"])?.success()?;
        fleet.sign()?;
        let begun = std::time::SystemTime::now();
        fleet.verb(&["apply", "--start"])?.success()?;
        let mut command = fleet.command(&wait);
        let output = fleet.link.left.host.output(&mut command, PATIENCE)?;
        ensure!(output.success().is_ok(), "release {release}");
        let mut took = Vec::new();
        for agent in &fleet.agents {
            took.push(in_force_after(&agent.stderr(), begun)?);
        }
        took.sort_unstable();
        let part = |percent: usize| took.get((took.len() * percent / 100).min(took.len() - 1));
        println!(
            "{count} namespaces, release {release}: publish to in force p50 {:?}, p99 {:?}",
            part(50).context("times")?,
            part(99).context("times")?
        );
    }
    let mut memory = Vec::new();
    for agent in &fleet.agents {
        let status = std::fs::read_to_string(format!("/proc/{}/status", agent.id()))?;
        let line = status.lines().find(|line| line.starts_with("VmHWM"));
        let line = line.context("no VmHWM")?;
        let number = line.split_whitespace().nth(1).context("a number")?;
        memory.push(number.parse::<u64>()?);
    }
    println!(
        "an agent has {} KiB at most",
        memory.iter().max().context("agents")?
    );
    drop(controller);
    Ok(())
}

/// When this host said that it was confirmed, since then; by its own log.
fn in_force_after(log: &str, begun: std::time::SystemTime) -> Result<Duration> {
    let last = log
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .rfind(|line| line["state"] == "confirmed")
        .context("it does not say so")?;
    let time = last["timestamp"].as_str().context("no time")?;
    let time = humantime::parse_rfc3339_weak(time)?;
    Ok(time.duration_since(begun)?)
}

/// Ten thousand hosts in `nightly`; a tenth of that in every run.
#[test]
fn a_plan_of_many_hosts_is_quick() -> Result<()> {
    let count: u32 = match std::env::var("PORTGUARD_FLEET_HOSTS") {
        Ok(count) => count.parse()?,
        Err(_) => 1000,
    };
    let fleet = Fleet::new("enforce")?;
    let mut site = String::from(
        "schema = 1\nmode = \"enforce\"\noutbound = \"audit\"\nunprinted_peers = \"any\"\nunresolved_peers = \"none\"\nunresolved_ports = \"none\"\n[management]\nallow = [\"tcp/22\"]\n",
    );
    for number in 0..count {
        let [_, a, b, c] = number.to_be_bytes();
        let name = if number == 0 {
            "left".to_owned()
        } else {
            format!("h{number}")
        };
        writeln!(
            site,
            "[[host]]\nname = \"{name}\"\naddresses = [\"10.{a}.{b}.{c}\"]\nroles = [\"wso2/identity-server\"]"
        )?;
    }
    std::fs::write(fleet.path("site.toml"), site)?;
    let begun = Instant::now();
    let planned = fleet.json(&["plan", "--json"])?;
    assert_eq!(planned["hosts"], count, "{planned:#}");
    println!("{count} hosts: {:?}, {planned}", begun.elapsed());
    ensure!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    Ok(())
}
