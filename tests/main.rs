//! Integration tests. Most need root: they load programs and make network namespaces of their own.

mod dataplane;
mod parity;
