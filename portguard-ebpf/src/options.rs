//! IPv4 options, word by word.
#![expect(unsafe_code, reason = "the name of a global function")]

use portguard_common::frame::walk_word;

use crate::barrier::barrier_var;

/// See [`portguard_common::frame::Frame::walk`]. A global function, which the verifier sees once.
#[unsafe(export_name = "option_word")]
#[inline(never)]
pub(crate) extern "C" fn walk(walk: u64, octets: u32) -> u64 {
    walk_word(walk, octets, barrier_var)
}
