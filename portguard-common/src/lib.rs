//! The parser and the verdict of portguard: one source for the kernel and the host.
//!
//! ```text
//! wire      Frame (bytes) --parse--> Packet (what it is, no judgement)
//! engine    Packet --judge + Tables--> Verdict (reason, key, counter slot) --mode--> pass or drop
//! abi       the layout of the maps that the kernel and the host share
//! ```
//!
//! `no_std`, no allocation, no panic, no slice indexed by a variable: what the verifier of the kernel needs, a host gets
//! for free. The only `unsafe` marks the plain structs of [`abi`] as such for aya.
#![no_std]

pub mod abi;
mod engine;
#[cfg(feature = "user")]
mod pod;
mod wire;

pub use engine::{
    classes, config, conntrack, ethertypes, question, reason, sampler, tables, talkers, track,
    verdict,
};
pub use wire::{addr, early, ethernet, frame, packet, parse, plain};
