//! Frames the way the kernel's program has them: a linear part, the rest out of line.

use portguard_common::config::Config;
use portguard_common::frame::{Frame, HEADER_SPAN};
use portguard_common::packet::{Malformed, Packet, Shape};
use portguard_common::parse::{self, Nonlinear};

/// How a frame was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Path {
    /// All of it lies in the linear part.
    Linear,
    /// Part of it does not, but all headers do.
    Partly,
    /// It was copied.
    Copied,
}

#[derive(Debug, Clone)]
struct Pieces<'a> {
    readable: &'a [u8],
    whole: usize,
}

impl Frame for Pieces<'_> {
    type Window<const N: usize> = [u8; N];

    fn window<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.readable.get(offset..offset + N)?.try_into().ok()
    }

    fn linear(&self) -> usize {
        self.readable.len()
    }

    fn holds(&self, length: usize) -> bool {
        self.whole >= length
    }
}

/// Parses a frame with this many bytes in place, the way the program does: plain frames where they lie, others as a copy
/// of their first bytes if frames may lie in pieces at all.
pub(super) fn parse(frame: &[u8], linear: usize, config: &Config) -> (Packet, Path) {
    let read = |frame: &mut Pieces<'_>| {
        told(if config.raw_ip == 0 {
            parse::parse(frame)
        } else {
            parse::parse_ip(frame)
        })
    };
    // Without a link header, and where a route is asked for, there is no fast path.
    let is_fast = config.raw_ip == 0 && config.scoped == 0;
    let mut direct = Pieces {
        readable: &frame[..linear],
        whole: linear,
    };
    if (is_fast && parse::parse_plain(&direct, 0).is_some()) || config.multi_buffer == 0 {
        let path = if linear < frame.len() {
            Path::Partly
        } else {
            Path::Linear
        };
        return (read(&mut direct), path);
    }
    let mut copied = Pieces {
        readable: &frame[..frame.len().min(HEADER_SPAN)],
        whole: frame.len(),
    };
    (read(&mut copied), Path::Copied)
}

/// What cannot even be copied is malformed.
fn told(parsed: Result<Packet, Nonlinear>) -> Packet {
    parsed.unwrap_or_else(|Nonlinear| {
        let mut packet = Packet::new(0);
        packet.shape = Shape::Malformed(Malformed::Truncated);
        packet
    })
}
