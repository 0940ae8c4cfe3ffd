//! What changes between two policies of a host: in rows, in effect, in settings. Pure.

mod reach;
#[cfg(test)]
mod tests;
mod words;

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::catalog::Transport;
use crate::human::range;
use crate::image::{Span, spans};
use crate::policy::{Grant, GrantKind, Peers, Policy};
use reach::Reach;

/// All differences.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Difference {
    /// Whether there are none.
    pub same: bool,
    /// Rows that grant something now and did not before, the other way round, or grant something else.
    pub rows: Vec<RowChange>,
    /// What is open now and was not.
    pub opened: Vec<Change>,
    /// What was open and is not any more.
    pub closed: Vec<Change>,
    /// Settings that differ.
    pub settings: Vec<SettingChange>,
}

/// A row whose grants differ.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RowChange {
    /// `added`, `removed` or `changed`.
    pub change: &'static str,
    /// `in` or `out`.
    pub direction: &'static str,
    /// Row id.
    pub row: String,
    /// What it granted: `tcp/443 for group ops: 10.0.0.0/8`.
    pub before: Vec<String>,
    /// What it grants.
    pub after: Vec<String>,
}

/// Ports that are opened or closed to somebody.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    /// `in` or `out`.
    pub direction: &'static str,
    /// `tcp/443`, `udp/5000-5010`, `icmp echo`, `protocol 47`.
    pub what: String,
    /// To or from whom: prefixes, or `any`.
    pub peers: Vec<String>,
    /// Of `any`, those for whom nothing changes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub except: Vec<String>,
    /// Rows that open it, or opened it.
    pub rows: Vec<String>,
}

/// A setting that differs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SettingChange {
    /// Name, as in the exported policy.
    pub setting: String,
    /// Value before.
    pub before: serde_json::Value,
    /// Value after.
    pub after: serde_json::Value,
}

/// Compares.
pub fn diff(before: &Policy, after: &Policy) -> Difference {
    let mut rows = row_changes("in", (before, &before.inbound), (after, &after.inbound));
    rows.extend(row_changes(
        "out",
        (before, &before.outbound),
        (after, &after.outbound),
    ));
    rows.extend(row_changes(
        "in",
        (before, &other_grants(before)),
        (after, &other_grants(after)),
    ));
    let mut effect = Effect::default();
    effect.ports("in", (before, &before.inbound), (after, &after.inbound));
    effect.ports("out", (before, &before.outbound), (after, &after.outbound));
    effect.others(before, after);
    let Effect { opened, closed } = effect;
    let opened: Vec<Change> = opened.into_iter().map(|open| open.change).collect();
    let closed: Vec<Change> = closed.into_iter().map(|open| open.change).collect();
    let settings = setting_changes(before, after);
    Difference {
        same: rows.is_empty() && opened.is_empty() && closed.is_empty() && settings.is_empty(),
        rows,
        opened,
        closed,
        settings,
    }
}

/// What has no ports: who, under which label and row.
struct Other {
    what: String,
    peers: Peers,
    row: String,
}

fn other_grants(policy: &Policy) -> Vec<Other> {
    let echo = policy.echo.iter().map(|peers| Other {
        what: "icmp echo".to_owned(),
        peers: *peers,
        row: "baseline/echo".to_owned(),
    });
    let protocols = policy.protocols.iter().map(|grant| Other {
        what: format!("protocol {}", grant.protocol),
        peers: grant.peers,
        row: grant.row.clone(),
    });
    echo.chain(protocols).collect()
}

/// What a row grants in words, and the prefixes that the words may cut short.
type Granted = BTreeSet<(String, Vec<String>)>;

trait Grants {
    fn row(&self) -> &str;
    fn peers(&self) -> Peers;
    fn what(&self) -> String;
}

impl Grants for Grant {
    fn row(&self) -> &str {
        &self.row
    }

    fn peers(&self) -> Peers {
        self.peers
    }

    fn what(&self) -> String {
        let kind = match self.kind {
            GrantKind::Management => " (management)",
            GrantKind::Baseline | GrantKind::Documented | GrantKind::Site => "",
        };
        format!("{}{kind}", ports(self.transport, self.first, self.last))
    }
}

impl Grants for Other {
    fn row(&self) -> &str {
        &self.row
    }

    fn peers(&self) -> Peers {
        self.peers
    }

    fn what(&self) -> String {
        self.what.clone()
    }
}

fn by_row<'a, G: Grants>(policy: &Policy, grants: &'a [G]) -> BTreeMap<&'a str, Granted> {
    let mut rows: BTreeMap<&str, Granted> = BTreeMap::new();
    for grant in grants {
        let words = format!(
            "{} for {}",
            grant.what(),
            policy.row_peers_words(grant.row(), grant.peers())
        );
        let prefixes = policy.peers_text(grant.peers());
        rows.entry(grant.row())
            .or_default()
            .insert((words, prefixes));
    }
    rows
}

fn row_changes<G: Grants>(
    direction: &'static str,
    before: (&Policy, &[G]),
    after: (&Policy, &[G]),
) -> Vec<RowChange> {
    let (before, after) = (by_row(before.0, before.1), by_row(after.0, after.1));
    let ids: BTreeSet<&str> = before.keys().chain(after.keys()).copied().collect();
    let words = |granted: Option<&Granted>| {
        let granted = granted.into_iter().flatten();
        granted.map(|(words, _)| words.clone()).collect()
    };
    ids.into_iter()
        .filter_map(|row| {
            let (old, new) = (before.get(row), after.get(row));
            let change = match (old, new) {
                (None, _) => "added",
                (_, None) => "removed",
                (Some(old), Some(new)) if old != new => "changed",
                _ => return None,
            };
            Some(RowChange {
                change,
                direction,
                row: row.to_owned(),
                before: words(old),
                after: words(new),
            })
        })
        .collect()
}

#[derive(Default)]
struct Effect {
    opened: Vec<Open>,
    closed: Vec<Open>,
}

/// A change, and the ports that it is of, so that neighbours can be joined.
struct Open {
    change: Change,
    ports: Option<(Transport, u16, u16)>,
}

/// Who may use something, and the rows that say so.
struct Access {
    reach: Reach,
    rows: Vec<String>,
}

impl Effect {
    fn ports(
        &mut self,
        direction: &'static str,
        before: (&Policy, &[Grant]),
        after: (&Policy, &[Grant]),
    ) {
        let (old, new) = (spans(before.1), spans(after.1));
        for transport in [Transport::Tcp, Transport::Udp, Transport::Sctp] {
            // Between two edges of either side nothing changes; the last edge is one beyond the last port.
            let edges: BTreeSet<u32> = old
                .iter()
                .chain(&new)
                .filter(|span| span.transport == transport)
                .flat_map(|span| [u32::from(span.first), u32::from(span.last) + 1])
                .collect();
            for (first, next) in edges.iter().zip(edges.iter().skip(1)) {
                let (Ok(first), Ok(last)) = (u16::try_from(*first), u16::try_from(next - 1)) else {
                    continue;
                };
                let access = |policy: &Policy, spans: &[Span<'_>]| {
                    let span = find(spans, transport, first);
                    let grants = span.map(|span| span.grants.as_slice()).unwrap_or_default();
                    let each = grants.iter().map(|grant| (grant.peers, grant.row.as_str()));
                    Access::of(policy, each)
                };
                let (was, is) = (access(before.0, &old), access(after.0, &new));
                let ports = Some((transport, first, last));
                self.compare(direction, &was, &is, ports, "");
            }
        }
    }

    fn others(&mut self, before: &Policy, after: &Policy) {
        let (old, new) = (other_grants(before), other_grants(after));
        let labels: BTreeSet<&str> = old.iter().chain(&new).map(|o| o.what.as_str()).collect();
        for label in labels {
            let access = |policy: &Policy, all: &[Other]| {
                let of_label = all.iter().filter(|other| other.what == label);
                Access::of(
                    policy,
                    of_label.map(|other| (other.peers, other.row.as_str())),
                )
            };
            let (was, is) = (access(before, &old), access(after, &new));
            self.compare("in", &was, &is, None, label);
        }
    }

    fn compare(
        &mut self,
        direction: &'static str,
        was: &Access,
        is: &Access,
        ports: Option<(Transport, u16, u16)>,
        what: &str,
    ) {
        for (list, more, less) in [(&mut self.opened, is, was), (&mut self.closed, was, is)] {
            let Some((peers, except)) = more.reach.beyond(&less.reach) else {
                continue;
            };
            let change = Change {
                direction,
                what: what.to_owned(),
                peers,
                except,
                rows: more.rows.clone(),
            };
            push(list, Open { change, ports });
        }
    }
}

/// Adds a change, joined to the one before if only the ports differ and follow each other.
fn push(list: &mut Vec<Open>, mut next: Open) {
    if let (Some(last), Some((transport, first, end))) = (list.last_mut(), next.ports)
        && let Some((of, start, before)) = last.ports
        && of == transport
        && u32::from(before) + 1 == u32::from(first)
        && last.change.direction == next.change.direction
        && last.change.peers == next.change.peers
        && last.change.except == next.change.except
        && last.change.rows == next.change.rows
    {
        last.ports = Some((transport, start, end));
        last.change.what = ports(transport, start, end);
        return;
    }
    if let Some((transport, first, last)) = next.ports {
        next.change.what = ports(transport, first, last);
    }
    list.push(next);
}

fn find<'s, 'a>(spans: &'s [Span<'a>], transport: Transport, port: u16) -> Option<&'s Span<'a>> {
    let after = spans.partition_point(|span| (span.transport, span.first) <= (transport, port));
    let span = spans.get(after.checked_sub(1)?)?;
    (span.transport == transport && port <= span.last).then_some(span)
}

impl Access {
    fn of<'a>(policy: &Policy, grants: impl Iterator<Item = (Peers, &'a str)>) -> Self {
        let mut sets = BTreeSet::new();
        let mut rows = BTreeSet::new();
        for (peers, row) in grants {
            sets.insert(peers);
            rows.insert(row.to_owned());
        }
        Self {
            reach: Reach::of(policy, &sets),
            rows: rows.into_iter().collect(),
        }
    }
}

fn ports(transport: Transport, first: u16, last: u16) -> String {
    format!("{transport}/{}", range(first, last))
}

/// Settings and what else makes two policies differ, by the names that they have in JSON.
fn setting_changes(before: &Policy, after: &Policy) -> Vec<SettingChange> {
    let values = |policy: &Policy| -> BTreeMap<String, serde_json::Value> {
        // Plain data: nothing that JSON lacks.
        let settings = serde_json::to_value(&policy.settings).unwrap_or_default();
        let audited: BTreeSet<&str> = policy
            .rows
            .iter()
            .filter(|facts| facts.audit)
            .map(|facts| facts.id.as_str())
            .collect();
        let mut values = BTreeMap::new();
        if let serde_json::Value::Object(fields) = settings {
            values.extend(fields);
        }
        values.insert("roles".to_owned(), policy.roles.clone().into());
        values.insert(
            "audit_rows".to_owned(),
            audited.into_iter().collect::<Vec<_>>().into(),
        );
        values
    };
    let mut new = values(after);
    values(before)
        .into_iter()
        .filter_map(|(setting, before)| {
            let after = new.remove(&setting).unwrap_or_default();
            (before != after).then_some(SettingChange {
                setting,
                before,
                after,
            })
        })
        .collect()
}
