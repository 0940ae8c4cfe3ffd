//! What conditions of rules are held against: the interfaces that packets come by, and the addresses that they are for.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use nix::ifaddrs::getifaddrs;

use super::rules::Truth;
use crate::host::links;

/// This host, as far as rules ask for it.
#[derive(Debug, Clone, Default)]
pub struct World {
    /// By the names of these interfaces packets come from outside.
    pub(super) interfaces: BTreeSet<String>,
    /// For these addresses of this host: without loopback.
    pub(super) addresses: Vec<IpAddr>,
}

impl World {
    /// A host with these names of interfaces that packets come by, and these addresses.
    pub fn new(
        interfaces: impl IntoIterator<Item = String>,
        addresses: impl IntoIterator<Item = IpAddr>,
    ) -> Self {
        Self {
            interfaces: interfaces.into_iter().collect(),
            addresses: addresses.into_iter().collect(),
        }
    }

    /// The network namespace of the calling thread; packets come by the guarded interfaces, or if there are none, by any.
    pub fn here(guarded: &[String]) -> Self {
        let mut names = BTreeSet::new();
        let mut addresses = Vec::new();
        for one in getifaddrs().into_iter().flatten() {
            let v4 = one
                .address
                .and_then(|all| all.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip())));
            let v6 = one
                .address
                .and_then(|all| all.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())));
            addresses.extend(v4.or(v6).filter(|address| !address.is_loopback()));
            names.insert(one.interface_name);
        }
        names.remove("lo");
        let interfaces = if guarded.is_empty() {
            names
        } else {
            above(guarded)
        };
        Self {
            interfaces,
            addresses,
        }
    }

    /// Whether packets for an address stay on this host.
    pub(super) fn is_own(&self, address: IpAddr) -> bool {
        address.is_loopback() || self.addresses.contains(&address)
    }

    /// Whether packets come by an interface that a test holds for.
    pub(super) fn comes_by(&self, test: impl Fn(&str) -> bool) -> Truth {
        let held = self.interfaces.iter().filter(|name| test(name)).count();
        match held {
            0 => Truth::Never,
            _ if held == self.interfaces.len() => Truth::Always,
            _ => Truth::Some,
        }
    }

    /// Whether packets of a family are for an address that a test holds for. Those for addresses that are not of this host
    /// may come, too, and be handed on.
    pub(super) fn is_for(&self, is_v6: bool, test: impl Fn(IpAddr) -> bool) -> Truth {
        let family = self
            .addresses
            .iter()
            .filter(|address| address.is_ipv6() == is_v6);
        let (held, all) = family.fold((0, 0), |(held, all), address| {
            (held + usize::from(test(*address)), all + 1)
        });
        match held {
            0 => Truth::Unknown,
            _ if held == all => Truth::Always,
            _ => Truth::Some,
        }
    }
}

/// Whether a prefix is of this host only, so that nothing comes for it from outside.
pub(super) fn is_loopback(net: &IpNet) -> bool {
    net.network().is_loopback() && net.broadcast().is_loopback()
}

/// Interfaces, and those that get their packets from them: bridges, bonds, VLANs. The kernel not telling which leaves the
/// interfaces alone.
fn above(names: &[String]) -> BTreeSet<String> {
    let links = links::all().unwrap_or_default();
    let guarded = links.iter().filter(|link| names.contains(&link.name));
    let found = links::above(&links, guarded.map(|link| link.index));
    let above = links.iter().filter(|link| found.contains(&link.index));
    let above = above.map(|link| link.name.clone());
    above.chain(names.iter().cloned()).collect()
}
