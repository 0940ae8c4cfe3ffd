//! Takes over what containers, and others behind this host, had open before the first guard: their sockets are not here, but
//! the kernel's connection tracking knows who began.

use std::collections::BTreeMap;
use std::net::IpAddr;

use portguard_common::conntrack::{Class, record};
use portguard_policy::catalog::Transport;

use super::adopt::{Writer, told, tuple};
use super::{Namespace, outside};
use crate::host::arrivals::route;
use crate::host::sockets::{Began, Session};
use crate::host::tracked::{Tracked, tracked};

/// The index of the loopback interface, in every network namespace.
const LOOPBACK: u32 = 1;

/// What became of the connections of others that pass through this host.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Forwarded {
    /// Begun behind this host, and known now.
    pub known: usize,
    /// Of these it is not known who began them.
    pub unclear: usize,
    /// Whether the kernel tracks any connections at all.
    pub is_tracked: bool,
}

/// Makes those known that leave by an interface that is about to be guarded, or by one that is.
///
/// # Errors
/// If the table of conversations cannot be written.
pub(crate) fn take_over(namespace: &Namespace, interface: u32) -> anyhow::Result<Forwarded> {
    let all = tracked().unwrap_or_else(|error| {
        tracing::info!("the kernel lists no tracked connections: {error:#}");
        Vec::new()
    });
    let mut found = Forwarded {
        is_tracked: !all.is_empty(),
        ..Forwarded::default()
    };
    let outside = outside::outside(&[interface])?;
    let mut routes = BTreeMap::new();
    let mut by = |address: IpAddr| *routes.entry(address).or_insert_with(|| route(address));
    let mut writer = Writer::open(namespace.directory())?;
    for one in all {
        let is_from_outside = |by: Option<u32>| by.is_none_or(|by| outside.contains(&by));
        if one.transport != Transport::Tcp || !one.is_open {
            continue;
        }
        let (from, goes) = (by(one.first.0.ip()), by(one.answer.0.ip()));
        // What no packet filter translates and comes from a socket here is known by that.
        if goes.is_none_or(|by| !outside.contains(&by))
            || from == Some(LOOPBACK) && !is_translated(&one)
        {
            continue;
        }
        if !one.is_begun {
            found.unclear += 1;
            continue;
        }
        if is_from_outside(from) {
            continue;
        }
        let session = Session {
            local: one.answer.1,
            remote: one.answer.0,
            is_tcp: true,
            began: Began::Host,
        };
        let done = writer.write(&told(&tuple(&session), record::OURS, Class::Packets))?;
        found.known += usize::from(done != record::LOST);
    }
    Ok(found)
}

fn is_translated(one: &Tracked) -> bool {
    let (from, to) = one.first;
    one.answer != (to, from)
}
