//! Datagrams that are forwarded begin nothing on a port of the host's own, whatever its socket is bound to, and whenever.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use portguard_harness::net::Host;
use portguard_harness::traffic::{receive_datagram, udp_socket, udp_socket_on};

use crate::guard::{Guarded, SHORT, SOON};
use crate::topology::{container, ip};

/// What containers ask outside.
const ASKED: u16 = 8500;
/// The device that the host has its address on, above the guarded one.
const DEVICE: &str = "br0";

const NETWORK: &str = "\
    addr flush dev IF
    link add br0 type bridge
    link set IF master br0
    link set br0 up
    addr add 10.77.0.1/24 dev br0
    -6 addr add fd77::1/64 dev br0 nodad";

const RULES: &str = "\
table inet containers {
  chain after {
    type nat hook postrouting priority srcnat;
    oifname br0 ip saddr 10.99.0.0/24 masquerade
    oifname br0 ip6 saddr fd99::/64 masquerade
  }
}
";

/// What a socket of the host is bound to.
#[derive(Clone, Copy, Debug)]
enum Bound {
    /// An address, and no device.
    Address,
    /// A device, and any address of the family.
    Device,
    /// A device, and any address of both families.
    DeviceForBoth,
}

/// A host with a container behind it that leaves by the host's addresses.
struct Scene {
    guarded: Guarded,
    container: Host,
    servers: [UdpSocket; 2],
}

impl Scene {
    fn new() -> Result<Self> {
        let guarded = Guarded::new()?;
        let (left, right) = (&guarded.link.left, &guarded.link.right);
        ip(&left.host, &left.name, NETWORK)?;
        let container = container(&left.host, RULES)?;
        let [four, six] = right.both().map(|address| {
            right
                .host
                .run(|| udp_socket(SocketAddr::new(address, ASKED)))
        });
        Ok(Self {
            servers: [four?, six?],
            container,
            guarded,
        })
    }

    /// A socket of the host on a port; 0 = one that the kernel picks.
    fn own(&self, bound: Bound, is_six: bool, port: u16) -> Result<UdpSocket> {
        let left = &self.guarded.link.left;
        let any = |is_six| -> IpAddr {
            if is_six {
                Ipv6Addr::UNSPECIFIED.into()
            } else {
                Ipv4Addr::UNSPECIFIED.into()
            }
        };
        left.host.run(|| match bound {
            Bound::Address => udp_socket(SocketAddr::new(left.both()[usize::from(is_six)], port)),
            Bound::Device => udp_socket_on(DEVICE, SocketAddr::new(any(is_six), port)),
            Bound::DeviceForBoth => udp_socket_on(DEVICE, SocketAddr::new(any(true), port)),
        })
    }

    /// Who asks from a port of the container, by the host's address and the same port.
    fn asker(&self, is_six: bool, port: u16) -> Result<(UdpSocket, SocketAddr)> {
        let inside: IpAddr = if is_six {
            "fd99::2".parse()?
        } else {
            "10.99.0.2".parse()?
        };
        let socket = self
            .container
            .run(|| udp_socket(SocketAddr::new(inside, port)))?;
        let server = &self.servers[usize::from(is_six)];
        let address = server.local_addr()?;
        // The first one may wait for a neighbour.
        socket.send_to(b"a question", address)?;
        let asked = receive_datagram(server, Instant::now() + SOON)?;
        let (_, from) = asked.context("the question arrives")?;
        ensure!(from.port() == port, "{from}");
        Ok((socket, from))
    }

    /// Whether what the server says reaches the container.
    fn is_answered(
        &self,
        (socket, from): &(UdpSocket, SocketAddr),
        wait: Duration,
    ) -> Result<bool> {
        let server = &self.servers[usize::from(from.is_ipv6())];
        server.send_to(b"an answer", from)?;
        Ok(receive_datagram(socket, Instant::now() + wait)?.is_some())
    }
}

#[test]
fn forwarded_datagrams_begin_nothing_on_ports_of_the_hosts_own() -> Result<()> {
    let scene = Scene::new()?;
    let mut port = 41_000;
    let mut before = Vec::new();
    let mut after = Vec::new();
    for bound in [Bound::Address, Bound::Device, Bound::DeviceForBoth] {
        for is_six in [false, true] {
            for is_picked in [false, true] {
                port += 1;
                let own = scene.own(bound, is_six, if is_picked { 0 } else { port })?;
                before.push((bound, is_six, own));
            }
            port += 1;
            after.push((bound, is_six, port));
        }
    }
    scene
        .guarded
        .load("--enforce", &[], &["--force", "--confirm-within", "0"])?;
    for (bound, is_six, own) in before {
        let port = own.local_addr()?.port();
        let what = format!("{bound:?}, {port}, IPv6: {is_six}");
        let asker = scene.asker(is_six, port)?;
        ensure!(!scene.is_answered(&asker, SHORT)?, "{what}: before a load");
        drop(own);
        drop(asker);
        let asker = scene.asker(is_six, port)?;
        ensure!(scene.is_answered(&asker, SOON)?, "{what}: it is closed");
    }
    for (bound, is_six, port) in after {
        let what = format!("{bound:?}, {port}, IPv6: {is_six}");
        let asker = scene.asker(is_six, port)?;
        ensure!(scene.is_answered(&asker, SOON)?, "{what}: nobody has it");
        // What was begun by then is answered no more.
        let own = scene.own(bound, is_six, port)?;
        ensure!(!scene.is_answered(&asker, SHORT)?, "{what}: later");
        drop(asker);
        let asker = scene.asker(is_six, port)?;
        ensure!(!scene.is_answered(&asker, SHORT)?, "{what}: after a load");
        drop(own);
    }
    // Counts that are lost are made anew, and not added to.
    let load = || {
        let more = ["--force", "--confirm-within", "0"];
        scene.guarded.load("--enforce", &[], &more)
    };
    let own = scene.own(Bound::Device, false, port + 1)?;
    let left = &scene.guarded.link.left;
    let state = left.host.run(|| {
        let found = portguard_kernel::conversations::find().context("a state")?;
        Ok(found.directory().to_owned())
    })?;
    std::fs::remove_dir_all(state)?;
    load()?;
    let asker = scene.asker(false, port + 1)?;
    ensure!(!scene.is_answered(&asker, SHORT)?, "made anew");
    drop((own, asker));
    let asker = scene.asker(false, port + 1)?;
    ensure!(scene.is_answered(&asker, SOON)?, "made anew, and closed");
    Ok(())
}
