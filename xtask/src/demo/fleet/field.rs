//! The fleet of the demo: members of etcd, hosts with their agents, a controller, and the publishers' directory.

mod cluster;
mod look;
mod verbs;

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use portguard_harness::net::{Host, Lab, Process};
use portguard_harness::traffic::TcpEcho;

use super::network::{Certificates, hub, join};
use crate::shell::capture;
use crate::workspace::target;

/// The longest that anything here may take, on a busy machine.
const PATIENCE: Duration = Duration::from_mins(3);
pub(super) const HOSTS: [&str; 8] = [
    "node-1", "node-2", "node-3", "node-4", "node-5", "node-6", "node-7", "node-8",
];
const MEMBERS: [u8; 3] = [101, 102, 103];
const PUBLISHERS: [&str; 2] = ["alice", "bob"];

/// What the publishers want.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Site {
    First,
    /// Admits what the first would have dropped.
    Second,
    /// The second without the way to etcd.
    Cuts,
    /// The second, and one port more.
    Fourth,
}

/// Everything, which ends with it.
pub(super) struct Field {
    program: PathBuf,
    hub: Host,
    hosts: Vec<Host>,
    members: Vec<(Host, Option<Process>)>,
    // Before the directory, which they write to.
    processes: Vec<Process>,
    service: Option<TcpEcho>,
    certificates: Certificates,
    directory: PathBuf,
    _lab: Lab,
}

impl Drop for Field {
    fn drop(&mut self) {
        for process in &mut self.processes {
            process.kill();
        }
        let _ = fs::remove_dir_all(&self.directory);
    }
}

impl Field {
    pub(super) fn new(program: PathBuf) -> Result<Self> {
        let lab = Lab::new()?;
        let hub = hub(&lab)?;
        let directory = target().join(format!("demo-fleet-{}", std::process::id()));
        fs::create_dir_all(&directory)?;
        let certificates = Certificates::new(&directory.join("tls"))?;
        let mut field = Self {
            program,
            hosts: Vec::new(),
            members: Vec::new(),
            processes: Vec::new(),
            service: None,
            certificates,
            directory,
            hub,
            _lab: lab.clone(),
        };
        for number in 1..=8 {
            let interface = format!("pgf{number}");
            field
                .hosts
                .push(join(&lab, &field.hub, number, &interface)?);
        }
        for number in MEMBERS {
            let host = join(&lab, &field.hub, number, &format!("etcd{number}"))?;
            field.members.push((host, None));
        }
        field.start_etcd()?;
        field.found()?;
        Ok(field)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// The publishers' directory, and an identity for every host.
    fn found(&mut self) -> Result<()> {
        let mut keys = Vec::new();
        for publisher in PUBLISHERS {
            let public = self.path(&format!("{publisher}.pub"));
            let mut make = Command::new("minisign");
            make.args(["-G", "-W", "-p"]).arg(&public).arg("-s");
            capture(make.arg(self.path(&format!("{publisher}.key"))))?;
            let text = fs::read_to_string(&public)?;
            let key = text.lines().nth(1).context("a key of minisign")?;
            keys.push(format!("{key:?}"));
        }
        let mut config = format!(
            r#"fleet = "demo"
store = "{}"
rollback_within = "0"
[keys]
threshold = 2
public = [{}]
[tls]
ca = "tls/ca.pem"
cert = "tls/portguard-publisher.pem"
key = "tls/portguard-publisher.key"
[[wave]]
name = "canary"
hosts = "tier=canary"
[[wave]]
name = "rest"
hosts = "*"
after = "1s"
at_once = 50
[gate]
audit = "3s"
confirm = "20s"
"#,
            store(),
            keys.join(", ")
        );
        for (number, host) in HOSTS.iter().enumerate() {
            let zone = if number % 2 == 0 { "north" } else { "south" };
            let tier = if number < 2 { "canary" } else { "rest" };
            writeln!(
                config,
                "[hosts.{host}]\nzone = \"{zone}\"\nlabels = {{ tier = \"{tier}\" }}"
            )?;
        }
        fs::write(self.path("fleet.toml"), config)?;
        let file = |name: &str| self.certificates.file(name).display().to_string();
        let (ca, cert, key) = (file("ca.pem"), file("root.pem"), file("root.key"));
        let begun = Instant::now();
        loop {
            let verb = ["classes", "--ca", &ca, "--cert", &cert, "--key", &key];
            let output = self.verb(&verb)?;
            if output.status.success() {
                break;
            }
            // It elects a leader first.
            ensure!(begun.elapsed() < PATIENCE, "etcd does not answer: {output}");
        }
        for host in HOSTS {
            self.verb(&["enroll", host])?.success()?;
            let identity = self.path("enrolled").join(host);
            for (from, to) in [
                ("ca.pem", "ca.pem"),
                ("portguard-agent.pem", "agent.pem"),
                ("portguard-agent.key", "agent.key"),
            ] {
                fs::copy(self.certificates.file(from), identity.join(to))?;
            }
        }
        let mut controller = self.command(&["rollout", "--follow"]);
        self.processes.push(self.hub.start(&mut controller)?);
        Ok(())
    }

    /// Writes the site file.
    pub(super) fn site(&self, site: Site) -> Result<()> {
        let row = |name: &str, direction: &str, port: u16, peers: &str, hosts: &str| {
            format!(
                "[[row]]\nname = \"{name}\"\ndirection = \"{direction}\"\ntransport = \"tcp\"\nports = [{port}]\n\
                 peers = [{peers}]\nreason = \"the demo\"\n{hosts}"
            )
        };
        let mut text = "schema = 1\nmode = \"enforce\"\noutbound = \"enforce\"\nunprinted_peers = \"any\"\n\
                        unresolved_peers = \"none\"\nunresolved_ports = \"none\"\n[management]\nallow = [\"tcp/22\"]\n"
            .to_owned();
        if site != Site::Cuts {
            let members: Vec<String> = MEMBERS
                .iter()
                .map(|one| format!("\"10.79.{one}.2\""))
                .collect();
            text += &row("store", "out", 2379, &members.join(", "), "");
        }
        if site != Site::First {
            text += &row(
                "batch",
                "in",
                4711,
                "\"10.79.5.1\"",
                "hosts = [\"node-5\"]\n",
            );
        }
        if site == Site::Fourth {
            text += &row("trial", "in", 4712, "\"10.79.0.0/16\"", "");
        }
        for (number, host) in (1..).zip(HOSTS) {
            writeln!(
                text,
                "[[host]]\nname = \"{host}\"\naddresses = [\"10.79.{number}.2\"]\nroles = [\"wso2/identity-server\"]\n\
                 [host.interfaces.pgf{number}]"
            )?;
        }
        fs::write(self.path("site.toml"), text)?;
        let gate = match site {
            Site::First | Site::Second | Site::Fourth => "",
            // Without it every host would refuse by itself what closes a port that it uses.
            Site::Cuts => "closing = \"allow\"\n",
        };
        let config = fs::read_to_string(self.path("fleet.toml"))?;
        let (head, rest) = config.split_once("[gate]\n").context("a gate")?;
        let (_, rest) = rest.split_once("audit = ").context("its audit")?;
        let config = format!("{head}[gate]\n{gate}audit = {rest}");
        fs::write(self.path("fleet.toml"), config)?;
        Ok(())
    }

    pub(super) fn start_agents(&mut self) -> Result<()> {
        for (name, host) in HOSTS.iter().zip(&self.hosts) {
            let mut command = Command::new(&self.program);
            command
                .args([
                    "agent",
                    "--fleet-every=2",
                    "--fleet-evidence-every=5",
                    "--fleet",
                    &store(),
                ])
                .arg("--fleet-identity")
                .arg(self.path("enrolled").join(name))
                .arg("--fleet-state")
                .arg(self.path("state").join(name))
                .arg(format!(
                    "--history={}",
                    self.path("history").join(name).display()
                ))
                .env_remove("PORTGUARD_CONFIG");
            self.processes.push(host.start(&mut command)?);
        }
        Ok(())
    }
}

fn store() -> String {
    let members: Vec<String> = MEMBERS.iter().map(|one| format!("10.79.{one}.2")).collect();
    format!("etcd://{}", members.join(","))
}
