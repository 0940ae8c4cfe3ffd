//! Frames in the kernel, read in place.
#![expect(
    unsafe_code,
    reason = "reads packet memory; each read stands behind its own bounds check"
)]

use core::ptr;

use portguard_common::config::Config;
use portguard_common::frame::{Frame, Window};

use crate::barrier;
use crate::hook::Hook;
use crate::options;

/// Packet memory between `start` and `end`, which the verifier knows as such.
#[derive(Clone, Copy)]
pub(crate) struct Direct<H> {
    hook: H,
    start: usize,
    end: usize,
    /// Length of the frame, as far as it is known.
    length: usize,
}

impl<H: Hook> Direct<H> {
    /// What can be read in place of the frame at hand.
    #[inline(always)]
    pub(crate) fn new(hook: H) -> Self {
        let (start, end) = hook.bounds();
        Self {
            hook,
            start,
            end,
            length: hook.length(end - start),
        }
    }

    /// The same, with the length of all of the frame: what cannot be read in place is known to be there.
    #[inline(always)]
    pub(crate) fn whole(hook: H, config: &Config) -> Self {
        let (start, end) = hook.bounds();
        Self {
            hook,
            start,
            end,
            length: hook.whole(config),
        }
    }

    /// Whether an Ethernet frame is for a group of its link, or for all of it: a network's broadcast address shows only there.
    #[inline(always)]
    pub(crate) fn is_for_many(self) -> bool {
        let destination = self.window::<6>(0);
        destination.is_some_and(|destination| destination.u8::<0>() & 1 != 0)
    }
}

impl<H: Hook> Frame for Direct<H> {
    type Window<const N: usize> = At<N>;

    #[inline(always)]
    fn window<const N: usize>(&self, offset: usize) -> Option<At<N>> {
        let start = self.start + offset;
        if start + N > self.end {
            None
        } else {
            Some(At(start as *const u8))
        }
    }

    #[inline(always)]
    fn linear(&self) -> usize {
        self.length
    }

    #[inline(always)]
    fn holds(&self, length: usize) -> bool {
        length <= self.length
    }

    #[inline(always)]
    fn is_segmented(&self) -> bool {
        self.hook.is_segmented()
    }

    #[inline(always)]
    fn renew(&mut self) {
        (self.start, self.end) = self.hook.bounds();
    }

    #[inline(always)]
    fn barrier_var(&self, number: usize) -> usize {
        number.wrapping_add(barrier::zero())
    }

    #[inline(always)]
    fn walk(&self, walk: u64, octets: u32) -> u64 {
        options::walk(walk, octets)
    }
}

/// `N` readable bytes.
#[derive(Clone, Copy)]
pub(crate) struct At<const N: usize>(*const u8);

/// Reads a number of packet memory. Alignment is not promised, and the machines that BPF runs on do not need it; saying
/// that it were aligned makes one load of what would be a load an octet.
macro_rules! read {
    ($window:expr, $offset:expr, $size:expr, $type:ty) => {{
        const { assert!($offset + $size <= N, "read outside the window") };
        // SAFETY: N bytes were checked when the window was made.
        unsafe { ptr::read($window.0.add($offset).cast::<$type>()) }
    }};
}

impl<const N: usize> Window for At<N> {
    #[inline(always)]
    fn u8<const O: usize>(&self) -> u8 {
        read!(self, O, 1, u8)
    }

    #[inline(always)]
    fn u16<const O: usize>(&self) -> u16 {
        u16::from_be(read!(self, O, 2, u16))
    }

    #[inline(always)]
    fn u32<const O: usize>(&self) -> u32 {
        u32::from_be(read!(self, O, 4, u32))
    }

    #[inline(always)]
    fn u64<const O: usize>(&self) -> u64 {
        u64::from_be(read!(self, O, 8, u64))
    }
}
