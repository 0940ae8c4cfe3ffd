//! Bounded reads of a frame. The seam between packet memory in the kernel and a slice on the host.

use crate::wire::ipv4_options;

/// Headers are looked for in this many first bytes of a frame; eight of the largest IPv6 extension headers fit.
/// A chain that reaches further is malformed, on the host as in the kernel, whose verifier wants a bound.
pub const HEADER_SPAN: usize = 16_384;

/// Bytes of one frame, from the destination MAC address on.
pub trait Frame {
    /// `N` bytes that were checked to be there.
    type Window<const N: usize>: Window;

    /// A view of `N` bytes at `offset`, if they can be read in place.
    fn window<const N: usize>(&self, offset: usize) -> Option<Self::Window<N>>;

    /// Length of what can be read in place.
    fn linear(&self) -> usize;

    /// Whether the frame has at least `length` bytes, counting those that cannot be read in place.
    fn holds(&self, length: usize) -> bool;

    /// Whether the kernel will still cut this frame into several: the lengths in its IP header are then not those that
    /// leave the host, and may be zero.
    #[inline(always)]
    fn is_segmented(&self) -> bool {
        false
    }

    /// Starts anew: a verifier forgets how much of the frame was checked, so that states that differ only in it become one.
    #[inline(always)]
    fn renew(&mut self) {}

    /// The same frame, of which a verifier knows nothing yet, for a look at it much later: nothing has to be kept until then.
    #[inline(always)]
    #[must_use]
    fn again(&self) -> Self
    where
        Self: Clone,
    {
        let mut again = self.clone();
        again.renew();
        again
    }

    /// The same number, of which a verifier knows nothing any more: states that differ only in it become one.
    #[inline(always)]
    fn barrier_var(&self, number: usize) -> usize {
        number
    }

    /// Goes on with a walk through IPv4 options by a word of them. In the kernel a function of its own, which the verifier
    /// sees once.
    #[inline(always)]
    fn walk(&self, walk: u64, octets: u32) -> u64 {
        walk_word(walk, octets, |number| number)
    }
}

/// See [`Frame::walk`].
#[inline(always)]
pub fn walk_word(walk: u64, octets: u32, barrier_var: impl Fn(u64) -> u64) -> u64 {
    ipv4_options::walk_word(walk, octets, barrier_var)
}

/// Big-endian numbers at constant offsets of a window; `O` and the size of the number must lie within it.
pub trait Window {
    /// The octet at `O`.
    fn u8<const O: usize>(&self) -> u8;
    /// Two octets at `O`, in host order.
    fn u16<const O: usize>(&self) -> u16;
    /// Four octets at `O`, in host order.
    fn u32<const O: usize>(&self) -> u32;
    /// Eight octets at `O`, in host order.
    fn u64<const O: usize>(&self) -> u64;
}

impl Frame for &[u8] {
    type Window<const N: usize> = [u8; N];

    #[inline]
    fn window<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.get(offset..offset.checked_add(N)?)?.try_into().ok()
    }

    #[inline]
    fn linear(&self) -> usize {
        self.len()
    }

    #[inline]
    fn holds(&self, length: usize) -> bool {
        self.len() >= length
    }
}

impl<const N: usize> Window for [u8; N] {
    #[inline]
    fn u8<const O: usize>(&self) -> u8 {
        let [byte] = self.part::<O, 1>();
        byte
    }

    #[inline]
    fn u16<const O: usize>(&self) -> u16 {
        u16::from_be_bytes(self.part::<O, 2>())
    }

    #[inline]
    fn u32<const O: usize>(&self) -> u32 {
        u32::from_be_bytes(self.part::<O, 4>())
    }

    #[inline]
    fn u64<const O: usize>(&self) -> u64 {
        u64::from_be_bytes(self.part::<O, 8>())
    }
}

trait Part {
    fn part<const O: usize, const M: usize>(&self) -> [u8; M];
}

impl<const N: usize> Part for [u8; N] {
    #[inline]
    fn part<const O: usize, const M: usize>(&self) -> [u8; M] {
        const { assert!(O + M <= N, "read outside the window") };
        let mut out = [0; M];
        if let Some(bytes) = self.get(O..O + M) {
            out.copy_from_slice(bytes);
        }
        out
    }
}
