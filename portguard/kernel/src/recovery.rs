//! What is put right before anything else changes: interrupted swaps, interfaces that came back, pins of other versions.

pub mod reattach;
pub mod reconcile;
pub mod swaps;
