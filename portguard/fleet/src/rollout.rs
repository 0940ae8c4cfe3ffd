//! Who may enforce when. Everything here is pure: the same release, position, statuses and time give the same answer.

pub mod control;
mod position;
pub mod waves;

pub use position::{Hold, Phase, Position, rollback_order};
