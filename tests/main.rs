//! Integration tests. Most need root: they load programs and make network namespaces of their own.

#[cfg(test)]
mod agent;
#[cfg(test)]
mod counters;
#[cfg(test)]
mod drift;
#[cfg(test)]
mod events;
mod parity;
