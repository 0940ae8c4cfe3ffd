//! Metrics of domain names: a series for each name of the policies in force.

use super::Text;
use portguard_policy::human::time;

/// What the agent knows of the domain names.
#[derive(Debug, Clone, Default)]
pub struct Names {
    /// Name by name.
    pub names: Vec<Name>,
    /// Swaps since the agent began, because addresses changed.
    pub swaps: u64,
}

/// One domain name.
#[derive(Debug, Clone)]
pub struct Name {
    /// Lower-case.
    pub name: String,
    /// Addresses that are admitted for it.
    pub addresses: usize,
    /// Why there is no newer answer, if the last question failed.
    pub error: Option<String>,
    /// Questions that failed since the agent began.
    pub failures: u64,
    /// When the last answer came, in seconds since the Unix epoch.
    pub answered: Option<u64>,
    /// Whether some row's peers follow it.
    pub is_used: bool,
}

impl Name {
    /// What is not as it should be, in words.
    pub fn trouble(&self) -> Option<String> {
        let Self { name, error, .. } = self;
        if let Some(error) = error.as_ref().filter(|_| self.is_used) {
            let kept = self
                .answered
                .map_or("those it was loaded with".to_owned(), |at| {
                    format!("those of {}", time(at))
                });
            return Some(format!(
                "domain {name} does not resolve ({error}): its addresses are {kept}"
            ));
        }
        (!self.is_used && self.addresses > 0).then(|| {
            format!(
                "domain {name} resolves now, and did not when the policy was loaded: load again"
            )
        })
    }
}

pub(super) fn write(text: &mut Text, Names { names, swaps }: &Names) {
    text.counter(
        "portguard_domain_swaps",
        "Generations that were put in force because addresses of domain names changed, since the agent began.",
    );
    text.sample("portguard_domain_swaps_total", &[], swaps);
    if names.is_empty() {
        return;
    }
    text.gauge(
        "portguard_domain_addresses",
        "Addresses that are admitted for a domain name.",
    );
    for name in names {
        text.sample(
            "portguard_domain_addresses",
            &[("domain", &name.name)],
            name.addresses,
        );
    }
    text.gauge(
        "portguard_domain_stale",
        "Whether the last question for a domain name failed (1), so that the answer before it stays.",
    );
    for name in names {
        let value = u64::from(name.is_used && name.error.is_some());
        text.sample("portguard_domain_stale", &[("domain", &name.name)], value);
    }
    text.gauge(
        "portguard_domain_answered_timestamp_seconds",
        "When the last answer for a domain name came.",
    );
    for name in names {
        if let Some(at) = name.answered {
            let labels = [("domain", name.name.as_str())];
            text.sample("portguard_domain_answered_timestamp_seconds", &labels, at);
        }
    }
    text.counter(
        "portguard_domain_failures",
        "Questions for a domain name that failed, since the agent began.",
    );
    for name in names {
        let labels = [("domain", name.name.as_str())];
        text.sample("portguard_domain_failures_total", &labels, name.failures);
    }
}
