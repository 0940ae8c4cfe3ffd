//! A service looks like a client to nobody: not by the port that its program asked for, not by what it says unasked.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use portguard_harness::net::Output;
use portguard_harness::traffic::{UdpEcho, receive_datagram, udp_socket, udp_socket_on};

use super::{counted, is_answered};
use crate::guard::{Guarded, LONG, SHORT, SOON};
use crate::living::town::Site;

/// How ports are picked on a host: settings of the kernel, and the first port of the services.
pub(super) const PICKING: [(&str, &str, u16); 3] = [
    ("", "", 41_000),
    ("net/ipv4/ip_local_port_range", "1024 65535", 9_900),
    ("net/ipv4/ip_local_reserved_ports", "51820-51900", 51_820),
];
/// Ports of strangers: their own, and those that anybody may be asked at.
const STRANGERS: [u16; 4] = [7777, 53, 123, 67];
pub(super) const IDLE: Duration = Duration::from_secs(1);

/// What a service is bound to.
const BOUND: [&str; 4] = ["an address", "any", "both families", "a device"];

struct Service {
    what: String,
    socket: UdpSocket,
    stranger: UdpSocket,
    address: SocketAddr,
    is_connected: bool,
}

pub(super) struct Scene {
    pub(super) guarded: Guarded,
    site: PathBuf,
    /// The first port of its services.
    first: u16,
}

impl Scene {
    pub(super) fn new((key, value, first): (&str, &str, u16)) -> Result<Self> {
        let guarded = Guarded::new()?;
        let site = std::env::temp_dir().join(format!("{}-services.toml", guarded.interface()));
        if !key.is_empty() {
            guarded.link.left.host.sysctl(key, value)?;
        }
        Ok(Self {
            guarded,
            site,
            first,
        })
    }

    /// Loads a policy that opens the services' ports to these peers.
    fn load(&self, mode: &str, peers: &str, more: &[&str]) -> Result<Output> {
        let (first, last) = (self.first, self.first + 70);
        let row = format!(
            "[[row]]\nname = \"service\"\ndirection = \"in\"\ntransport = \"udp\"\nports = [\"{first}-{last}\"]\n\
             peers = {peers}\nreason = \"a test\"\n"
        );
        self.load_rows(mode, &row, "0", more)
    }

    /// Loads a policy with these rows, for so long unless it is confirmed.
    pub(super) fn load_rows(
        &self,
        mode: &str,
        rows: &str,
        within: &str,
        more: &[&str],
    ) -> Result<Output> {
        std::fs::write(
            &self.site,
            format!(
                "schema = 1\nunprinted_peers = \"none\"\nunresolved_peers = \"none\"\n[timeouts]\nudp_idle = \"1s\"\n\
                 [management]\nnone = true\n[systems.thoughtspot]\nversion = \"10\"\n\
                 choices = {{ directory-port = \"636\", mail-port = \"587\" }}\n{rows}\
                 [[host]]\nname = \"here\"\naddresses = [\"10.77.0.1\", \"fd77::1\"]\nroles = [\"thoughtspot/node\"]\n"
            ),
        )?;
        let file = self.site.display().to_string();
        let mut args = vec!["load", "-c", &file, "--interface", self.guarded.interface()];
        args.extend([mode, "--confirm-within", within, "--allow-weaker"]);
        args.extend(more);
        let host = &self.guarded.link.left.host;
        host.output(&mut Guarded::command(&args), LONG)
    }

    /// Each kind of service, with a stranger of each of these ports that talked to it.
    fn services(&self, ports: &[u16]) -> Result<Vec<Service>> {
        let (left, right) = (&self.guarded.link.left, &self.guarded.link.right);
        let mut found = Vec::new();
        let mut port = self.first;
        for family in [0, 1] {
            let (ours, theirs) = (left.both()[family], right.both()[family]);
            for stranger in ports {
                // One talks to all services.
                let stranger = right
                    .host
                    .run(|| udp_socket(SocketAddr::new(theirs, *stranger)))?;
                for (bound, what) in BOUND.into_iter().enumerate() {
                    let any: IpAddr = if family == 1 || bound == 2 {
                        Ipv6Addr::UNSPECIFIED.into()
                    } else {
                        Ipv4Addr::UNSPECIFIED.into()
                    };
                    for is_connected in [false, true] {
                        port += 1;
                        let socket = left.host.run(|| match bound {
                            0 => udp_socket(SocketAddr::new(ours, port)),
                            1 | 2 => udp_socket(SocketAddr::new(any, port)),
                            _ => udp_socket_on(&left.name, SocketAddr::new(any, port)),
                        })?;
                        let from = stranger.local_addr()?;
                        let service = Service {
                            what: format!("{what} ({port}, connected: {is_connected}) and {from}"),
                            socket,
                            stranger: stranger.try_clone()?,
                            address: SocketAddr::new(ours, port),
                            is_connected,
                        };
                        service.speak()?;
                        ensure!(service.is_heard(SOON)?, "{}", service.what);
                        if is_connected {
                            service.socket.connect(service.peer()?)?;
                        }
                        service.push()?;
                        found.push(service);
                    }
                }
            }
        }
        Ok(found)
    }
}

impl Service {
    /// The stranger, as this socket has it.
    fn peer(&self) -> Result<SocketAddr> {
        let mut peer = self.stranger.local_addr()?;
        if let (IpAddr::V4(v4), true) = (peer.ip(), self.socket.local_addr()?.is_ipv6()) {
            peer.set_ip(v4.to_ipv6_mapped().into());
        }
        Ok(peer)
    }

    fn speak(&self) -> Result<()> {
        self.stranger.send_to(b"is anybody there?", self.address)?;
        Ok(())
    }

    /// The service says something.
    fn push(&self) -> Result<()> {
        if self.is_connected {
            self.socket.send(b"news")?;
        } else {
            self.socket.send_to(b"news", self.peer()?)?;
        }
        Ok(())
    }

    fn is_heard(&self, wait: Duration) -> Result<bool> {
        Ok(receive_datagram(&self.socket, Instant::now() + wait)?.is_some())
    }
}

/// Nobody is heard, whatever the services say.
fn are_out(services: &[Service]) -> Result<()> {
    for what in ["at first", "after a push", "later"] {
        for service in services {
            service.speak()?;
        }
        std::thread::sleep(SHORT);
        let mut heard = Vec::new();
        for service in services {
            if service.is_heard(Duration::ZERO)? {
                heard.push(&service.what);
            }
        }
        ensure!(heard.is_empty(), "{what}: heard {heard:#?}");
        for service in services {
            service.push()?;
        }
    }
    Ok(())
}

/// Tries a change over all ways in which ports are picked.
fn over_all(change: impl Fn(&Scene) -> Result<Vec<Service>>) -> Result<()> {
    for picking in PICKING {
        let scene = Scene::new(picking)?;
        let done = change(&scene).and_then(|services| are_out(&services));
        done.with_context(|| format!("{picking:?}"))?;
    }
    Ok(())
}

const NOBODY: &str = "[\"192.0.2.1\"]";

#[test]
fn who_talked_to_a_service_before_the_first_load_is_a_stranger_to_it() -> Result<()> {
    over_all(|scene| {
        let services = scene.services(&STRANGERS)?;
        let refused = scene.load("--enforce", NOBODY, &[])?;
        ensure!(refused.code() == 2, "sessions would be cut: {refused}");
        scene.load("--enforce", NOBODY, &["--force"])?.success()?;
        Ok(services)
    })
}

#[test]
fn who_was_granted_a_service_is_a_stranger_once_the_row_is_gone() -> Result<()> {
    for is_unloaded in [false, true] {
        over_all(|scene| {
            scene.load("--enforce", "\"any\"", &[])?.success()?;
            let services = scene.services(&STRANGERS)?;
            if is_unloaded {
                scene.guarded.unload()?.success()?;
            }
            scene.load("--enforce", NOBODY, &["--force"])?.success()?;
            Ok(services)
        })?;
    }
    Ok(())
}

#[test]
fn who_was_answered_in_audit_is_a_stranger_however_late_the_service_speaks() -> Result<()> {
    over_all(|scene| {
        scene.load("--audit", NOBODY, &[])?.success()?;
        let services = scene.services(&STRANGERS[..1])?;
        // Nobody says anything for as long as a conversation is known, and a unit of its time more.
        std::thread::sleep(IDLE * 3);
        for service in &services {
            service.push()?;
        }
        scene.load("--enforce", NOBODY, &["--force"])?.success()?;
        Ok(services)
    })
}

/// A resolver asks from one port, which its program chose; it began after a load, and serves nobody.
#[test]
fn who_only_asks_goes_on_asking_over_every_change() -> Result<()> {
    let ways = [("--audit", false), ("--audit", true), ("--enforce", false)];
    for (mode, has_agent) in ways {
        // What the kernel picks matters to no socket, and so not to each way.
        let some = if mode == "--audit" { 1 } else { 3 };
        for picking in PICKING.into_iter().take(some) {
            let scene = Scene::new(picking)?;
            let (left, right) = (&scene.guarded.link.left, &scene.guarded.link.right);
            scene.load(mode, NOBODY, &[])?.success()?;
            let history = format!(
                "--history={}",
                scene.site.with_extension("history").display()
            );
            let args = ["agent", "--every=1", &history].map(str::to_owned);
            let agent = has_agent
                .then(|| scene.guarded.start(&args, None))
                .transpose()?;
            let ours = SocketAddr::new(left.v4().into(), scene.first + 75);
            let resolver = left.host.run(|| udp_socket(ours))?;
            let mut servers = Vec::new();
            let mut ask = |what: &str| -> Result<()> {
                let last = 10 + u8::try_from(servers.len())?;
                let address = Ipv4Addr::new(10, 77, 0, last);
                right.add_address(format!("{address}/24").parse()?)?;
                let server = SocketAddr::new(address.into(), 53);
                servers.push(UdpEcho::start(&right.host, server)?);
                resolver.send_to(b"a question", server)?;
                let answer = receive_datagram(&resolver, Instant::now() + SOON)?;
                ensure!(answer.is_some(), "{picking:?} {mode}: {what}");
                Ok(())
            };
            for _ in 0..3 {
                ask("at first")?;
            }
            ensure!(counted(&scene.guarded, "undocumented-port")? == 0);
            scene.load("--enforce", NOBODY, &[])?.success()?;
            ask("enforced")?;
            scene.load("--enforce", "[\"192.0.2.2\"]", &[])?.success()?;
            ask("loaded again")?;
            let args = ["rollback", "--interface", scene.guarded.interface()].map(str::to_owned);
            scene.guarded.run(&args, None)?.success()?;
            ask("gone back")?;
            ensure!(counted(&scene.guarded, "undocumented-port")? == 0);
            drop(agent);
        }
    }
    Ok(())
}

impl Drop for Scene {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.site);
    }
}

/// A site without rows of its own, or with one more.
const PLAIN: &str = r#"
schema = 1
mode = "MODE"
unprinted_peers = "any"
catalogs = ["matrices"]
[management]
none = true
MORE
[[host]]
name = "house"
addresses = ["10.77.0.1"]
roles = ["town/house"]
"#;

const ROW: &str = r#"[[row]]
name = "asks"
direction = "out"
transport = "udp"
ports = [8001]
peers = "any"
reason = "what audit showed"
"#;

/// Audit shows what a program asks, the row is written, and then it is enforced: the program is still the one that asks.
#[test]
fn a_row_that_is_written_later_lets_ask_who_spoke_first() -> Result<()> {
    let guarded = Guarded::new()?;
    let (left, right) = (&guarded.link.left, &guarded.link.right);
    let load = |mode: &str, more: &str| -> Result<()> {
        let text = PLAIN.replace("MODE", mode).replace("MORE", more);
        Site::of(&text)?.load(&guarded, &[&format!("--{mode}"), "--force"])?;
        Ok(())
    };
    load("audit", "")?;
    let families = left.both().into_iter().zip(right.both());
    let mut programs = Vec::new();
    for (own, theirs) in families {
        let server = UdpEcho::start(&right.host, SocketAddr::new(theirs, 8001))?;
        let program = left.host.run(|| udp_socket(SocketAddr::new(own, 7070)))?;
        for _ in 0..3 {
            ensure!(is_answered(&program, server.address(), SOON)?);
        }
        programs.push((program, server));
    }
    let before = counted(&guarded, "undocumented-port")?;
    ensure!(before == 6, "by no row: {before}");
    for mode in ["audit", "enforce"] {
        load(mode, ROW)?;
        for (program, server) in &programs {
            for _ in 0..3 {
                let answered = is_answered(program, server.address(), SOON)?;
                ensure!(answered, "{mode}, {}", server.address());
            }
        }
    }
    let after = counted(&guarded, "undocumented-port")?;
    ensure!(before == after, "by its row: {before} {after}");
    Ok(())
}
