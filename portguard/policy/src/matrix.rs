//! The effective matrix: overlapping grants swept into disjoint ranges of ports, as `check` shows them.

use std::collections::BTreeSet;

use ipnet::IpNet;
use sha2::{Digest, Sha256};

use crate::human::some;
use crate::image::{Span, spans};
use crate::policy::{Grant, GrantKind, Peers, Policy};

mod report;

pub use report::Matrix;

/// Prefixes of a peer set that are printed; JSON has all.
const SHOWN_PREFIXES: usize = 4;
/// Names of peers that one sentence lists.
const SHOWN_NAMES: usize = 6;

/// Sweeps grants into disjoint entries, by transport and port; neighbours that are open for the same reasons are one.
pub fn sweep(grants: &[Grant]) -> Vec<Span<'_>> {
    let mut entries: Vec<Span<'_>> = Vec::new();
    for Span {
        transport,
        first,
        last,
        mut grants,
    } in spans(grants)
    {
        grants.sort_by_key(|grant| {
            let Grant {
                kind,
                transport,
                first,
                last,
                peers,
                row,
                until,
            } = grant;
            (
                *kind,
                row.as_str(),
                *transport,
                *first,
                *last,
                *peers,
                *until,
            )
        });
        match entries.last_mut() {
            Some(entry)
                if entry.transport == transport
                    && u32::from(entry.last) + 1 == u32::from(first)
                    && reasons(&entry.grants) == reasons(&grants) =>
            {
                entry.last = last;
            }
            _ => entries.push(Span {
                transport,
                first,
                last,
                grants,
            }),
        }
    }
    entries
}

fn reasons<'a>(grants: &'a [&'a Grant]) -> BTreeSet<(Peers, &'a str, Option<u64>)> {
    grants
        .iter()
        .map(|grant| (grant.peers, grant.row.as_str(), grant.until))
        .collect()
}

impl Span<'_> {
    /// All prefixes that any of the grants names; `None` = any.
    pub fn prefixes(&self, policy: &Policy) -> Option<Vec<IpNet>> {
        let mut sets = BTreeSet::new();
        for grant in &self.grants {
            match grant.peers {
                Peers::Any => return None,
                Peers::Set(index) => sets.insert(index),
            };
        }
        let mut sets = sets.into_iter().filter_map(|index| policy.set(index));
        match (sets.next(), sets.next()) {
            (Some(only), None) => Some(only.prefixes.clone()),
            (first, second) => {
                let all = first.into_iter().chain(second).chain(sets);
                Some(IpNet::aggregate(
                    &all.flat_map(|set| set.prefixes.iter().copied()).collect(),
                ))
            }
        }
    }
}

impl Policy {
    /// SHA-256 of the policy's JSON, in hex: equal policies, equal digests, on any machine.
    pub fn digest(&self) -> String {
        // A policy is plain data: no map with other keys than strings, no number that JSON lacks.
        let json = serde_json::to_vec(self).unwrap_or_default();
        format!("{:x}", Sha256::digest(&json))
    }

    /// Whether an address is among the peers.
    pub fn admits(&self, peers: Peers, address: std::net::IpAddr) -> bool {
        let Peers::Set(index) = peers else {
            return true;
        };
        // Prefixes are sorted, and none is within another: only the last that starts before the address can hold it.
        self.set(index).is_some_and(|set| {
            let after = set.prefixes.partition_point(|net| net.network() <= address);
            let before = after.checked_sub(1).and_then(|at| set.prefixes.get(at));
            before.is_some_and(|net| net.contains(&address))
        })
    }

    /// `10.0.0.1, node-2 and 5 more (role wso2/gateway)`: hosts by name where the inventory has one.
    pub fn peers_words(&self, peers: Peers) -> String {
        let (words, members) = self.named(None, peers);
        with_words(&words, members)
    }

    /// Documented rows that are open to everybody though their document names who connects, in a sentence; `None` without any.
    pub fn open_to_any(&self) -> Option<String> {
        let is_wide =
            |grant: &&Grant| grant.kind == GrantKind::Documented && grant.peers == Peers::Any;
        let rows: BTreeSet<&str> = self
            .inbound
            .iter()
            .filter(is_wide)
            .map(|grant| grant.row.as_str())
            .collect();
        let whom = |row: &&str| {
            let facts = self.facts(row)?;
            (!facts.peers.is_empty()).then_some(facts.peers.as_str())
        };
        let named: BTreeSet<&str> = rows.iter().filter_map(whom).collect();
        if named.is_empty() {
            return None;
        }
        let number = rows.iter().filter(|row| whom(row).is_some()).count() as u64;
        let verb = if number == 1 { "is" } else { "are" };
        Some(format!(
            "{} {verb} open to any, since the site does not say who all of these are, or says \"any\": {}",
            crate::human::count(number, "documented row"),
            some(named, SHOWN_NAMES, "; ")
        ))
    }

    /// As [`Self::peers_words`], in the row's own words: two rows may mean the same addresses by different ones.
    pub fn row_peers_words(&self, row: &str, peers: Peers) -> String {
        let (words, members) = self.named(Some(row), peers);
        with_words(&words, members)
    }

    /// Who a row is for: the document's words, which may be empty, and the first of the members.
    pub fn row_peers(&self, row: &str, peers: Peers) -> (String, String) {
        self.named(Some(row), peers)
    }

    fn named(&self, row: Option<&str>, peers: Peers) -> (String, String) {
        let Peers::Set(index) = peers else {
            return (String::new(), "any".to_owned());
        };
        let Some(set) = self.set(index) else {
            return (String::new(), "nobody".to_owned());
        };
        let mut members: Vec<String> = Vec::new();
        for net in &set.prefixes {
            let is_host = net.prefix_len() == net.max_prefix_len();
            let name = match self.hosts.get(&net.addr()).filter(|_| is_host) {
                Some(host) => host.clone(),
                None if is_host => net.addr().to_string(),
                None => net.to_string(),
            };
            if members.last() != Some(&name) && !members.contains(&name) {
                members.push(name);
            }
        }
        let text = some(members, SHOWN_PREFIXES, ", ");
        let facts = row.and_then(|row| self.facts(row));
        let own = facts.map(|facts| &facts.peers);
        let words = own.filter(|own| !own.is_empty()).unwrap_or(&set.name);
        (words.clone(), text)
    }

    /// Prefixes of peers as text, `any` for everybody.
    pub fn peers_text(&self, peers: Peers) -> Vec<String> {
        match peers {
            Peers::Any => vec!["any".to_owned()],
            Peers::Set(index) => {
                let set = self.set(index);
                set.into_iter()
                    .flat_map(|set| &set.prefixes)
                    .map(ToString::to_string)
                    .collect()
            }
        }
    }
}

fn with_words(words: &str, members: String) -> String {
    if words.is_empty() || words == members {
        members
    } else {
        format!("{members} ({words})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::Transport;
    use crate::policy::RowFacts;

    fn grant(first: u16, last: u16, row: &str) -> Grant {
        let kind = GrantKind::Documented;
        Grant {
            kind,
            transport: Transport::Tcp,
            first,
            last,
            peers: Peers::Any,
            row: row.to_owned(),
            until: None,
        }
    }

    fn swept(grants: &[Grant]) -> Vec<String> {
        let rows = |entry: &Span<'_>| {
            entry
                .grants
                .iter()
                .map(|g| g.row.clone())
                .collect::<Vec<_>>()
                .join("+")
        };
        sweep(grants)
            .iter()
            .map(|entry| format!("{}-{} {}", entry.first, entry.last, rows(entry)))
            .collect()
    }

    #[test]
    fn overlaps_are_cut_and_neighbours_joined() {
        let grants = [
            grant(10, 20, "a"),
            grant(15, 30, "b"),
            grant(31, 31, "b"),
            grant(65_535, 65_535, "c"),
            grant(0, 0, "d"),
        ];
        assert_eq!(
            swept(&grants),
            ["0-0 d", "10-14 a", "15-20 a+b", "21-31 b", "65535-65535 c"]
        );
        assert_eq!(
            swept(&[grant(0, 65_535, "a"), grant(5, 5, "a")]),
            ["0-65535 a"]
        );
        assert_eq!(swept(&[]), Vec::<String>::new());
    }

    #[test]
    fn rows_that_are_wider_than_their_document_are_named() {
        let facts = |id: &str, peers: &str| RowFacts {
            id: id.to_owned(),
            role: None,
            purpose: String::new(),
            citation: String::new(),
            audit: false,
            peers: peers.to_owned(),
        };
        let mut policy = Policy {
            inbound: vec![grant(22, 22, "desk"), grant(80, 80, "web")],
            rows: vec![facts("desk", "group support"), facts("web", "")],
            ..Policy::default()
        };
        let said = policy.open_to_any().unwrap();
        assert!(
            said.starts_with("1 documented row is open to any") && said.ends_with("group support"),
            "{said}"
        );
        policy.inbound[0].peers = Peers::Set(0);
        assert_eq!(policy.open_to_any(), None);
        // What the site opens of its own is as wide as the site means.
        policy.inbound[0].peers = Peers::Any;
        policy.inbound[0].kind = GrantKind::Management;
        assert_eq!(policy.open_to_any(), None);
    }

    #[test]
    fn the_digest_is_of_the_whole_policy() {
        let mut policy = Policy::default();
        let before = policy.digest();
        assert_eq!(before.len(), 64);
        assert_eq!(before, Policy::default().digest());
        policy.settings.enforce = true;
        assert_ne!(before, policy.digest());
    }
}
