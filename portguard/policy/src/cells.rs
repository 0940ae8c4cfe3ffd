//! What each counter cell means. Cells outlive generations: the same meaning keeps the same cell, so that counts go on.

use std::collections::BTreeMap;

use portguard_common::abi::MAX_CELLS;
use portguard_common::reason::Direction;
use portguard_common::tables::Key;
use serde::{Deserialize, Serialize};

use crate::policy::GrantKind;

/// All cells that were ever given out, by number. Number 0 is nobody's.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Directory {
    /// Meanings by number less one.
    pub cells: Vec<Cell>,
}

/// One counter cell.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Cell {
    /// Egress rather than ingress.
    pub egress: bool,
    /// Key space: 0 TCP, 1 UDP, 2 SCTP, 3 protocols (see [`Key`]).
    pub space: u8,
    /// First port or protocol.
    pub first: u16,
    /// Last port or protocol, inclusive.
    pub last: u16,
    /// What it is named after: the strongest of the grants.
    pub kind: GrantKind,
    /// Rows that admit these packets, sorted.
    pub rows: Vec<String>,
}

impl Cell {
    /// Which way.
    pub fn direction(&self) -> Direction {
        if self.egress {
            Direction::Egress
        } else {
            Direction::Ingress
        }
    }

    /// Stable reason name: `management`, `dhcp`, `baseline`, `documented`, `site`, `icmp-echo` or `protocol`.
    pub fn reason(&self) -> &'static str {
        if self.space == 3 {
            return if u32::from(self.first) == Key::ECHO.0 & 0xffff {
                "icmp-echo"
            } else {
                "protocol"
            };
        }
        match self.kind {
            GrantKind::Management => "management",
            GrantKind::Baseline if self.egress => "baseline",
            GrantKind::Baseline => "dhcp",
            GrantKind::Documented => "documented",
            GrantKind::Site => "site",
        }
    }
}

impl Directory {
    /// The meaning of a cell.
    pub fn get(&self, cell: u16) -> Option<&Cell> {
        self.cells.get(usize::from(cell).checked_sub(1)?)
    }

    /// Runs of cells by their first meaning, to find the run that a list of variants had before.
    pub(crate) fn index(&self) -> BTreeMap<Cell, Vec<u16>> {
        let mut index: BTreeMap<Cell, Vec<u16>> = BTreeMap::new();
        for (cell, number) in self.cells.iter().zip(1..) {
            index.entry(cell.clone()).or_default().push(number);
        }
        index
    }

    /// Adds a run of cells; `None` if there is no room.
    pub(crate) fn push(&mut self, run: &[Cell]) -> Option<u16> {
        let first = self.cells.len() + 1;
        if first + run.len() > MAX_CELLS as usize {
            return None;
        }
        self.cells.extend_from_slice(run);
        u16::try_from(first).ok()
    }
}
