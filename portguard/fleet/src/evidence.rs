//! What hosts saw: a small signed document for each interface, and all of them as one.
//!
//! A cause is the same on one host and on a thousand: what `portguard drift` and `counters` of a host call by one name is one
//! line here, with the hosts that have it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::status::{Doubt, MAX_EVIDENCE, open};

/// How often a host sends it, at most.
pub const EVERY_SECONDS: u64 = 600;
/// The signature before it is shorter.
const SIGNATURE: usize = 128;
/// Peers of a cause that are named.
const PEERS: usize = 4;
/// The longest name of anything.
const LONGEST: usize = 160;

/// What a host saw on an interface.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Evidence {
    /// Whose.
    pub host: String,
    /// Which.
    pub interface: String,
    /// The release that the host goes by.
    pub serial: u64,
    /// When this was written.
    pub at: u64,
    /// Since when it counts, RFC 3339.
    pub since: String,
    /// What becomes of violations that arrive: `audit`, `enforce`, `off`.
    pub effective: String,
    /// For how many seconds the policy to come was watched.
    pub watched_seconds: u64,
    /// Packets by direction and reason, `in documented`.
    pub reasons: BTreeMap<String, u64>,
    /// Packets that are violations.
    pub violations: u64,
    /// What speaks against enforcing.
    pub against: Vec<String>,
    /// What no document admits, heaviest first.
    pub causes: Vec<Cause>,
    /// Undocumented services that listen, `tcp/8080 java`.
    pub listening: BTreeSet<String>,
    /// Rows that were used.
    pub used: BTreeSet<String>,
    /// Rows that were not.
    pub unused: BTreeSet<String>,
    /// How many causes, services and rows had no room.
    pub left_off: u64,
}

/// What no document admits, by what is behind it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cause {
    /// `in` or `out`.
    pub direction: String,
    /// As `portguard drift` names it.
    pub kind: String,
    /// `tcp/9100`, `scan of 948 ports`.
    pub what: String,
    /// Packets.
    pub violations: u64,
    /// Whether somebody listens there.
    pub listening: bool,
    /// Who, heaviest first.
    pub peers: Vec<String>,
}

impl Evidence {
    /// As JSON that fits into what a host may write: the lightest causes go first, and are counted.
    pub fn fitted(&self) -> String {
        let mut evidence = self.clone();
        evidence.causes.sort_by(|a, b| {
            (b.violations, &a.direction, &a.what).cmp(&(a.violations, &b.direction, &b.what))
        });
        for cause in &mut evidence.causes {
            cut(&mut cause.what);
            cause.peers.truncate(PEERS);
        }
        for reason in &mut evidence.against {
            cut(reason);
        }
        loop {
            let text = serde_json::to_string(&evidence).unwrap_or_default();
            if text.len() + SIGNATURE <= MAX_EVIDENCE || !evidence.drop_some() {
                return text;
            }
        }
    }

    /// Leaves off a part of what there is most of; `false`: there is nothing left to leave off.
    fn drop_some(&mut self) -> bool {
        let lengths = [
            self.causes.len(),
            self.listening.len(),
            self.used.len(),
            self.unused.len(),
            self.against.len(),
        ];
        let most = lengths.iter().copied().max().unwrap_or_default();
        if most == 0 {
            self.reasons.pop_last();
            return !self.reasons.is_empty();
        }
        let keep = most - most.div_ceil(8);
        let set = |names: &mut BTreeSet<String>| {
            while names.len() > keep {
                names.pop_last();
            }
        };
        self.causes.truncate(keep);
        self.against.truncate(keep);
        set(&mut self.listening);
        set(&mut self.used);
        set(&mut self.unused);
        let now = [
            self.causes.len(),
            self.listening.len(),
            self.used.len(),
            self.unused.len(),
            self.against.len(),
        ];
        let gone = lengths.iter().sum::<usize>() - now.iter().sum::<usize>();
        self.left_off += gone as u64;
        true
    }

    /// What a host says it saw on this interface.
    ///
    /// # Errors
    /// [`Doubt`]: also if it is another host's, or of another interface.
    pub fn read(
        fleet: &str,
        host: &str,
        interface: &str,
        key: Option<&str>,
        sealed: &[u8],
    ) -> Result<Self, Doubt> {
        let body = open(fleet, "evidence", key, sealed, MAX_EVIDENCE)?;
        let evidence: Self =
            serde_json::from_str(body).map_err(|error| Doubt::Malformed(error.to_string()))?;
        if evidence.host != host || evidence.interface != interface {
            return Err(Doubt::OtherHost(format!(
                "{} {}",
                evidence.host, evidence.interface
            )));
        }
        Ok(evidence)
    }
}

fn cut(text: &mut String) {
    if text.len() > LONGEST {
        let end = (0..=LONGEST).rev().find(|end| text.is_char_boundary(*end));
        text.truncate(end.unwrap_or_default());
    }
}

/// What all hosts saw.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Seen {
    /// Hosts that said anything.
    pub hosts: BTreeSet<String>,
    /// Interfaces by what becomes of violations.
    pub effective: BTreeMap<String, usize>,
    /// Packets by direction and reason.
    pub reasons: BTreeMap<String, Sum>,
    /// What no document admits, most hosts first.
    pub causes: Vec<Shared>,
    /// Undocumented services that listen, and where.
    pub listening: BTreeMap<String, BTreeSet<String>>,
    /// Rows that no host used that has them, and how many have them.
    pub unused: BTreeMap<String, usize>,
    /// How many causes, services and rows had no room in what hosts sent.
    pub left_off: u64,
}

/// Packets, and how many interfaces counted them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Sum {
    /// Packets.
    pub packets: u64,
    /// Interfaces.
    pub interfaces: usize,
}

/// A cause with all that have it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Shared {
    /// `in` or `out`.
    pub direction: String,
    /// As `portguard drift` names it.
    pub kind: String,
    /// `tcp/9100`.
    pub what: String,
    /// Packets on all of them.
    pub violations: u64,
    /// Hosts that saw it.
    pub hosts: BTreeSet<String>,
    /// Hosts on which somebody listens there.
    pub listening: BTreeSet<String>,
    /// Who, as far as hosts name them.
    pub peers: BTreeSet<String>,
}

impl Seen {
    /// Adds up. A row is unused only if nobody used it.
    pub fn of<'a>(all: impl IntoIterator<Item = &'a Evidence>) -> Self {
        let mut seen = Self::default();
        let mut causes: BTreeMap<(&str, &str, &str), Shared> = BTreeMap::new();
        let mut used: BTreeSet<&str> = BTreeSet::new();
        for one in all {
            seen.hosts.insert(one.host.clone());
            *seen.effective.entry(one.effective.clone()).or_default() += 1;
            seen.left_off = seen.left_off.saturating_add(one.left_off);
            for (reason, packets) in &one.reasons {
                let sum = seen.reasons.entry(reason.clone()).or_default();
                sum.packets = sum.packets.saturating_add(*packets);
                sum.interfaces += 1;
            }
            for service in &one.listening {
                let hosts = seen.listening.entry(service.clone()).or_default();
                hosts.insert(one.host.clone());
            }
            used.extend(one.used.iter().map(String::as_str));
            for row in &one.unused {
                *seen.unused.entry(row.clone()).or_default() += 1;
            }
            for cause in &one.causes {
                let shared = causes
                    .entry((&cause.direction, &cause.kind, &cause.what))
                    .or_insert_with(|| Shared {
                        direction: cause.direction.clone(),
                        kind: cause.kind.clone(),
                        what: cause.what.clone(),
                        violations: 0,
                        hosts: BTreeSet::new(),
                        listening: BTreeSet::new(),
                        peers: BTreeSet::new(),
                    });
                shared.violations = shared.violations.saturating_add(cause.violations);
                shared.hosts.insert(one.host.clone());
                shared.peers.extend(cause.peers.iter().cloned());
                if cause.listening {
                    shared.listening.insert(one.host.clone());
                }
            }
        }
        seen.unused.retain(|row, _| !used.contains(row.as_str()));
        seen.causes = causes.into_values().collect();
        seen.causes
            .sort_by_key(|cause| Reverse((cause.hosts.len(), cause.violations)));
        seen
    }
}
