//! Counts by the peers that the policy names.

use std::collections::{BTreeMap, BTreeSet};

use super::space::{direction, is_echo};
use super::{Count, PeerCount, Snapshot};
use portguard_kernel::pins::meta::Meta;
use portguard_policy::cells::Cell;
use portguard_policy::policy::{Peers, Policy};

pub(super) fn peers(meta: &Meta, snapshot: &Snapshot) -> Vec<PeerCount> {
    let mut sums: BTreeMap<(bool, String), (Count, BTreeSet<&str>)> = BTreeMap::new();
    for (cell, counter) in meta.directory.cells.iter().zip(&snapshot.cells) {
        if counter.packets == 0 {
            continue;
        }
        let (sum, rows) = sums
            .entry((cell.egress, who(&meta.policy, cell)))
            .or_default();
        sum.add(*counter);
        rows.extend(cell.rows.iter().map(String::as_str));
    }
    sums.into_iter()
        .map(|((egress, peers), (sum, rows))| PeerCount {
            direction: direction(egress).name(),
            peers,
            rows: rows.into_iter().map(str::to_owned).collect(),
            packets: sum.packets,
            bytes: sum.bytes,
        })
        .collect()
}

/// Who a cell's packets come from or go to: the peers of the rows that it is counted for.
fn who(policy: &Policy, cell: &Cell) -> String {
    let is_of = |row: &str| cell.rows.iter().any(|known| known == row);
    let named: BTreeSet<(Option<&str>, Peers)> = if cell.space == 3 {
        let echo = policy.echo.filter(|_| is_echo(cell.first));
        let listed = policy.protocols.iter().filter(|grant| is_of(&grant.row));
        listed
            .map(|grant| grant.peers)
            .chain(echo)
            .map(|peers| (None, peers))
            .collect()
    } else {
        let grants = policy.grants(direction(cell.egress));
        grants
            .iter()
            .filter(|grant| {
                grant.transport.space() == u32::from(cell.space)
                    && grant.first <= cell.first
                    && cell.last <= grant.last
                    && is_of(&grant.row)
            })
            .map(|grant| (Some(grant.row.as_str()), grant.peers))
            .collect()
    };
    let names: BTreeSet<String> = named
        .into_iter()
        .filter_map(|(row, peers)| match (row, peers) {
            (_, Peers::Any) => Some("any".to_owned()),
            (Some(row), peers) => Some(policy.row_peers(row, peers).0),
            (None, Peers::Set(index)) => policy.set(index).map(|set| set.name.clone()),
        })
        .collect();
    if names.is_empty() {
        return "peers of an earlier policy".to_owned();
    }
    names.into_iter().collect::<Vec<_>>().join(", ")
}
