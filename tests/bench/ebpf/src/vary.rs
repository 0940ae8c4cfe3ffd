//! Rewrites a frame in place, each time in another way, and hands it to the program under test by a tail call: a test
//! run repeats one frame, and a table that is asked the same thing again answers out of the cache.
//!
//! What this costs itself is in the baseline, too: there the tail call ends at a program that does nothing.
#![no_std]
#![no_main]
#![expect(
    clippy::needless_pass_by_value,
    unsafe_code,
    reason = "linker attributes, packet memory, and globals that the loader fills"
)]

use core::cell::UnsafeCell;
use core::ptr;

use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::TC_ACT_SHOT;
use aya_ebpf::bindings::xdp_action::XDP_ABORTED;
use aya_ebpf::btf_maps::{Array, ProgramArray};
use aya_ebpf::macros::{btf_map, classifier, xdp};
use aya_ebpf::programs::{TcContext, XdpContext};

/// A global that only the loader writes, or only this program.
#[repr(transparent)]
struct Global<T>(UnsafeCell<T>);

// SAFETY: words that are read and written whole; two CPUs that write at the same time skip or repeat a variation.
unsafe impl<T> Sync for Global<T> {}

impl<T: Copy> Global<T> {
    #[inline(always)]
    fn get(&self) -> T {
        // SAFETY: initialised by the loader. Volatile, since the compiler must not take the initial value for it.
        unsafe { ptr::read_volatile(self.0.get()) }
    }
}

/// Number of variations less one; a power of two less one.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".rodata")]
static MASK: Global<u32> = Global(UnsafeCell::new(0));

/// Where in the frame the varied address is; 0 = it is not varied.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".rodata")]
static ADDRESS_AT: Global<u32> = Global(UnsafeCell::new(0));

/// 1 = that address is IPv6.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".rodata")]
static V6: Global<u32> = Global(UnsafeCell::new(0));

/// Where in the frame the two ports are; 0 = they are not varied.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".rodata")]
static PORTS_AT: Global<u32> = Global(UnsafeCell::new(0));

/// 1 = read other memory first, as much as the first cache holds.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".rodata")]
static COLD: Global<u32> = Global(UnsafeCell::new(0));

/// The next variation.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".data")]
static NEXT: Global<u32> = Global(UnsafeCell::new(0));

/// One way to rewrite a frame; all in network order.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Variation {
    /// An IPv6 address; of an IPv4 one, the first word's first half.
    address: [u64; 2],
    /// Source and destination port.
    ports: u32,
    reserved: u32,
}

/// The ways; the loader sets how many.
#[btf_map]
static WAYS: Array<Variation, 1> = Array::new();

/// Lines of the first cache.
const LINES: usize = 512;

/// Memory that is nobody's.
#[btf_map]
static OTHER: Array<[u64; LINES * 8], 1> = Array::new();

/// The program under test.
#[btf_map]
static PROGRAM: ProgramArray<1> = ProgramArray::new();

/// See [`PROGRAM`]: a map is tied to one kind of program.
#[btf_map]
static PROGRAM_TC: ProgramArray<1> = ProgramArray::new();

/// For what is received.
#[xdp(frags)]
pub(crate) fn vary_xdp(ctx: XdpContext) -> u32 {
    vary(ctx.data(), ctx.data_end());
    go_on(&ctx, &PROGRAM);
    XDP_ABORTED
}

/// For what is sent.
#[classifier]
pub(crate) fn vary_tc(ctx: TcContext) -> i32 {
    vary(ctx.data(), ctx.data_end());
    go_on(&ctx, &PROGRAM_TC);
    TC_ACT_SHOT
}

#[inline(always)]
fn go_on<C: EbpfContext>(ctx: &C, program: &ProgramArray<1>) {
    // SAFETY: nothing here waits to be dropped. It comes back only if no program is there.
    unsafe { program.tail_call(ctx, 0) };
}

#[inline(always)]
fn vary(start: usize, end: usize) {
    if COLD.get() != 0 {
        cool();
    }
    let next = NEXT.get();
    // SAFETY: an aligned word, see `Global`.
    unsafe { ptr::write_volatile(NEXT.0.get(), next.wrapping_add(1)) };
    let Some(way) = WAYS.get(next & MASK.get()) else {
        return;
    };
    let at = ADDRESS_AT.get();
    if at != 0 {
        if V6.get() != 0 {
            write(start, at, end, way.address);
        } else {
            #[expect(
                clippy::cast_possible_truncation,
                reason = "takes the half that is used"
            )]
            write(start, at, end, way.address[0] as u32);
        }
    }
    let at = PORTS_AT.get();
    if at != 0 {
        write(start, at, end, way.ports);
    }
}

/// Fills the first cache with other memory.
#[inline(always)]
fn cool() {
    let Some(other) = OTHER.get_ptr(0) else {
        return;
    };
    let mut line = 0;
    while line < LINES {
        // SAFETY: within the element: eight words a line. Volatile, so that it is read at all.
        unsafe { ptr::read_volatile(other.cast::<u64>().add(line * 8)) };
        line += 1;
    }
}

#[inline(always)]
fn write<T>(start: usize, offset: u32, end: usize, value: T) {
    let at = start + offset as usize;
    if at + size_of::<T>() <= end {
        // SAFETY: within the frame, as just checked; BPF writes at any alignment. Said to be unaligned, it would be a store an
        // octet, and a processor waits until all of them have left before it loads more than an octet of them: some
        // nanoseconds that no frame of a card's takes.
        unsafe { ptr::write(at as *mut T, value) };
    }
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
