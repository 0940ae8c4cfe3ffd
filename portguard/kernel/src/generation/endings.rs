//! Grants that end by themselves. The kernel ends them at their time, which it reckons from its boot-time clock and a word
//! that says how far the time of day is from that: set at load, and set anew by the agent when somebody sets the clock.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aya::maps::{Array, Map, MapData};
use portguard_common::abi::control;
use serde::Serialize;

use super::deadline;
use crate::object::CONTROL;
use crate::pins::bpffs::{self, Layout};
use crate::pins::meta::Meta;
use portguard_policy::human::seconds;
use portguard_policy::policy::Policy;

/// A difference that is no more than the time that it takes to read two clocks.
const NEAR: Duration = Duration::from_millis(50);

/// When a row ends, in whole or in part.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct RowEnding {
    /// From then on it opens nothing; seconds since the Unix epoch.
    #[serde(serialize_with = "seconds::serialize")]
    pub at: u64,
    /// Its id.
    pub row: String,
    /// Whether that has passed.
    pub is_over: bool,
}

/// Seconds since the Unix epoch.
pub(crate) fn wall_clock() -> u64 {
    since_epoch().as_secs()
}

fn since_epoch() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}

/// See [`control::WALL`].
///
/// # Errors
/// If there is no boot-time clock.
pub(crate) fn wall_offset() -> crate::Result<u64> {
    let offset = since_epoch().saturating_sub(deadline::now()?);
    Ok(u64::try_from(offset.as_nanos()).unwrap_or(u64::MAX))
}

/// The rows of a policy that end, and whether they have.
pub(crate) fn of(policy: &Policy, now: u64) -> Vec<RowEnding> {
    let mut endings: Vec<RowEnding> = policy
        .ending()
        .map(|(grant, at)| RowEnding {
            at,
            row: grant.row.clone(),
            is_over: at <= now,
        })
        .collect();
    endings.sort();
    endings.dedup();
    endings
}

/// Tells the generations of this network namespace how the clock is set now. Says of how many it had been set.
///
/// # Errors
/// If there is no boot-time clock.
pub fn follow_clock() -> crate::Result<usize> {
    let mut count = 0;
    for layout in bpffs::layouts_here() {
        for number in layout.generations() {
            if let Ok(meta) = Meta::read(&layout.generation(number).join("meta")) {
                count += usize::from(follow_clock_of(&layout, &meta)?);
            }
        }
    }
    Ok(count)
}

/// As [`follow_clock`], of one generation. Says whether the clock had been set.
///
/// # Errors
/// If there is no boot-time clock.
pub(crate) fn follow_clock_of(layout: &Layout, meta: &Meta) -> crate::Result<bool> {
    if meta.policy.ending().next().is_none() {
        return Ok(false);
    }
    Ok(set(layout, meta.number, wall_offset()?).unwrap_or(false))
}

/// Whether the word of a generation had to be written; nothing where that cannot be.
fn set(layout: &Layout, number: u64, offset: u64) -> Option<bool> {
    let map = MapData::from_pin(layout.generation(number).join(CONTROL)).ok()?;
    let mut map: Array<MapData, u64> = Map::Array(map).try_into().ok()?;
    let there = map.get(&control::WALL, 0).ok()?;
    if Duration::from_nanos(there.abs_diff(offset)) < NEAR {
        return Some(false);
    }
    map.set(control::WALL, offset, 0).ok()?;
    Some(true)
}
