//! Frames in the kernel, copied window by window: what cannot be read in place, and what is too rare for speed.
#![expect(unsafe_code, reason = "the kernel fills the windows")]

use core::mem::MaybeUninit;
use core::ptr;

use portguard_common::config::Config;
use portguard_common::frame::{Frame, HEADER_SPAN, Window};

use crate::barrier;
use crate::hook::Hook;
use crate::options;

/// The first [`HEADER_SPAN`] bytes of a frame.
#[derive(Clone, Copy)]
pub(crate) struct Copied<H> {
    hook: H,
    /// How much of the frame windows may reach into.
    length: usize,
    whole: usize,
}

impl<H: Hook> Copied<H> {
    /// The frame at hand.
    #[inline(always)]
    pub(crate) fn new(hook: H, config: &Config) -> Self {
        let whole = hook.whole(config);
        let length = if whole > HEADER_SPAN {
            HEADER_SPAN
        } else {
            whole
        };
        Self {
            hook,
            length,
            whole,
        }
    }
}

impl<H: Hook> Frame for Copied<H> {
    type Window<const N: usize> = Bytes<N>;

    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "bounded by HEADER_SPAN")]
    fn window<const N: usize>(&self, offset: usize) -> Option<Bytes<N>> {
        // Forgotten, so that what was read before makes no states of its own.
        if offset + N > self.barrier_var(self.length) {
            return None;
        }
        let mut bytes = MaybeUninit::<Aligned<N>>::uninit();
        if !self
            .hook
            .copy(offset as u32, bytes.as_mut_ptr().cast(), N as u32)
        {
            return None;
        }
        // SAFETY: the kernel has written all of it.
        Some(Bytes(unsafe { bytes.assume_init() }))
    }

    #[inline(always)]
    fn linear(&self) -> usize {
        self.length
    }

    #[inline(always)]
    fn holds(&self, length: usize) -> bool {
        // Longer than what windows reach into: there, for the length check, but no header is looked for there.
        length <= self.whole
    }

    #[inline(always)]
    fn is_segmented(&self) -> bool {
        self.hook.is_segmented()
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

/// The verifier wants aligned reads of the stack; all numbers in headers are aligned within their header.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Aligned<const N: usize>([u8; N]);

/// `N` copied bytes.
#[derive(Clone, Copy)]
pub(crate) struct Bytes<const N: usize>(Aligned<N>);

/// Reads a number of a window.
macro_rules! read {
    ($window:expr, $offset:expr, $size:expr, $type:ty) => {{
        const {
            assert!(
                $offset + $size <= N && $offset % $size == 0,
                "read outside the window"
            )
        };
        // SAFETY: within the window, and aligned.
        unsafe {
            ptr::read(
                (&raw const $window.0.0)
                    .cast::<u8>()
                    .add($offset)
                    .cast::<$type>(),
            )
        }
    }};
}

impl<const N: usize> Window for Bytes<N> {
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
