//! The fleet of the demo: members of etcd, hosts with their agents, a controller, and the publishers' directory.

#![expect(
    clippy::indexing_slicing,
    reason = "a field that an answer lacks is null, and what was looked for does not come"
)]

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use portguard_harness::net::{Host, Lab, Output, Process};
use portguard_harness::traffic::{TcpEcho, connect_from, exchange_tcp};
use serde_json::Value;

use super::network::{Certificates, hub, join};
use crate::setup;
use crate::shell::{capture, say};
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

    fn start_etcd(&mut self) -> Result<()> {
        let addresses: Vec<String> = MEMBERS.iter().map(|one| format!("10.79.{one}.2")).collect();
        self.certificates.issue("server", "server", &addresses)?;
        for class in [
            "root",
            "portguard-agent",
            "portguard-controller",
            "portguard-publisher",
        ] {
            self.certificates.issue(class, class, &[])?;
        }
        let file = |name: &str| self.certificates.file(name).display().to_string();
        let peers: Vec<String> = MEMBERS
            .iter()
            .map(|one| format!("m{one}=https://10.79.{one}.2:2380"))
            .collect();
        for (number, (host, process)) in MEMBERS.iter().zip(&mut self.members) {
            let client = format!("https://10.79.{number}.2:2379");
            let peer = format!("https://10.79.{number}.2:2380");
            let data = self.directory.join(format!("etcd-{number}"));
            let mut command = Command::new(setup::servers()?);
            command.args([
                format!("--name=m{number}"),
                format!("--data-dir={}", data.display()),
                format!("--listen-client-urls={client}"),
                format!("--advertise-client-urls={client}"),
                format!("--listen-peer-urls={peer}"),
                format!("--initial-advertise-peer-urls={peer}"),
                format!("--initial-cluster={}", peers.join(",")),
                format!("--cert-file={}", file("server.pem")),
                format!("--key-file={}", file("server.key")),
                format!("--trusted-ca-file={}", file("ca.pem")),
                format!("--peer-cert-file={}", file("server.pem")),
                format!("--peer-key-file={}", file("server.key")),
                format!("--peer-trusted-ca-file={}", file("ca.pem")),
                "--client-cert-auth=true".to_owned(),
                "--peer-client-cert-auth=true".to_owned(),
                "--logger=zap".to_owned(),
                "--log-level=error".to_owned(),
            ]);
            *process = Some(host.start(&mut command)?);
        }
        Ok(())
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
            Site::First | Site::Second => "",
            // Without it every host would refuse by itself what closes a port that it uses.
            Site::Cuts => "closing = \"allow\"\n",
            // Of connections to etcd that were cut, late packets were counted.
            Site::Fourth => "would_drop = 5\n",
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

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .arg("fleet")
            .args(arguments)
            .arg("--directory")
            .arg(&self.directory)
            .env("COLUMNS", "130")
            .env_remove("PORTGUARD_CONFIG");
        command
    }

    fn verb(&self, arguments: &[&str]) -> Result<Output> {
        self.hub.output(&mut self.command(arguments), PATIENCE)
    }

    fn json(&self, arguments: &[&str]) -> Result<Value> {
        let output = self.verb(arguments)?;
        serde_json::from_str(&output.stdout).with_context(|| output.to_string())
    }

    /// Runs a verb and shows what it says, or those of its lines that have one of these words.
    pub(super) fn show(&self, arguments: &[&str], words: &[&str]) -> Result<()> {
        let output = self.verb(arguments)?;
        ensure!(
            output.code() < 2,
            "`portguard fleet {}`: {output}",
            arguments.join(" ")
        );
        say(format_args!(
            "    $ portguard fleet {}",
            arguments.join(" ")
        ));
        for line in output.stdout.lines().chain(output.stderr.lines()) {
            if words.is_empty() || words.iter().any(|word| line.contains(word)) {
                say(format_args!("    {}", line.trim_end()));
            }
        }
        Ok(())
    }

    /// Runs a verb that is refused, and shows why.
    pub(super) fn refused(&self, arguments: &[&str], why: &str) -> Result<()> {
        let output = self.verb(arguments)?;
        ensure!(
            output.code() == 2 && output.stderr.contains(why),
            "`portguard fleet {}` was not refused as it should be: {output}",
            arguments.join(" ")
        );
        say(format_args!(
            "    $ portguard fleet {}",
            arguments.join(" ")
        ));
        for line in output.stderr.lines() {
            say(format_args!("    {line}"));
        }
        Ok(())
    }

    /// Both publishers sign.
    pub(super) fn sign(&self, more: &[&str]) -> Result<()> {
        for publisher in PUBLISHERS {
            let key = self.path(&format!("{publisher}.key")).display().to_string();
            let mut verb = vec!["sign", "-s", &key];
            verb.extend(more);
            let output = self.verb(&verb)?.success()?;
            let said = output.stderr.lines().last().unwrap_or_default();
            let said = said.split(';').next().unwrap_or_default();
            let more = more.concat();
            say(format_args!(
                "    $ portguard fleet sign -s {publisher}.key {more}"
            ));
            say(format_args!("    {said}"));
        }
        Ok(())
    }

    /// Plans, signs, publishes, and lets the rollout begin.
    pub(super) fn publish(&self, more: &[&str]) -> Result<()> {
        let mut plan = vec!["plan"];
        plan.extend(more);
        self.show(&plan, &["release", "rollback"])?;
        self.sign(&[])?;
        self.show(&["apply", "--start"], &[])
    }

    /// Until all of these hosts are there.
    pub(super) fn wait(&self, state: &str, selector: &str) -> Result<()> {
        let timeout = format!("{}s", PATIENCE.as_secs() - 10);
        let verb = [
            "status",
            "--json",
            "--wait",
            state,
            "-l",
            selector,
            "--timeout",
            &timeout,
        ];
        let said = self.json(&verb)?;
        let hosts = said["hosts"].as_array().context("hosts")?;
        if hosts.iter().all(|host| host["state"] == state) {
            return Ok(());
        }
        let logs: Vec<String> = self.processes.iter().map(Process::stderr).collect();
        bail!("not all are {state}: {said:#}\n{}", logs.join("\n---\n"))
    }

    /// Until the rollout is.
    pub(super) fn wait_for_phase(&self, phase: &str) -> Result<()> {
        let begun = Instant::now();
        loop {
            let said = self.json(&["status", "--json"])?;
            if said["position"]["phase"] == phase {
                return Ok(());
            }
            ensure!(
                begun.elapsed() < PATIENCE,
                "the rollout is not {phase}: {said:#}"
            );
        }
    }

    /// Somebody uses a service of node-5 that no document names.
    pub(super) fn use_undocumented(&mut self) -> Result<()> {
        let target: SocketAddr = "10.79.5.2:4711".parse()?;
        let host = self.hosts.get(4).context("node-5")?;
        let service = TcpEcho::start(host, target)?;
        self.hub.run(|| {
            let from = "10.79.5.1".parse()?;
            let mut stream = connect_from(from, target, Duration::from_secs(5)).stream()?;
            let is_answered = exchange_tcp(&mut stream, b"a job", Duration::from_secs(5))?;
            ensure!(is_answered, "in audit everything passes");
            Ok(())
        })?;
        self.service = Some(service);
        Ok(())
    }

    /// Kills the member that leads, and says which it was.
    pub(super) fn kill_leader(&mut self) -> Result<String> {
        for (number, (host, process)) in MEMBERS.iter().zip(&mut self.members) {
            let file = |name: &str| self.certificates.file(name).display().to_string();
            let mut command = Command::new(setup::servers()?.with_file_name("etcdctl"));
            command.env("ETCDCTL_API", "3").args([
                format!("--endpoints=https://10.79.{number}.2:2379"),
                format!("--cacert={}", file("ca.pem")),
                format!("--cert={}", file("root.pem")),
                format!("--key={}", file("root.key")),
                "endpoint".to_owned(),
                "status".to_owned(),
                "--write-out=json".to_owned(),
            ]);
            let output = host.output(&mut command, PATIENCE)?.success()?;
            let said: Value = serde_json::from_str(&output.stdout)?;
            let status = &said[0]["Status"];
            if status["leader"] == status["header"]["member_id"] {
                let mut process = process.take().context("it runs")?;
                process.kill();
                return Ok(format!("etcd-{}", number - 100));
            }
        }
        bail!("no member leads")
    }

    fn status(&self, host: &Host) -> Result<Value> {
        let mut command = Command::new(&self.program);
        command
            .args(["status", "--json"])
            .env_remove("PORTGUARD_CONFIG");
        let output = host.output(&mut command, PATIENCE)?.success()?;
        let said: Value = serde_json::from_str(&output.stdout)?;
        Ok(said["interfaces"][0].clone())
    }

    /// What each host's kernel has loaded.
    pub(super) fn digests(&self) -> Result<Vec<String>> {
        let one = |host: &Host| Ok(self.status(host)?["digest"].to_string());
        self.hosts.iter().map(one).collect()
    }

    /// Whether somebody on the network gets an answer from a port of a host, be it that nobody listens there.
    pub(super) fn answers(&self, node: u8, port: u16) -> Result<bool> {
        let target: SocketAddr = format!("10.79.{node}.2:{port}").parse()?;
        let from = format!("10.79.{node}.1").parse()?;
        self.hub
            .run(|| Ok(!connect_from(from, target, Duration::from_millis(500)).is_timed_out()))
    }

    pub(super) fn must_enforce(&self, names: &[&str]) -> Result<()> {
        for name in names {
            ensure!(self.enforces(name)?, "{name} does not enforce");
        }
        Ok(())
    }

    pub(super) fn must_not_enforce(&self, name: &str) -> Result<()> {
        ensure!(!self.enforces(name)?, "{name} enforces");
        Ok(())
    }

    fn enforces(&self, name: &str) -> Result<bool> {
        let host = HOSTS.iter().zip(&self.hosts).find(|(one, _)| **one == name);
        let (_, host) = host.context("a host")?;
        Ok(self.status(host)?["effective"]["inbound"] == "enforce")
    }
}

fn store() -> String {
    let members: Vec<String> = MEMBERS.iter().map(|one| format!("10.79.{one}.2")).collect();
    format!("etcd://{}", members.join(","))
}
