//! The hooks of an interface: attaching, replacing and detaching programs, and who else holds them.

pub mod attach;
pub mod egress;

use serde::{Deserialize, Serialize};

/// How XDP is attached, in the words that users read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum XdpModeName {
    /// In the driver.
    Native,
    /// In the stack, after an skb was allocated.
    Generic,
}

impl XdpModeName {
    /// `native` or `generic`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
        }
    }
}
