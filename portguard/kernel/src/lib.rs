//! What touches the kernel: objects and their maps, pins, hooks, generations, and the facts of the host that is guarded.
//!
//! A policy comes in as tables ([`portguard_policy::image`]) and is put in force as a generation ([`generation`]); what the
//! kernel then holds is found again by its pins ([`pins`]). Nothing pure depends on this crate.

pub mod bench;
mod clock;
pub mod conversations;
pub mod error;
pub mod fault;
pub mod flows;
pub mod generation;
pub mod hook;
pub mod host;
mod machine;
pub mod notice;
pub mod object;
pub mod pins;
pub mod preflight;
mod probe;
mod record;
pub mod recovery;
pub mod store;
pub mod tunnels;

pub use error::{Error, Kind, Result};
