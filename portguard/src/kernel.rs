//! The kernel half: what touches bpffs, network interfaces and loaded programs. Nothing pure depends on it.

pub mod attach;
pub mod bpffs;
pub mod confirm;
pub mod deadline;
pub mod egress;
pub mod fault;
pub mod generation;
pub mod holder;
pub mod interface;
pub mod mend;
pub mod meta;
pub mod netlink;
pub mod operator;
pub mod pages;
pub mod preflight;
pub mod probe;
pub mod publish;
pub mod readback;
pub mod refresh;
pub mod seed;
pub mod selftest;
pub mod sessions;
pub mod settle;
pub mod shape;
pub mod sockets;
