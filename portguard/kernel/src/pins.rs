//! Where a guard is found again: pins in bpffs, the lock, and what a generation says of itself.

pub mod bpffs;
pub mod guarded;
pub mod hidden;
pub mod identity;
pub mod meta;
pub mod mounts;
pub mod namespaces;
pub mod pages;
