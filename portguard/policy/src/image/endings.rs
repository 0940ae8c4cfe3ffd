//! When the grants behind counter cells end.

use std::collections::{BTreeMap, BTreeSet};

use portguard_common::abi::MAX_CELLS;
use portguard_common::tables::Ending;

use crate::policy::Grant;

/// Endings while cells are given out.
#[derive(Default)]
pub(super) struct Endings {
    by_index: BTreeMap<u32, Ending>,
    /// Cells that this image uses where something ends.
    pub(super) taken: BTreeSet<u16>,
}

/// When each of these ends; nothing if none does.
pub(super) fn times(grants: &[&Grant]) -> Vec<Option<u64>> {
    if grants.iter().all(|grant| grant.until.is_none()) {
        return Vec::new();
    }
    grants.iter().map(|grant| grant.until).collect()
}

impl Endings {
    /// At a time (in seconds), `next` counts what is left of a cell.
    pub(super) fn end_cell(&mut self, cell: u16, at: u64, (next, left): (u16, u32)) {
        self.by_index.insert(cell.into(), ending(at, next, left));
    }

    /// A rule that nothing but its rows keeps in audit is no more once all of them have ended.
    pub(super) fn end_rule(&mut self, rule: u16, ends: &[Option<u64>]) {
        let all: Option<Vec<u64>> = ends.iter().copied().collect();
        if let Some(at) = all.and_then(|ends| ends.into_iter().max()) {
            let over = ending(at, 0, Ending::CLOSED_WITH_AUDIT);
            self.by_index.insert(Ending::of_rule(rule), over);
        }
    }

    /// By cell, then by rule; a single word that says never if nothing ends.
    pub(super) fn into_table(self) -> Vec<Ending> {
        let count = match self.by_index.last_key_value() {
            None => 1,
            Some((index, _)) if *index < MAX_CELLS => MAX_CELLS,
            Some(_) => 2 * MAX_CELLS,
        };
        let mut table = vec![Ending::default(); count as usize];
        for (index, ending) in self.by_index {
            if let Some(word) = table.get_mut(index as usize) {
                *word = ending;
            }
        }
        table
    }
}

fn ending(at: u64, cell: u16, left: u32) -> Ending {
    Ending {
        at: at.saturating_mul(1_000_000_000),
        cell: cell.into(),
        left,
    }
}
