//! Answers that come from elsewhere than was asked, by the protocols that have them: each is one thing in every view, and the row
//! that is proposed for it lets the next one in.

mod talk;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use anyhow::{Context as _, Result, ensure};
use portguard_harness::net::Output;
use portguard_harness::traffic::udp_socket;
use serde_json::Value;

use super::list;
use crate::guard::{Guarded, LONG};

const SITE: &str = "\
schema = 1
mode = \"MODE\"
outbound = \"audit\"
unprinted_peers = \"none\"
unresolved_peers = \"none\"
[management]
none = true
[systems.thoughtspot]
version = \"10\"
choices = { directory-port = \"636\", mail-port = \"587\" }
[[host]]
name = \"here\"
addresses = [\"10.77.0.1\", \"fd77::1\"]
roles = [\"thoughtspot/node\"]
";

/// How often each is tried: each time from other ports.
const TIMES: usize = 6;

/// A protocol that answers from elsewhere.
struct Protocol {
    /// What it is in all views, and what `--accept` takes.
    what: &'static str,
    accepted: &'static str,
    /// A range that `--accept` takes as well.
    range: &'static str,
    /// The port that explains it.
    source_port: Option<u16>,
    /// One conversation, in which the host (the first address) asks: whether it hears the answer.
    talk: fn(&Scene, IpAddr, IpAddr) -> Result<bool>,
}

struct Scene {
    guarded: Guarded,
    state: tempfile::TempDir,
}

impl Scene {
    fn new() -> Result<Self> {
        let guarded = Guarded::new()?;
        // Another address of the peer's.
        let right = &guarded.link.right;
        for other in OTHERS {
            let bits = if other.is_ipv4() { 24 } else { 64 };
            right.add_address(format!("{other}/{bits}").parse()?)?;
        }
        let state = tempfile::tempdir()?;
        Ok(Self { guarded, state })
    }

    fn run(&self, args: &[&str]) -> Result<Output> {
        let mut command = Guarded::command(args);
        command.env("STATE_DIRECTORY", self.state.path());
        self.guarded.link.left.host.output(&mut command, LONG)
    }

    /// Writes the site with these rows, and loads it.
    fn load(&self, mode: &str, rows: &str) -> Result<()> {
        let text = SITE.replace("MODE", mode) + rows;
        std::fs::write(self.site(), text)?;
        let args = [
            "load",
            "-c",
            &self.site(),
            "--interface",
            self.guarded.interface(),
        ];
        let more = ["--confirm-within", "0", "--force"];
        self.run(&[&args[..], &more].concat())?.success()?;
        Ok(())
    }

    fn site(&self) -> String {
        self.state.path().join("site.toml").display().to_string()
    }

    fn json(&self, args: &[&str]) -> Result<Value> {
        let output = self.run(&[args, &["--json"]].concat())?;
        serde_json::from_str(&output.stdout).with_context(|| output.to_string())
    }

    /// What `promote` says, with more arguments.
    fn promote(&self, more: &[&str]) -> Result<Value> {
        let args = [
            "promote",
            "-c",
            &self.site(),
            "--window",
            "0",
            "--min-packets",
            "1",
        ];
        self.json(&[&args[..], more].concat())
    }

    /// A socket of the peer's, which hears a group if there is one.
    fn there(&self, at: SocketAddr, group: Option<IpAddr>) -> Result<UdpSocket> {
        let right = &self.guarded.link.right;
        right.host.run(|| {
            let socket = udp_socket(at)?;
            match group {
                Some(IpAddr::V4(group)) => socket.join_multicast_v4(&group, &right.v4())?,
                Some(IpAddr::V6(group)) => socket.join_multicast_v6(&group, right.index)?,
                None => {}
            }
            Ok(socket)
        })
    }
}

/// The peer's other addresses.
const OTHERS: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(10, 77, 0, 3)),
    IpAddr::V6(Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 3)),
];

/// Findings, or flows, of what arrived.
fn arrived(all: &[Value]) -> Vec<&Value> {
    all.iter().filter(|one| one["direction"] == "in").collect()
}

/// Violations of what arrived.
fn violations(scene: &Scene) -> Result<u64> {
    let answer = scene.json(&["counters"])?;
    let findings = list(&answer["interfaces"][0], "findings")?;
    let each = arrived(findings)
        .into_iter()
        .map(|one| one["violations"].as_u64());
    Ok(each.flatten().sum())
}

fn talks(scene: &Scene, protocol: &Protocol) -> Result<bool> {
    let (left, right) = (&scene.guarded.link.left, &scene.guarded.link.right);
    let mut is_heard = true;
    for (ours, theirs) in left.both().into_iter().zip(right.both()) {
        for _ in 0..TIMES {
            is_heard &= (protocol.talk)(scene, ours, theirs)?;
        }
    }
    Ok(is_heard)
}

fn is_one_thing(protocol: &Protocol) -> Result<()> {
    let scene = Scene::new()?;
    scene.load("audit", "")?;
    ensure!(talks(&scene, protocol)?, "not heard in audit");
    let counters = scene.json(&["counters"])?;
    let findings = arrived(list(&counters["interfaces"][0], "findings")?);
    let explains = |one: &Value| {
        one["kind"] == "answers-from-elsewhere"
            && one["what"] == protocol.what
            && one["source_port"].as_u64() == protocol.source_port.map(u64::from)
    };
    ensure!(
        findings.len() == 1 && explains(findings[0]),
        "{findings:#?}"
    );

    let drift = scene.json(&["drift"])?;
    let items = list(&drift, "items")?.iter();
    let items: Vec<&Value> = items
        .filter(|one| one["finding"] == true && one["direction"] == "in")
        .collect();
    let is_it = |one: &Value| one["state"] == "answers-from-elsewhere" && explains(&one["traffic"]);
    ensure!(items.len() == 1 && is_it(items[0]), "{items:#?}");

    // One line a peer.
    let promote = scene.promote(&["--dry-run"])?;
    let flows = arrived(list(&promote["interfaces"][0], "flows")?);
    let is_line = |one: &&Value| one["what"] == protocol.accepted && one["state"] == "unexplained";
    ensure!(flows.len() == 2 && flows.iter().all(is_line), "{flows:#?}");
    for accepted in [protocol.accepted, protocol.range] {
        let more = ["--accept", accepted, "--because", "a test", "--dry-run"];
        let answer = scene.promote(&more)?;
        let flows = arrived(list(&answer["interfaces"][0], "flows")?);
        let is_accepted = |one: &&Value| one["state"] == "accepted";
        ensure!(flows.iter().all(is_accepted), "{accepted}: {flows:#?}");
    }

    // What is proposed, as it stands.
    let rows: Vec<&str> = flows
        .iter()
        .filter_map(|one| one["site"].as_str())
        .collect();
    ensure!(rows.len() == 2, "{flows:#?}");
    scene.load("audit", &format!("{}\n", rows.join("\n")))?;
    let before = violations(&scene)?;
    ensure!(talks(&scene, protocol)?, "not heard with its row");
    let after = violations(&scene)?;
    ensure!(
        before == after,
        "{} are violations: {rows:#?}",
        after - before
    );
    let promote = scene.promote(&["--dry-run"])?;
    let flows = arrived(list(&promote["interfaces"][0], "flows")?);
    let is_admitted = |one: &&Value| one["state"] == "admitted";
    ensure!(flows.iter().all(is_admitted), "{flows:#?}");
    scene.load("enforce", &format!("{}\n", rows.join("\n")))?;
    ensure!(talks(&scene, protocol)?, "not heard in enforce");
    Ok(())
}

/// A protocol, what it is called, and a range that `--accept` takes for it.
macro_rules! protocols {
    ($($name:ident: $what:literal, $accepted:literal, $range:literal, $from:expr;)+) => {$(
        #[test]
        fn $name() -> Result<()> {
            is_one_thing(&Protocol {
                what: $what,
                accepted: $accepted,
                range: $range,
                source_port: $from,
                talk: self::talk::$name,
            })
        }
    )+};
}

protocols! {
    tftp: "udp to clients", "udp/to-clients", "udp/1024-65535", None;
    snmp: "udp from 161", "udp/from-161", "udp/1024-65535", Some(161);
    stun: "udp from 3479", "udp/from-3479", "udp/1024-65535", Some(3479);
    ssdp: "udp from 1900", "udp/from-1900", "udp/1024-65535", Some(1900);
    mdns: "udp from 5353", "udp/from-5353", "udp/1024-65535", Some(5353);
    llmnr: "udp from 5355", "udp/from-5355", "udp/1024-65535", Some(5355);
    ftp: "tcp from 20", "tcp/from-20", "tcp/1024-65535", Some(20);
}
