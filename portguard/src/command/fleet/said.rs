//! The position of the rollout, as JSON.

use portguard_fleet::rollout::Position;
use serde::{Serialize, Serializer};

/// What a position says.
#[derive(Debug, Serialize)]
pub(super) struct Said {
    schema: u32,
    serial: u64,
    phase: &'static str,
    wave: u32,
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
    pub(super) fn of(position: &Position) -> Self {
        let order = position.order.iter();
        Self {
            schema: 1,
            serial: position.serial,
            phase: position.phase.name(),
            wave: position.wave + 1,
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

/// A moment that there may be.
#[expect(clippy::ref_option, reason = "what serde calls it with")]
pub(super) fn moment<S: Serializer>(seconds: &Option<u64>, to: S) -> Result<S::Ok, S::Error> {
    match seconds {
        Some(seconds) => portguard_policy::human::seconds::serialize(seconds, to),
        None => to.serialize_none(),
    }
}
