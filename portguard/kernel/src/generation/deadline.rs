//! The clock of deadlines: the kernel's time since boot, which counts on in suspend and which nobody can set.

use std::fs;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::time::{ClockId, clock_gettime};

use crate::error::Context as _;

/// Time since boot, as programs in the kernel have it: without the offset of a time namespace that this process may be in.
///
/// # Errors
/// If the kernel has no such clock.
pub fn now() -> crate::Result<Duration> {
    let time =
        clock_gettime(ClockId::CLOCK_BOOTTIME).context("the kernel has no boot-time clock")?;
    let offset = fs::read_to_string("/proc/self/timens_offsets")
        .ok()
        .and_then(|text| boot_offset(&text))
        .unwrap_or_default();
    let nanoseconds = i128::try_from(Duration::from(time).as_nanos())? - offset;
    Ok(Duration::from_nanos(
        u64::try_from(nanoseconds).unwrap_or_default(),
    ))
}

/// The nanoseconds that a time namespace adds to the boot-time clock; see `time_namespaces(7)`.
fn boot_offset(offsets: &str) -> Option<i128> {
    let mut words = offsets
        .lines()
        .find_map(|line| line.strip_prefix("boottime"))?
        .split_whitespace()
        .map(str::parse::<i128>);
    let (seconds, nanoseconds) = (words.next()?.ok()?, words.next()?.ok()?);
    Some(seconds * 1_000_000_000 + nanoseconds)
}

/// The deadline that is `within` from now, in nanoseconds since boot.
///
/// # Errors
/// See [`now`], and if it is centuries away.
pub fn after(within: Duration) -> crate::Result<u64> {
    let at = now()?
        .checked_add(within)
        .and_then(|at| u64::try_from(at.as_nanos()).ok());
    at.context("a deadline that is too far away")
}

/// How long until a deadline; `None` if it has passed.
///
/// # Errors
/// See [`now`].
pub fn left(deadline: u64) -> crate::Result<Option<Duration>> {
    let left = Duration::from_nanos(deadline).checked_sub(now()?);
    Ok(left.filter(|left| !left.is_zero()))
}

/// A deadline in seconds since the Unix epoch, by the wall clock as it is set now.
///
/// # Errors
/// See [`now`].
pub fn wall(deadline: u64) -> crate::Result<u64> {
    let now = now()?;
    let deadline = Duration::from_nanos(deadline);
    let wall = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let then = (wall + deadline).saturating_sub(now);
    Ok(then.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_offset_of_a_time_namespace_is_read_whatever_its_sign() {
        let text = "monotonic           0         0\nboottime      -86400 500000000\n";
        assert_eq!(boot_offset(text), Some(-86_399_500_000_000));
        assert_eq!(boot_offset("boottime 7 0\n"), Some(7_000_000_000));
        assert_eq!(boot_offset(""), None);
    }
}
