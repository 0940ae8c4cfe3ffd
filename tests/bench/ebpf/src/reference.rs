//! What portguard is measured against: the least that a program can do at each hook, and the obvious guard.
#![no_std]
#![no_main]
#![expect(
    clippy::needless_pass_by_value,
    unsafe_code,
    reason = "linker attributes, packet memory, and counters reached by pointer"
)]

use core::ptr;

use aya_ebpf::bindings::TC_ACT_UNSPEC;
use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS};
use aya_ebpf::btf_maps::{Array, PerCpuArray};
use aya_ebpf::macros::{btf_map, classifier, xdp};
use aya_ebpf::programs::{TcContext, XdpContext};

/// Drops.
#[xdp(frags)]
pub(crate) fn bare_drop(_ctx: XdpContext) -> u32 {
    XDP_DROP
}

/// Looks at the frame as every filter has to, and drops: what a filter waits for the frame's first line of memory.
#[xdp(frags)]
pub(crate) fn touching_drop(ctx: XdpContext) -> u32 {
    match read::<u16>(ctx.data(), 12, ctx.data_end()) {
        // Nothing here sends that.
        Some(0xffff) => XDP_PASS,
        _ => XDP_DROP,
    }
}

/// Lets everything through.
#[xdp(frags)]
pub(crate) fn bare_pass(_ctx: XdpContext) -> u32 {
    XDP_PASS
}

#[btf_map]
static COUNTER: PerCpuArray<u64, 1> = PerCpuArray::new();

/// Counts, and drops.
#[xdp(frags)]
pub(crate) fn bare_count(_ctx: XdpContext) -> u32 {
    if let Some(counter) = COUNTER.get_ptr_mut(0) {
        // SAFETY: a live per-CPU element that no other program of this CPU runs beside.
        unsafe { *counter += 1 };
    }
    XDP_DROP
}

/// Does nothing with what is sent.
#[classifier]
pub(crate) fn bare_tc(_ctx: TcContext) -> i32 {
    TC_ACT_UNSPEC
}

/// 1 = open, by transport (TCP, UDP) and port.
#[btf_map]
static OPEN: Array<u32, 131_072> = Array::new();

/// Packets and bytes of a port.
#[repr(C)]
pub(crate) struct Counter {
    packets: u64,
    bytes: u64,
}

#[btf_map]
static PORTS: PerCpuArray<Counter, 131_072> = PerCpuArray::new();

/// The guard as one would write it at first: plain headers only, one array for the ports, one per-CPU element a port.
#[xdp(frags)]
pub(crate) fn naive(ctx: XdpContext) -> u32 {
    let (start, end) = (ctx.data(), ctx.data_end());
    let Some(ethertype) = read::<u16>(start, 12, end) else {
        return XDP_PASS;
    };
    let (protocol, ports) = match u16::from_be(ethertype) {
        0x0800 => {
            let (Some(first), Some(protocol)) =
                (read::<u8>(start, 14, end), read::<u8>(start, 23, end))
            else {
                return XDP_PASS;
            };
            (protocol, 14 + ((first & 15) as usize) * 4)
        }
        0x86dd => {
            let Some(protocol) = read::<u8>(start, 20, end) else {
                return XDP_PASS;
            };
            (protocol, 54)
        }
        _ => return XDP_PASS,
    };
    let space = match protocol {
        6 => 0,
        17 => 65_536,
        _ => return XDP_PASS,
    };
    let Some(port) = read::<u16>(start, ports + 2, end) else {
        return XDP_PASS;
    };
    let key = space + u32::from(u16::from_be(port));
    if let Some(counter) = PORTS.get_ptr_mut(key) {
        // SAFETY: a live per-CPU element that no other program of this CPU runs beside.
        unsafe {
            (*counter).packets += 1;
            (*counter).bytes += (end - start) as u64;
        }
    }
    match OPEN.get(key) {
        Some(1) => XDP_PASS,
        _ => XDP_DROP,
    }
}

#[inline(always)]
fn read<T: Copy>(start: usize, offset: usize, end: usize) -> Option<T> {
    if start + offset + size_of::<T>() > end {
        return None;
    }
    // SAFETY: within the frame, as just checked; BPF reads at any alignment.
    Some(unsafe { ptr::read_unaligned((start + offset) as *const T) })
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
