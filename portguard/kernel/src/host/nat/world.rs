//! What conditions of rules are held against: the interfaces that packets come by, and the addresses that they are for.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use nix::ifaddrs::getifaddrs;

use super::rules::Truth;
use crate::host::links;

/// Addresses that are nobody's in particular: what is sent to them may stay here. The first of each family also stands for a
/// target that nobody could read.
const NOBODYS: [&str; 7] = [
    "0.0.0.0/32",
    "::/128",
    "127.0.0.0/8",
    "::1/128",
    "224.0.0.0/4",
    "255.255.255.255/32",
    "ff00::/8",
];

/// Kinds of destination that a packet for others does not have.
const OWN_KINDS: [&str; 4] = ["local", "broadcast", "anycast", "multicast"];

/// This host, as far as rules ask for it, and whose packets they are asked about.
#[derive(Debug, Clone, Default)]
pub struct World {
    /// By the names of these interfaces packets come from outside.
    pub(super) interfaces: BTreeSet<String>,
    /// These addresses are this host's: without loopback.
    pub(super) addresses: Vec<IpAddr>,
    /// What routes keep for this host and what is nobody's, where packets are for others than this host: they are for none of
    /// these. Absent = packets are for the host's addresses.
    pub(super) others: Option<Vec<IpNet>>,
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
            others: None,
        }
    }

    /// The same host, of which packets for others are asked: what they meet on their way through. `kept`: the destinations that
    /// its routes keep for it.
    #[must_use]
    pub fn for_others(mut self, kept: Vec<IpNet>) -> Self {
        let nobodys = NOBODYS.iter().filter_map(|net| net.parse().ok());
        self.others = Some(kept.into_iter().chain(nobodys).collect());
        self
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
            others: None,
        }
    }

    /// Whether packets that are sent to an address of a range stay on this host: one of its own, or, of packets for others, any.
    pub(crate) fn keeps(&self, first: IpAddr, last: IpAddr) -> bool {
        let Some(nets) = &self.others else {
            return first == last && (first.is_loopback() || self.addresses.contains(&first));
        };
        let own = self.addresses.iter().map(|one| (*one, *one));
        let nets = nets.iter().map(|net| (net.network(), net.broadcast()));
        own.chain(nets)
            .any(|(start, end)| start <= last && first <= end)
    }

    /// Whether packets for others are asked about.
    pub(super) fn is_of_others(&self) -> bool {
        self.others.is_some()
    }

    /// Whether packets have a destination of one of these kinds, as the kernel's routes tell them apart.
    pub(super) fn is_kind(&self, mut kinds: impl Iterator<Item = String>, is_not: bool) -> Truth {
        let is_one = if self.is_of_others() {
            kinds
                .all(|kind| OWN_KINDS.contains(&kind.as_str()))
                .then_some(false)
        } else {
            kinds.any(|kind| kind == "local").then_some(true)
        };
        match is_one {
            None => Truth::Unknown,
            Some(is_one) if is_one == is_not => Truth::Never,
            Some(_) => Truth::Always,
        }
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

    /// Whether packets of a family are for an address in one of these ranges, or in none. Those for addresses that are not of
    /// this host may come, too, and be handed on.
    pub(super) fn is_for(&self, is_v6: bool, ranges: &[(IpAddr, IpAddr)], is_not: bool) -> Truth {
        if let Some(nets) = &self.others {
            let is_own = |(first, last): &(IpAddr, IpAddr)| {
                first == last && self.addresses.contains(first)
                    || nets
                        .iter()
                        .any(|net| net.contains(first) && net.contains(last))
            };
            return match (ranges.iter().all(is_own), is_not) {
                (true, false) => Truth::Never,
                (true, true) => Truth::Always,
                (false, _) => Truth::Unknown,
            };
        }
        let mut ends = ranges.iter().flat_map(|(first, last)| [first, last]);
        if !is_not && ends.all(IpAddr::is_loopback) {
            return Truth::Never;
        }
        let is_in = |address: &IpAddr| {
            let mut ranges = ranges.iter();
            ranges.any(|(first, last)| (first..=last).contains(&address)) != is_not
        };
        let family = self
            .addresses
            .iter()
            .filter(|address| address.is_ipv6() == is_v6);
        let (held, all) = family.fold((0, 0), |(held, all), address| {
            (held + usize::from(is_in(address)), all + 1)
        });
        match held {
            0 => Truth::Unknown,
            _ if held == all => Truth::Always,
            _ => Truth::Some,
        }
    }
}

/// Interfaces, and those that get their packets from them: bridges, bonds, VLANs. The kernel not telling which leaves the
/// interfaces alone.
pub(crate) fn above(names: &[String]) -> BTreeSet<String> {
    let links = links::all().unwrap_or_default();
    let guarded = links.iter().filter(|link| names.contains(&link.name));
    let found = links::above(&links, guarded.map(|link| link.index));
    let above = links.iter().filter(|link| found.contains(&link.index));
    let above = above.map(|link| link.name.clone());
    above.chain(names.iter().cloned()).collect()
}
