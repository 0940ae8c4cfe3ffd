//! Integration tests. Most need root: they load programs and make network namespaces of their own.

mod confirm;
mod guard;
mod lifecycle;
mod cli_explain;
mod export_nft;
mod counters;
mod drift;
mod events;
mod parity;
mod sessions;
