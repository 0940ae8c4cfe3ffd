//! The position of the rollout, as JSON and for people.

use portguard_fleet::rollout::Position;
use portguard_policy::human::{count, plain, time};
use serde::{Serialize, Serializer};

use crate::fold::{self, width};

/// What a position says.
#[derive(Debug, Serialize)]
pub(super) struct Said {
    serial: u64,
    phase: &'static str,
    wave: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    wave_name: Option<String>,
    open: u32,
    #[serde(serialize_with = "portguard_policy::human::seconds::serialize")]
    since: u64,
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "moment")]
    done_at: Option<u64>,
    by: String,
    #[serde(serialize_with = "portguard_policy::human::seconds::serialize")]
    at: u64,
    why: String,
    /// Keys that signed a rollback.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    signed_by: Vec<String>,
}

impl Said {
    /// `waves`: the names of the release's waves, as far as they are known.
    pub(super) fn of(position: &Position, waves: &[String]) -> Self {
        let order = position.order.iter();
        Self {
            serial: position.serial,
            phase: position.phase.name(),
            wave: position.wave.saturating_add(1),
            wave_name: named(position, waves).cloned(),
            open: position.open,
            since: position.since,
            done_at: position.done_at,
            by: position.by.clone(),
            at: position.at,
            why: position.why.clone(),
            signed_by: order
                .flat_map(|order| order.ids().map(str::to_owned))
                .collect(),
        }
    }
}

fn named<'a>(position: &Position, waves: &'a [String]) -> Option<&'a String> {
    waves.get(usize::try_from(position.wave).ok()?)
}

/// `wave canary, 2 hosts of it may enforce`.
pub(super) fn wave(position: &Position, waves: &[String]) -> String {
    let name = named(position, waves);
    let name = name.map_or_else(|| position.wave.saturating_add(1).to_string(), Clone::clone);
    let open = count(position.open.into(), "host");
    format!("wave {}, {open} of it may enforce", plain(&name))
}

/// What happened, who did it, and why, in one line.
pub(super) fn line(position: &Position, waves: &[String]) -> String {
    format!(
        "{}  release {} {}; {}; {}: {}",
        time(position.at),
        position.serial,
        position.phase.name(),
        wave(position, waves),
        plain(&position.by),
        plain(&position.why)
    )
}

/// As wide as the screen; what does not fit goes on below.
pub(super) fn folded(text: &str) -> String {
    fold::folded(text, width())
}

/// A moment that there may be.
#[expect(clippy::ref_option, reason = "what serde calls it with")]
pub(super) fn moment<S: Serializer>(seconds: &Option<u64>, to: S) -> Result<S::Ok, S::Error> {
    match seconds {
        Some(seconds) => portguard_policy::human::seconds::serialize(seconds, to),
        None => to.serialize_none(),
    }
}
