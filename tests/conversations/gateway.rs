//! A host that forwards for containers, guarded on either side or on both: what they begin, and what a row or the scope lets in,
//! is answered, whatever the packet filter makes of it; and a stranger begins nothing.

use std::cell::Cell;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use portguard_harness::net::Host;
use portguard_harness::traffic::{connect, ping, receive_datagram, udp_socket};

use super::CLOSED;
use super::containers::{FORGOTTEN, forget_soon};
use crate::guard::{Guarded, SHORT, SOON};
use crate::living::sessions::says;
use crate::living::town::Site;
use crate::topology::{container, ip};

/// Asked outside: by masquerade, by a fixed address, and by the container's own.
const ASKED: [u16; 4] = [8502, 8503, ROUTED, NAMED];
const ROUTED: u16 = 8504;
/// Of which an outbound row knows, so that programs may ask it from ports of their choice.
const NAMED: u16 = 8505;
/// Published from the container: as they come, and masqueraded on the inner side.
const PUBLISHED: [u16; 2] = [9998, 9997];

const RULES: &str = "\
table inet gateway {
  chain before {
    type nat hook prerouting priority dstnat;
    ip daddr 10.77.0.1 meta l4proto { tcp, udp } th dport 9997-9999 dnat ip to 10.99.0.2
    ip6 daddr fd77::1 meta l4proto { tcp, udp } th dport 9997-9999 dnat ip6 to fd99::2
  }
  chain after {
    type nat hook postrouting priority srcnat;
    meta l4proto { tcp, udp } th dport { 8502, 9997 } masquerade
    ip saddr 10.99.0.0/24 meta l4proto { tcp, udp } th dport 8503 snat ip to 10.77.0.1
    ip6 saddr fd99::/64 meta l4proto { tcp, udp } th dport 8503 snat ip6 to fd77::1
    ip saddr 10.99.0.0/24 meta l4proto icmp masquerade
  }
}
";

const SITE: &str = r#"
schema = 1
mode = "MODE"
scope = "SCOPE"
unprinted_peers = "any"
catalogs = ["matrices"]
[management]
none = true
[[row]]
name = "published"
direction = "in"
transport = ["tcp", "udp"]
ports = ["9997-9998"]
peers = ["0.0.0.0/0", "::/0"]
reason = "what containers offer"
[[row]]
name = "asked"
direction = "in"
transport = ["tcp", "udp"]
ports = ["8502-8505"]
peers = ["10.99.0.0/24", "fd99::/64"]
reason = "what containers ask"
[[row]]
name = "named"
direction = "out"
transport = "udp"
ports = [8505]
peers = ["10.77.0.2", "fd77::2"]
reason = "what they ask from their own ports"
[[host]]
name = "house"
addresses = ["10.77.0.1"]
roles = ["town/house"]
"#;

/// A conversation, from the far end's view: who was asked speaks.
enum Talk {
    Stream {
        opener: TcpStream,
        accepter: TcpStream,
    },
    Datagrams {
        asker: UdpSocket,
        to: SocketAddr,
        asked: UdpSocket,
        /// As whom the asked end sees the other.
        seen: SocketAddr,
    },
}

impl Talk {
    fn tcp(from: &Host, to: SocketAddr, listener: &TcpListener) -> Result<Self> {
        let opener = from.run(|| connect(to, SOON).stream())?;
        let accepter = listener.accept()?.0;
        Ok(Self::Stream { opener, accepter })
    }

    fn udp(from: &Host, own: SocketAddr, to: SocketAddr, asked: UdpSocket) -> Result<Self> {
        let asker = from.run(|| udp_socket(own))?;
        asker.send_to(b"a question", to)?;
        let heard = receive_datagram(&asked, Instant::now() + SOON)?;
        let (_, seen) = heard.context("the question")?;
        Ok(Self::Datagrams {
            asker,
            to,
            asked,
            seen,
        })
    }

    /// Whether who was asked is heard, and is asked again.
    fn lives(&mut self) -> Result<bool> {
        match self {
            Self::Stream { opener, accepter } => Ok(says(accepter, opener, b"an answer", SOON)?
                && says(opener, accepter, b"a question", SOON)?),
            Self::Datagrams {
                asker,
                to,
                asked,
                seen,
            } => {
                asked.send_to(b"an answer", *seen)?;
                if receive_datagram(asker, Instant::now() + SOON)?.is_none() {
                    return Ok(false);
                }
                asker.send_to(b"a question", *to)?;
                Ok(receive_datagram(asked, Instant::now() + SOON)?.is_some())
            }
        }
    }
}

/// Who calls a port of the container that no row opens, by both protocols.
struct Stranger {
    caller: UdpSocket,
    service: UdpSocket,
    /// As the service sees it, once it was heard.
    seen: Option<SocketAddr>,
    listener: TcpListener,
    to: SocketAddr,
    host: Host,
}

impl Stranger {
    fn is_heard(&mut self, wait: Duration) -> Result<[bool; 2]> {
        self.caller.send_to(b"let me in", self.to)?;
        let heard = receive_datagram(&self.service, Instant::now() + wait)?;
        if let Some((_, seen)) = heard {
            self.service.send_to(b"come in", seen)?;
            self.seen = Some(seen);
        }
        let stream = self.host.run(|| Ok(connect(self.to, wait)))?;
        if stream.is_connected() {
            self.listener.accept()?;
        }
        Ok([heard.is_some(), stream.is_connected()])
    }

    /// Its service says something unasked.
    fn push(&self) -> Result<()> {
        if let Some(seen) = self.seen {
            self.service.send_to(b"news", seen)?;
        }
        Ok(())
    }
}

/// Which interfaces are guarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sides {
    Outer,
    Inner,
    Both,
}

struct Scene {
    guarded: Guarded,
    container: Host,
    sides: Sides,
    scope: &'static str,
    inner: String,
    what: String,
    doors: Vec<Door>,
    /// The port of the next one who picks one itself.
    next: Cell<u16>,
}

/// Where a server is, and by which address it is asked.
struct Door {
    from: (Host, IpAddr),
    to: SocketAddr,
    listener: TcpListener,
    socket: UdpSocket,
}

impl Scene {
    fn new(sides: Sides, scope: &'static str) -> Result<Self> {
        let guarded = Guarded::new()?;
        let (left, right) = (&guarded.link.left, &guarded.link.right);
        let container = container(&left.host, RULES)?;
        // A slow machine takes longer to load than tracking keeps one question and its answer.
        for key in [
            "nf_conntrack_udp_timeout",
            "nf_conntrack_udp_timeout_stream",
        ] {
            left.host.sysctl(&format!("net/netfilter/{key}"), "600")?;
        }
        ip(
            &right.host,
            "",
            "route add 10.99.0.0/24 via 10.77.0.1\n-6 route add fd99::/64 via fd77::1",
        )?;
        let links = left
            .host
            .run(|| Ok(std::fs::read_to_string("/proc/thread-self/net/dev")?))?;
        let mut names = links.lines().filter_map(|line| line.split_once(':'));
        let (inner, _) = names
            .find(|(name, _)| name.trim().starts_with("tc"))
            .context("the container's interface")?;
        let mut scene = Self {
            inner: inner.trim().to_owned(),
            what: format!("{sides:?}, {scope}"),
            guarded,
            container,
            sides,
            scope,
            doors: Vec::new(),
            next: Cell::new(21_000),
        };
        scene.doors = scene.doors()?;
        Ok(scene)
    }

    fn doors(&self) -> Result<Vec<Door>> {
        let mut all = Vec::new();
        let (inner, outer) = (&self.container, &self.guarded.link.right.host);
        for [inside, own, outside] in self.addresses()? {
            let asked = ASKED.map(|port| {
                let to = SocketAddr::new(outside, port);
                ((inner, inside), to, (outer, to))
            });
            let published = PUBLISHED.map(|port| {
                let at = SocketAddr::new(inside, port);
                ((outer, outside), SocketAddr::new(own, port), (inner, at))
            });
            for ((from, source), to, (server, at)) in asked.into_iter().chain(published) {
                all.push(Door {
                    from: (from.clone(), source),
                    to,
                    listener: server.run(|| Ok(TcpListener::bind(at)?))?,
                    socket: server.run(|| udp_socket(at))?,
                });
            }
        }
        Ok(all)
    }

    fn run(&self, args: &[&str]) -> Result<(i32, String)> {
        let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        let output = self.guarded.run(&args, None)?;
        Ok((output.code(), output.stdout + &output.stderr))
    }

    /// Loads all that are guarded; what it says.
    fn load(&self, mode: &str) -> Result<String> {
        let site = Site::of(&SITE.replace("MODE", mode).replace("SCOPE", self.scope))?;
        let (file, inner, outer) = (site.file(), &*self.inner, self.guarded.interface());
        let mode = format!("--{mode}");
        let mut args = vec!["load", "-c", &file, "--host", "house", &mode];
        args.extend(["--confirm-within", "0"]);
        for (is_not, interface) in [(Sides::Outer, inner), (Sides::Inner, outer)] {
            if self.sides != is_not {
                args.extend(["--interface", interface]);
            }
        }
        let (code, said) = self.run(&args)?;
        ensure!(code == 0, "{}: {mode}: {said}", self.what);
        Ok(said)
    }

    /// Addresses of the container, of the host, and of who is outside, by family.
    fn addresses(&self) -> Result<[[IpAddr; 3]; 2]> {
        let (left, right) = (&self.guarded.link.left, &self.guarded.link.right);
        Ok([
            ["10.99.0.2".parse()?, left.v4().into(), right.v4().into()],
            ["fd99::2".parse()?, left.v6().into(), right.v6().into()],
        ])
    }

    /// A conversation of each kind.
    fn open(&self, when: &str) -> Result<Vec<(String, Talk)>> {
        let mut all = Vec::new();
        for Door {
            from: (from, source),
            to,
            listener,
            socket,
        } in &self.doors
        {
            let what = |kind| format!("{}: {kind} to {to}, {when}", self.what);
            let talk = Talk::tcp(from, *to, listener).with_context(|| what("tcp"))?;
            all.push((what("tcp"), talk));
            self.next.set(self.next.get() + 1);
            // One that the kernel picks, and one that the program does.
            for port in [0, self.next.get()] {
                // From such a port, a row has to name whom it asks.
                let is_called = PUBLISHED.contains(&to.port()) && self.sides == Sides::Outer;
                if port != 0 && to.port() != NAMED && !is_called {
                    continue;
                }
                let what = what(if port == 0 {
                    "udp"
                } else {
                    "udp by its own port"
                });
                let own = SocketAddr::new(*source, port);
                let talk = Talk::udp(from, own, *to, socket.try_clone()?);
                all.push((what.clone(), talk.context(what)?));
            }
        }
        for (what, talk) in &mut all {
            ensure!(talk.lives()?, "{what}: at once");
        }
        for [_, _, outside] in self.addresses()? {
            let echo = self.container.run(|| ping(outside, SOON))?;
            ensure!(echo.is_some(), "{}: echo of {outside}, {when}", self.what);
        }
        Ok(all)
    }

    /// Violations inbound.
    fn violations(&self) -> Result<String> {
        let (_, said) = self.run(&["counters", "--by", "reason", "--violations"])?;
        Ok(said
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
            .filter(|line| line.starts_with("in "))
            .collect::<Vec<_>>()
            .join("; "))
    }

    /// Connection tracking forgets, and sees the far end speak first: what the container began stays so, over a load, too. Only
    /// what is not translated lives on without it.
    fn survives_oblivion(&self, all: &mut [(String, Talk)]) -> Result<()> {
        forget_soon(&self.guarded.link.left.host)?;
        // What is said now is kept for that long only.
        for when in ["tracked", "forgotten", "and after a load"] {
            let routed = all
                .iter_mut()
                .filter(|(what, _)| what.contains(&format!(":{ROUTED},")));
            for (what, talk) in routed {
                ensure!(talk.lives()?, "{what}: {when}: {}", self.violations()?);
            }
            if when == "tracked" {
                std::thread::sleep(FORGOTTEN);
            } else {
                self.load("enforce")?;
            }
        }
        Ok(())
    }

    fn strangers(&self) -> Result<Vec<Stranger>> {
        let mut all = Vec::new();
        let right = &self.guarded.link.right.host;
        for [inside, own, outside] in self.addresses()? {
            let at = SocketAddr::new(inside, CLOSED);
            let service = self.container.run(|| udp_socket(at))?;
            let listener = self.container.run(|| Ok(TcpListener::bind(at)?))?;
            let mut to = vec![own];
            // By the scope, the rest is none of this host's business.
            if self.scope == "all" {
                to.push(inside);
            }
            for to in to {
                all.push(Stranger {
                    caller: right.run(|| udp_socket(SocketAddr::new(outside, 0)))?,
                    service: service.try_clone()?,
                    seen: None,
                    listener: listener.try_clone()?,
                    to: SocketAddr::new(to, CLOSED),
                    host: right.clone(),
                });
            }
        }
        Ok(all)
    }
}

fn holds(sides: Sides) -> Result<()> {
    for scope in ["host-addresses", "all"] {
        let scene = Scene::new(sides, scope)?;
        let mut all = scene.open("before")?;
        let mut strangers = scene.strangers()?;
        for (step, mode) in ["enforce", "audit", "enforce", "enforce"]
            .iter()
            .enumerate()
        {
            let said = scene.load(mode)?;
            ensure!(!said.contains("tracking lists"), "{}: {said}", scene.what);
            let when = format!("{mode}, step {step}");
            for (what, talk) in &mut all {
                ensure!(talk.lives()?, "{what}: {when}: {}", scene.violations()?);
            }
            let counted = scene.violations()?;
            all.extend(
                scene
                    .open(&when)
                    .with_context(|| scene.violations().unwrap_or_default())?,
            );
            let after = scene.violations()?;
            ensure!(
                counted == after,
                "{}, {when}: {counted} -> {after}",
                scene.what
            );
            if sides == Sides::Inner {
                continue;
            }
            for stranger in &mut strangers {
                let is_open = *mode == "audit";
                for _ in 0..2 {
                    let heard = stranger.is_heard(if is_open { SOON } else { SHORT })?;
                    ensure!(
                        heard == [is_open; 2],
                        "{}, {when}: {} {heard:?}",
                        scene.what,
                        stranger.to
                    );
                    stranger.push()?;
                }
            }
        }
        scene.survives_oblivion(&mut all)?;
        scene.run(&["unload"])?;
    }
    Ok(())
}

#[test]
fn a_gateway_that_is_guarded_outside_answers_whom_it_forwards_for() -> Result<()> {
    holds(Sides::Outer)
}

#[test]
fn a_gateway_that_is_guarded_inside_answers_whom_it_forwards_for() -> Result<()> {
    holds(Sides::Inner)
}

#[test]
fn a_gateway_that_is_guarded_on_both_sides_answers_whom_it_forwards_for() -> Result<()> {
    holds(Sides::Both)
}
