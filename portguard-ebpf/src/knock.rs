//! Notes who knocks: see [`portguard_common::knock`].
#![expect(unsafe_code, reason = "writes a place of a map; the index is masked")]

use portguard_common::knock::{Knock, WAYS, Who};
use portguard_common::tables::Tables;

use crate::guard::Sample;
use crate::maps::{self, Maps};

/// A number of which the verifier knows nothing.
#[inline(always)]
pub(crate) fn opaque(number: u64) -> u64 {
    number.wrapping_add(maps::zero() as u64)
}

/// Puts sampled violations, so many packets, down to their cause.
#[inline(always)]
pub(crate) fn note(maps: &Maps, who: &Who, packets: u64, sample: Sample) {
    let Some(set) = Maps::knocks(who.set(maps.facts().flow_key)) else {
        return;
    };
    // SAFETY: a live per-CPU element that no other program of this CPU runs beside.
    let place = unsafe { &*set }.place(who, opaque);
    let index = place as usize & (WAYS - 1);
    // SAFETY: as above, and the index is below the number of places.
    let knock = unsafe { &mut *set.cast::<Knock>().add(index) };
    *knock = knock.add(who, packets, sample.is_drop, sample.time);
}
