//! The policy for other points of enforcement: where XDP cannot run, or as a second opinion. Pure.

mod nftables;

use serde::Serialize;

pub use nftables::ruleset;

use crate::policy::Policy;

/// `export --format json`: the compiled policy, every grant and prefix of it.
#[derive(Debug, Serialize)]
pub struct Document<'a> {
    digest: String,
    policy: &'a Policy,
}

impl<'a> Document<'a> {
    /// Of a policy.
    pub fn new(policy: &'a Policy) -> Self {
        Self {
            digest: policy.digest(),
            policy,
        }
    }
}
