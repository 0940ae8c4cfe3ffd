//! Frames for other hosts of the link, as a switch floods them: nobody here takes them, so they are no violations. Unless
//! something here would take them all the same.

use std::net::{IpAddr, SocketAddr};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use portguard_harness::frames::{Frame, Icmp, Ipv4, Ipv6, Tcp, Udp};
use portguard_harness::net::Host;
use portguard_harness::traffic::{PacketSocket, receive_datagram, udp_socket};
use serde_json::Value;

use crate::guard::{Guarded, LONG};
use crate::topology::ip;

/// What nothing opens, and what management does.
const CLOSED: u16 = 9_999;
const OPEN: u16 = 7_001;
/// How long a datagram is waited for that must not come, and one that must.
const PATIENCE: Duration = Duration::from_millis(60);
const SOON: Duration = Duration::from_millis(800);

const OTHER: [u8; 6] = [2, 0, 0, 0, 0, 0xdd];
const UPPER: [u8; 6] = [2, 0, 0, 0, 0, 0xbb];

/// Commands after which frames for [`UPPER`], or with a tag, may be somebody's here.
const TAKEN: [(&str, &str); 15] = [
    (
        "a bridge",
        "ip link add up0 address 02:00:00:00:00:bb type bridge; ip link set IF master up0",
    ),
    (
        "a macvlan",
        "ip link add up0 link IF address 02:00:00:00:00:bb type macvlan mode bridge",
    ),
    (
        "a macvlan of a container",
        "ip netns add NS; ip link add up0 link IF netns NS address 02:00:00:00:00:bb type macvlan mode bridge",
    ),
    (
        "a macvtap",
        "ip link add up0 link IF type macvtap mode passthru",
    ),
    ("an ipvlan", "ip link add up0 link IF type ipvlan mode l2"),
    (
        "a VLAN",
        "ip link add up0 link IF address 02:00:00:00:00:bb type vlan id 5",
    ),
    (
        "a VLAN of a container",
        "ip netns add NS; ip link add up0 link IF netns NS address 02:00:00:00:00:bb type vlan id 5",
    ),
    ("MACsec", "ip link add up0 link IF type macsec"),
    (
        "a bond",
        "ip link set IF down; ip link add up0 type bond mode active-backup; ip link set IF master up0; ip link set up0 up",
    ),
    (
        "a rule of the packet filter",
        "nft add table netdev t; nft add chain netdev t c {type filter hook ingress device IF priority 0;}; nft add rule netdev t c meta pkttype set host",
    ),
    (
        "a rule of the packet filter for several families",
        "nft add table inet t; nft add chain inet t c {type filter hook ingress device IF priority 0;}; nft add rule inet t c counter",
    ),
    (
        "a flow table",
        "nft add table inet t; nft add flowtable inet t f {hook ingress priority 0;devices = {IF};}",
    ),
    (
        "an action of traffic control",
        "tc qdisc add dev IF clsact; tc filter add dev IF ingress matchall action skbedit ptype host",
    ),
    // What it is to do comes later, and nobody is asked then.
    ("traffic control", "tc qdisc add dev IF clsact"),
    ("traffic control of old", "tc qdisc add dev IF ingress"),
];

fn run(host: &Host, interface: &str, commands: &str) -> Result<()> {
    for line in commands.replace("IF", interface).split("; ") {
        let mut words = line.split_whitespace();
        let mut command = Command::new(words.next().unwrap_or_default());
        command.args(words);
        host.output(&mut command, LONG)?
            .success()
            .with_context(|| line.to_owned())?;
    }
    Ok(())
}

struct World {
    guarded: Guarded,
    stranger: PacketSocket,
    /// Of a container; goes with this.
    namespace: String,
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = Command::new("ip")
            .args(["netns", "del", &self.namespace])
            .stderr(std::process::Stdio::null())
            .status();
    }
}

impl World {
    fn new() -> Result<Self> {
        let guarded = Guarded::new()?;
        let right = &guarded.link.right;
        let stranger = right.host.run(|| PacketSocket::open(&right.name))?;
        Ok(Self {
            namespace: portguard_harness::net::unique_name("oh"),
            guarded,
            stranger,
        })
    }

    fn host(&self) -> &Host {
        &self.guarded.link.left.host
    }

    fn run(&self, commands: &str) -> Result<()> {
        let commands = commands.replace("NS", &self.namespace);
        run(self.host(), self.guarded.interface(), &commands)
    }

    fn frame(&self, to: [u8; 6]) -> Frame {
        Frame::new(to, self.guarded.link.right.mac)
    }

    /// Datagrams of both families.
    fn datagrams(&self, to: [u8; 6], port: u16) -> [Vec<u8>; 2] {
        let (from, own) = (&self.guarded.link.right, &self.guarded.link.left);
        let udp = || Udp::new(40_000, port);
        [
            self.frame(to)
                .ipv4(Ipv4::new(from.v4(), own.v4()))
                .udp(udp()),
            self.frame(to)
                .ipv6(Ipv6::new(from.v6(), own.v6()))
                .udp(udp()),
        ]
        .map(|frame| frame.payload(*b"let me in").build())
    }

    fn send(&self, frames: &[Vec<u8>]) -> Result<()> {
        self.guarded.receive_all(&self.stranger, frames)
    }

    /// Packets by the name of what they were counted for.
    fn counted(&self) -> Result<impl Fn(&str) -> u64 + use<>> {
        let args = ["counters", "--json", "--raw"].map(str::to_owned);
        let output = self.guarded.run(&args, None)?.success()?;
        let counters: Value = serde_json::from_str(&output.stdout)?;
        Ok(move |reason: &str| {
            let lines = counters["interfaces"][0]["reasons"].as_array();
            let lines = lines.into_iter().flatten();
            let own = lines.filter(|line| line["direction"] == "in" && line["reason"] == reason);
            own.filter_map(|line| line["packets"].as_u64()).sum()
        })
    }

    /// Whether a socket of the host hears a datagram that is sent to this link address.
    fn hears(&self, to: [u8; 6], patience: Duration) -> Result<bool> {
        for (any, frame) in ["0.0.0.0", "::"]
            .into_iter()
            .zip(self.datagrams(to, CLOSED))
        {
            let any = SocketAddr::new(any.parse::<IpAddr>()?, CLOSED);
            let socket = self.host().run(|| udp_socket(any))?;
            self.stranger.send(&frame)?;
            if receive_datagram(&socket, Instant::now() + patience)?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

#[test]
fn frames_for_others_are_no_violations_whatever_the_mode() -> Result<()> {
    let world = World::new()?;
    let own = world.guarded.link.left.mac;
    let (from, to) = (&world.guarded.link.right, &world.guarded.link.left);
    let ip4 = || Ipv4::new(from.v4(), to.v4());
    // One of each kind of violation that can be for somebody else.
    let frames = |to: [u8; 6]| {
        let frame = || world.frame(to).payload([0; 40]);
        let mut frames = world.datagrams(to, CLOSED).to_vec();
        frames.extend(
            [
                frame().ipv4(ip4()).tcp(Tcp::syn(40_000, CLOSED)),
                frame().ipv4(ip4()).icmpv4(Icmp::new(13, 0)),
                frame().ipv4(ip4().protocol(47)),
                frame().ipv4(ip4().ihl(4)).udp(Udp::new(40_000, OPEN)),
                frame()
                    .tag(0x8100, 7)
                    .ipv4(ip4())
                    .udp(Udp::new(40_000, CLOSED)),
            ]
            .map(|frame| frame.build()),
        );
        frames
    };
    for mode in ["--audit", "--enforce"] {
        world.guarded.load(mode, &[OPEN], &[])?;
        let before = world.counted()?;
        world.send(&frames(OTHER))?;
        let after = world.counted()?;
        let more = |reason: &str| after(reason) - before(reason);
        ensure!(more("other-host") == 7, "{mode}: {}", more("other-host"));
        for reason in [
            "undocumented-port",
            "undocumented-protocol",
            "icmp",
            "malformed",
        ] {
            ensure!(more(reason) == 0, "{mode}: {reason}");
        }
        // What is open is counted as before, whoever it is for.
        world.send(&world.datagrams(OTHER, OPEN))?;
        let then = world.counted()?;
        ensure!(then("management") - after("management") == 2, "{mode}");
        world.send(&frames(own))?;
        let last = world.counted()?;
        let more = |reason: &str| last(reason) - then(reason);
        ensure!(more("other-host") == 0, "{mode}");
        ensure!(
            more("undocumented-port") == 4,
            "{mode}: {}",
            more("undocumented-port")
        );
        for reason in ["undocumented-protocol", "icmp", "malformed"] {
            ensure!(more(reason) == 1, "{mode}: {reason}");
        }
        // What goes to all, or to a group, is for this host too.
        world.send(&world.datagrams([0xff; 6], CLOSED))?;
        world.send(&world.datagrams([0x33, 0x33, 0, 0, 0, 1], CLOSED))?;
        let all = world.counted()?;
        ensure!(
            all("undocumented-port") - last("undocumented-port") == 4,
            "{mode}"
        );
    }
    // They reach nobody: nothing was opened.
    world.guarded.load("--audit", &[OPEN], &[])?;
    ensure!(world.hears(own, SOON)?, "nothing would be shown");
    ensure!(!world.hears(OTHER, PATIENCE)?, "the kernel delivers them");
    Ok(())
}

/// The address is the interface's at the moment of each frame.
#[test]
fn a_new_link_address_is_the_hosts_at_once() -> Result<()> {
    let world = World::new()?;
    world.guarded.load("--enforce", &[OPEN], &[])?;
    let set = |to: &str| {
        ip(
            world.host(),
            world.guarded.interface(),
            &format!("link set IF address {to}"),
        )
    };
    set("02:00:00:00:00:dd")?;
    world.send(&world.datagrams(OTHER, CLOSED))?;
    let counted = world.counted()?;
    ensure!(counted("other-host") == 0 && counted("undocumented-port") == 2);
    set("02:00:00:00:00:ee")?;
    world.send(&world.datagrams(OTHER, CLOSED))?;
    ensure!(world.counted()?("other-host") == 2);
    Ok(())
}

/// Whatever stands on the interface, or in front of the stack, may take them: then they are judged, whenever it came.
#[test]
fn what_something_here_may_take_is_judged() -> Result<()> {
    let mut tried = 0;
    let mut heard = 0;
    for (what, commands) in TAKEN {
        for is_first in [true, false] {
            let world = World::new()?;
            if !is_first {
                world.guarded.load("--enforce", &[OPEN], &[])?;
            }
            // Not in every kernel; a bond takes no interface that has a program.
            if let Err(error) = world.run(commands) {
                println!("{what}, first {is_first}: not tried: {error:#}");
                continue;
            }
            let is_up = ip(world.host(), "", "link set up0 up").is_ok();
            if is_first {
                heard += u32::from(is_up || world.hears(UPPER, PATIENCE)?);
                world.guarded.load("--enforce", &[OPEN], &[])?;
            }
            tried += 1;
            let before = world.counted()?;
            ensure!(
                !world.hears(UPPER, PATIENCE)?,
                "{what}, first {is_first}: heard"
            );
            world.send(&world.datagrams(OTHER, CLOSED))?;
            let after = world.counted()?;
            let passed = after("other-host") - before("other-host");
            let judged = after("undocumented-port") - before("undocumented-port");
            ensure!(
                (passed, judged) == (0, 4),
                "{what}, first {is_first}: {passed} passed, {judged} judged"
            );
        }
    }
    ensure!(
        tried >= 14 && heard >= 4,
        "only {tried} tried, {heard} heard"
    );
    Ok(())
}

/// In generic mode the kernel has decided already, and others may have decided otherwise for it.
#[test]
fn in_generic_mode_all_are_judged() -> Result<()> {
    let world = World::new()?;
    world
        .guarded
        .load("--enforce", &[OPEN], &["--xdp-mode", "generic"])?;
    world.send(&world.datagrams(OTHER, CLOSED))?;
    let counted = world.counted()?;
    ensure!(counted("other-host") == 0 && counted("undocumented-port") == 2);
    Ok(())
}
