//! Waiting for hosts to be somewhere: until they are, or cannot come there any more. Pure.

use std::time::{Duration, Instant};

use portguard_fleet::rollout::{Phase, Position};
use portguard_fleet::status::{FAILED_SECONDS, State};
use serde::Serialize;

/// For how long a host must have failed: as the controller sees it.
const FAILED: Duration = Duration::from_secs(FAILED_SECONDS);

/// The way that a release goes on a host.
const WAY: [State; 7] = [
    State::Pending,
    State::Fetched,
    State::Verified,
    State::Audit,
    State::Ready,
    State::Enforcing,
    State::Confirmed,
];

/// How it ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Waited {
    /// The state that was waited for.
    r#for: &'static str,
    /// `reached`, `stuck` or `timeout`.
    result: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
}

impl Waited {
    pub(super) fn is_reached(&self) -> bool {
        self.result == "reached"
    }

    /// What to say of it.
    pub(super) fn complaint(&self) -> Option<String> {
        let why = self.why.as_ref()?;
        Some(format!("not all are {}: {why}", self.r#for))
    }
}

/// A state by its name.
pub(super) fn state(name: &str) -> Option<State> {
    State::ALL
        .iter()
        .copied()
        .find(|state| state.name() == name)
}

/// Waiting for one.
#[derive(Debug)]
pub(super) struct Wait {
    wanted: State,
    /// Since when some host has failed without a break.
    failed: Option<Instant>,
}

impl Wait {
    pub(super) fn new(wanted: State) -> Self {
        Self {
            wanted,
            failed: None,
        }
    }

    /// Where it ends, if it ends now.
    pub(super) fn judge<'a>(
        &mut self,
        hosts: impl Iterator<Item = (&'a str, State)>,
        position: &Position,
        is_late: bool,
        now: Instant,
    ) -> Option<Waited> {
        let missing: Vec<(&str, State)> =
            hosts.filter(|(_, state)| !self.is_there(*state)).collect();
        let ended = |result, why| {
            Some(Waited {
                r#for: self.wanted.name(),
                result,
                why,
            })
        };
        let Some((first, state)) = missing.first() else {
            return ended("reached", None);
        };
        let failed = missing.iter().find(|(_, state)| *state == State::Failed);
        let since = failed.map(|_| self.failed.unwrap_or(now));
        let stuck = self.stuck(&missing, position).or_else(|| {
            let (host, _) = failed.filter(|_| self.is_on_the_way())?;
            (now.duration_since(since?) >= FAILED).then(|| format!("{host} has failed"))
        });
        if stuck.is_some() {
            return ended("stuck", stuck);
        }
        if is_late {
            let why = format!(
                "the time is up, and {first} is {} ({} in all are not there)",
                state.name(),
                missing.len()
            );
            return ended("timeout", Some(why));
        }
        self.failed = since;
        None
    }

    fn is_on_the_way(&self) -> bool {
        WAY.contains(&self.wanted)
    }

    fn is_there(&self, state: State) -> bool {
        let place = |state| WAY.iter().position(|one| *one == state);
        match (place(self.wanted), place(state)) {
            (Some(wanted), Some(there)) => there >= wanted,
            _ => state == self.wanted,
        }
    }

    /// What does not come by waiting.
    fn stuck(&self, missing: &[(&str, State)], position: &Position) -> Option<String> {
        if !self.is_on_the_way() {
            return None;
        }
        if let Some((host, _)) = missing.iter().find(|(_, one)| *one == State::Reverted) {
            return Some(format!("{host} went back"));
        }
        if let [(host, _), ..] = missing
            && missing.iter().all(|(_, one)| *one == State::Held)
        {
            return Some(format!("{host} is held"));
        }
        let needs_a_turn = matches!(self.wanted, State::Enforcing | State::Confirmed);
        let stands =
            position.phase.is_back() || matches!(position.phase, Phase::Halted | Phase::Aborted);
        (needs_a_turn && stands).then(|| format!("the rollout is {}", position.phase.name()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(wanted: State, states: &[State], phase: Phase, is_late: bool) -> &'static str {
        let mut position = Position::new(1, "test", 0, "two hosts are in trouble");
        position.phase = phase;
        let hosts = states.iter().map(|state| ("h", *state));
        let ended = Wait::new(wanted).judge(hosts, &position, is_late, Instant::now());
        ended.map_or("waits", |ended| ended.result)
    }

    #[test]
    fn who_is_further_on_is_there() {
        for (index, wanted) in WAY.into_iter().enumerate() {
            for (place, state) in WAY.into_iter().enumerate() {
                let expected = if place >= index { "reached" } else { "waits" };
                let found = judge(wanted, &[state], Phase::Running, false);
                assert_eq!(found, expected, "{wanted:?} {state:?}");
            }
        }
        for wanted in [State::Failed, State::Held, State::Reverted, State::Silent] {
            assert_eq!(judge(wanted, &[wanted], Phase::Halted, false), "reached");
            let other = judge(wanted, &[State::Confirmed], Phase::Halted, false);
            assert_eq!(other, "waits");
        }
    }

    #[test]
    fn what_cannot_come_any_more_is_not_waited_for() {
        use State::{Audit, Confirmed, Failed, Held, Ready, Reverted, Silent};
        for (wanted, states, phase, expected) in [
            (Confirmed, [Confirmed, Reverted], Phase::Running, "stuck"),
            (Confirmed, [Confirmed, Held], Phase::Running, "stuck"),
            (Confirmed, [Ready, Held], Phase::Running, "waits"),
            (Confirmed, [Ready, Ready], Phase::Halted, "stuck"),
            (Confirmed, [Ready, Ready], Phase::Aborted, "stuck"),
            (Confirmed, [Ready, Ready], Phase::RollingBack, "stuck"),
            (Confirmed, [Ready, Ready], Phase::RolledBack, "stuck"),
            (Confirmed, [Ready, Ready], Phase::Paused, "waits"),
            (Ready, [Audit, Ready], Phase::Halted, "waits"),
            (Confirmed, [Silent, Ready], Phase::Running, "waits"),
            (Confirmed, [Failed, Ready], Phase::Running, "waits"),
        ] {
            let found = judge(wanted, &states, phase, false);
            assert_eq!(found, expected, "{wanted:?} {states:?} {phase:?}");
        }
        assert_eq!(judge(Ready, &[Audit], Phase::Running, true), "timeout");
    }

    #[test]
    fn a_failure_ends_it_once_it_lasts() {
        let position = Position::new(1, "test", 0, "");
        let mut wait = Wait::new(State::Confirmed);
        let begun = Instant::now();
        let mut at = |state, seconds| {
            let now = begun + Duration::from_secs(seconds);
            let hosts = [("h", state)].into_iter();
            wait.judge(hosts, &position, false, now)
                .map(|ended| ended.result)
        };
        assert_eq!(at(State::Failed, 0), None);
        assert_eq!(at(State::Failed, 44), None);
        assert_eq!(at(State::Audit, 46), None, "it tried again");
        assert_eq!(at(State::Failed, 50), None);
        assert_eq!(at(State::Failed, 95), Some("stuck"));
    }
}
