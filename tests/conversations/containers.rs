//! Datagrams of containers, and of the host behind its own packet filter: who spoke first asks, whatever the ports.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use portguard_harness::net::Host;
use portguard_harness::traffic::{receive_datagram, udp_socket};

use super::{CLOSED, OPEN, counted};
use crate::guard::{Guarded, SHORT, SOON};
use crate::topology::{container, ip};

/// What is asked outside, of which no row knows: by a port of the packet filter's choice, and by the sender's own where it is free.
const RANDOM: u16 = 8501;
const PLAIN: u16 = 8502;
/// Among those that the kernel picks for clients, and handed on to the container as [`CLOSED`] is.
const HIGH: u16 = 41_000;
/// Questions of a kind: of two ports of a random choice, one is mostly among those that the kernel picks.
const QUESTIONS: u16 = 12;

/// Addresses that the container has besides, from which a service may answer.
const SECOND: [&str; 2] = ["10.99.0.3", "fd99::3"];

const RULES: &str = "\
table inet containers {
  chain before {
    type nat hook prerouting priority dstnat;
    ip daddr 10.77.0.1 udp dport { 9999, 41000 } dnat ip to 10.99.0.2
    ip6 daddr fd77::1 udp dport { 9999, 41000 } dnat ip6 to fd99::2
  }
  chain after {
    type nat hook postrouting priority srcnat;
    udp dport 8501 masquerade fully-random
    ip saddr 10.99.0.0/24 masquerade
    ip6 saddr fd99::/64 masquerade
  }
}
";

struct Scene {
    guarded: Guarded,
    container: Host,
}

impl Scene {
    fn new() -> Result<Self> {
        let guarded = Guarded::new()?;
        let container = container(&guarded.link.left.host, RULES)?;
        let [four, six] = SECOND;
        let more = format!("addr add {four}/24 dev eth0\n-6 addr add {six}/64 dev eth0 nodad");
        ip(&container, "", &more)?;
        Ok(Self { guarded, container })
    }

    fn load(&self, mode: &str) -> Result<()> {
        let more = ["--force", "--confirm-within", "0"];
        self.guarded.load(mode, &[OPEN], &more)?;
        Ok(())
    }

    /// Addresses of the container, of the host, and of who is outside, by family.
    fn addresses(&self) -> Result<[[IpAddr; 3]; 2]> {
        let (left, right) = (&self.guarded.link.left, &self.guarded.link.right);
        Ok([
            ["10.99.0.2".parse()?, left.v4().into(), right.v4().into()],
            ["fd99::2".parse()?, left.v6().into(), right.v6().into()],
        ])
    }

    /// How many questions to a port are answered, of those from the ports that the kernel picks, or from chosen ones.
    fn answered(&self, from: (&Host, IpAddr), to: SocketAddr, chosen: Option<u16>) -> Result<u16> {
        let server = self.guarded.link.right.host.run(|| udp_socket(to))?;
        let mut answered = 0;
        for index in 0..QUESTIONS {
            let port = chosen.map_or(0, |first| first + index);
            let asker = from.0.run(|| udp_socket(SocketAddr::new(from.1, port)))?;
            asker.send_to(b"a question", to)?;
            let (_, seen) = receive_datagram(&server, Instant::now() + SOON)?
                .context("the question arrives")?;
            server.send_to(b"an answer", seen)?;
            let wait = if answered == index { SOON } else { SHORT };
            answered += u16::from(receive_datagram(&asker, Instant::now() + wait)?.is_some());
        }
        Ok(answered)
    }
}

#[test]
fn who_asks_from_behind_the_packet_filter_is_answered_whatever_the_port() -> Result<()> {
    let scene = Scene::new()?;
    for mode in ["--audit", "--enforce"] {
        scene.load(mode)?;
        for [inside, own, outside] in scene.addresses()? {
            let container = (&scene.container, inside);
            let host = (&scene.guarded.link.left.host, own);
            for (what, from, port, chosen) in [
                ("container, random", container, RANDOM, None),
                (
                    "container, random from its own",
                    container,
                    RANDOM,
                    Some(21_000),
                ),
                ("container", container, PLAIN, None),
                ("container, its own", container, PLAIN, Some(22_000)),
                ("host, random", host, RANDOM, None),
                ("host", host, PLAIN, None),
            ] {
                let before = counted(&scene.guarded, "undocumented-port")?;
                let answered = scene.answered(from, SocketAddr::new(outside, port), chosen)?;
                let after = counted(&scene.guarded, "undocumented-port")?;
                ensure!(
                    answered == QUESTIONS && before == after,
                    "{mode}, {what} at {inside}: {answered} of {QUESTIONS}, {before} {after}"
                );
            }
        }
    }
    Ok(())
}

/// Who talked to a container's service by a port that no row opens, and from which port.
struct Stranger {
    what: String,
    client: UdpSocket,
    service: UdpSocket,
    to: SocketAddr,
    /// As the service sees it.
    from: SocketAddr,
    /// From where else the service says something.
    other: UdpSocket,
}

impl Stranger {
    fn is_heard(&self, wait: Duration) -> Result<bool> {
        self.client.send_to(b"let me in", self.to)?;
        Ok(receive_datagram(&self.service, Instant::now() + wait)?.is_some())
    }

    /// The service says something, and that arrives; and so does what it says from another end, where it is not heard: gives
    /// whether it is.
    fn push(&self, wait: Duration) -> Result<bool> {
        let mut ends = Vec::new();
        for socket in [&self.service, &self.other] {
            socket.send_to(b"news", self.from)?;
            let heard = receive_datagram(&self.client, Instant::now() + SOON)?;
            let (_, from) = heard.with_context(|| format!("{}: its service", self.what))?;
            ends.push(from);
        }
        self.client.send_to(b"let me in", ends[1])?;
        Ok(receive_datagram(&self.other, Instant::now() + wait)?.is_some())
    }
}

/// They have talked by now.
fn strangers(scene: &Scene) -> Result<Vec<Stranger>> {
    let mut all = Vec::new();
    for [inside, own, outside] in scene.addresses()? {
        let client = |port| {
            let host = &scene.guarded.link.right.host;
            host.run(|| udp_socket(SocketAddr::new(outside, port)))
        };
        let clients = [client(0)?, client(53)?];
        for port in [CLOSED, HIGH] {
            let service = scene
                .container
                .run(|| udp_socket(SocketAddr::new(inside, port)))?;
            let second = if inside.is_ipv6() {
                SECOND[1]
            } else {
                SECOND[0]
            };
            let second = SocketAddr::new(second.parse()?, port);
            let other = scene.container.run(|| udp_socket(second))?;
            for client in &clients {
                let to = SocketAddr::new(own, port);
                client.send_to(b"hello", to)?;
                let heard = receive_datagram(&service, Instant::now() + SOON)?;
                let (_, from) = heard.context("a published port")?;
                let stranger = Stranger {
                    other: other.try_clone()?,
                    what: format!("{from} at {to}"),
                    client: client.try_clone()?,
                    service: service.try_clone()?,
                    to,
                    from,
                };
                ensure!(stranger.push(SOON)?, "{}: its other end", stranger.what);
                all.push(stranger);
            }
        }
    }
    Ok(all)
}

/// Whoever asks a container from outside is no peer of its questions, whatever it answers, and whenever.
#[test]
fn who_asks_from_outside_begins_nothing_by_being_answered() -> Result<()> {
    const TIMES: u64 = 5;
    for first in ["not guarded", "--audit"] {
        let scene = Scene::new()?;
        if first == "--audit" {
            scene.load(first)?;
        }
        let strangers = strangers(&scene)?;
        if first == "--audit" {
            for stranger in &strangers {
                let before = counted(&scene.guarded, "undocumented-port")?;
                for _ in 0..TIMES {
                    ensure!(stranger.is_heard(SOON)?, "{}", stranger.what);
                    ensure!(stranger.push(SOON)?, "{}: its other end", stranger.what);
                }
                let after = counted(&scene.guarded, "undocumented-port")?;
                ensure!(
                    after - before == 2 * TIMES,
                    "{}: {before} {after}",
                    stranger.what
                );
            }
        }
        scene.load("--enforce")?;
        for stranger in &strangers {
            let what = format!("{first}: {}", stranger.what);
            ensure!(!stranger.is_heard(SHORT)?, "{what}: at once");
            ensure!(!stranger.push(SHORT)?, "{what}: at another end");
            ensure!(
                !stranger.is_heard(SHORT)?,
                "{what}: after the service spoke"
            );
        }
    }
    Ok(())
}
