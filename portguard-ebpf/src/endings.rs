//! When the grants behind counter cells end.
#![expect(unsafe_code, reason = "the name of a global function, and a helper")]

use aya_ebpf::btf_maps::Array;
use aya_ebpf::helpers::generated::bpf_ktime_get_boot_ns;
use aya_ebpf::macros::btf_map;
use portguard_common::tables::{self, Ending};

/// By cell, then by rule; the loader sets how many.
#[btf_map]
static ENDINGS: Array<Ending, 1> = Array::new();

/// See [`portguard_common::tables::Tables::ending`].
#[inline(always)]
pub(crate) fn ending(index: u32) -> Ending {
    ENDINGS.get(index).copied().unwrap_or_default()
}

/// See [`tables::left`]; `wall` is how far the time of day is from the boot-time clock. A global function, which the verifier
/// sees once.
#[unsafe(export_name = "left")]
#[inline(never)]
pub(crate) extern "C" fn left(index: u32, wall: u64) -> u32 {
    // SAFETY: takes nothing, gives a number.
    tables::left(index, ending, || unsafe {
        bpf_ktime_get_boot_ns().wrapping_add(wall)
    })
}
