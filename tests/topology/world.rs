//! Who there is, and what is loaded on whom.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use portguard_harness::net::{End, Host, Interface, Lab, Output, Process, unique_name};
use portguard_harness::traffic::{TcpEcho, UdpEcho, ping};
use serde_json::Value;

use super::checks::{CLOSED, PUBLISHED};
use crate::guard::{Guarded, LONG, SHORT, eventually};
use crate::living::clients::NameServer;
use crate::living::town::{Site, TCP, UDP};

/// A port of the server's that the host may ask.
pub(super) const ASKED: u16 = 8001;
/// A port of the server's to which a connection of the host's stays open.
pub(super) const QUIET: u16 = 8002;
/// Idle times of the policies, in seconds: a quiet connection outlasts them.
const IDLE: &str = "1s";
/// The narrowest link on the way.
const NARROW: u32 = 1280;

const SITE: &str = r#"
schema = 1
mode = "audit"
outbound = "audit"
unprinted_peers = "any"
catalogs = ["matrices"]
SCOPE
[management]
none = true
[timeouts]
tcp_idle = "IDLE"
udp_idle = "IDLE"
[baseline]
dns = ["10.77.2.2", "fd77:0:0:2::2"]
[[row]]
name = "outside"
direction = "out"
transport = ["tcp", "udp"]
ports = [ASKED, QUIET]
peers = ["10.77.0.0/16", "fd77::/48"]
reason = "what the host asks"
MORE
[[host]]
name = "house"
addresses = ["10.77.0.1", "fd77::1"]
roles = ["town/house"]
"#;

/// What the second policy opens besides.
const BESIDES: &str = r#"
[[row]]
name = "besides"
direction = "in"
transport = "tcp"
ports = [7005]
peers = "any"
reason = "another door"
"#;

/// One of two policies, so that there is something to swap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Policy {
    First,
    Second,
}

/// An interface to guard, and how.
#[derive(Debug, Clone)]
pub(super) struct Guard {
    pub(super) interface: String,
    pub(super) xdp: &'static str,
}

/// Where the host is reached from then on, and the commands of host and router that make it so.
#[derive(Debug)]
pub(super) struct Move {
    pub(super) own: [IpAddr; 2],
    pub(super) host: String,
    pub(super) near: String,
}

/// A host with a topology, and others around it.
pub(super) struct World {
    pub(super) name: &'static str,
    pub(super) host: Host,
    /// The router next door, a stranger.
    pub(super) near: Host,
    /// Beyond the narrow link: a server, and a stranger.
    pub(super) server: Interface,
    pub(super) guards: Vec<Guard>,
    /// Where the host is reached, and whence it connects.
    pub(super) own: [IpAddr; 2],
    /// Somebody behind the host who offers its documented services and connects by its address.
    pub(super) behind: Option<(Host, [IpAddr; 2])>,
    /// What happens to the host's addresses after each load, again and again.
    pub(super) moves: Vec<Move>,
    /// Whether datagrams of the host leave by an interface without a guard: their answers are not known then, which is said.
    pub(super) leaves_unguarded: bool,
    /// Keys of the site that this topology needs.
    pub(super) scope: &'static str,
    pub(super) rows: &'static str,
    /// What the topology itself is made of.
    pub(super) processes: Vec<Process>,
    site: Site,
}

/// What hosts offer; ends with this.
pub(super) struct Services {
    _names: Vec<NameServer>,
    tcp: Vec<TcpEcho>,
    udp: Vec<UdpEcho>,
}

impl Services {
    /// What the host, and whoever is behind it, offers at the address that it is reached at.
    fn of_host(&mut self, world: &World) -> Result<()> {
        let (inside, addresses) = match &world.behind {
            Some((host, addresses)) => (host, *addresses),
            None => (&world.host, world.own),
        };
        for address in addresses {
            self.tcp
                .push(TcpEcho::start(inside, SocketAddr::new(address, TCP))?);
            if world.behind.is_some() {
                let at = |port| SocketAddr::new(address, port);
                self.tcp.push(TcpEcho::start(inside, at(PUBLISHED))?);
                self.udp.push(UdpEcho::start(inside, at(PUBLISHED))?);
                self.udp.push(UdpEcho::start(inside, at(UDP))?);
            }
        }
        for address in world.own {
            let at = |port| SocketAddr::new(address, port);
            self.udp.push(UdpEcho::start(&world.host, at(UDP))?);
            for port in CLOSED {
                self.tcp.push(TcpEcho::start(&world.host, at(port))?);
                self.udp.push(UdpEcho::start(&world.host, at(port))?);
            }
        }
        Ok(())
    }
}

/// Both families' addresses.
pub(super) fn both(v4: &str, v6: &str) -> Result<[IpAddr; 2]> {
    Ok([v4.parse()?, v6.parse()?])
}

/// Runs commands of `ip`, one a line; `IF` stands for the interface.
pub(crate) fn ip(host: &Host, interface: &str, commands: &str) -> Result<()> {
    for line in commands
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
    {
        let line = line.replace("IF", interface);
        let mut command = Command::new("ip");
        command.args(line.split_whitespace());
        host.output(&mut command, LONG)?
            .success()
            .with_context(|| format!("ip {line}"))?;
    }
    Ok(())
}

impl World {
    /// A router and a server beyond it, and a host that is joined to nobody yet.
    pub(super) fn new(name: &'static str) -> Result<Self> {
        let lab = Lab::new()?;
        let (host, near, far) = (lab.host("host")?, lab.host("near")?, lab.host("server")?);
        let end = |last: u8| {
            End::new(&unique_name("tf"))
                .mtu(NARROW)
                .address(&format!("10.77.2.{last}/24"))
                .address(&format!("fd77:0:0:2::{last}/64"))
        };
        let link = lab.connect(&near, &end(1), &far, &end(2))?;
        near.sysctl("net/ipv4/ip_forward", "1")?;
        near.sysctl("net/ipv6/conf/all/forwarding", "1")?;
        near.sysctl("net/ipv4/icmp_ratelimit", "0")?;
        near.sysctl("net/ipv6/icmp/ratelimit", "0")?;
        ip(
            &far,
            &link.right.name,
            "route add default via 10.77.2.1\n-6 route add default via fd77:0:0:2::1",
        )?;
        Ok(Self {
            name,
            host,
            near,
            server: link.right,
            guards: Vec::new(),
            own: both("10.77.0.1", "fd77::1")?,
            behind: None,
            moves: Vec::new(),
            leaves_unguarded: false,
            scope: "",
            rows: "",
            processes: Vec::new(),
            // Written when it is loaded.
            site: Site::of("")?,
        })
    }

    /// Joins the host to the router by a card, which has the addresses of this net, and says what the host calls it.
    pub(super) fn join(&self, net: u8) -> Result<String> {
        let end = |prefix: &str, last: u8| {
            End::new(&unique_name(prefix))
                .address(&format!("10.77.{net}.{last}/24"))
                .address(&if net == 0 {
                    format!("fd77::{last}/64")
                } else {
                    format!("fd77:0:0:{net}::{last}/64")
                })
        };
        let link = Lab::new()?.connect(&self.host, &end("th", 1), &self.near, &end("tn", 2))?;
        Ok(link.left.name)
    }

    /// The host sends what is not for its own net to the router.
    pub(super) fn route(&self) -> Result<()> {
        ip(
            &self.host,
            "",
            "route add 10.77.0.0/16 via 10.77.0.2\n-6 route add fd77::/48 via fd77::2",
        )
    }

    pub(super) fn guard(&mut self, interface: &str, xdp: &'static str) {
        self.guards.push(Guard {
            interface: interface.to_owned(),
            xdp,
        });
    }

    /// What is asked of the host and of the server, and what listens on the host though nobody should reach it.
    pub(super) fn services(&self) -> Result<Services> {
        let (mut names, mut tcp, mut udp) = (Vec::new(), Vec::new(), Vec::new());
        let server = &self.server.host;
        for address in self.server.both() {
            names.push(NameServer::start(server, SocketAddr::new(address, 53))?);
            tcp.push(TcpEcho::start(server, SocketAddr::new(address, ASKED))?);
            udp.push(UdpEcho::start(server, SocketAddr::new(address, ASKED))?);
        }
        let mut services = Services {
            _names: names,
            tcp,
            udp,
        };
        services.of_host(self)?;
        Ok(services)
    }

    /// Loads a policy on all guarded interfaces.
    pub(super) fn load(&self, policy: Policy, more: &[&str]) -> Result<()> {
        let outbound = if more.contains(&"--enforce") {
            "enforce"
        } else {
            "audit"
        };
        let rows = match policy {
            Policy::First => self.rows.to_owned(),
            Policy::Second => format!("{}{BESIDES}", self.rows),
        };
        let text = SITE
            .replace("SCOPE", self.scope)
            .replace("IDLE", IDLE)
            .replace("ASKED", &ASKED.to_string())
            .replace("QUIET", &QUIET.to_string())
            .replace("MORE", &rows);
        let site = self.site.file();
        fs::write(&site, text)?;
        for Guard { interface, xdp } in &self.guards {
            let mut args = vec![
                "load",
                "-c",
                &site,
                "--host",
                "house",
                "--interface",
                interface,
                "--xdp-mode",
                xdp,
                "--outbound",
                outbound,
            ];
            args.extend(more);
            let said = self
                .portguard_said(&args)
                .with_context(|| format!("{}: {interface}: {policy:?} {more:?}", self.name))?;
            ensure!(
                !self.leaves_unguarded || said.stderr.contains("not guarded: "),
                "{said}"
            );
        }
        Ok(())
    }

    fn portguard_said(&self, args: &[&str]) -> Result<Output> {
        let output = self.host.output(&mut Guarded::command(args), LONG)?;
        output.success()
    }

    pub(super) fn portguard(&self, args: &[&str]) -> Result<String> {
        Ok(self.portguard_said(args)?.stdout)
    }

    /// The interfaces in an answer.
    pub(super) fn interfaces(&self, verb: &str) -> Result<Vec<Value>> {
        let answer: Value = serde_json::from_str(&self.portguard(&[verb, "--json"])?)?;
        let interfaces = answer["interfaces"].as_array().context("interfaces")?;
        ensure!(
            interfaces.len() == self.guards.len(),
            "{verb}: {interfaces:?}"
        );
        Ok(interfaces.clone())
    }

    /// Addresses move as they are next to, and are what everybody uses.
    pub(super) fn moves(&mut self, services: &mut Services) -> Result<()> {
        if self.moves.is_empty() {
            return Ok(());
        }
        let Move { own, host, near } = self.moves.remove(0);
        ip(&self.host, "", &host)?;
        ip(&self.near, "", &near)?;
        if own != self.own {
            self.own = own;
            services.of_host(self)?;
        }
        // Until neighbours know of it, some of what they send is lost, guard or not.
        for who in [&self.near, &self.server.host] {
            for address in own {
                eventually("the address is found where it is", || {
                    who.run(|| Ok(ping(address, SHORT)?.is_some()))
                })?;
            }
        }
        Ok(())
    }

    /// Back to the policy before, on all guarded interfaces.
    pub(super) fn roll_back(&self) -> Result<()> {
        for Guard { interface, .. } in &self.guards {
            self.portguard(&["rollback", "--interface", interface, "--force"])?;
        }
        Ok(())
    }

    /// Waits until the deadline of every guard has passed.
    pub(super) fn lapses(&self) -> Result<()> {
        eventually("the deadlines passed", || {
            let interfaces = self.interfaces("status")?;
            Ok(interfaces
                .iter()
                .all(|one| one["confirm_seconds_left"] == 0))
        })
    }

    /// The host's own address of the family of another.
    pub(super) fn own(&self, other: IpAddr) -> IpAddr {
        let [v4, v6] = self.own;
        if other.is_ipv4() { v4 } else { v6 }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for Guard { interface, .. } in &self.guards {
            let _ = self.portguard(&["unload", "--interface", interface]);
        }
    }
}
