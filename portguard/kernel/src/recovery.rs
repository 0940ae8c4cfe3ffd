//! What is put right before anything else changes: interrupted swaps, interfaces that came back, pins of other versions.

pub mod journal;
pub mod mend;
pub mod migrate;
pub mod settle;
