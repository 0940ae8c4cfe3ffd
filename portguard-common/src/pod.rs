//! Marks the shared structs as plain data for aya.
#![expect(
    unsafe_code,
    reason = "`aya::Pod` is a marker that only an `unsafe impl` can give"
)]

use crate::abi::{
    Block, Cells, Config, Counter, Ending, Event, Host6, Net6, Set, Step, TalkerSet, Violations,
};

// SAFETY: `repr(C)`, integers only, no padding: sizes are asserted in `abi`.
unsafe impl aya::Pod for Counter {}
// SAFETY: as above.
unsafe impl aya::Pod for Violations {}
// SAFETY: as above.
unsafe impl aya::Pod for Cells {}
// SAFETY: as above.
unsafe impl aya::Pod for Block {}
// SAFETY: as above.
unsafe impl aya::Pod for Set {}
// SAFETY: as above.
unsafe impl aya::Pod for Host6 {}
// SAFETY: as above.
unsafe impl aya::Pod for Net6 {}
// SAFETY: as above.
unsafe impl aya::Pod for Step {}
// SAFETY: as above.
unsafe impl aya::Pod for Config {}
// SAFETY: as above.
unsafe impl aya::Pod for Event {}
// SAFETY: as above.
unsafe impl aya::Pod for TalkerSet {}
// SAFETY: as above.
unsafe impl aya::Pod for Ending {}
