//! Conversations at their edges: a port that changes hands, answers by another address, and what is sent back by the interface
//! on which it came.

use std::net::{IpAddr, SocketAddr};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use portguard_harness::traffic::{TcpEcho, UdpEcho, connect_from, receive_datagram, udp_socket};

use super::services::{IDLE, PICKING, Scene};
use super::{OPEN, counted};
use crate::guard::{Guarded, LONG, SHORT, SOON, eventually};

/// The port of a server outside.
const SERVER: u16 = 8001;
/// Another address of the peer.
const OTHER: &str = "10.77.0.3";

/// A UDP socket that closes leaves its conversations behind: who gets its port hears their other ends, and nobody else, until
/// they end.
#[test]
fn who_gets_a_port_hears_its_conversations_until_they_end() -> Result<()> {
    let guarded = Guarded::new()?;
    let (left, right) = (&guarded.link.left, &guarded.link.right);
    let site = std::env::temp_dir().join(format!("{}-edges.toml", guarded.interface()));
    std::fs::write(
        &site,
        "schema = 1\nmode = \"enforce\"\nunprinted_peers = \"none\"\nunresolved_peers = \"none\"\n[timeouts]\nudp_idle = \"2s\"\n\
         [management]\nnone = true\n[systems.thoughtspot]\nversion = \"10\"\n\
         choices = { directory-port = \"636\", mail-port = \"587\" }\n\
         [[host]]\nname = \"here\"\naddresses = [\"10.77.0.1\"]\nroles = [\"thoughtspot/node\"]\n",
    )?;
    let file = site.display().to_string();
    let load = ["load", "-c", &file, "--interface", guarded.interface()].map(str::to_owned);
    let loaded = guarded.run(&load, None)?;
    std::fs::remove_file(&site)?;
    loaded.success()?;
    let at = |port| SocketAddr::new(left.v4().into(), port);
    let theirs = |port| SocketAddr::new(right.v4().into(), port);
    let server = right.host.run(|| udp_socket(theirs(SERVER)))?;
    let stranger = right.host.run(|| udp_socket(theirs(0)))?;
    let client = left.host.run(|| udp_socket(at(0)))?;
    let own = client.local_addr()?;
    client.send_to(b"ask", server.local_addr()?)?;
    drop(client);
    let next = left.host.run(|| udp_socket(own))?;
    stranger.send_to(b"stranger", own)?;
    server.send_to(b"server", own)?;
    let heard = receive_datagram(&next, Instant::now() + SOON)?;
    let (said, _) = heard.context("the server is heard")?;
    ensure!(said == b"server", "{}", String::from_utf8_lossy(&said));
    eventually("the conversation ends", || {
        server.send_to(b"server", own)?;
        Ok(receive_datagram(&next, Instant::now() + SHORT)?.is_none())
    })?;
    Ok(())
}

/// Who was quiet for longer than its conversation is known asks the same server again, and hears it: from a port that the
/// kernel picked, and from one of its own.
#[test]
fn who_asks_the_same_server_after_a_long_time_is_answered() -> Result<()> {
    let scene = Scene::new(PICKING[0])?;
    let (left, right) = (&scene.guarded.link.left, &scene.guarded.link.right);
    let row = "[[row]]\nname = \"asks\"\ndirection = \"out\"\ntransport = \"udp\"\nports = [8001]\npeers = \"any\"\n\
               reason = \"a test\"\n";
    scene.load_rows("--enforce", row, "0", &[])?.success()?;
    let (mut clients, mut servers) = (Vec::new(), Vec::new());
    for (ours, theirs) in left.both().into_iter().zip(right.both()) {
        let server = UdpEcho::start(&right.host, SocketAddr::new(theirs, SERVER))?;
        for port in [0, 9000] {
            let client = left.host.run(|| udp_socket(SocketAddr::new(ours, port)))?;
            clients.push((client, server.address()));
        }
        servers.push(server);
    }
    for round in 0..4 {
        for (client, server) in &clients {
            client.send_to(b"question", *server)?;
            let answer = receive_datagram(client, Instant::now() + SOON)?;
            ensure!(answer.is_some(), "{client:?}, round {round}");
        }
        std::thread::sleep(IDLE * 3);
    }
    Ok(())
}

/// Who answers by another address than was asked is a stranger, and spoils nothing.
#[test]
fn answers_by_another_address_are_violations_and_no_conversation() -> Result<()> {
    for mode in ["--audit", "--enforce"] {
        let guarded = Guarded::new()?;
        let (left, right) = (&guarded.link.left, &guarded.link.right);
        right.add_address(format!("{OTHER}/24").parse()?)?;
        guarded.load(mode, &[OPEN], &[])?;
        let at = |address: IpAddr| {
            right
                .host
                .run(|| udp_socket(SocketAddr::new(address, SERVER)))
        };
        let (server, other) = (at(right.v4().into())?, at(OTHER.parse()?)?);
        let client = left
            .host
            .run(|| udp_socket(SocketAddr::new(left.v4().into(), 0)))?;
        client.send_to(b"ask", server.local_addr()?)?;
        for _ in 0..3 {
            other.send_to(b"other", client.local_addr()?)?;
        }
        server.send_to(b"answer", client.local_addr()?)?;
        let mut heard = Vec::new();
        while !heard.ends_with(&[b"answer".to_vec()]) {
            let one = receive_datagram(&client, Instant::now() + SOON)?;
            heard.push(one.context("the answer")?.0);
        }
        let strays = if mode == "--audit" { 3 } else { 0 };
        ensure!(heard.len() == strays + 1, "{mode}: {heard:?}");
        ensure!(counted(&guarded, "undocumented-port")? == 3, "{mode}");
        ensure!(counted(&guarded, "reply")? == 1, "{mode}");
    }
    Ok(())
}

/// A documented port that is handed on to another host by the interface on which it came: nothing is begun by that, and what
/// that host answers is judged when it comes back.
#[test]
fn what_is_handed_back_by_its_own_interface_begins_nothing() -> Result<()> {
    for (mode, is_open) in [("--audit", true), ("--enforce", false)] {
        let guarded = Guarded::new()?;
        let (left, right) = (&guarded.link.left, &guarded.link.right);
        right.add_address(format!("{OTHER}/24").parse()?)?;
        left.host.sysctl("net/ipv4/ip_forward", "1")?;
        let card = guarded.interface();
        let mut nft = Command::new("nft");
        nft.arg(format!(
            "add table ip hairpin\n\
             add chain ip hairpin before {{ type nat hook prerouting priority -100; }}\n\
             add rule ip hairpin before iifname {card} tcp dport {OPEN} dnat to {OTHER}:{SERVER}\n\
             add chain ip hairpin after {{ type nat hook postrouting priority 100; }}\n\
             add rule ip hairpin after oifname {card} masquerade"
        ));
        left.host.output(&mut nft, LONG)?.success()?;
        let row = format!("tcp/{OPEN}");
        guarded.load(mode, &[], &["--management", &row])?;
        let _server = TcpEcho::start(&right.host, SocketAddr::new(OTHER.parse()?, SERVER))?;
        let to = SocketAddr::new(left.v4().into(), OPEN);
        let from = right.v4().into();
        let tried = right.host.run(|| Ok(connect_from(from, to, SOON)))?;
        ensure!(tried.is_connected() == is_open, "{mode}: {tried:?}");
        ensure!(counted(&guarded, "undocumented-port")? > 0, "{mode}");
        ensure!(counted(&guarded, "reply")? == 0, "{mode}");
    }
    Ok(())
}
