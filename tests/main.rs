//! Integration tests. Most need root: they load programs and make network namespaces of their own.

mod agent;
mod cli_explain;
mod confirm;
mod counters;
mod drift;
mod events;
mod export_nft;
mod guard;
mod lifecycle;
mod parity;
mod sessions;
