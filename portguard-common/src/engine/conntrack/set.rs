//! A set of cells, and who gives way in it.

use super::cell::{Class, LOW_BITS, Lifetimes, TIME_MASK, WAYS, age, is_live, same_flow};

/// One cache line of cells: tag in the high 40 bits, class in three, time in the low 21; 0 = empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Set {
    /// The cells.
    pub cells: [u64; WAYS],
    /// Not 0 once a conversation of this set went to the overflow table.
    pub spilled: u32,
    /// Held by who writes; readers see whole cells without.
    pub lock: bpf_spin_lock,
}

/// The kernel's lock, which it knows by this name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct bpf_spin_lock {
    val: u32,
}

/// Words of 64 ports each, of the ports of services.
pub const SERVED_WORDS: usize = 65_536 / 64;

/// Ports of a [`Page`].
pub const PAGE_PORTS: usize = 1024;

/// How many sockets have each of some ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Page {
    /// By port, modulo [`PAGE_PORTS`].
    pub counts: [u32; PAGE_PORTS],
    /// Held by who counts; readers see whole numbers without.
    pub lock: bpf_spin_lock,
}

/// The cell of its set that a conversation takes if it is free, so that it is looked at first: one way, which processors
/// foresee, instead of seven. The middle cell is that of two in eight.
#[inline(always)]
pub const fn home(tag: u64) -> usize {
    // A sum of two small numbers: verifiers before 6.6 do not learn from a comparison that the lock's place is left out.
    let bits = (tag >> LOW_BITS) as usize;
    (bits & 3) + (bits >> 2 & 1) * 3
}

/// Where a conversation goes that its set does not know. The cell is named by what stands in it: for a verifier, an index
/// would make a state of its own for each cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Into a cell that is empty, or of a conversation that is over.
    Free(u64),
    /// Into the cell of one that may still have lived.
    Taken(u64),
    /// Nowhere in this set.
    Full,
}

/// Above every [`score`]: this cell stays.
const STAYS: u64 = 4 << 32;

/// How readily a cell gives way to a new conversation, the lowest first.
#[inline(always)]
fn score(cell: u64, lifetimes: Lifetimes, now: u64) -> u64 {
    if cell == 0 {
        return 0;
    }
    if !is_live(cell, lifetimes, || now) {
        return 1;
    }
    let rank: u64 = match Class::of(cell) {
        Class::Closing => 1,
        Class::Datagrams | Class::Forwarded => 2,
        Class::HalfClosed => 3,
        Class::Opening | Class::Packets | Class::Socket => return STAYS,
    };
    rank << 32 | (TIME_MASK - age(cell, now))
}

impl Set {
    /// A cell with this tag, if there is one: nearly always at [`home`].
    #[inline(always)]
    pub fn find(&self, tag: u64) -> Option<u64> {
        if let Some(cell) = self.cells.get(home(tag))
            && same_flow(*cell, tag)
        {
            return Some(*cell);
        }
        for cell in &self.cells {
            let cell = *cell;
            if same_flow(cell, tag) {
                return Some(cell);
            }
        }
        None
    }

    /// Where a new conversation of a class goes: an empty cell, else one that is over, else the oldest that may give way:
    /// one that is closed before one that is not TCP, then one that is half closed, and never another live one of TCP: see
    /// [`gives_way`].
    #[inline(always)]
    pub fn place(&self, class: Class, lifetimes: Lifetimes, now: u64) -> Place {
        let cells = self.cells;
        Self::place_among(
            |way| cells.get(way).copied().unwrap_or(0),
            class,
            lifetimes,
            now,
            |number| number,
        )
    }

    /// As [`Self::place`], among cells that are read one after the other: so none has to wait on a small stack. After each, a
    /// `barrier_var` makes one state for verifiers of whatever it was.
    #[inline(always)]
    pub fn place_among(
        cell: impl Fn(usize) -> u64,
        class: Class,
        lifetimes: Lifetimes,
        now: u64,
        barrier_var: impl Fn(u64) -> u64,
    ) -> Place {
        let mut best = (STAYS, 0);
        let mut stay = 0;
        for way in 0..WAYS {
            let cell = cell(way);
            let score = barrier_var(score(cell, lifetimes, now));
            stay += u64::from(score == STAYS);
            if score < best.0 {
                best = (score, cell);
            }
            best = (barrier_var(best.0), barrier_var(best.1));
            stay = barrier_var(stay);
        }
        let (score, cell) = best;
        if score == STAYS || class.stays() && stay >= class.ways() as u64 {
            Place::Full
        } else if score <= 1 || matches!(Class::of(cell), Class::Closing) {
            Place::Free(cell)
        } else {
            Place::Taken(cell)
        }
    }
}

/// Whether a cell gives way to a connection for which its set has no place: nobody has answered what it holds, for a unit of
/// time; or, to a socket of the host's own, at all.
#[inline(always)]
pub const fn gives_way(cell: u64, to: Class, now: u64) -> bool {
    cell != 0
        && matches!(Class::of(cell), Class::Opening)
        && (matches!(to, Class::Socket) || age(cell, now) != 0)
}
