//! The clock of deadlines: the kernel's time since boot, which counts on in suspend and which nobody can set.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use nix::time::{ClockId, clock_gettime};

/// Time since boot.
///
/// # Errors
/// If the kernel has no such clock.
pub fn now() -> anyhow::Result<Duration> {
    let time =
        clock_gettime(ClockId::CLOCK_BOOTTIME).context("the kernel has no boot-time clock")?;
    Ok(Duration::from(time))
}

/// The deadline that is `within` from now, in nanoseconds since boot.
///
/// # Errors
/// See [`now`], and if it is centuries away.
pub fn after(within: Duration) -> anyhow::Result<u64> {
    let at = now()?
        .checked_add(within)
        .and_then(|at| u64::try_from(at.as_nanos()).ok());
    at.context("a deadline that is too far away")
}

/// How long until a deadline; `None` if it has passed.
///
/// # Errors
/// See [`now`].
pub fn left(deadline: u64) -> anyhow::Result<Option<Duration>> {
    let left = Duration::from_nanos(deadline).checked_sub(now()?);
    Ok(left.filter(|left| !left.is_zero()))
}

/// A deadline in seconds since the Unix epoch, by the wall clock as it is set now.
///
/// # Errors
/// See [`now`].
pub fn wall(deadline: u64) -> anyhow::Result<u64> {
    let now = now()?;
    let deadline = Duration::from_nanos(deadline);
    let wall = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let then = (wall + deadline).saturating_sub(now);
    Ok(then.as_secs())
}
