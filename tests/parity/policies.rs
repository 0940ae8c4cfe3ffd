//! Policies that between them use everything that a generation can hold.

use ipnet::IpNet;
use portguard_harness::frames::Palette;
use portguard_policy::catalog::Transport;
use portguard_policy::policy::{
    Grant, GrantKind, PeerSet, Peers, Policy, ProtocolGrant, RowFacts, Settings,
};

/// The ports and peers below, and near misses.
pub(super) fn palette() -> Palette {
    Palette {
        ports: vec![
            0, 22, 53, 67, 68, 80, 123, 443, 546, 547, 2100, 2905, 4789, 8000, 8100, 8443, 9443,
            32_768, 49_999, 65_535,
        ],
        v4: vec![
            [10, 77, 0, 1].into(),
            [10, 77, 0, 2].into(),
            [10, 77, 9, 9].into(),
            [192, 0, 2, 7].into(),
            [192, 0, 2, 8].into(),
            [10, 77, 0, 255].into(),
        ],
        v6: vec![
            [0xfd77, 0, 0, 0, 0, 0, 0, 1].into(),
            [0xfd77, 0, 0, 0, 0, 0, 0, 2].into(),
            [0xfd77, 0, 0, 9, 0, 0, 0, 2].into(),
            [0x2001, 0xdb8, 0, 0, 0, 0, 0, 7].into(),
            [0x2001, 0xdb8, 0, 0, 0, 0, 0, 8].into(),
            // One bit away from the host's own.
            [0x7d77, 0, 0, 0, 0, 0, 0, 1].into(),
            [0xfd77, 0, 0, 0, 0x8000, 0, 0, 1].into(),
        ],
        ..Palette::default()
    }
}

pub(super) fn all() -> Vec<Policy> {
    vec![
        closed(),
        open(),
        restricted(),
        strict(),
        scoped(),
        audit_ports(),
    ]
}

fn grant(
    kind: GrantKind,
    transport: Transport,
    ports: (u16, u16),
    peers: Peers,
    row: &str,
) -> Grant {
    Grant {
        kind,
        transport,
        first: ports.0,
        last: ports.1,
        peers,
        row: row.into(),
        until: None,
    }
}

fn nets(prefixes: &[&str]) -> Vec<IpNet> {
    prefixes
        .iter()
        .map(|prefix| prefix.parse().expect("a prefix"))
        .collect()
}

fn named(name: &str) -> Policy {
    Policy {
        host: Some(name.into()),
        settings: Settings {
            enforce: true,
            ..Settings::default()
        },
        ..Policy::default()
    }
}

fn closed() -> Policy {
    named("closed")
}

/// Everything that is open is open to all.
pub(super) fn open() -> Policy {
    use GrantKind::{Baseline, Documented, Management, Site};
    use Transport::{Sctp, Tcp, Udp};
    Policy {
        inbound: vec![
            grant(Management, Tcp, (22, 22), Peers::Any, "management/tcp-22"),
            grant(Baseline, Udp, (68, 68), Peers::Any, "baseline/dhcp"),
            grant(Baseline, Udp, (546, 546), Peers::Any, "baseline/dhcpv6"),
            grant(Documented, Tcp, (443, 443), Peers::Any, "v/https"),
            grant(Documented, Udp, (53, 53), Peers::Any, "v/dns"),
            grant(Documented, Sctp, (2905, 2905), Peers::Any, "v/sctp"),
            grant(Documented, Tcp, (8000, 8443), Peers::Any, "v/range"),
            grant(Documented, Tcp, (32_768, 65_535), Peers::Any, "v/high"),
            grant(Site, Udp, (0, 0), Peers::Any, "site/zero"),
        ],
        protocols: vec![ProtocolGrant {
            protocol: 89,
            peers: Peers::Any,
            row: "site/ospf".into(),
        }],
        echo: Some(Peers::Any),
        ..named("open")
    }
}

/// Several rows a port, peers by prefix and by host in both families.
pub(super) fn restricted() -> Policy {
    use GrantKind::{Documented, Management, Site};
    use Transport::{Sctp, Tcp, Udp};
    let (near, hosts, rest) = (Peers::Set(0), Peers::Set(1), Peers::Set(2));
    Policy {
        sets: vec![
            PeerSet {
                name: "near".into(),
                prefixes: nets(&["10.77.0.0/16", "fd77::/48"]),
            },
            PeerSet {
                name: "hosts".into(),
                prefixes: nets(&[
                    "10.77.0.2/32",
                    "192.0.2.7/32",
                    "2001:db8::7/128",
                    "fd77::2/128",
                ]),
            },
            PeerSet {
                name: "half of all".into(),
                prefixes: nets(&[
                    "128.0.0.0/1",
                    "10.77.9.8/29",
                    "8000::/1",
                    "2001:db8::/127",
                    "fd77:0:0:9::/65",
                ]),
            },
        ],
        inbound: vec![
            grant(Management, Tcp, (22, 22), near, "management/tcp-22"),
            grant(Documented, Tcp, (443, 443), near, "v/https"),
            grant(Documented, Tcp, (443, 443), hosts, "v/https-hosts"),
            grant(Documented, Tcp, (443, 443), rest, "v/https-rest"),
            grant(Documented, Udp, (53, 53), hosts, "v/dns"),
            grant(Documented, Udp, (53, 53), Peers::Any, "v/dns-any"),
            grant(Documented, Sctp, (2905, 2905), rest, "v/sctp"),
            grant(Documented, Tcp, (8000, 8443), near, "v/range"),
            grant(Site, Tcp, (8100, 9000), hosts, "site/range"),
            grant(Site, Udp, (0, 65_535), rest, "site/udp"),
        ],
        protocols: vec![
            ProtocolGrant {
                protocol: 47,
                peers: hosts,
                row: "site/gre".into(),
            },
            ProtocolGrant {
                protocol: 50,
                peers: Peers::Any,
                row: "site/esp".into(),
            },
        ],
        echo: Some(near),
        ..named("restricted")
    }
}

fn strict() -> Policy {
    let mut policy = restricted();
    policy.host = Some("strict".into());
    policy.settings.strict_fragments = true;
    policy.settings.strict_ethertypes = true;
    policy
}

fn scoped() -> Policy {
    let mut policy = restricted();
    policy.host = Some("scoped".into());
    policy.settings.host_addresses = Some(nets(&["10.77.0.1/24", "192.0.2.8/32", "fd77::1/64"]));
    policy
}

fn audit_ports() -> Policy {
    let mut policy = restricted();
    policy.host = Some("audit ports".into());
    policy.settings.audit_ports = vec![
        (Transport::Tcp, 0, 443),
        (Transport::Udp, 60_000, 65_535),
        (Transport::Sctp, 0, 65_535),
    ];
    policy.rows = vec![RowFacts {
        id: "site/range".into(),
        role: None,
        purpose: String::new(),
        citation: String::new(),
        audit: true,
        peers: String::new(),
    }];
    policy
}
