//! Time as tests measure it.

use std::time::Duration;

/// CPU time of this thread: what else the machine does is not in it.
///
/// # Errors
/// If the kernel has no such clock.
pub fn thread_time() -> anyhow::Result<Duration> {
    let time = nix::time::clock_gettime(nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID)?;
    Ok(time.into())
}
