//! One conversation of each protocol: the host asks, and the peer answers from elsewhere. Each says whether the host heard it.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, TcpListener, UdpSocket};
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use portguard_harness::traffic::{
    connect, connect_between, receive_datagram, udp_socket, wait_readable,
};

use super::{OTHERS, Scene};
use crate::guard::SOON;

/// The host asks a socket of the peer's, and another one answers, more than once: whether all of it is heard.
fn is_answered(
    scene: &Scene,
    to: SocketAddr,
    at: &UdpSocket,
    answering: &UdpSocket,
) -> Result<bool> {
    let left = &scene.guarded.link.left;
    let ours = left.both()[usize::from(to.is_ipv6())];
    let own = left.host.run(|| udp_socket(SocketAddr::new(ours, 0)))?;
    own.send_to(b"question", to)?;
    let heard = receive_datagram(at, Instant::now() + SOON)?;
    let (_, from) = heard.context("the question")?;
    for _ in 0..2 {
        answering.send_to(b"answer", from)?;
        let Some((_, back)) = receive_datagram(&own, Instant::now() + SOON)? else {
            return Ok(false);
        };
        own.send_to(b"more", back)?;
    }
    Ok(true)
}

/// The port that is asked answers nothing; another port of the same address does, or of another.
fn from_a_port(scene: &Scene, theirs: IpAddr, asked: u16, from: SocketAddr) -> Result<bool> {
    let at = scene.there(SocketAddr::new(theirs, asked), None)?;
    // It has the port that was asked, and another address.
    let answering = scene.there(from, None)?;
    is_answered(scene, at.local_addr()?, &at, &answering)
}

pub(super) fn tftp(scene: &Scene, _: IpAddr, theirs: IpAddr) -> Result<bool> {
    from_a_port(scene, theirs, 69, SocketAddr::new(theirs, 0))
}

pub(super) fn snmp(scene: &Scene, _: IpAddr, theirs: IpAddr) -> Result<bool> {
    let other = OTHERS[usize::from(theirs.is_ipv6())];
    from_a_port(scene, theirs, 161, SocketAddr::new(other, 161))
}

pub(super) fn stun(scene: &Scene, _: IpAddr, theirs: IpAddr) -> Result<bool> {
    from_a_port(scene, theirs, 3478, SocketAddr::new(theirs, 3479))
}

/// A question to a group, and an answer of one of those that hear it.
fn from_a_group(scene: &Scene, theirs: IpAddr, port: u16, groups: [&str; 2]) -> Result<bool> {
    let group: IpAddr = groups[usize::from(theirs.is_ipv6())].parse()?;
    let any: IpAddr = if theirs.is_ipv4() {
        Ipv4Addr::UNSPECIFIED.into()
    } else {
        Ipv6Addr::UNSPECIFIED.into()
    };
    let at = scene.there(SocketAddr::new(any, port), Some(group))?;
    let to = match group {
        IpAddr::V4(_) => SocketAddr::new(group, port),
        IpAddr::V6(group) => {
            SocketAddrV6::new(group, port, 0, scene.guarded.link.left.index).into()
        }
    };
    is_answered(scene, to, &at, &at.try_clone()?)
}

pub(super) fn ssdp(scene: &Scene, _: IpAddr, theirs: IpAddr) -> Result<bool> {
    from_a_group(scene, theirs, 1900, ["239.255.255.250", "ff02::c"])
}

pub(super) fn mdns(scene: &Scene, _: IpAddr, theirs: IpAddr) -> Result<bool> {
    from_a_group(scene, theirs, 5353, ["224.0.0.251", "ff02::fb"])
}

pub(super) fn llmnr(scene: &Scene, _: IpAddr, theirs: IpAddr) -> Result<bool> {
    from_a_group(scene, theirs, 5355, ["224.0.0.252", "ff02::1:3"])
}

/// The server connects back, from its port for data, to a port that the host listens on.
pub(super) fn ftp(scene: &Scene, ours: IpAddr, theirs: IpAddr) -> Result<bool> {
    let (left, right) = (
        &scene.guarded.link.left.host,
        &scene.guarded.link.right.host,
    );
    let server = right.run(|| Ok(TcpListener::bind(SocketAddr::new(theirs, 21))?))?;
    let _control = left.run(|| connect(server.local_addr()?, SOON).stream())?;
    let data = left.run(|| Ok(TcpListener::bind(SocketAddr::new(ours, 0))?))?;
    let to = data.local_addr()?;
    let back = right.run(|| Ok(connect_between(SocketAddr::new(theirs, 20), to, SOON)))?;
    let Ok(mut back) = back.stream() else {
        return Ok(false);
    };
    back.write_all(b"file")?;
    let (mut stream, _) = data.accept()?;
    ensure!(wait_readable(&stream, Instant::now() + SOON)?, "the file");
    Ok(stream.read(&mut [0; 16])? == 4)
}
