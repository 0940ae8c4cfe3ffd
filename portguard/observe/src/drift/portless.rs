//! Violations that no port is behind, as findings.

use serde::Serialize;

use super::Sight;
use crate::talkers::TopTalker;

/// Callers that are kept.
const TALKERS: usize = 8;

/// Undocumented traffic of a kind that has no port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Portless {
    /// The interface that counted it.
    pub interface: String,
    /// `in` or `out`.
    pub direction: &'static str,
    /// Stable name of the reason.
    pub reason: String,
    /// In words: `protocol 47 (GRE)`, `malformed (ip-options)`.
    pub what: String,
    /// IP protocol, where the reason is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<u16>,
    /// What was malformed, or the EtherType as `0x88cc`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// Rows that open the protocol to others.
    pub rows: Vec<String>,
    /// Packets that were, or would be, dropped.
    pub violations: u64,
    /// Who caused them, heaviest first, as far as the kernel kept it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[serde(rename = "callers")]
    pub talkers: Vec<TopTalker>,
}

/// Of one interface, heaviest first.
pub(super) fn portless(sight: &Sight) -> Vec<Portless> {
    let mut found: Vec<Portless> = Vec::new();
    for one in sight.report.portless() {
        let what = one.what();
        let known = found.iter_mut().find(|known| {
            (known.direction, &known.reason, &known.what) == (one.direction, &one.reason, &what)
        });
        if let Some(known) = known {
            known.violations += one.packets;
            known.rows.extend(one.rows);
            known.rows.sort();
            known.rows.dedup();
            continue;
        }
        let talkers = sight.talkers.iter().filter(|talker| talker.is_of(&one));
        found.push(Portless {
            interface: sight.report.name.clone(),
            what,
            violations: one.packets,
            talkers: talkers.take(TALKERS).cloned().collect(),
            direction: one.direction,
            reason: one.reason,
            protocol: one.protocol,
            cause: one.cause,
            rows: one.rows,
        });
    }
    found.sort_by_key(|one| std::cmp::Reverse(one.violations));
    found
}

impl Portless {
    /// `from 192.0.2.7 (12)`.
    pub fn who(&self) -> String {
        super::item::who(self.direction, &self.talkers).unwrap_or_else(|| "-".to_owned())
    }
}
