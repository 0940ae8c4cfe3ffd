//! Sets of addresses that can be taken from each other.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Subnets, Ipv6Subnets};

use crate::policy::{Peers, Policy};

/// Who: everybody, or ranges of addresses (IPv6 or not, first, last), sorted and apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reach {
    Any,
    Ranges(Vec<Range>),
}

type Range = (bool, u128, u128);

impl Reach {
    /// The union of sets of peers.
    pub(super) fn of(policy: &Policy, peers: &BTreeSet<Peers>) -> Self {
        let mut ranges = Vec::new();
        for peers in peers {
            let Peers::Set(index) = peers else {
                return Self::Any;
            };
            let set = policy.set(*index);
            ranges.extend(
                set.into_iter()
                    .flat_map(|set| set.prefixes.iter().map(range)),
            );
        }
        ranges.sort_unstable();
        let mut joined: Vec<Range> = Vec::with_capacity(ranges.len());
        for (v6, first, last) in ranges {
            match joined.last_mut() {
                Some((of, _, end)) if *of == v6 && first <= end.saturating_add(1) => {
                    *end = last.max(*end);
                }
                _ => joined.push((v6, first, last)),
            }
        }
        Self::Ranges(joined)
    }

    /// Who is here and not there, in words: prefixes, or `any` with those who are not meant. `None` if nobody is.
    pub(super) fn beyond(&self, other: &Self) -> Option<(Vec<String>, Vec<String>)> {
        match (self, other) {
            (_, Self::Any) => None,
            (Self::Any, Self::Ranges(but)) => Some((vec!["any".to_owned()], prefixes(but))),
            (Self::Ranges(ours), Self::Ranges(theirs)) => {
                let left = subtract(ours, theirs);
                (!left.is_empty()).then(|| (prefixes(&left), Vec::new()))
            }
        }
    }
}

fn range(net: &IpNet) -> Range {
    match net {
        IpNet::V4(net) => (
            false,
            net.network().to_bits().into(),
            net.broadcast().to_bits().into(),
        ),
        IpNet::V6(net) => (true, net.network().to_bits(), net.broadcast().to_bits()),
    }
}

/// Both sorted and apart.
fn subtract(from: &[Range], what: &[Range]) -> Vec<Range> {
    let mut left = Vec::new();
    let mut cuts = what.iter().peekable();
    for &(v6, first, last) in from {
        let mut start = first;
        let mut is_empty = false;
        // Those that end before this range are of no use to later ones either.
        while cuts
            .next_if(|(of, _, end)| (*of, *end) < (v6, first))
            .is_some()
        {}
        while let Some(&&(of, cut_first, cut_last)) = cuts.peek() {
            if (of, cut_first) > (v6, last) {
                break;
            }
            if cut_first > start {
                left.push((v6, start, cut_first - 1));
            }
            match cut_last.checked_add(1) {
                Some(next) if cut_last < last => start = start.max(next),
                _ => {
                    // It may reach into the next range, too: it stays.
                    is_empty = true;
                    break;
                }
            }
            cuts.next();
        }
        if !is_empty {
            left.push((v6, start, last));
        }
    }
    left
}

fn prefixes(ranges: &[Range]) -> Vec<String> {
    let mut nets = Vec::new();
    for &(v6, first, last) in ranges {
        if v6 {
            let (first, last) = (Ipv6Addr::from_bits(first), Ipv6Addr::from_bits(last));
            nets.extend(Ipv6Subnets::new(first, last, 0).map(|net| net.to_string()));
        } else if let (Ok(first), Ok(last)) = (u32::try_from(first), u32::try_from(last)) {
            let (first, last) = (Ipv4Addr::from_bits(first), Ipv4Addr::from_bits(last));
            nets.extend(Ipv4Subnets::new(first, last, 0).map(|net| net.to_string()));
        }
    }
    nets
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::PeerSet;

    /// Against membership, address by address, over all subsets of eight addresses cut into ranges.
    #[test]
    fn subtraction_is_membership() {
        let ranges = |bits: u32| -> Vec<Range> {
            let mut found: Vec<Range> = Vec::new();
            for at in (0..8_u128).filter(|at| bits >> at & 1 == 1) {
                match found.last_mut() {
                    Some((_, _, last)) if *last + 1 == at => *last = at,
                    _ => found.push((false, at, at)),
                }
            }
            found
        };
        for from in 0..256 {
            for what in 0..256 {
                assert_eq!(
                    subtract(&ranges(from), &ranges(what)),
                    ranges(from & !what),
                    "{from:08b} {what:08b}"
                );
            }
        }
    }

    #[test]
    fn families_are_apart_and_ends_are_kept() {
        let policy = |nets: &[&str]| Policy {
            sets: vec![PeerSet {
                name: String::new(),
                prefixes: nets.iter().map(|net| net.parse().unwrap()).collect(),
            }],
            ..Policy::default()
        };
        let reach = |nets: &[&str]| Reach::of(&policy(nets), &[Peers::Set(0)].into());
        let all = reach(&["0.0.0.0/0", "::/0"]);
        let (left, except) = all.beyond(&reach(&["128.0.0.0/1", "8000::/1"])).unwrap();
        assert_eq!(
            (left, except),
            (vec!["0.0.0.0/1".to_owned(), "::/1".to_owned()], vec![])
        );
        assert_eq!(all.beyond(&all), None);
        assert_eq!(
            reach(&["10.0.0.0/30"])
                .beyond(&reach(&["10.0.0.1/32", "::/0"]))
                .unwrap()
                .0,
            ["10.0.0.0/32", "10.0.0.2/31"]
        );
        let (left, except) = Reach::Any.beyond(&reach(&["10.0.0.0/8"])).unwrap();
        assert_eq!(
            (left, except),
            (vec!["any".to_owned()], vec!["10.0.0.0/8".to_owned()])
        );
    }
}
