//! Notes who knocks: see [`portguard_common::knock`].
#![expect(unsafe_code, reason = "writes a place of a map; the index is masked")]

use portguard_common::knock::{Knock, WAYS, Who};
use portguard_common::packet::{Packet, Subject};
use portguard_common::tables::Tables;
use portguard_common::verdict::Verdict;

use crate::guard::Sample;
use crate::hook::Hook;
use crate::maps::{self, Maps};

/// Puts a sampled violation down to its cause.
#[inline(always)]
pub(crate) fn note<H: Hook>(
    hook: H,
    maps: &Maps,
    packet: &Packet,
    verdict: &Verdict,
    sample: Sample,
) {
    let who = Who::of(packet, verdict, H::DIRECTION);
    let Some(set) = Maps::knocks(who.set(maps.facts().flow_key)) else {
        return;
    };
    // SAFETY: a live per-CPU element that no other program of this CPU runs beside.
    let place = unsafe { &*set }.place(&who) as u32;
    // Forgotten, so that the verifier need not go on once for each place.
    let index = maps::forgotten(place) as usize & (WAYS - 1);
    let (packets, _) = hook.weight(packet.length());
    // SAFETY: as above, and the index is below the number of places.
    let knock = unsafe { &mut *set.cast::<Knock>().add(index) };
    *knock = knock.add(
        &who,
        packets * u64::from(sample.stands),
        sample.is_drop,
        sample.time,
    );
}
