//! The kernel half: what touches bpffs, network interfaces and loaded programs. Nothing pure depends on it.

pub mod attach;
pub mod bpffs;
pub mod generation;
pub mod interface;
pub mod meta;
pub mod pages;
pub mod shape;
