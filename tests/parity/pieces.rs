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
    /// See [`Frame::linear`].
    length: usize,
    whole: usize,
}

impl Frame for Pieces<'_> {
    type Window<const N: usize> = [u8; N];

    fn window<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.readable.get(offset..offset + N)?.try_into().ok()
    }

    fn linear(&self) -> usize {
        self.length
    }

    fn holds(&self, length: usize) -> bool {
        self.whole >= length
    }
}

/// Parses a frame with this many bytes in place, the way the program does: where it lies if that is enough, else as a copy
/// of its first bytes if frames may lie in pieces at all.
pub(super) fn parse(frame: &[u8], linear: usize, config: &Config) -> (Packet, Path) {
    let read = |frame: &mut Pieces<'_>| {
        if config.raw_ip == 0 {
            parse::parse(frame)
        } else {
            parse::parse_ip(frame)
        }
    };
    // Without a link header, and where a route is asked for, there is no fast path.
    let is_fast = config.raw_ip == 0 && config.scoped == 0;
    let mut direct = Pieces {
        readable: &frame[..linear],
        length: linear,
        whole: linear,
    };
    let path = if linear < frame.len() {
        Path::Partly
    } else {
        Path::Linear
    };
    if (is_fast && parse::parse_plain(&direct, 0).is_some()) || config.multi_buffer == 0 {
        return (or_malformed(read(&mut direct)), path);
    }
    direct.length = frame.len();
    direct.whole = frame.len();
    if let Ok(packet) = read(&mut direct) {
        return (packet, path);
    }
    let length = frame.len().min(HEADER_SPAN);
    let mut copied = Pieces {
        readable: &frame[..length],
        length,
        whole: frame.len(),
    };
    (or_malformed(read(&mut copied)), Path::Copied)
}

/// What cannot even be copied is malformed.
fn or_malformed(parsed: Result<Packet, Nonlinear>) -> Packet {
    parsed.unwrap_or_else(|Nonlinear| {
        let mut packet = Packet::new(0);
        packet.shape = Shape::Malformed(Malformed::Truncated);
        packet
    })
}
