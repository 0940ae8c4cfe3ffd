//! Domain names among the peers: what they resolved to, and which sets change when they resolve to something else. Pure:
//! who asks a name server hands in its answers.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// What each name resolved to: lower-case name to addresses.
pub type Answers = BTreeMap<String, Vec<IpAddr>>;

/// A policy's domain names. Enough to compute its sets anew without the site file and the catalog.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Domains {
    /// What each name resolved to; empty: it had no address, and its rows were judged by what the site says of that.
    pub names: Answers,
    /// The sets that have names in them, by index.
    pub sets: Vec<DomainSet>,
}

/// How a set that has names in it is made: what is in all of its parts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DomainSet {
    /// Index into [`Policy::sets`](crate::policy::Policy::sets).
    pub set: u32,
    /// The peers, and what the site narrows them to, if it does.
    pub parts: Vec<Part>,
}

/// Prefixes that stay, and names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Sorted, aggregated.
    pub prefixes: Vec<IpNet>,
    /// Sorted, lower-case.
    pub names: Vec<String>,
}

impl Domains {
    /// Whether the policy names no domain.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty() && self.sets.is_empty()
    }

    /// Names whose answers decide over some set: those that had no address when the policy was compiled may do so for none.
    pub fn used(&self) -> BTreeSet<&str> {
        let parts = self.sets.iter().flat_map(|set| &set.parts);
        parts
            .flat_map(|part| part.names.iter().map(String::as_str))
            .collect()
    }

    /// Takes other answers for the names that they are of. Names without an answer keep what they have, and no name loses its
    /// last address.
    pub(crate) fn update(&mut self, answers: &Answers) {
        for (name, known) in &mut self.names {
            if let Some(found) = answers.get(name).filter(|found| !found.is_empty()) {
                known.clone_from(found);
                known.sort_unstable();
                known.dedup();
            }
        }
    }
}

impl DomainSet {
    /// The prefixes that the set has with these answers.
    pub(crate) fn resolved(&self, names: &Answers) -> Vec<IpNet> {
        let parts = self.parts.iter().map(|part| part.resolved(names));
        let mut prefixes = parts
            .reduce(|left, right| intersection(&left, &right))
            .unwrap_or_default();
        prefixes.sort_unstable();
        prefixes
    }
}

impl Part {
    fn resolved(&self, names: &Answers) -> Vec<IpNet> {
        let addresses = self.names.iter().filter_map(|name| names.get(name));
        let mut nets: Vec<IpNet> = addresses.flatten().map(|address| net(*address)).collect();
        nets.extend(&self.prefixes);
        IpNet::aggregate(&nets)
    }
}

/// One address as a prefix; IPv4 that is mapped into IPv6 is IPv4.
pub(crate) fn net(address: IpAddr) -> IpNet {
    IpNet::from(address.to_canonical())
}

/// Prefixes in both; each list is sorted and disjoint, so one pass over both does.
pub(crate) fn intersection(left: &[IpNet], right: &[IpNet]) -> Vec<IpNet> {
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
    use crate::policy::{PeerSet, Policy};

    fn nets(text: &str) -> Vec<IpNet> {
        text.split(' ').map(|net| net.parse().unwrap()).collect()
    }

    #[test]
    fn intersection_keeps_the_narrower() {
        let left = nets("10.0.0.0/8 192.168.1.0/24 2001:db8::/32");
        let right = nets("10.1.0.0/16 10.3.0.0/16 192.168.0.0/16 2001:db8:1::/48 fd00::/8");
        let both = nets("10.1.0.0/16 10.3.0.0/16 192.168.1.0/24 2001:db8:1::/48");
        assert_eq!(intersection(&left, &right), both);
        assert_eq!(intersection(&right, &left), both);
    }

    fn policy() -> Policy {
        let part = |prefixes: &[&str], names: &[&str]| Part {
            prefixes: prefixes.iter().map(|net| net.parse().unwrap()).collect(),
            names: names.iter().map(|name| (*name).to_owned()).collect(),
        };
        let set = |text: &str| PeerSet {
            name: String::new(),
            prefixes: nets(text),
        };
        Policy {
            sets: vec![
                set("10.9.0.0/16"),
                set("10.0.0.1/32 192.0.2.0/24"),
                set("10.0.0.1/32"),
            ],
            domains: Domains {
                names: Answers::from([("a.example".to_owned(), vec![[10, 0, 0, 1].into()])]),
                sets: vec![
                    DomainSet {
                        set: 1,
                        parts: vec![part(&["192.0.2.0/24"], &["a.example"])],
                    },
                    DomainSet {
                        set: 2,
                        parts: vec![part(&[], &["a.example"]), part(&["10.0.0.0/24"], &[])],
                    },
                ],
            },
            ..Policy::default()
        }
    }

    #[test]
    fn sets_follow_their_names_and_others_stay() {
        let answer = |addresses: &[&str]| {
            let addresses = addresses.iter().map(|a| a.parse().unwrap()).collect();
            Answers::from([("a.example".to_owned(), addresses)])
        };
        let policy = policy();
        assert_eq!(policy.with_answers(&answer(&["10.0.0.1"])), None);
        // A name that is gone, and one that nobody asked for.
        assert_eq!(policy.with_answers(&answer(&[])), None);
        assert_eq!(policy.with_answers(&Answers::new()), None);
        let next = policy
            .with_answers(&answer(&["10.0.0.7", "::ffff:10.1.0.7", "2001:db8::7"]))
            .unwrap();
        assert_eq!(next.sets[0], policy.sets[0]);
        assert_eq!(
            next.sets[1].prefixes,
            nets("10.0.0.7/32 10.1.0.7/32 192.0.2.0/24 2001:db8::7/128")
        );
        // Narrowed by the site: only what is in both.
        assert_eq!(next.sets[2].prefixes, nets("10.0.0.7/32"));
        assert_ne!(next.digest(), policy.digest());
        let back = next.with_answers(&answer(&["10.0.0.1"])).unwrap();
        assert_eq!(back, policy);
    }
}
