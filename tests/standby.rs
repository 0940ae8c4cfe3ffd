//! Programs that are kept for the next refresh of addresses: what they are made, and what they are never taken for.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use portguard_harness::traffic::{receive_datagram, udp_socket};
use portguard_kernel::generation::publish::{publish, roll_back};
use portguard_kernel::generation::refresh::{Refreshed, provide, refresh};
use portguard_kernel::generation::standby::Standby;
use portguard_kernel::generation::{Occasion, Options, live, prepare};
use portguard_kernel::host::interface::Interface;
use portguard_kernel::pins;
use portguard_kernel::pins::bpffs::Layout;
use portguard_kernel::pins::meta::{Sources, XdpModeName};
use portguard_policy::catalog::Transport;
use portguard_policy::domains::{Answers, DomainSet, Part};
use portguard_policy::policy::{Grant, GrantKind, Outbound, PeerSet, Peers, Policy, Settings};

use super::guard::{Guarded, SHORT};

/// Open to the domain name.
const NAMED: u16 = 7_000;
const NAME: &str = "peer.example";
/// Addresses of the peer, in networks of their own.
const PEERS: [Ipv4Addr; 3] = [
    Ipv4Addr::new(10, 77, 0, 2),
    Ipv4Addr::new(10, 78, 0, 2),
    Ipv4Addr::new(172, 16, 5, 2),
];

fn answers(peer: Ipv4Addr) -> Answers {
    Answers::from([(NAME.to_owned(), vec![IpAddr::V4(peer)])])
}

/// A port for whoever has the name, and another one for all.
fn policy(open: u16) -> Result<Policy> {
    let grant = |first, peers| Grant {
        kind: GrantKind::Documented,
        transport: Transport::Udp,
        first,
        last: first,
        peers,
        row: format!("test/{first}"),
        until: None,
    };
    let mut policy = Policy {
        sets: vec![PeerSet {
            name: NAME.to_owned(),
            prefixes: Vec::new(),
        }],
        inbound: vec![grant(NAMED, Peers::Set(0)), grant(open, Peers::Any)],
        settings: Settings {
            enforce: true,
            outbound: Outbound::Audit,
            flows: 1024,
            ..Settings::default()
        },
        ..Policy::default()
    };
    policy.domains.names.insert(NAME.to_owned(), Vec::new());
    policy.domains.sets.push(DomainSet {
        set: 0,
        parts: vec![Part {
            prefixes: Vec::new(),
            names: vec![NAME.to_owned()],
        }],
    });
    policy
        .with_answers(&answers(PEERS[0]))
        .context("the name decides over a set")
}

/// A guarded host whose peer has several addresses.
struct Named {
    guarded: Guarded,
    standby: Standby,
}

impl Named {
    fn new() -> Result<Self> {
        let guarded = Guarded::new()?;
        for (left, right) in [
            ("10.78.0.1/24", "10.78.0.2/24"),
            ("172.16.5.1/24", "172.16.5.2/24"),
        ] {
            guarded.link.left.add_address(left.parse()?)?;
            guarded.link.right.add_address(right.parse()?)?;
        }
        Ok(Self {
            guarded,
            standby: Standby::default(),
        })
    }

    fn load(&self, policy: &Policy) -> Result<()> {
        let left = &self.guarded.link.left;
        left.host.run(|| {
            let interface = Interface {
                name: left.name.clone(),
                index: left.index,
            };
            let options = Options {
                migrate: false,
                occasion: Occasion::Load,
                over_unknown: false,
                together: Vec::new(),
                xdp_mode: XdpModeName::Native,
                sources: Sources::default(),
                confirm_within: Duration::ZERO,
            };
            let lock = pins::lock()?;
            publish(vec![prepare(&lock, &interface, policy, &options)?])?;
            Ok(())
        })
    }

    fn provide(&mut self) -> Result<()> {
        let standby = &mut self.standby;
        self.guarded.link.left.host.run(|| Ok(provide(standby)?))
    }

    fn refresh(&mut self, peer: Ipv4Addr) -> Result<Refreshed> {
        let standby = &mut self.standby;
        let host = &self.guarded.link.left.host;
        let mut all = host.run(|| Ok(refresh(&answers(peer), standby)?))?;
        ensure!(all.len() == 1, "{all:?}");
        all.pop().context("one")
    }

    /// Which of the peer's addresses pass.
    fn admitted(&self) -> Result<Vec<Ipv4Addr>> {
        let any = (Ipv4Addr::UNSPECIFIED, NAMED).into();
        let (left, right) = (&self.guarded.link.left, &self.guarded.link.right);
        let socket = left.host.run(|| udp_socket(any))?;
        right.host.run(|| {
            for peer in PEERS {
                let [a, b, c, _] = peer.octets();
                let own = Ipv4Addr::new(a, b, c, 1);
                UdpSocket::bind((peer, 0))?.send_to(b"?", (own, NAMED))?;
            }
            Ok(())
        })?;
        let mut admitted = Vec::new();
        while let Some((_, sender)) = receive_datagram(&socket, Instant::now() + SHORT)? {
            admitted.extend(
                PEERS
                    .into_iter()
                    .filter(|peer| sender.ip() == IpAddr::V4(*peer)),
            );
        }
        Ok(admitted)
    }
}

/// However often the addresses change, and whatever networks they are of: exactly they pass, and the description, the
/// digest and the number are those of a load.
#[test]
fn each_refresh_admits_exactly_the_new_address() -> Result<()> {
    let mut named = Named::new()?;
    let policy = policy(7_001)?;
    named.load(&policy)?;
    assert_eq!(named.admitted()?, [PEERS[0]]);
    named.provide()?;
    let mut number = 1;
    for turn in [1, 2, 0, 1, 0] {
        let peer = PEERS[turn];
        let refreshed = named.refresh(peer)?;
        number += 1;
        // The first takes the standby, and leaves none; from the third on the two take turns.
        assert_eq!(refreshed.from_standby, number != 3, "{refreshed:?}");
        assert_eq!(named.admitted()?, [peer], "after {refreshed:?}");
        let meta = &refreshed.live.meta;
        assert_eq!((meta.number, meta.previous), (number, None));
        let wanted = policy.with_answers(&answers(peer));
        assert_eq!(
            meta.digest,
            wanted.unwrap_or_else(|| policy.clone()).digest()
        );
        assert!(refreshed.live.warnings.is_empty(), "{refreshed:?}");
    }
    Ok(())
}

/// Programs that were in force and can be gone back to keep their tables, whoever holds them.
#[test]
fn what_can_be_gone_back_to_is_no_standby() -> Result<()> {
    let mut named = Named::new()?;
    named.load(&policy(7_001)?)?;
    named.provide()?;
    named.refresh(PEERS[1])?;
    // By another tool: what the refresh put in force is now what to go back to.
    named.load(&policy(7_001)?)?;
    for peer in [PEERS[2], PEERS[1], PEERS[2]] {
        named.refresh(peer)?;
        assert_eq!(named.admitted()?, [peer]);
    }
    let host = &named.guarded.link.left.host;
    host.run(|| {
        let layout = Layout::of(named.guarded.interface());
        let lock = pins::lock()?;
        let now = live(&layout)?.context("guarded")?;
        roll_back(&lock, &layout, &now)?;
        Ok(())
    })?;
    assert_eq!(named.admitted()?, [PEERS[1]]);
    // What was in force until then is of no use for what is now.
    named.refresh(PEERS[0])?;
    assert_eq!(named.admitted()?, [PEERS[0]]);
    Ok(())
}

/// A guard that was removed is gone, although its programs are still held.
#[test]
fn held_programs_guard_nothing() -> Result<()> {
    let mut named = Named::new()?;
    named.load(&policy(7_001)?)?;
    named.provide()?;
    named.refresh(PEERS[1])?;
    named.refresh(PEERS[0])?;
    named.guarded.unload()?.success()?;
    assert_eq!(named.admitted()?, PEERS);
    Ok(())
}
