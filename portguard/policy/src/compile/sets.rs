//! Sets of prefixes: gathered, narrowed, and each distinct one kept once.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use ipnet::IpNet;

use crate::domains::{Answers, DomainSet, Domains, Part, intersection, net};
use crate::policy::{PeerSet, Peers};

/// Names of more are cut short.
const MAX_NAMES: usize = 3;

/// Peers gathered so far.
#[derive(Debug, Clone, Default)]
pub(super) struct Gathered {
    pub(super) any: bool,
    pub(super) nets: Vec<IpNet>,
    pub(super) names: Vec<String>,
    /// Domain names (lower-case), with what they resolved to.
    pub(super) domains: BTreeMap<String, Vec<IpAddr>>,
    /// Only what is in these, too: kept apart where either has domain names, whose answers change.
    within: Option<Box<Gathered>>,
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

    /// What a domain name stands for now, and that it may stand for something else later.
    pub(super) fn domain(&mut self, name: &str, addresses: &[IpAddr]) {
        let name = name.to_ascii_lowercase();
        self.domains.insert(name, addresses.to_vec());
    }

    /// Whether nobody is meant, as things are.
    pub(super) fn is_empty(&self) -> bool {
        !self.any && self.prefixes().is_empty()
    }

    /// Both.
    pub(super) fn join(&mut self, other: Self) {
        self.any |= other.any;
        self.names.extend(other.names.iter().cloned());
        if other.within.is_some() && !self.is_empty() {
            self.nets.extend(other.prefixes());
            return;
        }
        self.nets.extend(other.nets);
        self.domains.extend(other.domains);
        if other.within.is_some() {
            self.within = other.within;
        }
    }

    fn prefixes(&self) -> Vec<IpNet> {
        let resolved = self.domains.values().flatten();
        let mut nets: Vec<IpNet> = resolved.map(|address| net(*address)).collect();
        nets.extend(&self.nets);
        let mut own = IpNet::aggregate(&nets);
        own.sort_unstable();
        match &self.within {
            None => own,
            Some(within) => intersection(&own, &within.prefixes()),
        }
    }

    /// How to compute the prefixes anew; nothing where no domain name has a say.
    fn parts(&self) -> Vec<Part> {
        let levels: Vec<&Self> = std::iter::once(self)
            .chain(self.within.as_deref())
            .collect();
        if levels.iter().all(|level| level.domains.is_empty()) {
            return Vec::new();
        }
        let part = |level: &&Self| {
            let mut prefixes = IpNet::aggregate(&level.nets);
            prefixes.sort_unstable();
            Part {
                prefixes,
                names: level.domains.keys().cloned().collect(),
            }
        };
        levels.iter().map(part).collect()
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
    /// How each set follows domain names; empty where it does not.
    parts: Vec<Vec<Part>>,
    /// Domain names that were met, with what they resolved to.
    domains: Answers,
}

impl Sets {
    /// Whom a set admits; nothing for anybody.
    pub(super) fn prefixes(&self, peers: Peers) -> Vec<IpNet> {
        let Peers::Set(index) = peers else {
            return Vec::new();
        };
        let set = self.found.get(index as usize);
        set.map_or_else(Vec::new, |set| set.prefixes.clone())
    }

    /// The peers' set; `None` if nobody is left.
    pub(super) fn intern(&mut self, gathered: Gathered) -> Option<Peers> {
        for (name, addresses) in gathered
            .domains
            .iter()
            .chain(gathered.within.iter().flat_map(|within| &within.domains))
        {
            self.resolved(name, addresses);
        }
        if gathered.any {
            return Some(Peers::Any);
        }
        let prefixes = gathered.prefixes();
        let parts = gathered.parts();
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
                && self.parts.get(*index as usize) == Some(&parts)
        });
        let index = same.unwrap_or_else(|| {
            let index = u32::try_from(self.found.len()).unwrap_or(u32::MAX);
            candidates.push(index);
            self.found.push(PeerSet {
                name: String::new(),
                prefixes,
            });
            self.names.push(BTreeSet::new());
            self.parts.push(parts);
            index
        });
        if let Some(names) = self.names.get_mut(index as usize) {
            names.extend(gathered.names);
        }
        Some(Peers::Set(index))
    }

    /// A domain name that was asked for.
    pub(super) fn resolved(&mut self, name: &str, addresses: &[IpAddr]) {
        let known = self.domains.entry(name.to_ascii_lowercase()).or_default();
        known.clear();
        known.extend(addresses);
    }

    /// The domain names, and the sets that follow them.
    pub(super) fn domains(&mut self) -> Domains {
        let sets = std::mem::take(&mut self.parts).into_iter().zip(0..);
        Domains {
            names: std::mem::take(&mut self.domains),
            sets: sets
                .filter(|(parts, _)| !parts.is_empty())
                .map(|(parts, set)| DomainSet { set, parts })
                .collect(),
        }
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
            let is_fixed = document.domains.is_empty() && narrow.domains.is_empty();
            let names = narrow.names.clone();
            if is_fixed {
                let nets = intersection(&document.prefixes(), &narrow.prefixes());
                Gathered {
                    nets,
                    names,
                    ..Gathered::default()
                }
            } else {
                Gathered {
                    within: Some(Box::new(narrow)),
                    names,
                    ..document
                }
            }
        }
    }
}
