//! What becomes of a conversation by what a packet that leaves says.

use super::cell::{Class, Lifetimes, age, is_live};

/// What a packet that leaves says about its conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Said {
    /// TCP: asks to open it.
    Opens,
    /// TCP: goes on with it.
    Speaks,
    /// TCP: closes this end.
    Closes,
    /// TCP: refuses, or breaks off.
    Resets,
    /// Has no handshake: whoever speaks first opens.
    Datagram,
}

/// What becomes of the conversation of a packet that leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Nothing: it is known and fresh, or is no conversation of the host's.
    Same,
    /// The cell that it has is written anew, with this class.
    Renew(Class),
    /// It is not known. With this class it begins, if nothing speaks against that.
    Begin(Class),
}

/// Decides on that. `own` is the cell that it has.
#[inline(always)]
pub fn next(
    own: Option<u64>,
    said: Said,
    space: u32,
    lifetimes: Lifetimes,
    now: impl FnOnce() -> u64,
) -> Next {
    let Some(cell) = own else {
        return match said {
            Said::Opens => Next::Begin(Class::Opening),
            Said::Datagram => Next::Begin(class_of(space)),
            Said::Speaks | Said::Closes | Said::Resets => Next::Same,
        };
    };
    let before = Class::of(cell);
    if matches!(before, Class::Socket) {
        return Next::Same;
    }
    let now = now();
    let is_over = !is_live(cell, lifetimes, || now);
    let class = match said {
        Said::Datagram if is_over => return Next::Begin(class_of(space)),
        Said::Datagram => before,
        Said::Opens => Class::Opening,
        // It is the host's own, however long it was quiet: who began does not change.
        Said::Speaks if matches!(before, Class::Packets) => before,
        _ if is_over => return Next::Same,
        Said::Speaks if matches!(before, Class::Opening) => Class::Packets,
        // What it still says was known when it closed: whoever has the same ports next is somebody else.
        _ if matches!(before, Class::Closing) => return Next::Same,
        Said::Speaks => before,
        Said::Closes => Class::HalfClosed,
        Said::Resets => Class::Closing,
    };
    if class as u8 == before as u8 && age(cell, now) == 0 {
        Next::Same
    } else {
        Next::Renew(class)
    }
}

/// The class of a conversation without handshake: SCTP is kept as long as TCP.
#[inline(always)]
const fn class_of(space: u32) -> Class {
    if space == 1 {
        Class::Datagrams
    } else {
        Class::Packets
    }
}
