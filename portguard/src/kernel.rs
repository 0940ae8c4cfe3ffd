//! The kernel half: what touches bpffs, network interfaces and loaded programs. Nothing pure depends on it.

pub mod attach;
pub mod bpffs;
pub mod fault;
pub mod generation;
pub mod holder;
pub mod interface;
pub mod meta;
pub mod netlink;
pub mod preflight;
pub mod probe;
pub mod publish;
pub mod readback;
pub mod selftest;
pub mod settle;
pub mod shape;
