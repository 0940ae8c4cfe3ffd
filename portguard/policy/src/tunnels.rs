//! Tunnels that a policy lets in. A packet is judged by its outer header: what is inside is judged on the interface where the
//! tunnel ends, or nowhere.

use std::fmt;
use std::net::IpAddr;

use portguard_common::ethertypes;
use portguard_common::reason::Direction;

use crate::catalog::Transport;
use crate::policy::{Peers, Policy};

/// A way to put packets into packets, as it is usually set up.
#[derive(Debug, PartialEq, Eq)]
pub struct Kind {
    /// What people call it.
    pub name: &'static str,
    /// What `ip -d link` calls its interfaces.
    pub devices: &'static [&'static str],
    tcp: &'static [u16],
    udp: &'static [u16],
    protocols: &'static [u8],
    /// Numbers of its frames, where it carries packets right on the link.
    ethertypes: &'static [u16],
    /// Rows of the profiles that carry it, on whatever number the site has it.
    rows: &'static [&'static str],
}

const NONE: Kind = Kind {
    name: "",
    devices: &[],
    tcp: &[],
    udp: &[],
    protocols: &[],
    ethertypes: &[],
    rows: &[],
};

/// MPLS right on the link: the kernel itself takes the labels off.
pub const LABELS: &str = "MPLS labels";

/// All that have a number of their own. 8472 is what Linux and flannel took for VXLAN before it was given one.
const KINDS: [Kind; 19] = [
    Kind {
        name: "VXLAN",
        devices: &["vxlan"],
        udp: &[4789, 8472],
        rows: &[
            "kubernetes-node/flannel-vxlan",
            "kubernetes-node/cilium-vxlan",
            "kubernetes-node/calico-vxlan",
            "kubernetes-node/weave-data",
        ],
        ..NONE
    },
    Kind {
        name: "Geneve",
        devices: &["geneve"],
        udp: &[6081],
        ..NONE
    },
    Kind {
        name: "WireGuard",
        devices: &["wireguard"],
        udp: &[51_820, 51_821],
        ..NONE
    },
    Kind {
        name: "OpenVPN",
        devices: &["tun", "ovpn"],
        tcp: &[1194],
        udp: &[1194],
        ..NONE
    },
    Kind {
        name: "IP in IP",
        devices: &["ipip", "ip6tnl"],
        protocols: &[4, 94],
        ..NONE
    },
    Kind {
        name: "IPv6 in IP",
        devices: &["sit", "ip6tnl"],
        udp: &[3544],
        protocols: &[41],
        ..NONE
    },
    Kind {
        name: "GRE",
        devices: &[
            "gre",
            "gretap",
            "ip6gre",
            "ip6gretap",
            "erspan",
            "ip6erspan",
        ],
        udp: &[4754, 4755],
        protocols: &[47],
        ..NONE
    },
    Kind {
        name: "IPsec",
        devices: &["vti", "vti6", "xfrm"],
        udp: &[4500],
        protocols: &[50],
        ..NONE
    },
    Kind {
        name: "L2TP",
        devices: &["l2tpeth", "ppp"],
        udp: &[1701],
        protocols: &[115],
        ..NONE
    },
    Kind {
        name: "GTP",
        devices: &["gtp"],
        udp: &[2152, 3386],
        ..NONE
    },
    Kind {
        name: "MPLS",
        devices: &["bareudp"],
        udp: &[6635],
        protocols: &[137],
        ..NONE
    },
    Kind {
        name: "AMT",
        devices: &["amt"],
        udp: &[2268],
        ..NONE
    },
    Kind {
        name: "EtherIP",
        devices: &[],
        protocols: &[97],
        ..NONE
    },
    Kind {
        name: "PPPoE",
        devices: &["ppp"],
        // Of sessions; discovery (0x8863) carries nothing.
        ethertypes: &[0x8864],
        ..NONE
    },
    Kind {
        name: LABELS,
        ethertypes: &[0x8847, 0x8848],
        ..NONE
    },
    Kind {
        name: "MACsec",
        devices: &["macsec"],
        ethertypes: &[0x88e5],
        ..NONE
    },
    Kind {
        name: "B.A.T.M.A.N.",
        devices: &["batadv"],
        ethertypes: &[0x4305],
        ..NONE
    },
    // High-availability seamless redundancy.
    Kind {
        name: "HSR",
        devices: &["hsr"],
        ethertypes: &[0x892f],
        ..NONE
    },
    // Ports of a switch, whose tags come on the frames of the card below (`ETH_P_EDSA` and ones that a switch chooses).
    Kind {
        name: "DSA",
        devices: &["dsa"],
        ethertypes: &[0xdada],
        ..NONE
    },
];

/// Whether packets of an interface of this kind came inside of others.
pub fn is_device(kind: &str) -> bool {
    KINDS.iter().any(|one| one.devices.contains(&kind))
}

/// What packets of a tunnel are, from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carrier {
    /// For a port of this host.
    Port(Transport, u16),
    /// Of an IP protocol.
    Protocol(u8),
}

impl fmt::Display for Carrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Port(transport, port) => write!(f, "{transport}/{port}"),
            Self::Protocol(number) => write!(f, "IP protocol {number}"),
        }
    }
}

impl Carrier {
    /// Whether nothing of it is dropped, from one peer and to it, or, where that is not known, of some. `is_one_way`: what is
    /// sent leaves from another port than it arrives at.
    pub fn lives(self, policy: &Policy, peer: Option<IpAddr>, is_one_way: bool) -> bool {
        let admits = |peers: Peers| peer.is_none_or(|peer| policy.admits(peers, peer));
        let is_open = |direction| match self {
            Self::Port(transport, port) => policy.grants(direction).iter().any(|grant| {
                grant.transport == transport && grant.covers(port) && admits(grant.peers)
            }),
            Self::Protocol(number) => {
                let mut all = policy.protocols.iter();
                all.any(|grant| grant.protocol == number && admits(grant.peers))
            }
        };
        let mut directions = [Direction::Ingress, Direction::Egress].into_iter();
        directions.all(|direction| {
            !policy.settings.drops(direction)
                || is_open(direction)
                // An answer, to whoever is let in.
                || direction == Direction::Egress && !is_one_way && is_open(Direction::Ingress)
        })
    }
}

/// How packets of an interface of this kind usually arrive.
pub fn carriers(kind: &str) -> Vec<Carrier> {
    let kinds = KINDS.iter().filter(|one| one.devices.contains(&kind));
    kinds
        .flat_map(|one| {
            let tcp = one
                .tcp
                .iter()
                .map(|port| Carrier::Port(Transport::Tcp, *port));
            let udp = one
                .udp
                .iter()
                .map(|port| Carrier::Port(Transport::Udp, *port));
            let protocols = one.protocols.iter().map(|one| Carrier::Protocol(*one));
            protocols.chain(udp).chain(tcp)
        })
        .collect()
}

/// A tunnel that is let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Open {
    /// Which.
    pub kind: &'static Kind,
    /// How: `udp/4789`, `ip/47`.
    pub carrier: String,
    /// The row that opens it; none of what is not IP.
    pub row: String,
    /// Whether the row is for it: not for a thousand ports, of which it is one.
    pub is_meant: bool,
}

/// Rows with more ports than this are for something else.
const MEANT: u16 = 64;

/// What a policy lets in.
pub fn open(policy: &Policy) -> Vec<Open> {
    let mut found = Vec::new();
    for kind in &KINDS {
        for grant in &policy.inbound {
            let ports = match grant.transport {
                Transport::Tcp => kind.tcp,
                Transport::Udp => kind.udp,
                Transport::Sctp => &[],
            };
            let among = |port: &&u16| grant.covers(**port);
            let is_row = kind.rows.contains(&grant.row.as_str());
            let own = is_row.then_some(&grant.first);
            found.extend(ports.iter().filter(among).chain(own).map(|port| Open {
                kind,
                carrier: format!("{}/{port}", grant.transport),
                row: grant.row.clone(),
                is_meant: is_row || grant.last - grant.first < MEANT,
            }));
        }
        for grant in &policy.protocols {
            if kind.protocols.contains(&grant.protocol) {
                found.push(Open {
                    kind,
                    carrier: format!("ip/{}", grant.protocol),
                    row: grant.row.clone(),
                    is_meant: true,
                });
            }
        }
    }
    let settings = &policy.settings;
    let passes = |number: &&u16| {
        let is_listed = settings.ethertypes >> ethertypes::index(**number) & 1 == 1;
        !(settings.strict_ethertypes && settings.enforce) || is_listed
    };
    for kind in &KINDS {
        // No row lets it in, so that nobody meant it.
        found.extend(kind.ethertypes.iter().filter(passes).map(|number| Open {
            kind,
            carrier: format!("EtherType {number:#06x}"),
            row: String::new(),
            is_meant: false,
        }));
    }
    found.dedup_by(|a, b| a.carrier == b.carrier);
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{Grant, GrantKind, Peers, ProtocolGrant};

    #[test]
    fn what_carries_packets_in_packets_is_found_by_number() {
        let grant = |transport, first, last| Grant {
            kind: GrantKind::Site,
            transport,
            first,
            last,
            peers: Peers::Any,
            row: format!("site/{first}"),
            until: None,
        };
        let policy = Policy {
            inbound: vec![
                grant(Transport::Udp, 4789, 4789),
                grant(Transport::Tcp, 4789, 4789),
                grant(Transport::Udp, 6000, 9000),
                grant(Transport::Udp, 443, 443),
                Grant {
                    row: "kubernetes-node/cilium-vxlan".to_owned(),
                    ..grant(Transport::Udp, 18_472, 18_472)
                },
            ],
            protocols: vec![ProtocolGrant {
                protocol: 47,
                peers: Peers::Any,
                row: "site/gre".to_owned(),
            }],
            ..Policy::default()
        };
        let found: Vec<_> = open(&policy)
            .into_iter()
            .map(|one| (one.kind.name, one.carrier, one.is_meant))
            .collect();
        let wanted = [
            ("VXLAN", "udp/4789", true),
            ("VXLAN", "udp/8472", false),
            ("VXLAN", "udp/18472", true),
            ("Geneve", "udp/6081", false),
            ("GRE", "ip/47", true),
            ("MPLS", "udp/6635", false),
            ("PPPoE", "EtherType 0x8864", false),
            (LABELS, "EtherType 0x8847", false),
            (LABELS, "EtherType 0x8848", false),
            ("MACsec", "EtherType 0x88e5", false),
            ("B.A.T.M.A.N.", "EtherType 0x4305", false),
            ("HSR", "EtherType 0x892f", false),
            ("DSA", "EtherType 0xdada", false),
        ];
        assert_eq!(
            found,
            wanted.map(|(name, carrier, meant)| (name, carrier.to_owned(), meant))
        );
        // What a strict host drops brings nothing.
        let mut strict = policy;
        strict.settings.enforce = true;
        strict.settings.strict_ethertypes = true;
        strict.settings.ethertypes = 1 << ethertypes::index(0x88e5);
        let left = open(&strict).into_iter();
        let left: Vec<_> = left.filter(|one| one.row.is_empty()).collect();
        assert_eq!(left.len(), 1, "{left:?}");
        assert_eq!(left[0].kind.name, "MACsec");
    }
}
