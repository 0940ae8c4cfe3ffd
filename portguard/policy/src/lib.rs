//! From a vendor's port matrix and a site to one host's policy, and from the policy to the exact contents of its tables.
//!
//! Data flows one way: catalog and site -> policy -> image. Everything here is pure: no kernel, no network, no clock; the
//! same inputs give the same bytes.

pub mod catalog;
pub mod cells;
pub mod compile;
pub mod diagnostic;
pub mod diff;
pub mod domains;
pub mod error;
pub mod explain;
pub mod export;
pub mod human;
pub mod image;
pub mod matrix;
pub mod policy;
pub mod site;
pub mod tunnels;
