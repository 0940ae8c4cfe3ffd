//! What routes keep for this host itself, as the loader found it: judged however the kernel would route it.
#![expect(unsafe_code, reason = "linker attributes")]

use portguard_common::abi::local::{PREFIXES, WORDS};

use crate::frozen::Frozen;

/// How many, and of each the address and the mask, high and low halves. The loader fills it.
#[used]
#[unsafe(no_mangle)]
#[unsafe(link_section = ".rodata.local")]
static LOCAL: Frozen<[u64; WORDS]> = Frozen::new([0; WORDS]);

/// Whether an address is one of these.
#[inline(always)]
pub(crate) fn has(high: u64, low: u64) -> bool {
    let count = LOCAL.at(0);
    for nth in 0..PREFIXES {
        if nth as u64 >= count {
            break;
        }
        let word = |index: usize| LOCAL.at(1 + 4 * nth + index);
        if (high & word(2)) == word(0) && (low & word(3)) == word(1) {
            return true;
        }
    }
    false
}
