//! Integration tests. Most need root: they load programs and make network namespaces of their own.

mod agent;
mod counters;
mod drift;
mod events;
mod parity;
