//! Datagrams of containers, and of the host behind its own packet filter: what leaves from a client's port asks, whatever the
//! packet filter makes of it, and what leaves from a service's does not.

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
                ("container", container, PLAIN, None),
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
            if mode == "--enforce" {
                let asked = SocketAddr::new(outside, PLAIN);
                let answered = scene.answered(container, asked, Some(22_000))?;
                ensure!(
                    answered == 0,
                    "from chosen ports, without a row: {answered}"
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

    /// The service says something, from so many of its ends, and that arrives: how often an answer is heard.
    fn push(&self, ends: usize, wait: Duration) -> Result<usize> {
        let mut heard = 0;
        for socket in [&self.service, &self.other].into_iter().take(ends) {
            socket.send_to(b"news", self.from)?;
            let said = receive_datagram(&self.client, Instant::now() + SOON)?;
            let (_, from) = said.with_context(|| format!("{}: its service", self.what))?;
            self.client.send_to(b"let me in", from)?;
            heard += usize::from(receive_datagram(socket, Instant::now() + wait)?.is_some());
        }
        Ok(heard)
    }
}

/// They have talked by now.
fn strangers(scene: &Scene, ends: usize) -> Result<Vec<Stranger>> {
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
                stranger.push(ends, SOON)?;
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
    for (first, is_forgotten) in [
        ("not guarded", false),
        ("not guarded", true),
        ("--audit", false),
        ("open to all", true),
    ] {
        let scene = Scene::new()?;
        match first {
            "--audit" => scene.load(first)?,
            "open to all" => {
                let more = ["--force", "--confirm-within", "0"];
                let open = [OPEN, CLOSED, HIGH];
                scene.guarded.load("--enforce", &open, &more)?;
            }
            _ => {}
        }
        let ends = 2;
        let strangers = strangers(&scene, ends)?;
        if first == "--audit" {
            for stranger in &strangers {
                let before = counted(&scene.guarded, "undocumented-port")?;
                for _ in 0..TIMES {
                    ensure!(stranger.is_heard(SOON)?, "{}", stranger.what);
                    ensure!(stranger.push(ends, SOON)? == 2, "{}", stranger.what);
                }
                let after = counted(&scene.guarded, "undocumented-port")?;
                ensure!(
                    after - before == 3 * TIMES,
                    "{}: {before} {after}",
                    stranger.what
                );
            }
        }
        if is_forgotten {
            forget_soon(&scene.guarded.link.left.host)?;
            std::thread::sleep(FORGOTTEN);
        }
        scene.load("--enforce")?;
        forget_soon(&scene.guarded.link.left.host)?;
        for when in ["at once", "forgotten by connection tracking"] {
            for stranger in &strangers {
                let what = format!("{first}, {is_forgotten}: {}, {when}", stranger.what);
                ensure!(!stranger.is_heard(SHORT)?, "{what}");
                let heard = stranger.push(ends, SHORT)?;
                ensure!(heard == 0, "{what}: {heard} times, after its service spoke");
                ensure!(!stranger.is_heard(SHORT)?, "{what}: later");
            }
            std::thread::sleep(FORGOTTEN);
        }
    }
    Ok(())
}

/// How long connection tracking keeps datagrams at the most after [`forget_soon`]. There is no event for that.
pub(super) const FORGOTTEN: Duration = Duration::from_millis(2500);

/// Has connection tracking forget datagrams soon.
pub(super) fn forget_soon(host: &Host) -> Result<()> {
    for key in [
        "nf_conntrack_udp_timeout",
        "nf_conntrack_udp_timeout_stream",
    ] {
        host.sysctl(&format!("net/netfilter/{key}"), "1")?;
    }
    Ok(())
}

/// Somebody calls a published port, by right or in audit, or whoever forges that: others ask that end all the same.
#[test]
fn who_calls_a_container_is_asked_by_others_all_the_same() -> Result<()> {
    for (mode, open) in [("--audit", &[OPEN][..]), ("--enforce", &[OPEN, CLOSED])] {
        let scene = Scene::new()?;
        let more = ["--force", "--confirm-within", "0"];
        scene.guarded.load(mode, open, &more)?;
        for [inside, own, outside] in scene.addresses()? {
            let asked = SocketAddr::new(outside, PLAIN);
            let service = SocketAddr::new(inside, CLOSED);
            let service = scene.container.run(|| udp_socket(service))?;
            let peer = scene.guarded.link.right.host.run(|| udp_socket(asked))?;
            peer.send_to(b"hello", SocketAddr::new(own, CLOSED))?;
            let called = receive_datagram(&service, Instant::now() + SOON)?;
            let (_, seen) = called.context("a published port")?;
            service.send_to(b"hello", seen)?;
            drop(peer);
            for when in ["at once", "after a load"] {
                let before = counted(&scene.guarded, "undocumented-port")?;
                let answered = scene.answered((&scene.container, inside), asked, None)?;
                let after = counted(&scene.guarded, "undocumented-port")?;
                ensure!(
                    answered == QUESTIONS && before == after,
                    "{mode}, {inside}, {when}: {answered} of {QUESTIONS}, {before} {after}"
                );
                scene.guarded.load(mode, open, &more)?;
            }
        }
    }
    Ok(())
}
