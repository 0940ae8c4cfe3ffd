//! What a guard has seen: counters, events, top talkers, evidence, drift. Prints nothing.
//!
//! Every view of a running guard begins at [`observe`]: what is in force and what it counted, interface by interface.

pub mod counters;
pub mod drift;
pub mod events;
pub mod evidence;
pub mod findings;
pub mod history;
pub mod observe;
pub mod resets;
mod scope;
pub mod talkers;
