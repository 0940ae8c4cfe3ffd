//! Evidence for a security review: what is documented, what was seen, what does not agree. Pure: everything is handed in.

mod csv;
mod html;
mod markdown;
mod matrix;
mod svg;

use portguard_observe::counters::{Report, Reset};
use portguard_observe::drift::{Drift, Item, State};
use portguard_observe::history::Sample;
use portguard_observe::knock::Knocking;
use portguard_policy::policy::Policy;

pub use csv::csv;
pub use html::html;
pub use markdown::markdown;

/// Everything that a report is made of.
#[derive(Debug, Clone)]
pub struct Evidence {
    /// Host name.
    pub host: String,
    /// Kernel name and release.
    pub kernel: String,
    /// Seconds since the Unix epoch.
    pub made_at: u64,
    /// Guarded interfaces.
    pub guards: Vec<Guard>,
    /// Documented, listening and seen, compared.
    pub drift: Drift,
}

/// One guarded interface.
#[derive(Debug, Clone)]
pub struct Guard {
    /// Counters in the words of the policy.
    pub report: Report,
    /// The policy.
    pub policy: Policy,
    /// `native` or `generic`.
    pub xdp_mode: &'static str,
    /// When the generation was loaded, in seconds since the Unix epoch.
    pub loaded_at: u64,
    /// Version that loaded it.
    pub loaded_by: String,
    /// The site file, if there was one.
    pub site: Option<String>,
    /// What is not as it should be.
    pub warnings: Vec<String>,
    /// Resets of the counters.
    pub resets: Vec<Reset>,
    /// Who caused violations.
    pub knocking: Knocking,
    /// Samples over time, if an agent ran.
    pub history: Vec<Sample>,
}

impl Evidence {
    /// Items that somebody should do something about.
    fn findings(&self) -> impl Iterator<Item = &Item> {
        self.drift.findings()
    }

    /// Findings to act on: undocumented traffic is one, however many ports it tried.
    fn to_act_on(&self) -> usize {
        let is_traffic = |item: &&Item| item.state == State::UndocumentedTrafficSeen;
        let traffic =
            !self.drift.portless.is_empty() || self.findings().any(|item| is_traffic(&item));
        self.findings().filter(|item| !is_traffic(item)).count() + usize::from(traffic)
    }

    /// Seconds that the evidence covers: the shortest window of any interface.
    fn window(&self) -> Option<(u64, u64)> {
        let since = self
            .guards
            .iter()
            .filter_map(|guard| guard.report.since)
            .max()?;
        Some((since, self.made_at.saturating_sub(since)))
    }
}

#[cfg(test)]
mod tests;
