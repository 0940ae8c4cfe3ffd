//! The parser and the verdict of portguard: one source for the kernel and the host.
//!
//! ```text
//! Frame (bytes) --parse--> Packet (facts) --judge + Tables--> Verdict (reason, key, cell) --mask--> pass or drop
//! ```
//!
//! `no_std`, no allocation, no panic, no slice indexed by a variable: what the verifier of the kernel needs, a host gets
//! for free. The only `unsafe` marks the plain structs of [`abi`] as such for aya.
#![no_std]

pub mod abi;
pub mod addr;
pub mod flow;
pub mod frame;
mod ipv4;
mod ipv6;
pub mod knock;
pub mod packet;
pub mod parse;
pub mod plain;
#[cfg(feature = "user")]
mod pod;
pub mod reason;
pub mod sources;
pub mod tables;
mod transport;
pub mod verdict;
