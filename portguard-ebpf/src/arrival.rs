//! By which interface the packets of a TCP connection arrive: its socket remembers that of the last one.
#![expect(unsafe_code, reason = "a word that the loader writes")]

use core::cell::UnsafeCell;
use core::ffi::c_void;
use core::ptr;

use portguard_common::conntrack::Tuple;

use crate::owner;

/// Where the kernel's socket says so, in octets; 0 = not known.
#[repr(transparent)]
struct At(UnsafeCell<u32>);

// SAFETY: nobody writes while programs run: the loader fills it before.
unsafe impl Sync for At {}

#[used]
#[unsafe(no_mangle)]
#[unsafe(link_section = ".rodata.arrived")]
static ARRIVED: At = At(UnsafeCell::new(0));

/// Number of the helper `bpf_sk_lookup_tcp`.
const LOOKUP_TCP: usize = 84;

/// The index of the interface; 0 = there is no such connection, or it is not known.
#[inline(always)]
pub(crate) fn find(ctx: *mut c_void, tuple: &Tuple) -> u32 {
    owner::asked(tuple, || {
        owner::with_socket::<LOOKUP_TCP>(ctx, u32::from(tuple.local.v6), |socket| {
            // SAFETY: an aligned, initialised word. Volatile, since the loader writes it.
            let at = unsafe { ptr::read_volatile(ARRIVED.0.get()) };
            let mut index = [0; 4];
            if at == 0 || !owner::read(socket.cast(), at, &mut index) {
                return 0;
            }
            u32::from_ne_bytes(index)
        })
    })
}
