//! Frames in the kernel: in place, or copied.
#![expect(
    unsafe_code,
    reason = "reads packet memory; each read stands behind its own bounds check"
)]

use core::ptr;

use aya_ebpf::helpers::generated::{bpf_xdp_get_buff_len, bpf_xdp_load_bytes};
use aya_ebpf::programs::XdpContext;
use portguard_common::frame::{Frame, HEADER_SPAN, Window};
use portguard_common::tables::Tables;

use crate::maps::{self, Maps};

/// Packet memory between `start` and `end`, which the verifier knows as such.
#[derive(Clone, Copy)]
pub(crate) struct Direct<'a> {
    ctx: &'a XdpContext,
    start: usize,
    end: usize,
    /// Whether frames may have parts out of line.
    multi_buffer: bool,
}

impl<'a> Direct<'a> {
    /// The linear part of the frame of an XDP program.
    #[inline(always)]
    pub(crate) fn of_xdp(ctx: &'a XdpContext, maps: &Maps) -> Self {
        let multi_buffer = maps.facts().multi_buffer != 0;
        Self {
            ctx,
            start: ctx.data(),
            end: ctx.data_end(),
            multi_buffer,
        }
    }
}

impl Frame for Direct<'_> {
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
        self.end - self.start
    }

    #[inline(always)]
    fn holds(&self, length: usize) -> bool {
        // SAFETY: the context is the one that the kernel gave to this program.
        self.multi_buffer && unsafe { bpf_xdp_get_buff_len(self.ctx.ctx) } >= length as u64
    }

    #[inline(always)]
    fn renew(&mut self) {
        // SAFETY: as above. Volatile, since the compiler would take the pointers that it already has.
        unsafe {
            self.start = ptr::read_volatile(&raw const (*self.ctx.ctx).data) as usize;
            self.end = ptr::read_volatile(&raw const (*self.ctx.ctx).data_end) as usize;
        }
    }

    #[inline(always)]
    fn forget(&self, number: usize) -> usize {
        number.wrapping_add(maps::zero())
    }
}

/// The first [`HEADER_SPAN`] bytes of a frame, copied to scratch memory of this CPU.
pub(crate) struct Copied {
    bytes: *const u8,
    length: usize,
    whole: u64,
}

impl Copied {
    /// Copies, if the kernel lets us.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "bounded by HEADER_SPAN")]
    pub(crate) fn of_xdp(ctx: &XdpContext) -> Option<Self> {
        let scratch = maps::scratch()?;
        // SAFETY: the context is the one that the kernel gave to this program.
        let whole = unsafe { bpf_xdp_get_buff_len(ctx.ctx) };
        let length = if whole > HEADER_SPAN as u64 {
            HEADER_SPAN
        } else {
            whole as usize
        };
        if length == 0 {
            return None;
        }
        // SAFETY: scratch holds HEADER_SPAN bytes, and length is at most that.
        if unsafe { bpf_xdp_load_bytes(ctx.ctx, 0, scratch.cast(), length as u32) } != 0 {
            return None;
        }
        Some(Self {
            bytes: scratch.cast_const(),
            length,
            whole,
        })
    }
}

impl Frame for Copied {
    type Window<const N: usize> = At<N>;

    #[inline(always)]
    fn window<const N: usize>(&self, offset: usize) -> Option<At<N>> {
        // Both bounds are needed: the first for what was copied, the second for what the verifier knows of the memory.
        if offset + N > self.forget(self.length) || offset > HEADER_SPAN {
            return None;
        }
        // SAFETY: scratch memory has HEADER_SPAN bytes and a margin above the largest window.
        Some(At(unsafe { self.bytes.add(offset) }))
    }

    #[inline(always)]
    fn linear(&self) -> usize {
        self.length
    }

    #[inline(always)]
    fn holds(&self, length: usize) -> bool {
        // Longer than what was copied: there, for the length check, but no header is looked for there.
        self.whole >= length as u64
    }

    #[inline(always)]
    fn forget(&self, number: usize) -> usize {
        number.wrapping_add(maps::zero())
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
