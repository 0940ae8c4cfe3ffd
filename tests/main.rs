//! Integration tests. Most need root: they load programs and make network namespaces of their own.

mod confirm;
mod guard;
mod lifecycle;
mod parity;
mod sessions;
