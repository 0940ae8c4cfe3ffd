//! A guarded host, two routers with a narrow link between them, and a server at the far end.
//!
//! ```text
//! host 10.77.0.1 ── 10.77.0.2 near 10.77.1.1 ══ MTU 1280 ══ 10.77.1.2 far 10.77.2.1 ── 10.77.2.2 server
//! ```
//!
//! IPv6 likewise, from `fd77::1` to `fd77:0:0:2::2`.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;
use portguard_harness::net::{End, Host, Interface, Lab, Link, Output, Process, unique_name};
use portguard_harness::traffic::{TcpEcho, UdpEcho, connect};
use tempfile::TempDir;

use super::clients::{NameServer, TimeServer};
use crate::guard::{Guarded, SOON, eventually};

/// The two ports that the matrix has.
pub(crate) const TCP: u16 = 7001;
pub(crate) const UDP: u16 = 7002;

/// What the server's page says.
pub(super) const PAGE: &str = "the town's page\n";

/// The least that IPv6 allows.
pub(super) const NARROW: u32 = 1280;

/// Idle times that a test can wait for, in seconds.
pub(super) const TCP_IDLE: u64 = 3;

const MATRIX: &str = r#"
schema = 1
system = "town"
name = "Town"
document = "Town: network ports"
source = "town-ports.html"
read = "2026-11-21"
[roles.house]
name = "House"
[[row]]
id = "door"
role = "house"
direction = "in"
transport = "tcp"
ports = [7001]
peers = ["unprinted"]
purpose = "the door"
cite = { section = "House", row = "1" }
[[row]]
id = "bell"
role = "house"
direction = "in"
transport = "udp"
ports = [7002]
peers = ["unprinted"]
purpose = "the bell"
cite = { section = "House", row = "2" }
"#;

const SITE: &str = r#"
schema = 1
mode = "enforce"
outbound = "OUTBOUND"
unprinted_peers = "any"
catalogs = ["matrices"]
[management]
none = true
[timeouts]
tcp_idle = "3s"
udp_idle = "3s"
[baseline]
dhcp = ["10.77.9.1", "fe80::/10"]
dns = ["10.77.2.2", "fd77:0:0:2::2"]
ntp = ["10.77.2.2", "fd77:0:0:2::2"]
[[row]]
name = "outside"
direction = "out"
transport = ["tcp", "udp"]
ports = [80, 8001]
peers = ["10.77.0.0/16", "fd77::/48"]
reason = "pages and echoes"
[[host]]
name = "house"
addresses = ["10.77.0.1", "fd77::1"]
roles = ["town/house"]
"#;

/// The site of a host that passes what is for others; `MODE` is its mode.
pub(crate) const SCOPED: &str = r#"
schema = 1
mode = "MODE"
unprinted_peers = "any"
catalogs = ["matrices"]
scope = "host-addresses"
[management]
none = true
[[host]]
name = "house"
addresses = ["10.77.0.1"]
roles = ["town/house"]
"#;

/// A site file and its matrix, in a folder that goes with it.
#[derive(Debug)]
pub(crate) struct Site {
    folder: TempDir,
}

impl Site {
    pub(crate) fn new(outbound: &str) -> Result<Self> {
        Self::of(&SITE.replace("OUTBOUND", outbound))
    }

    /// Of another text.
    pub(crate) fn of(text: &str) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        fs::create_dir(folder.path().join("matrices"))?;
        fs::write(folder.path().join("matrices/town.toml"), MATRIX)?;
        let site = Self { folder };
        fs::write(site.file(), text)?;
        Ok(site)
    }

    /// Where the site file is, as `-c` takes it.
    pub(crate) fn file(&self) -> String {
        self.path("site.toml").display().to_string()
    }

    /// A place beside it.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Puts it in force on a guarded host.
    pub(crate) fn load(&self, guarded: &Guarded, more: &[&str]) -> Result<Output> {
        let site = self.file();
        let args: Vec<String> = ["load", "-c", &site, "--host", "house"]
            .into_iter()
            .chain(["--interface", guarded.interface(), "--confirm-within", "0"])
            .chain(more.iter().copied())
            .map(str::to_owned)
            .collect();
        guarded.run(&args, None)?.success()
    }
}

pub(super) struct Town {
    pub(super) guarded: Guarded,
    pub(super) server: Interface,
    /// Kept: a namespace lives as long as its hosts.
    _routers: [Host; 2],
}

/// What the server offers; ends with this.
pub(super) struct Services {
    names: Vec<NameServer>,
    times: Vec<TimeServer>,
    echoes: Vec<(TcpEcho, UdpEcho)>,
    pages: Vec<Process>,
    folder: PathBuf,
}

impl Drop for Services {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

impl Town {
    pub(super) fn new() -> Result<Self> {
        let lab = Lab::new()?;
        let house = lab.pair()?;
        let near = house.right.host.clone();
        let (far, server) = (lab.host("far")?, lab.host("server")?);
        let narrow = join(&lab, (&near, &far), 1, NARROW)?;
        let outer = join(&lab, (&far, &server), 2, 1500)?;
        for router in [&near, &far] {
            router.sysctl("net/ipv4/ip_forward", "1")?;
            router.sysctl("net/ipv6/conf/all/forwarding", "1")?;
            // As many errors as there is cause for: tests come in bursts.
            router.sysctl("net/ipv4/icmp_ratelimit", "0")?;
            router.sysctl("net/ipv6/icmp/ratelimit", "0")?;
        }
        let route = |from: &Interface, net: u8, via: &Interface| -> Result<()> {
            from.add_route(format!("10.77.{net}.0/24").parse()?, Some(via.v4().into()))?;
            let to = if net == 0 {
                "fd77::/64".to_owned()
            } else {
                format!("fd77:0:0:{net}::/64")
            };
            from.add_route(to.parse()?, Some(via.v6().into()))
        };
        for net in [1, 2] {
            route(&house.left, net, &house.right)?;
        }
        route(&narrow.left, 2, &narrow.right)?;
        route(&narrow.right, 0, &narrow.left)?;
        for net in [0, 1] {
            route(&outer.right, net, &outer.left)?;
        }
        Ok(Self {
            guarded: Guarded { link: house },
            server: outer.right,
            _routers: [near, far],
        })
    }

    pub(super) fn host(&self) -> &Host {
        &self.guarded.link.left.host
    }

    /// The guarded host's address of the family of `other`.
    pub(super) fn own(&self, other: IpAddr) -> IpAddr {
        let [v4, v6] = self.guarded.link.left.both();
        if other.is_ipv4() { v4 } else { v6 }
    }

    pub(super) fn load(&self, outbound: &str) -> Result<Output> {
        Site::new(outbound)?.load(&self.guarded, &[])
    }

    /// Starts all servers, in both families.
    pub(super) fn services(&self) -> Result<Services> {
        let host = &self.server.host;
        let folder = std::env::temp_dir().join(unique_name("pag"));
        fs::create_dir_all(&folder)?;
        fs::write(folder.join("page"), PAGE)?;
        let mut services = Services {
            names: Vec::new(),
            times: Vec::new(),
            echoes: Vec::new(),
            pages: Vec::new(),
            folder,
        };
        for address in self.server.both() {
            let at = |port| SocketAddr::new(address, port);
            services.names.push(NameServer::start(host, at(53))?);
            services.times.push(TimeServer::start(host, at(123))?);
            services.echoes.push((
                TcpEcho::start(host, at(8001))?,
                UdpEcho::start(host, at(8001))?,
            ));
            let mut httpd = Command::new("busybox");
            httpd.args(["httpd", "-f", "-p", &at(80).to_string(), "-h"]);
            services
                .pages
                .push(host.start(httpd.arg(&services.folder))?);
            eventually("the page server", || {
                host.run(|| Ok(connect(at(80), SOON).is_connected()))
            })?;
        }
        Ok(services)
    }
}

/// A link with the addresses of a net, `.1` left and `.2` right.
fn join(lab: &Lab, (left, right): (&Host, &Host), net: u8, mtu: u32) -> Result<Link> {
    let end = |last: u8| {
        End::new(&unique_name("tw"))
            .mtu(mtu)
            .address(&format!("10.77.{net}.{last}/24"))
            .address(&format!("fd77:0:0:{net}::{last}/64"))
    };
    lab.connect(left, &end(1), right, &end(2))
}
