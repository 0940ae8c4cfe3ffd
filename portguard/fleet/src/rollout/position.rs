//! How far a rollout is. It is not signed: it can only let a host do what the release and the host's own evidence let it do.
//! A rollback is another matter, since what is gone back to may admit more: the publishers sign it.

use std::time::{Duration, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::release::{Signatures, Target};

/// The end of the year 9999: later moments cannot be written.
pub(super) const MOST: u64 = 253_402_300_799;

/// The one document that everybody agrees on, changed by compare-and-swap only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// Of this release.
    pub serial: u64,
    /// What is going on.
    pub phase: Phase,
    /// The wave that is under way, from 0.
    pub wave: u32,
    /// How many hosts of it may enforce, in their turn.
    pub open: u32,
    /// Since when this wave is under way, in seconds since the epoch.
    pub since: u64,
    /// When all of the wave's hosts were done: the next begins some time after.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub done_at: Option<u64>,
    /// When somebody last said that it goes on after a pause or a halt: what hosts said before is of before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resumed_at: Option<u64>,
    /// Who changed it last.
    pub by: String,
    /// When.
    pub at: u64,
    /// Why.
    pub why: String,
    /// Signatures of [`rollback_order`], while hosts go back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<Signatures>,
}

/// What the publishers sign so that hosts go back: from which release of which fleet, and to which. It is good for nothing
/// else, and for nothing once there is another release.
pub fn rollback_order(fleet: &str, serial: u64, target: &Target) -> String {
    format!(
        "portguard rollback 1\nfleet {fleet}\nfrom {serial}\nto {} {}\n",
        target.serial, target.sha256
    )
}

/// What is going on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, strum::IntoStaticStr)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
pub enum Phase {
    /// Published; everybody audits, nobody may enforce yet.
    Auditing,
    /// A wave is under way.
    Running,
    /// Somebody paused it.
    Paused,
    /// Something went wrong: it goes on only when somebody says so.
    Halted,
    /// Hosts go back to the release that the manifest names.
    RollingBack,
    /// They are back.
    RolledBack,
    /// Given up: hosts stay as they are.
    Aborted,
    /// All waves are done.
    Done,
}

impl Phase {
    /// As scripts and people read it.
    pub fn name(self) -> &'static str {
        self.into()
    }

    /// Whether hosts are to go back: who comes late, too.
    pub fn is_back(self) -> bool {
        matches!(self, Self::RollingBack | Self::RolledBack)
    }
}

impl Position {
    /// Of a release that was just published.
    pub fn new(serial: u64, by: &str, now: u64, why: &str) -> Self {
        Self {
            serial,
            phase: Phase::Auditing,
            wave: 0,
            open: 0,
            since: now,
            done_at: None,
            resumed_at: None,
            by: by.to_owned(),
            at: now,
            why: why.to_owned(),
            order: None,
        }
    }

    /// Whether it lets a host enforce that has this turn in that wave.
    pub fn lets(&self, wave: u32, turn: u32) -> bool {
        match self.phase {
            Phase::Running => wave < self.wave || (wave == self.wave && turn < self.open),
            Phase::Done => true,
            Phase::Auditing
            | Phase::Paused
            | Phase::Halted
            | Phase::RollingBack
            | Phase::RolledBack
            | Phase::Aborted => false,
        }
    }
}

/// A host that is to stay as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// Why.
    pub because: String,
    /// Who said so.
    pub by: String,
    /// When, in seconds since the epoch.
    pub at: u64,
    /// When it ends by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<u64>,
}

impl Hold {
    /// Who said so, why, and until when, in one line.
    pub fn words(&self) -> String {
        let until = match self.until {
            Some(until) => {
                let until = UNIX_EPOCH + Duration::from_secs(until.min(MOST));
                format!(" (until {})", humantime::format_rfc3339_seconds(until))
            }
            None => String::new(),
        };
        format!("{}: {}{until}", self.by, self.because)
    }

    /// Whether it still holds.
    pub fn is_in_force(&self, now: u64) -> bool {
        self.until.is_none_or(|until| now < until)
    }
}
