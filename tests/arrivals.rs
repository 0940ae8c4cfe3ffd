//! By which interface a session's packets arrive: what a guard there would cut is asked for, and nothing else is.

use std::net::{IpAddr, SocketAddr, SocketAddrV6, TcpStream};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use portguard_harness::net::{End, Host, Lab, Link, Output};
use portguard_harness::traffic::{TcpEcho, connect, exchange_tcp};

use crate::guard::{Guarded, LONG, SOON};

/// A way by which somebody's packets come to a host with two cards, `IF` (10.77.0.1), which is to be guarded, and `OTHER`
/// (10.79.0.1), whose peers' cards are `PEER` and `BEHIND`.
struct Way {
    name: &'static str,
    /// Commands on the host, and with its peer.
    host: &'static str,
    peer: &'static str,
    /// What the peer, or (`itself`) the host, connects to, over which of its cards where that has to be said.
    to: (&'static str, &'static str),
    itself: bool,
    /// What a load says of it; nothing where it does not arrive at the guard.
    said: Option<&'static str>,
}

const WAY: Way = Way {
    name: "",
    host: "",
    peer: "",
    to: ("10.77.0.1", ""),
    itself: false,
    said: None,
};

const VXLAN_HOST: &str = "ip addr add 10.77.0.9/24 dev IF; ip link add TUN type vxlan id 7 local 10.77.0.9 remote 10.77.0.2 \
     dstport 4789 dev IF; ip addr add 10.88.0.1/24 dev TUN; ip link set TUN up";
const VXLAN_PEER: &str = "ip link add TUN type vxlan id 7 local 10.77.0.2 remote 10.77.0.9 dstport 4789 dev PEER; \
     ip addr add 10.88.0.2/24 dev TUN; ip link set TUN up";

fn ways() -> Vec<Way> {
    const HERE: Option<&str> = Some("tcp port 7008");
    const TUNNEL: Option<&str> = Some("inside the tunnel `pgtun` (udp/4789 from 10.77.0.2)");
    vec![
        Way {
            name: "the host itself, by an address of its own",
            itself: true,
            ..WAY
        },
        Way {
            name: "a link-local address that both cards have, by the guarded one",
            host: "ip addr add fe80::1/64 dev IF nodad; ip addr add fe80::1/64 dev OTHER nodad",
            peer: "ip addr add fe80::2/64 dev PEER nodad",
            to: ("fe80::1", "PEER"),
            said: HERE,
            ..WAY
        },
        Way {
            name: "a link-local address that both cards have, by the other one",
            host: "ip addr add fe80::1/64 dev IF nodad; ip addr add fe80::1/64 dev OTHER nodad",
            peer: "ip addr add fe80::2/64 dev BEHIND nodad",
            to: ("fe80::1", "BEHIND"),
            ..WAY
        },
        Way {
            name: "an address on no card, answered by a rule",
            host: "ip link add vip0 type bridge; ip link set vip0 up; ip addr add 10.99.0.1/32 dev vip0; \
                   ip route add default via 10.79.0.2 dev OTHER; ip route add default via 10.77.0.2 dev IF table 100; \
                   ip rule add from 10.99.0.1 table 100",
            peer: "ip addr add 10.50.0.2/32 dev lo; ip route add 10.99.0.1 via 10.77.0.1 src 10.50.0.2",
            to: ("10.99.0.1", ""),
            said: HERE,
            ..WAY
        },
        Way {
            name: "the other card's address by the guarded one, answered by the other",
            host: "ip route add default via 10.79.0.2 dev OTHER",
            peer: "ip addr add 10.50.0.2/32 dev lo; ip route add 10.79.0.1/32 via 10.77.0.1 src 10.50.0.2",
            to: ("10.79.0.1", ""),
            said: HERE,
            ..WAY
        },
        Way {
            name: "the guarded card's address by the other one, answered by the guarded one",
            host: "ip route add default via 10.77.0.2 dev IF",
            peer: "ip addr add 10.50.0.2/32 dev lo; ip route add 10.77.0.1/32 via 10.79.0.1 src 10.50.0.2",
            ..WAY
        },
        Way {
            name: "through a tunnel",
            host: VXLAN_HOST,
            peer: VXLAN_PEER,
            to: ("10.88.0.1", ""),
            said: TUNNEL,
            ..WAY
        },
        Way {
            name: "to the guarded card's own address through a tunnel",
            host: VXLAN_HOST,
            peer: "ip link add TUN type vxlan id 7 local 10.77.0.2 remote 10.77.0.9 dstport 4789 dev PEER; \
                   ip addr add 10.88.0.2/24 dev TUN; ip link set TUN up; ip route add 10.77.0.1/32 dev TUN src 10.88.0.2",
            said: TUNNEL,
            ..WAY
        },
    ]
}

/// Two hosts on two links.
pub(crate) struct Place {
    pub(crate) guarded: Guarded,
    pub(crate) second: Link,
}

impl Place {
    pub(crate) fn new() -> Result<Self> {
        let guarded = Guarded::new()?;
        let (left, right) = (&guarded.link.left, &guarded.link.right);
        let other = End::new("other0").address("10.79.0.1/24");
        let behind = End::new("behind0").address("10.79.0.2/24");
        let second = Lab::new()?.connect(&left.host, &other, &right.host, &behind)?;
        for (host, names) in [
            (&left.host, ["all", &left.name, "other0"]),
            (&right.host, ["all", &right.name, "behind0"]),
        ] {
            for name in names {
                host.sysctl(&format!("net/ipv4/conf/{name}/rp_filter"), "0")?;
            }
        }
        Ok(Self { guarded, second })
    }

    fn commands(&self, host: &Host, all: &str) -> Result<()> {
        for one in all.split("; ").filter(|one| !one.is_empty()) {
            let one = self.named(one);
            let words: Vec<&str> = one.split_whitespace().collect();
            let mut command = Command::new(words[0]);
            command.args(&words[1..]);
            host.output(&mut command, LONG)?.success()?;
        }
        Ok(())
    }

    fn named(&self, text: &str) -> String {
        let link = &self.guarded.link;
        text.replace("BEHIND", &self.second.right.name)
            .replace("OTHER", &self.second.left.name)
            .replace("PEER", &link.right.name)
            .replace("TUN", "pgtun")
            .replace("IF", &link.left.name)
    }

    /// Connects as a way says.
    fn session(&self, way: &Way) -> Result<TcpStream> {
        let (address, card) = way.to;
        let ip: IpAddr = address.parse()?;
        let link = &self.guarded.link;
        let from = if way.itself {
            &link.left.host
        } else {
            &link.right.host
        };
        let target = match ip {
            IpAddr::V6(ip) => {
                let index = from.index(&self.named(card))?;
                SocketAddrV6::new(ip, 7008, 0, index).into()
            }
            IpAddr::V4(_) => SocketAddr::new(ip, 7008),
        };
        from.run(|| connect(target, 4 * SOON).stream())
    }

    fn load(&self, more: &[&str], ssh: Option<&str>) -> Result<Output> {
        let args = self.guarded.load_args("--enforce", &[7000], more);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let mut command = Guarded::command(&args);
        if let Some(ssh) = ssh {
            command.env("SSH_CONNECTION", ssh);
        }
        self.guarded.link.left.host.output(&mut command, LONG)
    }
}

#[test]
fn sessions_are_asked_for_where_their_packets_arrive() -> Result<()> {
    for way in ways() {
        one(&way).with_context(|| way.name.to_owned())?;
    }
    Ok(())
}

fn one(way: &Way) -> Result<()> {
    let place = Place::new()?;
    let link = &place.guarded.link;
    place.commands(&link.left.host, way.host)?;
    place.commands(&link.right.host, way.peer)?;
    let _server = TcpEcho::start(&link.left.host, "[::]:7008".parse()?)?;
    let mut session = place.session(way)?;
    ensure!(exchange_tcp(&mut session, b"before", LONG)?, "it lives");
    let (from, to) = (session.local_addr()?, session.peer_addr()?);
    let zone = if to.is_ipv6() {
        let is_other = way.to.1 == "BEHIND";
        format!("%{}", place.named(if is_other { "OTHER" } else { "IF" }))
    } else {
        String::new()
    };
    let ssh = format!(
        "{}{zone} {} {}{zone} {}",
        from.ip(),
        from.port(),
        to.ip(),
        to.port()
    );
    let Some(said) = way.said else {
        let loaded = place
            .load(&["--confirm-within", "0"], Some(&ssh))?
            .success()?;
        ensure!(!loaded.stderr.contains("7008"), "{loaded}");
        ensure!(
            exchange_tcp(&mut session, b"after", SOON)?,
            "it was cut unasked"
        );
        return Ok(());
    };
    let refused = place.load(&[], None)?;
    ensure!(
        refused.code() == 2 && refused.stderr.contains(said),
        "{refused}"
    );
    let refused = place.load(&["--cut-sessions"], Some(&ssh))?;
    let is_own = refused.stderr.contains("your own SSH connection");
    ensure!(refused.code() == 2 && is_own, "{refused}");
    ensure!(exchange_tcp(&mut session, b"still", SOON)?, "it lives");
    // What the hint says works as it stands.
    let (_, rest) = refused
        .stderr
        .split_once("`--management ")
        .context("a flag in the hint")?;
    let (flag, _) = rest.split_once('`').context("its end")?;
    let loaded = place.load(&["--management", flag], Some(&ssh))?.success()?;
    ensure!(loaded.stderr.contains("stays open"), "{loaded}");
    ensure!(
        exchange_tcp(&mut session, b"let in", SOON)?,
        "it was cut all the same"
    );
    Ok(())
}
