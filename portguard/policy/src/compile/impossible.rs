//! Addresses that no peer can have: who is let in by these alone is nobody.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// Networks of documentation (RFC 5737, RFC 3849, RFC 9637).
const EXAMPLES: [IpNet; 5] = [
    v4([192, 0, 2, 0], 24),
    v4([198, 51, 100, 0], 24),
    v4([203, 0, 113, 0], 24),
    v6(0x2001_0db8 << 96, 32),
    v6(0x3fff << 112, 20),
];

/// Addresses that no packet from a link comes from (RFC 1122 section 3.2.1.3, RFC 4291 section 2.4, RFC 1112 section 4).
const IMPOSSIBLE: [(IpNet, &str); 7] = [
    (v4([127, 0, 0, 0], 8), "loopback addresses"),
    (v6(1, 128), "loopback addresses"),
    (v4([0, 0, 0, 0], 8), "the unspecified address"),
    (v6(0, 128), "the unspecified address"),
    (v4([224, 0, 0, 0], 4), "groups, which nobody sends from"),
    (v6(0xff << 120, 8), "groups, which nobody sends from"),
    (
        v4([240, 0, 0, 0], 4),
        "reserved addresses (240.0.0.0/4, with broadcast)",
    ),
];

const fn v4([a, b, c, d]: [u8; 4], length: u8) -> IpNet {
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), length))
}

const fn v6(bits: u128, length: u8) -> IpNet {
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::from_bits(bits), length))
}

/// Why no packet comes from any address of a prefix.
pub(super) fn never(net: &IpNet) -> Option<&'static str> {
    let mut all = IMPOSSIBLE.iter();
    all.find(|(within, _)| within.contains(net))
        .map(|(_, why)| *why)
}

/// What prefixes are that let nobody in, all of them; `None` = somebody may have one. `own`: the host's own addresses.
pub(super) fn nobody(nets: &[IpNet], own: &[IpAddr]) -> Option<Nobody> {
    let is_own = |net: &IpNet| own.iter().any(|address| IpNet::from(*address) == *net);
    let mut found = nets.iter().map(|net| {
        let is_example = EXAMPLES.iter().any(|example| example.contains(net));
        match never(net) {
            Some(why) => Some(Nobody::Impossible(why)),
            None if is_own(net) => Some(Nobody::Impossible(
                "this host itself, which is never its own peer",
            )),
            None => is_example.then_some(Nobody::Example),
        }
    });
    let first = found.next().flatten()?;
    found.all(|one| one.is_some()).then_some(first)
}

/// Why nobody is let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Nobody {
    /// Addresses of documents.
    Example,
    /// Addresses that no packet comes from.
    Impossible(&'static str),
}
