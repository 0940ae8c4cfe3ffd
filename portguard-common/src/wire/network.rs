//! What a network header leads to, and what stands in the way of reading on.

use crate::wire::frame::Frame;
use crate::wire::packet::{Malformed, Shape};

/// Headers that the judgement needs lie in the frame but cannot be read in place: copy them and parse the copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Nonlinear;

/// What a network header leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Network {
    /// A transport header.
    Payload(Payload),
    /// Nothing that has to be read.
    Done(Shape),
    /// See [`Nonlinear`].
    Nonlinear,
}

/// Where the transport header is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Payload {
    /// Where it starts.
    pub(crate) at: usize,
    /// Where the packet ends.
    pub(crate) end: usize,
    /// Whether that is all of it.
    pub(crate) whole: Whole,
}

/// Is this the whole packet, or only its first fragment?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Whole {
    /// Unfragmented, or an atomic fragment (RFC 6946).
    Yes,
    /// More fragments follow.
    First,
}

impl Whole {
    /// What it means that the packet ends within a header.
    #[inline(always)]
    pub(crate) const fn cut(self) -> Malformed {
        match self {
            Self::Yes => Malformed::Truncated,
            Self::First => Malformed::FirstFragment,
        }
    }
}

/// Whether a packet without a length is longer than the length could say: receive offload has merged segments to such a
/// packet (BIG TCP). No wire carries one, and the kernel takes it for as long as its frame.
#[inline(always)]
pub(crate) fn is_big<F: Frame + ?Sized>(frame: &F, at: usize, length: usize) -> bool {
    length == 0 && frame.holds(at + (1 << 16))
}

/// The end of what can be read: nothing there is malformed, something there must be copied.
#[inline(always)]
pub(crate) fn short<F: Frame + ?Sized>(frame: &F, end: usize) -> Network {
    if frame.holds(end) {
        Network::Nonlinear
    } else {
        Network::Done(Shape::Malformed(Malformed::Truncated))
    }
}
