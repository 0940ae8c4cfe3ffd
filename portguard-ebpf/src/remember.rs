//! Writes the flow table: the egress program's only state, and nobody else's but user space's seeding.
#![expect(
    unsafe_code,
    reason = "stores into a map that others read at the same time"
)]

use core::ptr;

use portguard_common::abi::slot;
use portguard_common::conntrack::{self, Place, Set};
use portguard_common::packet::{Shape, Subject};
use portguard_common::reason::{Direction, Reason};
use portguard_common::tables::Tables;
use portguard_common::verdict::{self, Verdict};

use crate::maps::{self, Maps};

/// Takes note that a packet leaves the host, if it may be one that opens or continues a conversation of the host's own.
#[inline(always)]
pub(crate) fn remember<S: Subject>(maps: &Maps, packet: &S, verdict: &Verdict) {
    let config = maps.config();
    if config.flows == 0
        || !matches!(packet.shape(), Shape::Ports)
        || matches!(verdict.reason, Reason::Reply | Reason::Transit)
        || packet.is_answering()
    {
        return;
    }
    let hashed = verdict::tuple(packet, Direction::Egress).hash(config.flow_key);
    let Some(set) = maps::flows(hashed.set & config.flow_mask) else {
        return;
    };
    let now = conntrack::now(maps.jiffies(), config.tick_shift);
    // SAFETY: a live array element. Others store whole cells at the same time, which the search can bear.
    let place = unsafe { &*set }.place(hashed.tag, now);
    let Some(old) = place.replaces() else { return };
    if matches!(place, Place::Empty | Place::Taken(..)) {
        maps.add_slot(slot::FLOWS_CREATED, (1, 0));
    }
    if matches!(place, Place::Taken(_, age) if age <= u64::from(config.tcp_idle)) {
        maps.add_slot(slot::FLOWS_EVICTED, (1, 0));
    }
    replace(
        set,
        conntrack::home(hashed.tag),
        old,
        conntrack::cell(hashed.tag, now),
    );
}

/// One store of eight bytes, so that no reader ever sees half a cell. If `old` is gone by now, another CPU took its cell:
/// then nothing is written until the next packet of this flow.
#[inline(always)]
fn replace(set: *mut Set, home: usize, old: u64, new: u64) {
    let cells = set.cast::<u64>();
    let replaced_at = |index: usize| {
        // SAFETY: one of the eight cells of a live array element.
        let cell = unsafe { cells.add(index) };
        // SAFETY: aligned, and whole cells only are ever stored there.
        let is_old = unsafe { ptr::read_volatile(cell) } == old;
        if is_old {
            // SAFETY: as above.
            unsafe { ptr::write_volatile(cell, new) };
        }
        is_old
    };
    if replaced_at(home) {
        return;
    }
    for index in 0..conntrack::WAYS {
        if replaced_at(index) {
            return;
        }
    }
}
