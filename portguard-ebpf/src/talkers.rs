//! Notes the top talkers: see [`portguard_common::talkers`].
#![expect(unsafe_code, reason = "writes a place of a map; the index is masked")]

use portguard_common::tables::Tables;
use portguard_common::talkers::{Talker, TalkerKey, WAYS};

use crate::barrier::barrier_var;
use crate::maps::Maps;
use crate::sample::Sample;

/// Puts a sample, which stands for so many packets, down to its cause.
#[inline(always)]
pub(crate) fn note(maps: &Maps, key: &TalkerKey, packets: u64, sample: Sample) {
    let Some(set) = Maps::talkers(key.set(maps.config().flow_key)) else {
        return;
    };
    // SAFETY: a live per-CPU element that no other program of this CPU runs beside.
    let place = unsafe { &*set }.place(key, barrier_var);
    let index = place as usize & (WAYS - 1);
    // SAFETY: as above, and the index is below the number of places.
    let talker = unsafe { &mut *set.cast::<Talker>().add(index) };
    *talker = talker.add(key, packets, sample.is_drop, sample.time);
}
