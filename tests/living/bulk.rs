//! More than a packet holds: large datagrams in fragments, and streams over a path that is narrower than its ends.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use portguard_harness::traffic::{
    TcpEcho, UdpEcho, connect, exchange_tcp, receive_datagram, udp_socket,
};

use super::OUTBOUND;
use super::town::{self, Town};
use crate::guard::{LONG, SOON};

/// Fragments of a datagram, at 1500 and at 1280 bytes: several.
const LARGE: usize = 8000;

/// Enough for windows to open and segments to be of full size.
const STREAM: usize = 1 << 20;

/// An exchange of one large datagram, asked again: what a sender learns about the path costs it the datagram.
fn exchange_large(target: SocketAddr, socket: &std::net::UdpSocket) -> Result<bool> {
    let bytes: Vec<u8> = (0..=250_u8).cycle().take(LARGE).collect();
    for _ in 0..4 {
        socket.send_to(&bytes, target)?;
        let back = receive_datagram(socket, Instant::now() + SOON / 2)?;
        if back.is_some_and(|(back, _)| back == bytes) {
            return Ok(true);
        }
    }
    Ok(false)
}

#[test]
fn datagrams_in_fragments_come_and_go() -> Result<()> {
    for outbound in OUTBOUND {
        let town = Town::new()?;
        let _services = town.services()?;
        town.load(outbound)?;
        let ours = &town.guarded.link.left;
        for theirs in town.server.both() {
            let own = town.own(theirs);
            let _bell = UdpEcho::start(&ours.host, SocketAddr::new(own, town::UDP))?;
            // To a service of another, whose answer is a reply.
            let asked = town.host().run(|| {
                let socket = udp_socket(SocketAddr::new(own, 0))?;
                exchange_large(SocketAddr::new(theirs, 8001), &socket)
            })?;
            ensure!(asked, "{theirs}: the answer in fragments did not come");
            // To the documented service, over the path and from next door.
            for host in [&town.server.host, &town.guarded.link.right.host] {
                let rung = host.run(|| {
                    let any = if own.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
                    exchange_large(SocketAddr::new(own, town::UDP), &udp_socket(any.parse()?)?)
                })?;
                ensure!(rung, "{own}: no large answer for {}", host.name());
            }
        }
    }
    Ok(())
}

#[test]
fn streams_find_the_mtu_of_their_path() -> Result<()> {
    let bytes: Vec<u8> = (0..=252_u8).cycle().take(STREAM).collect();
    for outbound in OUTBOUND {
        let town = Town::new()?;
        let _services = town.services()?;
        town.load(outbound)?;
        for theirs in town.server.both() {
            let own = town.own(theirs);
            let mut stream = town
                .host()
                .run(|| connect(SocketAddr::new(theirs, 8001), SOON).stream())?;
            ensure!(
                exchange_tcp(&mut stream, &bytes, LONG)?,
                "{theirs}: the host's own stream stalls"
            );
            let learned = path_mtu(&town, &theirs.to_string())?;
            ensure!(
                learned == town::NARROW,
                "{theirs}: the host takes the path for {learned} wide"
            );
            let _door = TcpEcho::start(town.host(), SocketAddr::new(own, town::TCP))?;
            let mut stream = town
                .server
                .host
                .run(|| connect(SocketAddr::new(own, town::TCP), SOON).stream())?;
            ensure!(
                exchange_tcp(&mut stream, &bytes, LONG)?,
                "{own}: the documented stream stalls"
            );
        }
    }
    Ok(())
}

/// What the host knows about the path: an error from the router between, or its own link.
fn path_mtu(town: &Town, to: &str) -> Result<u32> {
    let mut command = Command::new("ip");
    command.args(["route", "get", to]);
    let told = town.host().output(&mut command, LONG)?.success()?.stdout;
    let mut words = told.split_whitespace().skip_while(|word| *word != "mtu");
    match words.nth(1) {
        Some(mtu) => mtu.parse().with_context(|| told.clone()),
        None => Ok(1500),
    }
}
