//! Forged packets that the host sends on by its own address begin no conversation of its own, wherever they come in and go out;
//! but where another guard let them in by right, what they were sent on for is answered.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use portguard_harness::frames::{Frame, Ipv4, Ipv6, Tcp, Udp};
use portguard_harness::net::{End, Host, Interface, Lab, unique_name};
use portguard_harness::traffic::{PacketSocket, receive_datagram, udp_socket};

use super::{OPEN, counted, flows};
use crate::guard::{Guarded, SHORT, SOON};
use crate::topology::{ip, nft};

/// A service of the host that no row opens, on a port as the kernel picks them.
const SERVICE: u16 = 41_000;
/// The attacker's own port: one that a row opens, so that what is for it passes through the host.
const ATTACKER: u16 = OPEN;
/// Who the forged packets say to be from, on the attacker's link.
const FORGED: [&str; 2] = ["10.77.0.66", "fd77::66"];

/// Whatever the host sends on goes by its own address, and by the port that it came from where that is free.
const RULES: &str = "\
table inet nat {
  chain after {
    type nat hook postrouting priority srcnat;
    ip saddr 10.77.0.66 masquerade
    ip6 saddr fd77::66 masquerade
  }
}
";

/// Interfaces above the card, which get its packets and have its addresses; `None`: it has them itself, and the packets leave by
/// another guarded card.
const PLACES: [(&str, Option<&str>); 3] = [
    ("two cards", None),
    (
        "a bridge",
        Some("link add up0 type bridge\nlink set IF master up0"),
    ),
    (
        "a VLAN's neighbour, a macvlan",
        Some("link add up0 link IF type macvlan mode bridge"),
    ),
];

struct World {
    guarded: Guarded,
    /// Where the attacker hears what the host sends on.
    far: Interface,
    /// Another card of the host's, if it leaves by that.
    second: Option<String>,
    /// What the frames are sent to.
    mac: [u8; 6],
}

impl World {
    fn new(above: Option<&str>) -> Result<Self> {
        let guarded = Guarded::new()?;
        let (left, right) = (guarded.link.left.clone(), guarded.link.right.clone());
        for (key, value) in [
            ("net/ipv4/ip_forward", "1"),
            ("net/ipv6/conf/all/forwarding", "1"),
            ("net/ipv4/conf/all/rp_filter", "0"),
            ("net/ipv4/conf/default/rp_filter", "0"),
            (&format!("net/ipv4/conf/{}/rp_filter", left.name), "0"),
        ] {
            left.host.sysctl(key, value)?;
        }
        nft(&left.host, RULES)?;
        let (mut far, mut second, mut mac) = (right, None, left.mac);
        if let Some(above) = above {
            ip(&left.host, &left.name, above)?;
            ip(
                &left.host,
                &left.name,
                "addr flush dev IF
                 link set up0 up
                 addr add 10.77.0.1/24 dev up0
                 -6 addr add fd77::1/64 dev up0 nodad",
            )?;
            mac = address(&left.host, "up0")?;
        } else {
            let beyond = Lab::new()?.host("beyond")?;
            let name = unique_name("pgs");
            let inner = End::new(&name)
                .address("10.78.0.1/24")
                .address("fd78::1/64");
            let outer = End::new("eth0")
                .address("10.78.0.2/24")
                .address("fd78::2/64");
            far = Lab::new()?
                .connect(&left.host, &inner, &beyond, &outer)?
                .right;
            second = Some(name);
        }
        Ok(Self {
            guarded,
            far,
            second,
            mac,
        })
    }

    fn load(&self) -> Result<()> {
        let tcp = format!("tcp/{ATTACKER}");
        let mut more = vec!["--confirm-within", "0", "--management", &tcp];
        if let Some(second) = &self.second {
            more.extend(["--interface", second]);
        }
        self.guarded.load("--enforce", &[OPEN], &more)?;
        Ok(())
    }

    /// A forged packet that the host sends on to the attacker, by each protocol and family; that it does.
    fn forge(&self, wire: &PacketSocket) -> Result<()> {
        let right = &self.guarded.link.right;
        let mut heard = self.far.host.run(|| PacketSocket::open(&self.far.name))?;
        for (to, from) in self.far.both().into_iter().zip(FORGED) {
            for is_tcp in [true, false] {
                let frame = Frame::new(self.mac, right.mac);
                let frame = match (from.parse()?, to) {
                    (IpAddr::V4(from), IpAddr::V4(to)) => frame.ipv4(Ipv4::new(from, to)),
                    (IpAddr::V6(from), IpAddr::V6(to)) => frame.ipv6(Ipv6::new(from, to)),
                    _ => anyhow::bail!("two families"),
                };
                let frame = if is_tcp {
                    frame.tcp(Tcp::syn(SERVICE, ATTACKER))
                } else {
                    frame.udp(Udp::new(SERVICE, ATTACKER))
                };
                wire.send(&frame.payload(*b"forged").build())?;
                let from_host = |frame: &[u8]| {
                    let own = self.own(to).map(octets);
                    own.is_some_and(|own| {
                        let at = if to.is_ipv4() { 26 } else { 22 };
                        frame.get(at..at + own.len()) == Some(&own)
                            && portguard_harness::traffic::contains(frame, b"forged")
                    })
                };
                let found = heard.find(Instant::now() + SOON, from_host)?;
                ensure!(found.is_some(), "{to}, TCP: {is_tcp}: it is not sent on");
            }
        }
        Ok(())
    }

    /// The host's address that is next to this one.
    fn own(&self, far: IpAddr) -> Option<IpAddr> {
        let text = match (self.second.is_some(), far.is_ipv4()) {
            (false, true) => "10.77.0.1",
            (false, false) => "fd77::1",
            (true, true) => "10.78.0.1",
            (true, false) => "fd78::1",
        };
        text.parse().ok()
    }

    /// All conversations that any of its guards knows of.
    fn created(&self) -> Result<u64> {
        let output = self
            .guarded
            .run(&["flows", "--json"].map(str::to_owned), None)?;
        let answer: serde_json::Value = serde_json::from_str(&output.success()?.stdout)?;
        let all = answer["interfaces"].as_array().context("interfaces")?;
        Ok(all.iter().filter_map(|one| one["created"].as_u64()).sum())
    }

    /// The attacker is not heard once the packet filter has forgotten what it sent on.
    fn is_shut(&self) -> Result<()> {
        // Without a rule that needs it nothing is tracked, and no answer is for whoever was forged.
        nft(&self.guarded.link.left.host, "flush ruleset\n")?;
        for to in self.far.both() {
            let own = self.own(to).context("an address")?;
            let host = &self.guarded.link.left.host;
            let service = host.run(|| udp_socket(SocketAddr::new(own, SERVICE)))?;
            let attacker = self
                .far
                .host
                .run(|| udp_socket(SocketAddr::new(to, ATTACKER)))?;
            attacker.send_to(b"let me in", service.local_addr()?)?;
            let heard = receive_datagram(&service, Instant::now() + SHORT)?;
            ensure!(heard.is_none(), "{to} is heard at {own}");
        }
        Ok(())
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(second) = &self.second {
            let unload = ["unload", "--interface", second].map(str::to_owned);
            let _ = self.guarded.run(&unload, None);
        }
    }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(four) => four.octets().to_vec(),
        IpAddr::V6(six) => six.octets().to_vec(),
    }
}

/// The link address of an interface.
fn address(host: &Host, name: &str) -> Result<[u8; 6]> {
    let mut command = std::process::Command::new("ip");
    let output = host.output(command.args(["-json", "link", "show", name]), SOON)?;
    let answer: serde_json::Value = serde_json::from_str(&output.success()?.stdout)?;
    let text = answer[0]["address"].as_str().context("an address")?;
    let octets: Vec<u8> = text
        .split(':')
        .map(|octet| u8::from_str_radix(octet, 16))
        .collect::<Result<_, _>>()?;
    octets.try_into().ok().context("six octets")
}

fn begins_nothing((what, above): (&str, Option<&str>)) -> Result<()> {
    let world = World::new(above)?;
    let right = &world.guarded.link.right;
    let wire = right.host.run(|| PacketSocket::open(&right.name))?;
    world.load()?;
    // What the host asks itself is known, or nothing would be shown.
    let far = SocketAddr::new(world.far.v4().into(), ATTACKER);
    let host = &world.guarded.link.left.host;
    let own = host.run(|| udp_socket("0.0.0.0:0".parse()?))?;
    own.send_to(b"mine", far)?;
    ensure!(world.created()? == 1, "{what}: {}", flows(&world.guarded)?);
    world.forge(&wire).with_context(|| what.to_owned())?;
    if world.second.is_some() {
        // A row of the first card lets it through to there, by right: its answers come back, as a gateway's must.
        ensure!(world.created()? == 5, "{what}: {}", flows(&world.guarded)?);
        return Ok(());
    }
    ensure!(world.created()? == 1, "{what}: {}", flows(&world.guarded)?);
    world.is_shut().with_context(|| what.to_owned())?;
    ensure!(counted(&world.guarded, "reply")? == 0, "{what}");
    Ok(())
}

#[test]
fn what_is_forged_from_outside_begins_nothing_wherever_it_comes_and_goes() -> Result<()> {
    PLACES.into_iter().try_for_each(begins_nothing)
}
