//! Where a guard is found again: pins in bpffs, the lock, and what a generation says of itself.

pub mod bpffs;
pub mod guarded;
pub mod hidden;
pub mod identity;
pub mod meta;
pub mod mounts;
pub mod moved;
pub mod namespaces;
pub mod pages;
pub(crate) mod programs;

/// Waits for the lock of this network namespace, where all guards of it can be seen.
///
/// # Errors
/// If pins are hidden from this process, there is no bpffs and none can be mounted, no privilege to write to it, or another
/// tool does not end.
pub fn lock() -> crate::Result<bpffs::Lock> {
    hidden::check_before_changes()?;
    bpffs::lock()
}
