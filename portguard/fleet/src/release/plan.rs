//! The plan of a rollout: waves, and the gate before each.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The most waves of a plan.
const MOST: usize = 64;

/// Waves in order, and what must hold before a host enforces.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// At least one.
    pub wave: Vec<Wave>,
    /// The same for all of them.
    #[serde(default)]
    pub gate: Gate,
}

/// Hosts that begin to enforce together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wave {
    /// Unique.
    pub name: String,
    /// Which hosts, of those that no earlier wave has.
    pub hosts: Selector,
    /// How many of them, spread over zones.
    #[serde(default = "all")]
    pub percent: u8,
    /// How long after the wave before is done.
    #[serde(default, with = "span")]
    pub after: u64,
    /// How many may be enforcing and not yet confirmed at a time, in percent of the wave; at least one host.
    #[serde(default = "all")]
    pub at_once: u8,
}

/// What must hold before a host enforces. The controller and the host both judge it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gate {
    /// For how long the host must have watched.
    #[serde(default = "three_days", with = "span")]
    pub audit: u64,
    /// How many packets it must have judged.
    #[serde(default)]
    pub packets: u64,
    /// How many flows enforcing may drop that nobody accepted.
    #[serde(default)]
    pub would_drop: u64,
    /// Flows that enforcing may drop, as `portguard promote --accept` takes them: `tcp/8243=10.66.0.7`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub accept: Vec<String>,
    /// How many hosts may fail, revert or fall silent before the rollout halts.
    #[serde(default)]
    pub max_failed: u64,
    /// How many hosts, in percent, must report before a wave begins.
    #[serde(default = "nearly_all")]
    pub reporting: u8,
    /// How long a host has to confirm what it enforces, before its kernel goes back.
    #[serde(default = "two_minutes", with = "span")]
    pub confirm: u64,
    /// What a host that already enforces does with a release that closes what is open now.
    #[serde(default)]
    pub closing: Closing,
}

/// Of what was admitted until now nothing is known as a violation: it was none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Closing {
    /// The host waits, and says what would be closed.
    #[default]
    Refuse,
    /// The publisher knows; the confirm deadline still guards it.
    Allow,
}

/// Why a plan is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct PlanError(pub String);

fn all() -> u8 {
    100
}

fn nearly_all() -> u8 {
    99
}

fn three_days() -> u64 {
    3 * 86_400
}

fn two_minutes() -> u64 {
    120
}

impl Default for Gate {
    fn default() -> Self {
        Self {
            audit: three_days(),
            packets: 0,
            would_drop: 0,
            accept: Vec::new(),
            max_failed: 0,
            reporting: nearly_all(),
            confirm: two_minutes(),
            closing: Closing::Refuse,
        }
    }
}

impl Wave {
    /// All the hosts of a selector, at once.
    ///
    /// # Panics
    /// Never; a selector that cannot be read selects nothing, and [`Plan::check`] refuses it.
    pub fn new(name: &str, hosts: &str) -> Self {
        Self {
            name: name.to_owned(),
            hosts: hosts.parse().unwrap_or_default(),
            percent: 100,
            after: 0,
            at_once: 100,
        }
    }

    /// Only some of them.
    #[must_use]
    pub fn percent(mut self, percent: u8) -> Self {
        self.percent = percent;
        self
    }

    /// So many at a time, in percent.
    #[must_use]
    pub fn at_once(mut self, percent: u8) -> Self {
        self.at_once = percent;
        self
    }

    /// So many seconds after the wave before.
    #[must_use]
    pub fn after(mut self, seconds: u64) -> Self {
        self.after = seconds;
        self
    }
}

impl Plan {
    /// Whether it makes sense by itself; whether it covers the hosts is [`crate::rollout::waves::assign`]'s question.
    ///
    /// # Errors
    /// [`PlanError`].
    pub fn check(&self) -> Result<(), PlanError> {
        let refuse = |why: String| Err(PlanError(why));
        if self.wave.is_empty() || self.wave.len() > MOST {
            return refuse(format!("{} waves: expected 1 to {MOST}", self.wave.len()));
        }
        for (index, wave) in self.wave.iter().enumerate() {
            let name = &wave.name;
            if !crate::layout::is_name(name) {
                return refuse(format!("wave {}: `{name}` is no name", index + 1));
            }
            if self.wave.iter().take(index).any(|one| one.name == *name) {
                return refuse(format!("two waves are called `{name}`"));
            }
            if wave.hosts.0.is_empty() {
                return refuse(format!("wave `{name}` selects nothing: write `*` for all"));
            }
            for (word, percent) in [("percent", wave.percent), ("at_once", wave.at_once)] {
                if !(1..=100).contains(&percent) {
                    return refuse(format!("wave `{name}`: `{word}` is 1 to 100"));
                }
            }
        }
        if self.gate.reporting > 100 {
            return refuse("gate: `reporting` must be 0 to 100".to_owned());
        }
        if self.gate.confirm < 5 {
            return refuse(
                "gate: `confirm` must be at least 5s: within it the host must reach the store again"
                    .to_owned(),
            );
        }
        Ok(())
    }

    /// How long after a release was issued a host of a wave may enforce at the earliest, whatever the position says.
    pub fn earliest(&self, wave: u32) -> u64 {
        let count = usize::try_from(wave)
            .unwrap_or(usize::MAX)
            .saturating_add(1);
        let waits = self.wave.iter().take(count).map(|wave| wave.after);
        waits.fold(0, u64::saturating_add)
    }
}

/// Which hosts: `*`, or `key=value` joined by commas, all of which must hold. Keys are `host`, `role`, `zone`, and labels.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Selector(Vec<(String, String)>);

impl Selector {
    /// Whether a host is selected. Never by default: a label that the host has not is not equal to anything.
    pub fn selects(
        &self,
        host: &str,
        roles: &[String],
        zone: &str,
        labels: &BTreeMap<String, String>,
    ) -> bool {
        !self.0.is_empty()
            && self.0.iter().all(|(key, value)| match key.as_str() {
                "*" => true,
                "host" => host == value,
                "role" => roles.iter().any(|role| role == value),
                "zone" => zone == value,
                _ => labels.get(key) == Some(value),
            })
    }

    /// Labels that it asks for.
    pub fn labels(&self) -> impl Iterator<Item = &str> {
        let keys = self.0.iter().map(|(key, _)| key.as_str());
        keys.filter(|key| !["*", "host", "role", "zone"].contains(key))
    }
}

impl FromStr for Selector {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.trim() == "*" {
            return Ok(Self(vec![("*".to_owned(), String::new())]));
        }
        let mut terms = Vec::new();
        for term in text.split(',') {
            let (key, value) = term
                .split_once('=')
                .map(|(key, value)| (key.trim(), value.trim()))
                .filter(|(key, value)| !key.is_empty() && *key != "*" && !value.is_empty())
                .ok_or_else(|| format!("`{}`: expected `*` or `key=value,...`", term.trim()))?;
            terms.push((key.to_owned(), value.to_owned()));
        }
        Ok(Self(terms))
    }
}

impl TryFrom<String> for Selector {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Selector> for String {
    fn from(selector: Selector) -> Self {
        selector.to_string()
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (key, value)) in self.0.iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            if key == "*" {
                f.write_str("*")?;
            } else {
                write!(f, "{comma}{key}={value}")?;
            }
        }
        Ok(())
    }
}

/// Seconds, written like `3d` or `2m`.
mod span {
    use std::time::Duration;

    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
    pub(super) fn serialize<S: Serializer>(seconds: &u64, to: S) -> Result<S::Ok, S::Error> {
        // Whole seconds only: one way to write each, as the manifest's canonical form wants it.
        to.serialize_str(&format!("{seconds}s"))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
        let text = String::deserialize(from)?;
        if text == "0" {
            return Ok(0);
        }
        humantime::parse_duration(&text)
            .map(|span: Duration| span.as_secs())
            .map_err(|error| D::Error::custom(format!("`{text}`: {error}: write it like `3d`")))
    }
}
