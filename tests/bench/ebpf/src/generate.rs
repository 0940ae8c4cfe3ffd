//! Traffic: run on live frames, this sends them out of the interface that they are said to have come from.
#![no_std]
#![no_main]
#![expect(
    clippy::needless_pass_by_value,
    unsafe_code,
    reason = "linker attributes, packet memory, and globals that the loader fills"
)]

use core::cell::UnsafeCell;
use core::ptr;

use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_TX};
use aya_ebpf::btf_maps::Array;
use aya_ebpf::macros::{btf_map, xdp};
use aya_ebpf::programs::XdpContext;

/// Bytes of a frame: the shortest that Ethernet has, without its checksum.
const LENGTH: usize = 60;

#[repr(transparent)]
struct Global(UnsafeCell<u32>);

// SAFETY: a word that is read and written whole; two CPUs at the same time skip or repeat a frame.
unsafe impl Sync for Global {}

/// Number of frames less one; a power of two less one.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".rodata")]
static MASK: Global = Global(UnsafeCell::new(0));

/// The next frame.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".data")]
static NEXT: Global = Global(UnsafeCell::new(0));

/// A frame, in words that are copied whole; the last half word is not sent.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Frame([u32; 16]);

/// What is sent, in turns; the loader sets how many.
#[btf_map]
static FRAMES: Array<Frame, 1> = Array::new();

/// Copies the next frame over this one, and sends it.
#[xdp]
pub(crate) fn generate(ctx: XdpContext) -> u32 {
    // SAFETY: aligned words, see `Global`.
    let next = unsafe {
        let next = ptr::read_volatile(NEXT.0.get());
        ptr::write_volatile(NEXT.0.get(), next.wrapping_add(1));
        next & ptr::read_volatile(MASK.0.get())
    };
    let (start, end) = (ctx.data(), ctx.data_end());
    let Some(frame) = FRAMES.get(next) else {
        return XDP_DROP;
    };
    if start + LENGTH > end {
        return XDP_DROP;
    }
    let mut word = 0;
    while word < LENGTH / 4 {
        // SAFETY: within the frame, as just checked, and within the 16 words.
        unsafe {
            let value = ptr::read(frame.0.as_ptr().add(word));
            ptr::write_unaligned((start as *mut u32).add(word), value);
        }
        word += 1;
    }
    XDP_TX
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
