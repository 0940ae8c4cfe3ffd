//! The topologies.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use portguard_harness::net::{End, Host, Lab, Process, unique_name};

use super::world::{Move, World, both, ip};
use crate::guard::{LONG, eventually};

pub(super) type Build = fn() -> Result<World>;

const HOST_ADDRESSES: &str = "scope = \"host-addresses\"";

/// A host whose card has the address.
fn simple(name: &'static str) -> Result<(World, String)> {
    let world = World::new(name)?;
    let card = world.join(0)?;
    Ok((world, card))
}

pub(super) fn card() -> Result<World> {
    let (mut world, card) = simple("a card")?;
    world.route()?;
    world.guard(&card, "native");
    Ok(world)
}

const BRIDGE: &str = "\
    addr flush dev IF
    link add br0 type bridge
    link set IF master br0
    link set br0 up
    addr add 10.77.0.1/24 dev br0
    -6 addr add fd77::1/64 dev br0 nodad";

/// The address is on the bridge; the guard is on the port, and passes what is only bridged.
pub(super) fn bridge_port() -> Result<World> {
    let (mut world, card) = simple("a port of a bridge")?;
    ip(&world.host, &card, BRIDGE)?;
    world.route()?;
    world.guard(&card, "native");
    world.scope = HOST_ADDRESSES;
    Ok(world)
}

pub(super) fn bridge() -> Result<World> {
    let (mut world, card) = simple("a bridge")?;
    ip(&world.host, &card, BRIDGE)?;
    world.route()?;
    world.guard("br0", "generic");
    Ok(world)
}

/// The address is on the macvlan; the guard is below it.
pub(super) fn macvlan() -> Result<World> {
    let (mut world, card) = simple("a macvlan")?;
    ip(
        &world.host,
        &card,
        "addr flush dev IF
         link add mv0 link IF type macvlan mode bridge
         link set mv0 up
         addr add 10.77.0.1/24 dev mv0
         -6 addr add fd77::1/64 dev mv0 nodad",
    )?;
    world.route()?;
    world.guard(&card, "native");
    Ok(world)
}

/// How the router finds an address that is not of a net of its own.
const TO_VIRTUAL: &str = "\
    route add 10.77.9.1/32 via 10.77.0.1
    -6 route add fd77:0:0:9::1/128 via fd77::1";

pub(super) fn address_on_the_loopback() -> Result<World> {
    let (mut world, card) = simple("an address on the loopback interface")?;
    world.route()?;
    ip(
        &world.host,
        "",
        "addr add 10.77.9.1/32 dev lo\n-6 addr add fd77:0:0:9::1/128 dev lo nodad",
    )?;
    ip(&world.near, "", TO_VIRTUAL)?;
    world.own = both("10.77.9.1", "fd77:0:0:9::1")?;
    world.guard(&card, "native");
    Ok(world)
}

/// The commands that give a card the address, and those that take it away.
fn comes_to(card: &str) -> String {
    format!("addr add 10.77.9.1/32 dev {card}\n-6 addr add fd77:0:0:9::1/128 dev {card} nodad")
}

fn leaves(card: &str) -> String {
    format!("addr del 10.77.9.1/32 dev {card}\n-6 addr del fd77:0:0:9::1/128 dev {card}")
}

/// As when another host's address moves here; the guard judges what is for the host's own addresses only.
pub(super) fn address_that_comes_later() -> Result<World> {
    let (mut world, card) = simple("an address that comes later")?;
    world.route()?;
    ip(&world.near, "", TO_VIRTUAL)?;
    world.moves = vec![Move {
        own: both("10.77.9.1", "fd77:0:0:9::1")?,
        host: comes_to(&card),
        near: String::new(),
    }];
    world.scope = HOST_ADDRESSES;
    world.host.sysctl("net/ipv4/ip_forward", "1")?;
    world.host.sysctl("net/ipv6/conf/all/forwarding", "1")?;
    world.guard(&card, "native");
    Ok(world)
}

/// From one card to the other after every load, and the router finds it there; what listens and what is open stays.
pub(super) fn address_that_moves() -> Result<World> {
    let (mut world, first) = simple("an address that moves")?;
    let second = world.join(1)?;
    world.route()?;
    ip(&world.host, "", &comes_to(&first))?;
    ip(&world.near, "", TO_VIRTUAL)?;
    world.own = both("10.77.9.1", "fd77:0:0:9::1")?;
    // There and back, as often as anything is loaded.
    for (from, to, via, via6) in [
        (&first, &second, "10.77.1.1", "fd77:0:0:1::1"),
        (&second, &first, "10.77.0.1", "fd77::1"),
    ]
    .into_iter()
    .cycle()
    .take(6)
    {
        world.moves.push(Move {
            own: world.own,
            host: format!("{}\n{}", leaves(from), comes_to(to)),
            near: format!(
                "route replace 10.77.9.1/32 via {via}\n-6 route replace fd77:0:0:9::1/128 via {via6}"
            ),
        });
    }
    for card in [&first, &second] {
        world
            .host
            .sysctl(&format!("net/ipv4/conf/{card}/rp_filter"), "0")?;
        world.guard(card, "native");
    }
    Ok(world)
}

/// What the host sends leaves by the second card, and what it is sent comes by the first.
fn asymmetric(name: &'static str) -> Result<(World, [String; 2])> {
    let (world, first) = simple(name)?;
    let second = world.join(1)?;
    for key in ["all", "default", &first, &second] {
        world
            .host
            .sysctl(&format!("net/ipv4/conf/{key}/rp_filter"), "0")?;
    }
    ip(
        &world.host,
        "",
        "route add 10.77.2.0/24 via 10.77.1.2 src 10.77.0.1
         -6 route add fd77:0:0:2::/64 via fd77:0:0:1::2 src fd77::1",
    )?;
    Ok((world, [first, second]))
}

pub(super) fn two_uplinks() -> Result<World> {
    let (mut world, cards) = asymmetric("two uplinks")?;
    for card in &cards {
        world.guard(card, "native");
    }
    Ok(world)
}

pub(super) fn one_of_two_uplinks() -> Result<World> {
    let (mut world, [first, _]) = asymmetric("one of two uplinks")?;
    world.guard(&first, "native");
    world.leaves_unguarded = true;
    Ok(world)
}

/// One end of a tunnel that `socat` carries between two sockets; down, since a packet before the other end is there ends it.
fn tunnel_end(host: &Host, name: &str, from: &Path, to: &Path) -> Result<Process> {
    let mut socat = Command::new("socat");
    socat.arg(format!("TUN,tun-name={name},iff-no-pi"));
    socat.arg(format!(
        "UNIX-SENDTO:{},bind={}",
        to.display(),
        from.display()
    ));
    let process = host.start(&mut socat)?;
    eventually("a tun interface and its socket", || {
        Ok(host.index(name).is_ok() && from.exists())
    })
    .with_context(|| process.stderr())?;
    Ok(process)
}

pub(super) fn tun() -> Result<World> {
    let mut world = World::new("a tun interface")?;
    let (ours, theirs) = (unique_name("tu"), unique_name("tv"));
    let socket = |name: &str| -> PathBuf { std::env::temp_dir().join(format!("{name}.socket")) };
    let sockets = (socket(&ours), socket(&theirs));
    for (host, name, from, to) in [
        (&world.host, &ours, &sockets.0, &sockets.1),
        (&world.near, &theirs, &sockets.1, &sockets.0),
    ] {
        let end = tunnel_end(host, name, from, to)?;
        world.processes.push(end);
    }
    for (host, name, last) in [(&world.host, &ours, 1), (&world.near, &theirs, 2)] {
        ip(
            host,
            name,
            &format!(
                "link set IF up
                 addr add 10.77.0.{last}/24 dev IF
                 -6 addr add fd77::{last}/64 dev IF nodad"
            ),
        )?;
    }
    world.route()?;
    world.guard(&ours, "generic");
    Ok(world)
}

const OVERLAY: &str = r#"
[[row]]
name = "overlay"
direction = "in"
transport = "udp"
ports = [4789]
peers = ["10.78.0.0/24"]
reason = "the tunnel"
[[row]]
name = "overlay-out"
direction = "out"
transport = "udp"
ports = [4789]
peers = ["10.78.0.0/24"]
reason = "the tunnel"
"#;

/// The card carries the tunnel and the tunnel has the address: both are guarded.
pub(super) fn vxlan() -> Result<World> {
    let mut world = World::new("a vxlan")?;
    let end =
        |name: &str, last: u8| End::new(&unique_name(name)).address(&format!("10.78.0.{last}/24"));
    let below = Lab::new()?.connect(&world.host, &end("th", 1), &world.near, &end("tn", 2))?;
    for (host, card, own, other) in [
        (&world.host, &below.left.name, 1, 2),
        (&world.near, &below.right.name, 2, 1),
    ] {
        ip(
            host,
            card,
            &format!(
                "link add vx0 type vxlan id 42 dstport 4789 dev IF remote 10.78.0.{other}
                 link set vx0 up
                 addr add 10.77.0.{own}/24 dev vx0
                 -6 addr add fd77::{own}/64 dev vx0 nodad"
            ),
        )?;
    }
    world.route()?;
    world.rows = OVERLAY;
    world.guard(&below.left.name, "native");
    world.guard("vx0", "generic");
    Ok(world)
}

const CONTAINERS: &str = "\
table inet containers {
  chain before {
    type nat hook prerouting priority dstnat;
    iifname IF meta l4proto { tcp, udp } th dport { 7001, 7002, 7009 } dnat ip to 10.99.0.2
    iifname IF meta l4proto { tcp, udp } th dport { 7001, 7002, 7009 } dnat ip6 to fd99::2
  }
  chain after {
    type nat hook postrouting priority srcnat;
    oifname IF ip saddr 10.99.0.0/24 masquerade
    oifname IF ip6 saddr fd99::/64 masquerade
  }
}
";

/// A container behind a host, which forwards and has these rules of nftables.
pub(crate) fn container(host: &Host, rules: &str) -> Result<Host> {
    host.sysctl("net/ipv4/ip_forward", "1")?;
    host.sysctl("net/ipv6/conf/all/forwarding", "1")?;
    let lab = Lab::new()?;
    let inside = lab.host("container")?;
    let outer = End::new(&unique_name("tc"))
        .address("10.99.0.1/24")
        .address("fd99::1/64");
    let inner = End::new("eth0")
        .address("10.99.0.2/24")
        .address("fd99::2/64");
    lab.connect(host, &outer, &inside, &inner)?;
    ip(
        &inside,
        "",
        "route add default via 10.99.0.1\n-6 route add default via fd99::1",
    )?;
    nft(host, rules)?;
    Ok(inside)
}

/// Gives a host these rules of nftables.
pub(crate) fn nft(host: &Host, rules: &str) -> Result<()> {
    let file = std::env::temp_dir().join(format!("{}.nft", unique_name("tr")));
    std::fs::write(&file, rules)?;
    let loaded = host.output(Command::new("nft").arg("-f").arg(&file), LONG);
    std::fs::remove_file(&file)?;
    loaded?.success()?;
    Ok(())
}

/// A container engine's: the documented ports and another one are published from a container, which connects by the host's
/// address.
pub(super) fn containers() -> Result<World> {
    published("containers")
}

fn published(name: &'static str) -> Result<World> {
    let (mut world, card) = simple(name)?;
    world.route()?;
    let inside = container(&world.host, &CONTAINERS.replace("IF", &card))?;
    world.behind = Some((inside, both("10.99.0.2", "fd99::2")?));
    world.guard(&card, "native");
    Ok(world)
}

/// The same where the container's link is a port of a bridge, which has the address.
pub(super) fn containers_on_a_bridge() -> Result<World> {
    let world = published("containers on a bridge")?;
    let mut which = Command::new("ip");
    which.args(["-o", "-4", "addr", "show", "to", "10.99.0.1"]);
    let shown = world.host.output(&mut which, LONG)?.success()?.stdout;
    let link = shown.split_whitespace().nth(1).context("the link")?;
    ip(
        &world.host,
        link,
        "\
        addr flush dev IF
        link add br1 type bridge
        link set IF master br1
        link set br1 up
        addr add 10.99.0.1/24 dev br1
        -6 addr add fd99::1/64 dev br1 nodad",
    )?;
    Ok(world)
}
