//! What connection tracking has of a packet that leaves. The kernel keeps it with the packet, in a field of its own.
#![expect(
    unsafe_code,
    reason = "a global that the loader fills, and the name of a function"
)]

use core::cell::UnsafeCell;
use core::ptr;

use aya_ebpf::bindings::__sk_buff;
use portguard_common::track::tracked;

use crate::owner;

/// Where the kernel's `struct sk_buff` has it, in octets; 0 = not known.
#[repr(transparent)]
struct Place(UnsafeCell<u32>);

// SAFETY: nobody writes while programs run: the loader fills it before.
unsafe impl Sync for Place {}

#[used]
#[unsafe(no_mangle)]
#[unsafe(link_section = ".rodata.tracked")]
static TRACKED: Place = Place(UnsafeCell::new(0));

/// The bits of that field that say of which end a packet is; the rest is the address of the connection.
const INFO: u64 = 7;
/// From here on it is of the end that answers.
const ANSWERS: u64 = 3;
/// From here on the connection is none.
const NONE: u64 = 5;

/// What it has: see [`tracked`]. A global function, which the verifier sees once.
#[unsafe(export_name = "tracked")]
#[inline(never)]
pub(crate) extern "C" fn of(ctx: *mut __sk_buff) -> u32 {
    // SAFETY: an aligned, initialised word. Volatile, since the loader writes it.
    let at = unsafe { ptr::read_volatile(TRACKED.0.get()) };
    if at == 0 {
        return tracked::NO;
    }
    // What a program is called with is the packet itself.
    let mut field = [0; 8];
    if !owner::read(ctx.cast(), at, &mut field) {
        return tracked::NO;
    }
    let field = u64::from_le_bytes(field);
    match field & INFO {
        info if field & !INFO == 0 || info >= NONE => tracked::NO,
        info if info >= ANSWERS => tracked::ANSWERS,
        _ => tracked::ASKS,
    }
}
