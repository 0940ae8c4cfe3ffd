//! Evidence for a security review: what is documented, what was seen, what does not agree. Pure: everything is handed in.

mod csv;
mod escape;
mod html;
mod markdown;
mod matrix;
mod svg;

use std::fmt::Write as _;

use portguard_observe::counters::{Report, Reset};
use portguard_observe::drift::Drift;
use portguard_observe::findings::Finding;
use portguard_observe::history::Sample;
use portguard_observe::talkers::TopTalkers;
use portguard_policy::policy::Policy;

pub use csv::csv;
#[cfg(feature = "fleet")]
pub(crate) use escape::escape;
pub use html::html;
pub use markdown::markdown;

/// Begins a page that loads nothing from elsewhere and runs no script; `title` is HTML.
pub(crate) fn begin(page: &mut String, title: &str) {
    let style = include_str!("report/style.css");
    let _ = write!(
        page,
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
         <meta name=\"color-scheme\" content=\"light dark\">\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\
         <title>{title}</title><style>{style}</style></head><body><main>"
    );
}

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
    /// Violations by their cause, as every view shows them.
    pub findings: Vec<Finding>,
    /// Who caused violations.
    pub top_talkers: TopTalkers,
    /// Samples over time, if an agent ran.
    pub history: Vec<Sample>,
}

impl Evidence {
    /// Whether documents, services and traffic agree.
    fn agrees(&self) -> bool {
        self.drift.findings() + self.drift.mismatches() == 0
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
