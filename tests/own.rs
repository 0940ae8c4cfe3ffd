//! A guard that passes what is for others judges all that the kernel takes for the host itself, whether it is there at the load
//! or comes later and no process sees it.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use portguard_harness::frames::{Frame, Ipv4, Ipv6, Udp};
use portguard_harness::traffic::{PacketSocket, receive_datagram, udp_socket};
use serde_json::Value;

use crate::guard::{Guarded, SOON, eventually};
use crate::living::town::{SCOPED, Site};
use crate::topology::ip;

/// What no row opens.
const CLOSED: u16 = 9_999;
/// How long a datagram is waited for that must not come.
const PATIENCE: Duration = Duration::from_millis(300);

/// What makes these the host's own. A VIP, networks that the host answers for, a broadcast, and another network of the card.
const ROUTES: &str = "\
    addr add 10.51.0.1/32 dev lo
    -6 addr add fd51::1/128 dev lo nodad
    route add local 10.50.0.0/16 dev lo
    -6 route add local fd50::/32 dev lo
    route add broadcast 10.53.0.255 dev IF table local
    addr add 10.52.0.1/24 dev IF
    -6 addr add fd52::1/64 dev IF nodad";

/// Addresses that the kernel takes for the host's own, and which of them only the lines above make so.
const TAKEN: [(&str, bool); 18] = [
    ("10.77.0.1", false),
    ("fd77::1", false),
    // With `route_localnet`.
    ("127.0.0.1", false),
    ("127.1.2.3", false),
    // The anycast address of routers of the network (RFC 4291, section 2.6.1).
    ("fd77::", false),
    // All hosts of a network, and of the link.
    ("10.77.0.255", false),
    ("255.255.255.255", false),
    ("ff02::1", false),
    ("10.51.0.1", true),
    ("fd51::1", true),
    ("10.50.0.1", true),
    ("10.50.255.7", true),
    ("fd50::1", true),
    ("fd50:0:ffff::7", true),
    ("10.53.0.255", true),
    ("10.52.0.1", true),
    ("10.52.0.255", true),
    ("fd52::", true),
];
/// Those that the host forwards.
const OTHERS: [&str; 4] = ["10.99.0.1", "10.51.0.2", "fd99::1", "fd51::2"];

struct World {
    guarded: Guarded,
    site: Site,
    wire: PacketSocket,
    /// Hears whatever is for the host, of either family.
    service: UdpSocket,
}

impl World {
    fn new() -> Result<Self> {
        let guarded = Guarded::new()?;
        let (left, right) = (&guarded.link.left, &guarded.link.right);
        let card = guarded.interface();
        for (key, value) in [
            ("net/ipv4/ip_forward", "1"),
            ("net/ipv6/conf/all/forwarding", "1"),
            ("net/ipv4/conf/all/rp_filter", "0"),
            (&format!("net/ipv4/conf/{card}/rp_filter"), "0"),
            (&format!("net/ipv4/conf/{card}/route_localnet"), "1"),
        ] {
            left.host.sysctl(key, value)?;
        }
        ip(
            &left.host,
            card,
            "route add default via 10.77.0.2\n-6 route add default via fd77::2",
        )?;
        let both = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), CLOSED);
        let service = left.host.run(|| udp_socket(both))?;
        Ok(Self {
            site: Site::of(&SCOPED.replace("MODE", "enforce"))?,
            wire: right.host.run(|| PacketSocket::open(&right.name))?,
            service,
            guarded,
        })
    }

    fn comes(&self) -> Result<()> {
        let host = &self.guarded.link.left.host;
        ip(host, self.guarded.interface(), ROUTES)?;
        // The kernel joins the anycast address of routers a little after it has an address of the network.
        eventually("all addresses are the host's", || {
            let all =
                host.run(|| Ok(std::fs::read_to_string("/proc/thread-self/net/anycast6")?))?;
            Ok(all.contains("fd520000000000000000000000000000"))
        })
    }

    /// Sends a datagram to each, which says whom it is for.
    fn send(&self, to: &[&str]) -> Result<()> {
        let (left, right) = (&self.guarded.link.left, &self.guarded.link.right);
        let frames = to.iter().map(|text| {
            let frame = Frame::between(right, left);
            let frame = match text.parse()? {
                IpAddr::V4(to) => frame.ipv4(Ipv4::new(right.v4(), to)),
                IpAddr::V6(to) => frame.ipv6(Ipv6::new(right.v6(), to)),
            };
            let frame = frame.udp(Udp::new(40_000, CLOSED));
            Ok(frame.payload(text.as_bytes()).build())
        });
        let frames = frames.collect::<Result<Vec<_>>>()?;
        self.guarded.receive_all(&self.wire, frames)
    }

    /// Which of these reach a socket of the host.
    fn reached(&self, to: &BTreeSet<&str>, patience: Duration) -> Result<BTreeSet<String>> {
        let all: Vec<&str> = to.iter().copied().collect();
        self.send(&all)?;
        let deadline = Instant::now() + patience;
        let mut reached = BTreeSet::new();
        while reached.len() < to.len() {
            let Some((said, _)) = receive_datagram(&self.service, deadline)? else {
                break;
            };
            reached.insert(String::from_utf8(said)?);
        }
        Ok(reached)
    }

    /// Packets that arrived, by reason.
    fn counted(&self, reason: &str) -> Result<u64> {
        let args = ["counters", "--by", "reason", "--json"].map(str::to_owned);
        let output = self.guarded.run(&args, None)?.success()?;
        let answer: Value = serde_json::from_str(&output.stdout)?;
        let reasons = answer["interfaces"][0]["reasons"].as_array();
        let reasons = reasons.context("reasons")?.iter();
        let of = reasons.filter(|one| one["direction"] == "in" && one["reason"] == reason);
        Ok(of.filter_map(|one| one["packets"].as_u64()).sum())
    }

    /// Each is judged, and what is for others goes on.
    fn is_judged(&self, own: &BTreeSet<&str>, is_dropped: bool) -> Result<()> {
        let count = || -> Result<[u64; 2]> {
            Ok([self.counted("undocumented-port")?, self.counted("transit")?])
        };
        let before = count()?;
        let patience = if is_dropped { PATIENCE } else { SOON };
        let reached = self.reached(own, patience)?;
        let wanted = if is_dropped {
            BTreeSet::new()
        } else {
            texts(own)
        };
        ensure!(reached == wanted, "{reached:?} of {own:?}");
        self.send(&OTHERS)?;
        let after = count()?;
        let [judged, passed] = [after[0] - before[0], after[1] - before[1]];
        ensure!(judged == own.len() as u64, "{judged} of {}", own.len());
        ensure!(passed == OTHERS.len() as u64, "{passed} pass");
        Ok(())
    }
}

fn texts(addresses: &BTreeSet<&str>) -> BTreeSet<String> {
    addresses.iter().map(|one| (*one).to_owned()).collect()
}

/// All of them, or those that are there before [`World::comes`].
fn taken(all: bool) -> BTreeSet<&'static str> {
    let there = TAKEN.into_iter().filter(|(_, comes)| all || !comes);
    there.map(|(address, _)| address).collect()
}

#[test]
fn what_the_kernel_takes_for_the_host_is_judged() -> Result<()> {
    let world = World::new()?;
    world.comes()?;
    // Without a guard all are reached: else nothing would be shown.
    let reached = world.reached(&taken(true), SOON)?;
    ensure!(reached == texts(&taken(true)), "only {reached:?}");
    world.site.load(&world.guarded, &["--audit"])?;
    world.is_judged(&taken(true), false).context("audit")?;
    world.site.load(&world.guarded, &["--enforce"])?;
    world.is_judged(&taken(true), true).context("enforce")
}

#[test]
fn what_comes_later_is_judged_at_once() -> Result<()> {
    let world = World::new()?;
    world.site.load(&world.guarded, &["--enforce"])?;
    world.is_judged(&taken(false), true).context("before")?;
    world.comes()?;
    world.is_judged(&taken(true), true).context("after")?;
    world.guarded.unload()?.success()?;
    let reached = world.reached(&taken(true), SOON)?;
    ensure!(reached == texts(&taken(true)), "only {reached:?}");
    Ok(())
}
