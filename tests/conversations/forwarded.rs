//! What is forwarded: it begins nothing if it came in from outside, ends nothing that is not its own, and leaves room for the
//! host's own sockets.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use portguard_harness::frames::{Frame, Ipv4, Tcp};
use portguard_harness::net::{End, Host, Lab, unique_name};
use portguard_harness::traffic::{
    PacketSocket, TcpEcho, begin_connecting, connect, exchange_tcp, wait_readable,
};

use super::{OPEN, flows, load_small};
use crate::guard::{Guarded, SOON, eventually};
use crate::topology::{container, ip};

/// The port of servers outside.
const SERVER: u16 = 8001;

/// Containers leave by the host's address; and what the host sends to a service address goes elsewhere.
const RULES: &str = "\
table ip nat {
  chain after {
    type nat hook postrouting priority srcnat;
    ip saddr 10.99.0.0/24 masquerade
  }
  chain out {
    type nat hook output priority -100;
    ip daddr 192.0.2.1 dnat to 10.77.0.2
  }
}
";

/// Resets that the host has sent.
fn resets(host: &Host) -> Result<u64> {
    let text = host.run(|| Ok(std::fs::read_to_string("/proc/thread-self/net/snmp")?))?;
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("Tcp: "));
    let (names, numbers) = (
        lines.next().context("names")?,
        lines.next().context("numbers")?,
    );
    let mut all = names.split(' ').zip(numbers.split(' '));
    let (_, number) = all
        .find(|(name, _)| *name == "OutRsts")
        .context("OutRsts")?;
    Ok(number.parse()?)
}

/// Connection tracking hands nobody what fits no window, so that the host's own stack answers: it has no socket for that.
#[test]
fn what_the_hosts_own_stack_refuses_ends_nothing_of_others() -> Result<()> {
    let guarded = Guarded::new()?;
    let (left, right) = (&guarded.link.left, &guarded.link.right);
    let inside = container(&left.host, RULES)?;
    ip(&left.host, "", "route add 192.0.2.1 via 10.77.0.2")?;
    guarded.load("--enforce", &[OPEN], &["--confirm-within", "0"])?;
    let outside = SocketAddr::new(right.v4().into(), SERVER);
    let listener = right.host.run(|| Ok(TcpListener::bind(outside)?))?;
    let service = SocketAddr::from(([192, 0, 2, 1], SERVER));
    let mut pairs: Vec<(TcpStream, TcpStream)> = Vec::new();
    for (host, to) in [(&inside, outside), (&left.host, service)] {
        let opener = host.run(|| connect(to, SOON).stream())?;
        pairs.push((opener, listener.accept()?.0));
    }
    let wire = right.host.run(|| PacketSocket::open(&right.name))?;
    for (index, (opener, accepter)) in pairs.iter_mut().enumerate() {
        ensure!(exchange(opener, accepter)?, "{index} before");
        let port = accepter.peer_addr()?.port();
        let before = resets(&left.host)?;
        // Some of them fit no window, wherever that is.
        for part in 0..8_u32 {
            let forged = Tcp {
                sequence: part << 29 | 0x0111_1111,
                acknowledged: part << 29 | 0x0234_5678,
                ..Tcp::new(SERVER, port, Tcp::ACK | Tcp::PSH)
            };
            let frame = Frame::new(left.mac, right.mac)
                .ipv4(Ipv4::new(right.v4(), left.v4()))
                .tcp(forged)
                .payload(*b"forged")
                .build();
            wire.send(&frame)?;
        }
        eventually("the host refuses it", || Ok(resets(&left.host)? > before))?;
        ensure!(
            flows(&guarded)?["occupancy"]["closing"] == 0,
            "{index} ends"
        );
        ensure!(exchange(opener, accepter)?, "{index} after");
    }
    Ok(())
}

fn exchange(opener: &TcpStream, accepter: &mut TcpStream) -> Result<bool> {
    use std::io::{Read as _, Write as _};
    accepter.write_all(b"x")?;
    Ok(wait_readable(opener, Instant::now() + SOON)? && { opener }.read(&mut [0; 8])? == 1)
}

/// Two guarded interfaces, loaded at once: who calls through the host begins no conversation of its own.
#[test]
fn what_came_in_from_outside_begins_nothing_on_its_way_out() -> Result<()> {
    let guarded = Guarded::new()?;
    let (left, right) = (&guarded.link.left, &guarded.link.right);
    let lab = Lab::new()?;
    let beyond = lab.host("beyond")?;
    let second = unique_name("pgs");
    lab.connect(
        &left.host,
        &End::new(&second).address("10.78.0.1/24"),
        &beyond,
        &End::new("eth0").address("10.78.0.2/24"),
    )?;
    left.host.sysctl("net/ipv4/ip_forward", "1")?;
    ip(&right.host, "", "route add 10.78.0.0/24 via 10.77.0.1")?;
    ip(&beyond, "", "route add default via 10.78.0.1")?;
    let more = [
        "--interface",
        &second,
        "--management",
        "tcp/22",
        "--confirm-within",
        "0",
    ];
    guarded.load("--enforce", &[OPEN], &more)?;
    let to = SocketAddr::from((Ipv4Addr::new(10, 78, 0, 2), 22));
    let mut heard = beyond.run(|| PacketSocket::open("eth0"))?;
    let calling = right.host.run(|| begin_connecting(to))?;
    let arrived = heard.find(Instant::now() + SOON, |frame| {
        frame.get(36..38) == Some(&22_u16.to_be_bytes())
    })?;
    ensure!(arrived.is_some(), "it is forwarded");
    drop(calling);
    let output = guarded.run(&["flows", "--json"].map(str::to_owned), None)?;
    let answer: serde_json::Value = serde_json::from_str(&output.success()?.stdout)?;
    for one in answer["interfaces"].as_array().context("interfaces")? {
        ensure!(one["created"] == 0, "{one}");
    }
    guarded.run(&["unload", "--interface", &second].map(str::to_owned), None)?;
    Ok(())
}

/// A container asks for more connections than there is room for, and nobody answers: the host's own sockets go on.
#[test]
fn what_nobody_answers_gives_way_to_the_hosts_own_sockets() -> Result<()> {
    const CALLS: u32 = 20_000;
    let guarded = Guarded::new()?;
    let (left, right) = (&guarded.link.left, &guarded.link.right);
    let inside = container(&left.host, RULES)?;
    load_small(&guarded, &["--enforce", "--confirm-within", "0"])?;
    let outside = SocketAddr::new(right.v4().into(), SERVER);
    let _server = TcpEcho::start(&right.host, outside)?;
    let mut quiet = left.host.run(|| connect(outside, SOON).stream())?;
    // Nobody has this address: what goes there is lost, once it is known how to get there.
    let neighbour = format!(
        "neigh add 10.77.0.99 lladdr 02:00:00:00:00:63 dev {}",
        left.name
    );
    ip(&left.host, "", &neighbour)?;
    inside.run(|| {
        for call in 0..CALLS {
            let port = 1024 + u16::try_from(call % 60_000)?;
            drop(begin_connecting(SocketAddr::from(([10, 77, 0, 99], port)))?);
        }
        Ok(())
    })?;
    for call in 0..50 {
        let mut own = left
            .host
            .run(|| connect(outside, SOON).stream())
            .with_context(|| format!("call {call}: {}", flows(&guarded).unwrap_or_default()))?;
        ensure!(exchange_tcp(&mut own, b"mine", SOON)?, "call {call}");
    }
    ensure!(exchange_tcp(&mut quiet, b"mine", SOON)?, "what was open");
    let created = flows(&guarded)?["created"].as_u64().context("created")?;
    ensure!(created > u64::from(CALLS) / 2, "{created}");
    Ok(())
}

/// A container has more connections than there is room for, and all are answered.
#[test]
fn what_is_forwarded_leaves_room_for_the_hosts_own_sockets() -> Result<()> {
    const MOST: usize = 3_000;
    let guarded = Guarded::new()?;
    let (left, right) = (&guarded.link.left, &guarded.link.right);
    let inside = container(&left.host, RULES)?;
    load_small(&guarded, &["--enforce", "--confirm-within", "0"])?;
    let outside = SocketAddr::new(right.v4().into(), SERVER);
    let listener = right.host.run(|| Ok(TcpListener::bind(outside)?))?;
    let held = inside.run(|| {
        let mut held = Vec::new();
        while let Ok(stream) = connect(outside, SOON).stream() {
            held.push((stream, listener.accept()?.0));
            ensure!(held.len() < MOST, "there is room for all");
        }
        Ok(held)
    })?;
    let lost = flows(&guarded)?["lost"].as_u64();
    ensure!(lost > Some(0), "{} and {lost:?}", held.len());
    let other = SocketAddr::new(right.v4().into(), SERVER + 1);
    let _server = TcpEcho::start(&right.host, other)?;
    for call in 0..30 {
        let mut own = left
            .host
            .run(|| connect(other, SOON).stream())
            .with_context(|| format!("call {call}: {}", flows(&guarded).unwrap_or_default()))?;
        ensure!(exchange_tcp(&mut own, b"mine", SOON)?, "call {call}");
        drop(own);
        // One cell of each set is for them, and two calls that are open at once may have the same set.
        eventually("the call is over", || {
            Ok(flows(&guarded)?["occupancy"]["sockets"] == 0)
        })?;
    }
    Ok(())
}
