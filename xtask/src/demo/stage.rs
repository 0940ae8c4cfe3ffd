//! The private network of the demo, what listens there, and the command line of the guarded host.

use std::fs;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use portguard_harness::net::{End, Interface, Lab, Link, Output};
use portguard_harness::traffic::{TcpEcho, UdpEcho};
use socket2::{Domain, Protocol, Socket, Type};

/// The guarded interface.
pub(super) const INTERFACE: &str = "eth0";

/// TCP ports that listen on the guarded host: documented, and not.
const TCP: [u16; 5] = [22, 443, 2181, 5432, 6379];
/// UDP ports that answer there; no document opens one.
const UDP: u16 = 161;

/// Longer than any command takes.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long an attempt to connect may take; far more than a private link needs.
const CONNECT: Duration = Duration::from_millis(500);

/// The site file of the demo, as an operator would write it.
const SITE: &str = include_str!("site.toml");

/// What the demo plays on.
pub(super) struct Stage {
    link: Link,
    portguard: PathBuf,
    folder: PathBuf,
    _servers: (Vec<TcpEcho>, Vec<UdpEcho>),
}

impl Stage {
    /// Makes the network and starts what listens.
    pub(super) fn set(portguard: &Path) -> Result<Self> {
        private_bpffs()?;
        let lab = Lab::new()?;
        let (node, network) = (lab.host("node-1")?, lab.host("network")?);
        let link = lab.connect(
            &node,
            &End::new(INTERFACE)
                .address("10.20.0.11/24")
                .address("fd20::11/64"),
            &network,
            &End::new("network0")
                .address("10.20.0.12/24")
                .address("10.20.0.50/24")
                .address("10.20.0.66/24")
                .address("fd20::12/64"),
        )?;
        let mut servers = (Vec::new(), Vec::new());
        for address in link.left.both() {
            for port in TCP {
                servers
                    .0
                    .push(TcpEcho::start(&node, SocketAddr::new(address, port))?);
            }
            servers
                .1
                .push(UdpEcho::start(&node, SocketAddr::new(address, UDP))?);
        }
        let folder = std::env::temp_dir().join(format!("portguard-demo-{}", std::process::id()));
        fs::create_dir_all(&folder)?;
        fs::write(folder.join("site.toml"), SITE)?;
        Ok(Self {
            link,
            portguard: portguard.to_owned(),
            folder,
            _servers: servers,
        })
    }

    /// The guarded end.
    pub(super) fn node(&self) -> &Interface {
        &self.link.left
    }

    /// The end of everybody else.
    pub(super) fn network(&self) -> &Interface {
        &self.link.right
    }

    /// Runs the guard's command line on the guarded host.
    pub(super) fn portguard(&self, words: &[&str], width: usize) -> Result<Output> {
        let mut command = Command::new(&self.portguard);
        command.args(words).current_dir(&self.folder);
        command.env("COLUMNS", width.to_string());
        self.node().host.output(&mut command, PATIENCE)
    }

    /// Connects from one of the network's addresses to the guarded host; `None` if nobody answers.
    pub(super) fn connect(&self, from: IpAddr, port: u16) -> Result<Option<TcpStream>> {
        let to = SocketAddr::new(self.address(from.is_ipv6()), port);
        self.network().host.run(|| {
            let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
            socket.bind(&SocketAddr::new(from, 0).into())?;
            Ok(socket
                .connect_timeout(&to.into(), CONNECT)
                .is_ok()
                .then(|| socket.into()))
        })
    }

    /// The guarded host's address in a family.
    pub(super) fn address(&self, v6: bool) -> IpAddr {
        if v6 {
            self.node().v6().into()
        } else {
            self.node().v4().into()
        }
    }

    /// A session of node-2 with the web application.
    pub(super) fn session(&self) -> Result<TcpStream> {
        self.connect(self.network().v4().into(), 443)?
            .context("no session with port 443")
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Pins go to a bpffs that ends with this process, however it ends.
fn private_bpffs() -> Result<()> {
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
