//! portguard: a vendor's port matrix is the firewall of a host.
//!
//! The command: one file a verb, renderers, and the agent. What a policy is stands in `portguard-policy`, what touches the
//! kernel in `portguard-kernel`, what was seen in `portguard-observe`.

pub mod cli;
pub mod command;
pub mod failure;
pub(crate) mod fold;
pub mod metrics;
pub mod report;
pub mod stderr;
pub(crate) mod stdout;
