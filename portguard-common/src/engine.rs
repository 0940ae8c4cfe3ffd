//! From a packet and the policy's tables to a verdict, and the state that both ends of a map share.

pub mod classes;
pub mod config;
pub mod conntrack;
pub mod ethertypes;
pub mod question;
pub mod reason;
pub mod sampler;
pub mod tables;
pub mod talkers;
pub mod track;
pub mod verdict;
