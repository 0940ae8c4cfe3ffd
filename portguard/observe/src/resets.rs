//! Counting from a moment that the operator chose. The kernel's counters only ever grow: a reset remembers what they were,
//! who asked, and why, in a map pinned beside them. It goes when they go, and never before.

use std::path::Path;

use portguard_common::abi::Counter;
use portguard_common::tables::Key;
use portguard_kernel::error::Context as _;
use serde::{Deserialize, Serialize};

use crate::counters::{Keyed, Reset, Snapshot};
use crate::talkers::Mark;
use portguard_kernel::pins::pages;

/// Name of the pin beside the counters.
const PIN: &str = "resets";

/// All resets since the guard was loaded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resets {
    /// Oldest first.
    pub record: Vec<Reset>,
    /// The counters at the last one.
    pub snapshot: Snapshot,
    /// What was put down to talkers then; absent where an earlier version reset the counters.
    pub mark: Option<Mark>,
}

/// As it is written. Keys and enums as numbers and lists, since JSON's objects have neither as keys.
#[derive(Serialize, Deserialize)]
struct Written {
    record: Vec<Reset>,
    cells: Vec<[u64; 2]>,
    violations: Vec<(bool, u32, u64)>,
    totals: Vec<(bool, Keyed, [u64; 2])>,
    slots: Vec<[u64; 2]>,
    #[serde(default, rename = "knocks")]
    talkers: Option<Mark>,
}

impl Resets {
    /// Reads the record beside the counters in `shared`; `None` if nobody ever reset them.
    ///
    /// # Errors
    /// If there is one that cannot be read.
    pub fn read(shared: &Path) -> portguard_kernel::Result<Option<Self>> {
        let path = shared.join(PIN);
        if !path.exists() {
            return Ok(None);
        }
        let written: Written = serde_json::from_slice(&pages::read(&path)?)
            .with_context(|| format!("`{}` is of another version", path.display()))?;
        Ok(Some(written.into()))
    }

    /// Writes the record, in one step.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub fn write(&self, shared: &Path) -> portguard_kernel::Result<()> {
        pages::pin(
            &shared.join(PIN),
            &serde_json::to_vec(&Written::from(self))?,
        )
    }
}

fn pair(counter: Counter) -> [u64; 2] {
    [counter.packets, counter.bytes]
}

fn counter([packets, bytes]: [u64; 2]) -> Counter {
    Counter { packets, bytes }
}

impl From<&Resets> for Written {
    fn from(
        Resets {
            record,
            snapshot,
            mark,
        }: &Resets,
    ) -> Self {
        let Snapshot {
            cells,
            violations,
            totals,
            slots,
        } = snapshot;
        Self {
            record: record.clone(),
            cells: cells.iter().copied().map(pair).collect(),
            violations: violations
                .iter()
                .map(|((egress, key), count)| (*egress, key.0, *count))
                .collect(),
            totals: totals
                .iter()
                .map(|((egress, keyed), sum)| (*egress, *keyed, pair(*sum)))
                .collect(),
            slots: slots.iter().copied().map(pair).collect(),
            talkers: mark.clone(),
        }
    }
}

impl From<Written> for Resets {
    fn from(written: Written) -> Self {
        let Written {
            record,
            cells,
            violations,
            totals,
            slots,
            talkers: mark,
        } = written;
        let snapshot = Snapshot {
            cells: cells.into_iter().map(counter).collect(),
            violations: violations
                .into_iter()
                .map(|(egress, key, count)| ((egress, Key(key)), count))
                .collect(),
            totals: totals
                .into_iter()
                .map(|(egress, keyed, sum)| ((egress, keyed), counter(sum)))
                .collect(),
            slots: slots.into_iter().map(counter).collect(),
        };
        Self {
            record,
            snapshot,
            mark,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::counters::Count;

    #[test]
    fn what_is_written_is_read_and_subtracted() {
        let count = |packets, bytes| Counter { packets, bytes };
        let snapshot = Snapshot {
            cells: vec![count(5, 500), count(0, 0)],
            violations: [((true, Key(22)), 7), ((false, Key::ECHO), 1)].into(),
            totals: [((true, Keyed::Peer), count(7, 70))].into(),
            slots: vec![count(1, 2); 3],
        };
        let resets = Resets {
            record: vec![Reset {
                at: 1,
                by: "root".to_owned(),
                note: Some("acceptance".to_owned()),
                generation: 3,
                digest: "d".to_owned(),
                totals: Count {
                    packets: 13,
                    bytes: 572,
                },
                violations: Count::default(),
            }],
            snapshot: snapshot.clone(),
            mark: Some(Mark::default()),
        };
        let text = serde_json::to_vec(&Written::from(&resets)).unwrap();
        let back: Resets = serde_json::from_slice::<Written>(&text).unwrap().into();
        assert_eq!(back, resets);

        let mut later = snapshot.clone();
        later.cells.push(count(9, 90));
        later.cells[0].packets += 2;
        *later.violations.get_mut(&(true, Key(22))).unwrap() += 1;
        let since = later.since(&snapshot);
        assert_eq!(since.cells, [count(2, 0), count(0, 0), count(9, 90)]);
        assert_eq!(since.violations, [((true, Key(22)), 1)].into());
        assert_eq!(since.totals[&(true, Keyed::Peer)], count(0, 0));
    }
}
