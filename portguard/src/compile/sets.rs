//! Sets of prefixes: gathered, narrowed, and each distinct one kept once.

use std::collections::{BTreeSet, HashMap};

use ipnet::IpNet;

use crate::policy::{PeerSet, Peers};

/// Names of more are cut short.
const MAX_NAMES: usize = 3;

/// Peers gathered so far.
#[derive(Debug, Clone, Default)]
pub(super) struct Gathered {
    pub(super) any: bool,
    pub(super) nets: Vec<IpNet>,
    pub(super) names: Vec<String>,
}

impl Gathered {
    /// A prefix that stands for itself.
    pub(super) fn prefix(&mut self, net: IpNet) {
        let whole = net.prefix_len() == net.max_prefix_len();
        self.names.push(if whole {
            net.addr().to_string()
        } else {
            net.to_string()
        });
        self.nets.push(net);
    }
}

/// Distinct sets, in the order in which they were first wanted.
#[derive(Debug, Default)]
pub(super) struct Sets {
    found: Vec<PeerSet>,
    /// Prefixes' hash to sets that have it.
    interned: HashMap<u64, Vec<u32>>,
    /// Names of each set, before they are joined.
    names: Vec<BTreeSet<String>>,
}

impl Sets {
    /// The peers' set; `None` if nobody is left.
    pub(super) fn intern(&mut self, gathered: Gathered) -> Option<Peers> {
        if gathered.any {
            return Some(Peers::Any);
        }
        let mut prefixes = IpNet::aggregate(&gathered.nets);
        prefixes.sort_unstable();
        if prefixes.is_empty() {
            return None;
        }
        if prefixes.len() == 2 && prefixes.iter().all(|net| net.prefix_len() == 0) {
            return Some(Peers::Any);
        }
        let hash = hash(&prefixes);
        let candidates = self.interned.entry(hash).or_default();
        let same = candidates.iter().copied().find(|index| {
            self.found
                .get(*index as usize)
                .is_some_and(|set| set.prefixes == prefixes)
        });
        let index = same.unwrap_or_else(|| {
            let index = u32::try_from(self.found.len()).unwrap_or(u32::MAX);
            candidates.push(index);
            self.found.push(PeerSet {
                name: String::new(),
                prefixes,
            });
            self.names.push(BTreeSet::new());
            index
        });
        if let Some(names) = self.names.get_mut(index as usize) {
            names.extend(gathered.names);
        }
        Some(Peers::Set(index))
    }

    /// The sets, named.
    pub(super) fn finish(&mut self) -> Vec<PeerSet> {
        let mut sets = std::mem::take(&mut self.found);
        for (set, names) in sets.iter_mut().zip(&self.names) {
            let shown: Vec<_> = names.iter().take(MAX_NAMES).map(String::as_str).collect();
            set.name = shown.join(", ");
            if names.len() > MAX_NAMES {
                set.name = format!("{} and {} more", set.name, names.len() - MAX_NAMES);
            }
        }
        sets
    }
}

/// `DefaultHasher::new` has fixed keys; the hash only finds candidates.
fn hash(prefixes: &[IpNet]) -> u64 {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    prefixes.hash(&mut hasher);
    hasher.finish()
}

/// Both the document's and the narrowing's.
pub(super) fn narrowed(document: Gathered, narrow: Gathered) -> Gathered {
    match (document.any, narrow.any) {
        (true, _) => narrow,
        (_, true) => document,
        (false, false) => {
            let nets = intersection(
                &IpNet::aggregate(&document.nets),
                &IpNet::aggregate(&narrow.nets),
            );
            Gathered {
                any: false,
                nets,
                names: narrow.names,
            }
        }
    }
}

/// Prefixes in both; each list is sorted and disjoint, so one pass over both does.
fn intersection(left: &[IpNet], right: &[IpNet]) -> Vec<IpNet> {
    let (mut left, mut right) = (left.iter().peekable(), right.iter().peekable());
    let mut both = Vec::new();
    while let (Some(a), Some(b)) = (left.peek(), right.peek()) {
        if a.contains(*b) {
            both.push(**b);
            right.next();
        } else if b.contains(*a) {
            both.push(**a);
            left.next();
        } else if a < b {
            left.next();
        } else {
            right.next();
        }
    }
    both
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intersection_keeps_the_narrower() {
        let nets = |text: &str| {
            text.split(' ')
                .map(|net| net.parse().unwrap())
                .collect::<Vec<IpNet>>()
        };
        let left = nets("10.0.0.0/8 192.168.1.0/24 2001:db8::/32");
        let right = nets("10.1.0.0/16 10.3.0.0/16 192.168.0.0/16 2001:db8:1::/48 fd00::/8");
        let both = nets("10.1.0.0/16 10.3.0.0/16 192.168.1.0/24 2001:db8:1::/48");
        assert_eq!(intersection(&left, &right), both);
        assert_eq!(intersection(&right, &left), both);
    }
}
