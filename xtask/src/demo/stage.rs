//! The hosts of the demo, and the guard on one of them.

use std::io::{self, IsTerminal as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use portguard_harness::net::{End, Host, Lab, Link, Output, Process};
use portguard_harness::traffic::{TcpEcho, UdpEcho, connect_from};

/// The guarded interface.
pub(super) const INTERFACE: &str = "pgdemo0";
/// The other end.
const OTHER: &str = "pgdemo1";
/// Undocumented, and yet somebody listens there.
pub(super) const ROGUE: u16 = 9999;
/// How long a command may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Two namespaces, services, and the program under demonstration.
pub(super) struct Stage {
    program: PathBuf,
    node: Host,
    /// Where node-2, the admin and the stranger live.
    pub(super) others: Host,
    /// The wire.
    pub(super) link: Link,
    _tcp: Vec<TcpEcho>,
    _udp: Vec<UdpEcho>,
    _lab: Lab,
}

impl Stage {
    pub(super) fn new(program: PathBuf) -> Result<Self> {
        private_bpffs()?;
        let lab = Lab::new()?;
        let node = lab.host("node")?;
        let others = lab.host("others")?;
        let mut far = End::new(OTHER);
        for last in ["2", "3", "66"] {
            far = far
                .address(&format!("10.77.0.{last}/24"))
                .address(&format!("fd77::{last}/64"));
        }
        let near = End::new(INTERFACE)
            .address("10.77.0.1/24")
            .address("fd77::1/64");
        let link = lab.connect(&node, &near, &others, &far)?;
        let mut tcp = Vec::new();
        for port in [22, 443, 2101, ROGUE] {
            for address in ["10.77.0.1", "fd77::1"] {
                tcp.push(TcpEcho::start(
                    &node,
                    SocketAddr::new(address.parse()?, port),
                )?);
            }
        }
        let udp = vec![UdpEcho::start(&node, "10.77.0.1:9999".parse()?)?];
        Ok(Self {
            program,
            node,
            others,
            link,
            _tcp: tcp,
            _udp: udp,
            _lab: lab,
        })
    }

    /// A session of node-2 with the application.
    pub(super) fn session(&self) -> Result<TcpStream> {
        let (from, to) = ("10.77.0.2".parse()?, "10.77.0.1:443".parse()?);
        self.others
            .run(|| connect_from(from, to, Duration::from_secs(1)).stream())
    }

    /// The site in flags: who the peers of the document are here.
    pub(super) fn site() -> Vec<&'static str> {
        vec![
            "--role",
            "thoughtspot/node",
            "--peer",
            "thoughtspot/node=10.77.0.1,10.77.0.2,fd77::1,fd77::2",
            "--peer",
            "admin-addresses=10.77.0.3,fd77::3",
            "--unresolved-peers",
            "none",
            "--unresolved-ports",
            "none",
            "--system-version",
            "6.0",
            "--choose",
            "mail-port=587",
            "--choose",
            "directory-port=636",
            "--management",
            "tcp/22=10.77.0.0/24,fd77::/64",
        ]
    }

    pub(super) fn load(&self, mode: &str) -> Result<()> {
        let mut arguments = vec!["load", "--interface", INTERFACE, mode];
        arguments.extend(Self::site());
        let output = self.output(&arguments)?;
        ensure!(output.0, "`portguard load` failed:\n{}", output.2);
        for line in output.2.lines().filter(|line| line.starts_with(INTERFACE)) {
            writeln!(io::stderr(), "    {line}")?;
        }
        Ok(())
    }

    /// Runs a verb on the guarded host and shows what it prints, its first lines if there is a limit.
    pub(super) fn show(&self, arguments: &[&str], limit: Option<usize>) -> Result<()> {
        let mut all = arguments.to_vec();
        if arguments.first() == Some(&"check") {
            all = vec!["check"];
            all.extend(Self::site());
        }
        let (is_ok, out, err) = self.output(&all)?;
        ensure!(is_ok, "`portguard {}` failed:\n{err}", arguments.join(" "));
        let text = if out.is_empty() { err } else { out };
        let lines: Vec<&str> = text.lines().collect();
        for line in lines.iter().take(limit.unwrap_or(usize::MAX)) {
            writeln!(io::stderr(), "    {}", line.trim_end())?;
        }
        if let Some(limit) = limit.filter(|limit| lines.len() > *limit) {
            writeln!(io::stderr(), "    ... {} more lines", lines.len() - limit)?;
        }
        Ok(())
    }

    /// Whether the guard left no pin of its own.
    pub(super) fn is_clean(&self) -> Result<bool> {
        let (is_ok, out, _) = self.output(&["status", "--json"])?;
        Ok(is_ok && out.contains("\"interfaces\": []"))
    }

    /// What a verb prints; findings are no failure.
    pub(super) fn text(&self, arguments: &[&str]) -> Result<String> {
        let (_, out, err) = self.output(arguments)?;
        ensure!(
            !out.is_empty(),
            "`portguard {}`:\n{err}",
            arguments.join(" ")
        );
        Ok(out)
    }

    /// Starts a verb on a terminal of its own.
    pub(super) fn terminal(&self, line: &str, columns: u16, rows: u16) -> Result<Process> {
        let program = self.program.display();
        let shown = format!("stty cols {columns} rows {rows}; exec {program} {line}");
        let mut command = Command::new("script");
        command
            .args(["-qfec", &shown, "/dev/null"])
            .env("TERM", "xterm-256color")
            .env_remove("NO_COLOR")
            .env_remove("COLUMNS")
            .env_remove("CI");
        self.node.start(&mut command)
    }

    /// Runs another program on the guarded host.
    pub(super) fn run(&self, command: &mut Command, patience: Duration) -> Result<Output> {
        self.node.output(command, patience)
    }

    /// Starts a command on the guarded host.
    pub(super) fn start(&self, command: &mut Command) -> Result<Process> {
        self.node.start(command)
    }

    fn output(&self, arguments: &[&str]) -> Result<(bool, String, String)> {
        let mut command = Command::new(&self.program);
        command
            .args(arguments)
            .env("COLUMNS", "120")
            .env_remove("PORTGUARD_CONFIG");
        let output = self
            .node
            .output(&mut command, PATIENCE)
            .with_context(|| format!("`portguard {}`", arguments.join(" ")))?;
        Ok((output.status.success(), output.stdout, output.stderr))
    }
}

/// Pins go to a bpffs that ends with this process, however it ends.
pub(super) fn private_bpffs() -> Result<()> {
    const NONE: Option<&str> = None;
    unshare(CloneFlags::CLONE_NEWNS).context("making a private view of the file system")?;
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE)
        .context("keeping mounts to ourselves")?;
    mount(
        Some("bpf"),
        "/sys/fs/bpf",
        Some("bpf"),
        MsFlags::empty(),
        NONE,
    )
    .context("mounting a private bpffs")
}

/// Colours, on terminals only.
pub(super) struct Paint(bool);

impl Paint {
    pub(super) fn new() -> Self {
        Self(io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none())
    }

    pub(super) fn bold(&self, text: &str) -> String {
        self.with("1", text)
    }

    pub(super) fn good(&self, text: &str) -> String {
        self.with("32", text)
    }

    pub(super) fn bad(&self, text: &str) -> String {
        self.with("31", text)
    }

    fn with(&self, code: &str, text: &str) -> String {
        if self.0 {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}
