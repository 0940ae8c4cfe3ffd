//! portguard: a vendor's port matrix is the firewall of a host.
//!
//! Data flows one way: catalog and site -> policy -> image -> generation (program and its maps) -> counters -> text or JSON.
//! Everything up to the image is pure: no kernel, no network, no clock.

pub mod bench;
pub mod catalog;
pub mod cells;
pub mod cli;
pub mod command;
pub mod compile;
pub mod counters;
pub mod diagnostic;
pub mod diff;
pub mod domains;
pub mod drift;
pub mod error;
pub mod events;
pub mod evidence;
pub mod explain;
pub mod export;
pub mod flows;
pub mod history;
pub mod human;
pub mod image;
pub mod kernel;
pub mod knock;
pub mod listeners;
pub mod matrix;
pub mod metrics;
pub mod nat;
pub mod object;
pub mod observe;
pub mod policy;
pub mod report;
pub mod resolve;
pub mod site;
pub mod store;
