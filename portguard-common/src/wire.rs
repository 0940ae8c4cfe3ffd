//! From bytes to what a packet is: one protocol a file, nothing judged.

pub mod addr;
pub mod early;
pub mod ethernet;
pub mod frame;
mod ipv4;
mod ipv4_options;
mod ipv6;
mod network;
pub mod packet;
pub mod parse;
pub mod plain;
mod transport;
