//! What the guards write to the tables of conversations: global functions, which the verifier sees once each, whatever
//! calls them.
#![expect(unsafe_code, reason = "names of global functions")]

use portguard_common::abi::slot;
use portguard_common::conntrack::{self as flow, Class, Hashed};
use portguard_common::tables::Tables;
use portguard_common::track::{self, Conversations, Theirs};

use crate::barrier::barrier_var;
use crate::conversations::{self, Began, Moment};
use crate::maps::Maps;

impl Maps {
    #[inline(always)]
    fn moment(&self) -> Moment {
        let facts = self.config();
        Moment {
            mask: facts.flow_mask,
            lifetimes: facts.lifetimes(),
            now: flow::now(self.jiffies(), facts.tick_shift),
        }
    }
}

impl Theirs for Maps {
    #[inline(always)]
    fn theirs(&self, hashed: Hashed) -> Option<u64> {
        let set = conversations::theirs(hashed.set & self.config().flow_mask);
        let cell = set.map_or(0, |set| set.find(hashed.tag).unwrap_or(0));
        // A number in either case, which no cell is: an option's undefined payload would be spilled, which verifiers refuse.
        let cell = barrier_var(cell);
        (cell != 0).then_some(cell)
    }

    #[inline(always)]
    fn write_theirs(&self, hashed: Hashed, own: Option<u64>) {
        write_theirs(hashed, own, Class::Datagrams, self.moment());
    }

    #[inline(always)]
    fn mark_asked(&self, hashed: Hashed, own: u64) {
        let own = Some((own, track::asked(own)));
        conversations::write_theirs(hashed, own, Class::Forwarded, self.moment());
    }

    #[inline(always)]
    fn write_first(&self, hashed: Hashed, own: Option<u64>) {
        write_theirs(hashed, own, Class::Closing, self.moment());
    }
}

#[inline(always)]
fn write_theirs(hashed: Hashed, own: Option<u64>, class: Class, at: Moment) {
    let new = flow::cell(hashed.tag, class, at.now);
    conversations::write_theirs(hashed, own.map(|own| (own, new)), class, at);
}

impl Conversations for Maps {
    #[inline(always)]
    fn renew(&self, hashed: Hashed, own: u64, class: Class) {
        renew(hashed.set, hashed.tag, own, class as u32);
    }

    #[inline(always)]
    fn begin(&self, hashed: Hashed, class: Class) {
        if begin(hashed.set, hashed.tag, class as u32) != 0 {
            spill(hashed.set, hashed.tag, class as u32);
        }
    }

    #[inline(always)]
    fn note_theirs(&self, hashed: Hashed) -> bool {
        note_theirs(hashed.set, hashed.tag) != 0
    }

    #[inline(always)]
    fn end_closed(&self, hashed: Hashed) {
        end_closed(hashed.set, hashed.tag);
    }
}

pub(crate) const fn class(number: u32) -> Class {
    match number {
        0 => Class::Datagrams,
        1 => Class::Closing,
        2 => Class::Opening,
        4 => Class::Socket,
        5 => Class::HalfClosed,
        6 => Class::Forwarded,
        _ => Class::Packets,
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn renew(set: u32, tag: u64, own: u64, number: u32) -> u32 {
    let at = Maps::alone().moment();
    conversations::renew(Hashed { set, tag }, own, class(number), at);
    0
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn begin(set: u32, tag: u64, number: u32) -> u32 {
    let maps = &Maps::alone();
    let hashed = Hashed { set, tag };
    let began = conversations::begin(hashed, class(number), maps.moment());
    maps.add_slot(slot::FLOWS_CREATED, (1, 0));
    if began == Began::Evicted {
        maps.add_slot(slot::FLOWS_EVICTED, (1, 0));
    }
    u32::from(began == Began::Lost)
}

/// What [`begin`] found no room for.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn spill(set: u32, tag: u64, number: u32) -> u32 {
    let maps = &Maps::alone();
    let class = class(number);
    let hashed = Hashed { set, tag };
    let began = if class.stays() {
        conversations::spill(hashed, class, maps.moment())
    } else {
        Began::Lost
    };
    let counted = match began {
        Began::Spilled => slot::FLOWS_SPILLED,
        Began::Evicted => slot::FLOWS_EVICTED,
        Began::Placed | Began::Lost => slot::FLOWS_LOST,
    };
    maps.add_slot(counted, (1, 0));
    0
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn note_theirs(set: u32, tag: u64) -> u32 {
    track::note(&Maps::alone(), Hashed { set, tag }).into()
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn end_closed(set: u32, tag: u64) -> u32 {
    let maps = &Maps::alone();
    let hashed = Hashed { set, tag };
    if let Some(cell) = track::closed(maps, hashed) {
        clear(hashed, cell, maps.config().flow_mask);
    }
    0
}

/// Empties the cell of a conversation, if it still stands there.
#[inline(always)]
fn clear(hashed: Hashed, cell: u64, mask: u32) {
    if let Some(set) = conversations::set_mut(hashed.set & mask)
        && !conversations::exchange(set, flow::home(hashed.tag), cell, 0)
    {
        let _ = conversations::SPILLED.remove(hashed.key());
    }
}
