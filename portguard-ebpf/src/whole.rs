//! What functions of the slow path hand to each other: in memory of this CPU, which is no state for verifiers. So they walk
//! through each function, and not through one for each way through another.
#![expect(unsafe_code, reason = "a place in memory of this CPU")]

use aya_ebpf::btf_maps::PerCpuArray;
use aya_ebpf::macros::btf_map;
use portguard_common::packet::Packet;
use portguard_common::verdict::Verdict;

/// A frame with all that is known of it.
pub(crate) struct Whole {
    /// What was parsed.
    pub(crate) packet: Packet,
    /// What was judged.
    pub(crate) verdict: Verdict,
}

/// As words, since maps have no description of such types.
#[btf_map]
static WHOLE: PerCpuArray<[u64; WORDS], 1> = PerCpuArray::new();

/// Words of it.
const WORDS: usize = size_of::<Whole>().div_ceil(8);

impl Whole {
    /// A frame of which nothing is known yet. Word by word: a `memset` would be a loop of octets.
    #[inline(always)]
    pub(crate) fn fresh() -> Option<&'static mut Self> {
        let words = WHOLE.get_ptr_mut(0)?.cast::<u64>();
        for word in 0..WORDS {
            // SAFETY: within the element, as in `at_hand`.
            unsafe { words.add(word).write_volatile(0) };
        }
        Some(Self::at(words))
    }

    /// The frame at hand: what the functions before have written.
    #[inline(always)]
    pub(crate) fn at_hand() -> Option<&'static mut Self> {
        Some(Self::at(WHOLE.get_ptr_mut(0)?.cast()))
    }

    #[inline(always)]
    fn at(words: *mut u64) -> &'static mut Self {
        // SAFETY: memory that is large enough and aligned, of a live per-CPU element that no other program of this CPU runs
        // beside; each function asks for it once. Zeros are values of all that is in there, and what is there was written by
        // these functions.
        unsafe { &mut *words.cast::<Self>() }
    }
}
