//! Numbers that verifiers know nothing of.
#![expect(unsafe_code, reason = "reads a global that nothing writes")]

use core::cell::UnsafeCell;
use core::ptr;

/// A word that nobody writes.
#[repr(transparent)]
struct Zero(UnsafeCell<usize>);

// SAFETY: nobody writes it.
unsafe impl Sync for Zero {}

/// A zero that neither the compiler nor the verifier knows to be one: not frozen, and read anew each time.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".data.zero")]
static ZERO: Zero = Zero(UnsafeCell::new(0));

/// See [`portguard_common::frame::Frame::barrier_var`].
#[inline(always)]
pub(crate) fn zero() -> usize {
    // SAFETY: an aligned, initialised word that nobody writes.
    unsafe { ptr::read_volatile(ZERO.0.get()) }
}

/// A number that the verifier knows nothing of.
#[inline(always)]
pub(crate) fn barrier_var(number: u64) -> u64 {
    number.wrapping_add(zero() as u64)
}
