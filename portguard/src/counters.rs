//! Counters: per-CPU maps summed, told in the words of the policy, and counted from a moment that the operator chose.

mod baseline;
mod details;
mod peers;
mod report;
mod snapshot;

pub use baseline::{Baseline, Reset, Resets};
pub use details::details;
pub use report::{Count, Packets, PeerCount, PortCount, ReasonCount, Report, RowCount};
pub use snapshot::{Keyed, Snapshot};
