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
use aya_ebpf::btf_maps::lpm_trie::{Key, LpmTrie};
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

/// By port: a class, 0 = closed.
#[repr(C)]
pub(crate) struct Classes {
    classes: [u8; 65_536],
}

/// TCP, UDP.
#[btf_map]
static CLASSES: Array<Classes, 2> = Array::new();

/// Dropped and passed, of 4,096 ports side by side.
#[repr(C)]
pub(crate) struct Chunk {
    counts: [u32; 8192],
}

#[btf_map]
static DENSE: PerCpuArray<Chunk, 32> = PerCpuArray::new();

/// The tables that a fast guard needs for ports, and nothing else: up to two tags, both families, no options, fragments or
/// extension headers; no sources, flows, bytes or callers. What is left is what portguard's other promises cost.
#[xdp(frags)]
pub(crate) fn lean(ctx: XdpContext) -> u32 {
    let (start, end) = (ctx.data(), ctx.data_end());
    let mut at = 12;
    let mut tags = 0;
    let ethertype = loop {
        let Some(ethertype) = read::<u16>(start, at, end) else {
            return XDP_DROP;
        };
        at += 2;
        match u16::from_be(ethertype) {
            0x8100 | 0x88a8 if tags < 2 => {
                tags += 1;
                at += 2;
            }
            ethertype => break ethertype,
        }
    };
    let (protocol, ports) = match ethertype {
        0x0800 => {
            let Some(header) = read::<[u8; 20]>(start, at, end) else {
                return XDP_DROP;
            };
            if header[0] != 0x45 || (header[6] & 0x3f) | header[7] != 0 {
                return XDP_PASS;
            }
            (header[9], at + 20)
        }
        0x86dd => {
            let Some(protocol) = read::<u8>(start, at + 6, end) else {
                return XDP_DROP;
            };
            (protocol, at + 40)
        }
        _ => return XDP_PASS,
    };
    let space = match protocol {
        6 => 0,
        17 => 1,
        _ => return XDP_PASS,
    };
    let Some(port) = read::<u16>(start, ports + 2, end) else {
        return XDP_DROP;
    };
    let port = u16::from_be(port);
    let (Some(classes), Some(dense)) = (
        CLASSES.get_ptr(space),
        DENSE.get_ptr_mut(space << 4 | u32::from(port >> 12)),
    ) else {
        return XDP_DROP;
    };
    let port = usize::from(port);
    // SAFETY: a port is below the number of classes; the counters are this CPU's, and their indices below theirs.
    let is_open = unsafe {
        let is_open = *(&raw const (*classes).classes).cast::<u8>().add(port) != 0;
        let count = (&raw mut (*dense).counts)
            .cast::<u32>()
            .add((port & 4095) << 1 | usize::from(is_open));
        *count += 1;
        is_open
    };
    if is_open { XDP_PASS } else { XDP_DROP }
}

/// IPv6 networks and hosts, in the kernel's own map for longest prefixes; the loader sets how many.
#[btf_map]
static TRIE: LpmTrie<[u8; 16], u32, 1> = LpmTrie::new();

/// Looks an IPv6 source up there and does nothing else: lets through who is found.
#[xdp(frags)]
pub(crate) fn trie(ctx: XdpContext) -> u32 {
    let Some(source) = read::<[u64; 2]>(ctx.data(), 22, ctx.data_end()) else {
        return XDP_DROP;
    };
    let mut octets = [0; 16];
    let (high, low) = octets.split_at_mut(8);
    high.copy_from_slice(&source[0].to_ne_bytes());
    low.copy_from_slice(&source[1].to_ne_bytes());
    match TRIE.get(&Key::new(128, octets)) {
        Some(_) => XDP_PASS,
        None => XDP_DROP,
    }
}

#[inline(always)]
fn read<T: Copy>(start: usize, offset: usize, end: usize) -> Option<T> {
    if start + offset + size_of::<T>() > end {
        return None;
    }
    // SAFETY: within the frame, as just checked; BPF reads at any alignment. Said to be unaligned, it would be a load an octet.
    Some(unsafe { ptr::read((start + offset) as *const T) })
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
