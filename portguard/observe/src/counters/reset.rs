//! Counting from a moment that the operator chose.

use serde::{Deserialize, Serialize};

use super::Count;

/// One reset, as it is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reset {
    /// Seconds since the Unix epoch.
    #[serde(with = "portguard_policy::human::seconds")]
    pub at: u64,
    /// User name, as far as the environment tells it, else the user id.
    pub by: String,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// Generation in force.
    pub generation: u64,
    /// Digest of its policy.
    pub digest: String,
    /// All packets and bytes since the guard was loaded.
    pub totals: Count,
    /// Violations among them.
    pub violations: Count,
}
