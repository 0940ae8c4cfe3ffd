//! Facts of the host: interfaces, sockets, listeners, the packet filter's redirects, and whether the guard can run here.

pub(crate) mod above;
pub mod arrivals;
pub mod boot;
mod btf;
pub mod clients;
pub mod diversions;
mod filters;
pub mod holder;
pub mod interface;
pub mod link;
pub mod links;
pub mod listeners;
pub mod local;
pub mod nat;
pub mod netlink;
pub mod operator;
pub mod outer;
pub mod owners;
pub mod paths;
pub mod privileges;
pub mod resolve;
mod rules;
pub mod sessions;
pub mod sockets;
pub(crate) mod tracked;
pub mod translated;
