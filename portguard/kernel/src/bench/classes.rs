//! Frames of every kind that a policy tells apart as they arrive, to measure it with.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use crate::probe::{Probe, frame, is_granted};
use portguard_policy::catalog::Transport;
use portguard_policy::image::spans;
use portguard_policy::policy::{Peers, Policy};

/// A kind of packets, by one of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Class {
    /// `tcp4-closed`: stable, kebab-case.
    pub name: String,
    /// What it is, for people: `TCP port 443 from 192.0.2.7`.
    pub what: String,
    /// An Ethernet frame.
    pub frame: Vec<u8>,
}

/// Peers that hardly any site names.
const STRANGERS: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(203, 0, 113, 254)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0xdead, 0, 0, 0, 0, 0xfe)),
];

/// The classes that a policy has: those without an example in it are not among them.
pub fn classes(policy: &Policy) -> Vec<Class> {
    let mut classes = Vec::new();
    for stranger in STRANGERS {
        let family = if stranger.is_ipv4() { 4 } else { 6 };
        for (transport, word) in [(Transport::Tcp, "tcp"), (Transport::Udp, "udp")] {
            let closed = closed_port(policy, transport);
            let open = open_port(policy, transport);
            let restricted = restricted_port(policy, transport, family == 4);
            let mut add = |name: &str, port, peer| {
                let probe = Probe {
                    transport,
                    peer,
                    port,
                };
                classes.push(arriving(&format!("{word}{family}-{name}"), &probe));
            };
            if let Some(port) = closed {
                add("closed", port, stranger);
            }
            if let Some(port) = open {
                add("open", port, stranger);
            }
            if let Some((port, peer)) = restricted {
                add("peer", port, peer);
                let probe = Probe {
                    transport,
                    peer: stranger,
                    port,
                };
                if !is_granted(policy, &probe) {
                    add("stranger", port, stranger);
                }
            }
        }
    }
    classes.extend(tagged(policy));
    classes.extend(others());
    classes
}

fn arriving(name: &str, probe: &Probe) -> Class {
    Class {
        name: name.to_owned(),
        what: probe.to_string(),
        frame: frame(probe),
    }
}

/// The highest port that no grant names.
fn closed_port(policy: &Policy, transport: Transport) -> Option<u16> {
    let spans = spans(&policy.inbound);
    let is_closed = |port: &u16| {
        !spans
            .iter()
            .any(|span| span.transport == transport && (span.first..=span.last).contains(port))
    };
    (0..=u16::MAX).rev().find(is_closed)
}

/// A port that everybody is granted.
fn open_port(policy: &Policy, transport: Transport) -> Option<u16> {
    let mut grants = policy.inbound.iter();
    let open = grants.find(|grant| grant.transport == transport && grant.peers == Peers::Any);
    open.map(|grant| grant.first)
}

/// A port that only some peers are granted, and one of these peers of the family.
fn restricted_port(policy: &Policy, transport: Transport, v4: bool) -> Option<(u16, IpAddr)> {
    policy.inbound.iter().find_map(|grant| {
        let Peers::Set(index) = grant.peers else {
            return None;
        };
        let set = policy.sets.get(usize::try_from(index).ok()?)?;
        let is_family = |net: &&IpNet| matches!(net, IpNet::V4(_)) == v4;
        let net = set.prefixes.iter().find(is_family)?;
        (grant.transport == transport).then(|| (grant.first, net.broadcast()))
    })
}

/// A closed TCP port behind one VLAN tag.
fn tagged(policy: &Policy) -> Option<Class> {
    let [peer, _] = STRANGERS;
    let port = closed_port(policy, Transport::Tcp)?;
    let plain = arriving(
        "tcp4-vlan-closed",
        &Probe {
            transport: Transport::Tcp,
            peer,
            port,
        },
    );
    let (addresses, rest) = plain.frame.split_at_checked(12)?;
    let tag = [0x81, 0x00, 0x00, 0x2a];
    Some(Class {
        what: format!("{}, VLAN 42", plain.what),
        frame: [addresses, &tag, rest].concat(),
        ..plain
    })
}

/// What no policy decides port by port.
fn others() -> Vec<Class> {
    let [peer, _] = STRANGERS;
    let probe = Probe {
        transport: Transport::Tcp,
        peer,
        port: 1,
    };
    let other = |name: &str, what: &str, frame| Class {
        name: name.to_owned(),
        what: what.to_owned(),
        frame,
    };
    let mut arp = frame(&probe);
    let request = [8, 6, 0, 1, 8, 0, 6, 4, 0, 1];
    arp.iter_mut()
        .skip(12)
        .zip(request)
        .for_each(|(to, from)| *to = from);
    let mut later = frame(&probe);
    // Fragment offset 185, nothing follows.
    later
        .iter_mut()
        .skip(20)
        .zip([0x00, 0xb9])
        .for_each(|(to, from)| *to = from);
    let mut short = frame(&probe);
    short.truncate(38);
    let mut ping = frame(&probe);
    ping.iter_mut().skip(23).take(1).for_each(|to| *to = 1);
    ping.iter_mut()
        .skip(34)
        .zip([8, 0])
        .for_each(|(to, from)| *to = from);
    vec![
        other("echo4", "echo request", ping),
        other("fragment4", "later fragment", later),
        other("arp", "ARP", arp),
        other("malformed", "frame that ends in its header", short),
    ]
}

#[cfg(test)]
mod tests {
    use super::classes;
    use portguard_policy::catalog::Transport;
    use portguard_policy::policy::{Grant, GrantKind, PeerSet, Peers, Policy};

    fn grant(first: u16, last: u16, peers: Peers) -> Grant {
        Grant {
            kind: GrantKind::Documented,
            transport: Transport::Tcp,
            first,
            last,
            peers,
            row: "v/row".into(),
            until: None,
        }
    }

    #[test]
    fn a_class_has_an_example_or_is_absent() {
        let policy = Policy {
            sets: vec![PeerSet {
                name: "peers".into(),
                prefixes: vec!["192.0.2.0/24".parse().unwrap()],
            }],
            inbound: vec![
                grant(443, 443, Peers::Any),
                grant(60_000, 65_535, Peers::Set(0)),
            ],
            ..Policy::default()
        };
        let classes = classes(&policy);
        let what = |name: &str| {
            let found = classes.iter().find(|class| class.name == name);
            found.map(|class| class.what.as_str())
        };
        assert_eq!(
            what("tcp4-closed"),
            Some("Tcp port 59999 from 203.0.113.254")
        );
        assert_eq!(what("tcp4-open"), Some("Tcp port 443 from 203.0.113.254"));
        assert_eq!(what("tcp4-peer"), Some("Tcp port 60000 from 192.0.2.255"));
        assert!(what("tcp4-stranger").is_some());
        assert_eq!(what("tcp6-peer"), None, "no peer of that family");
        assert_eq!(what("udp4-open"), None);
        assert!(what("arp").is_some());
        assert!(classes.iter().all(|class| class.frame.len() >= 38));
    }
}
