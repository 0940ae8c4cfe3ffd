//! The fleet's own tests, through its front door. Those of etcd run the real server on loopback.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

mod agent;
mod control;
mod evidence;
mod release;
mod security;
mod store;
mod support;
mod waves;
