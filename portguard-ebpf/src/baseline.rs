//! What portguard's programs are measured against: the least that any program does. Never attached.
#![no_std]
#![no_main]
#![expect(
    unsafe_code,
    reason = "linker attributes, and a counter reached by pointer"
)]

use aya_ebpf::bindings::xdp_action::XDP_DROP;
use aya_ebpf::btf_maps::PerCpuArray;
use aya_ebpf::macros::{btf_map, xdp};
use aya_ebpf::programs::XdpContext;

#[btf_map]
static COUNTER: PerCpuArray<u64, 1> = PerCpuArray::new();

/// Drops.
#[xdp(frags)]
pub(crate) fn baseline_drop(_ctx: XdpContext) -> u32 {
    XDP_DROP
}

/// Counts, and drops.
#[xdp(frags)]
pub(crate) fn baseline_count(_ctx: XdpContext) -> u32 {
    if let Some(counter) = COUNTER.get_ptr_mut(0) {
        // SAFETY: a live per-CPU element that no other program of this CPU runs beside.
        unsafe { *counter += 1 };
    }
    XDP_DROP
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// Helpers of the kernel that GPL-compatible programs may call.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
