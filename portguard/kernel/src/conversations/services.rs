//! Which UDP sockets serve: those that were there before a policy, on a port of their own or on one that was open. What they
//! say to a port that anybody may be asked at begins no conversation: else who was heard before the policy would be heard
//! again as soon as they say something.

use std::collections::BTreeSet;

use anyhow::Context as _;
use aya::maps::{HashMap, Map, MapData};
use portguard_policy::catalog::Transport;
use portguard_policy::policy::Policy;

use super::find;
use crate::host::sessions::is_ours;
use crate::host::sockets::{Service, services};

/// Notes them; nothing where there is no state. `to` is about to be in force, and `from` is now.
///
/// # Errors
/// If the kernel does not list its sockets, or the map cannot be written.
pub fn note_services(from: Option<&Policy>, to: &Policy) -> anyhow::Result<()> {
    let Some(namespace) = find() else {
        return Ok(());
    };
    let pin = namespace.directory().join("SERVICES");
    if !pin.exists() {
        return Ok(());
    }
    let map =
        MapData::from_pin(&pin).with_context(|| format!("cannot open `{}`", pin.display()))?;
    let mut map: HashMap<MapData, u64, u32> = Map::HashMap(map).try_into()?;
    let known: BTreeSet<u64> = map.keys().collect::<Result<_, _>>()?;
    let found = services()?;
    let there: BTreeSet<u64> = found.iter().map(|one| one.cookie).collect();
    for gone in known.difference(&there) {
        map.remove(gone).context("cannot write map `SERVICES`")?;
    }
    let new = found.iter().filter(|one| serves(one, from, to));
    for cookie in new.map(|one| one.cookie).filter(|one| !known.contains(one)) {
        if map.insert(cookie, 1, 0).is_err() {
            // More than there is room for. Which is which does not matter to those that ask.
            tracing::warn!("there is no room for all UDP sockets that serve");
            break;
        }
    }
    Ok(())
}

/// Whether a socket serves. On a port that the kernel may have picked it may as well ask: there, only one that was open shows.
fn serves(socket: &Service, from: Option<&Policy>, to: &Policy) -> bool {
    match &socket.session {
        Some(session) => may_serve(socket, from) && !is_ours(session, to),
        None => may_serve(socket, from),
    }
}

fn may_serve(socket: &Service, from: Option<&Policy>) -> bool {
    !socket.is_picked || from.is_some_and(|from| is_open(from, socket.port))
}

/// Whether a policy lets anybody in at a UDP port of this host.
fn is_open(policy: &Policy, port: u16) -> bool {
    let covers =
        |transport, first, last| transport == Transport::Udp && (first..=last).contains(&port);
    let settings = &policy.settings;
    let mut audited = settings.audit_ports.iter();
    let mut granted = policy.inbound.iter();
    granted.any(|grant| covers(grant.transport, grant.first, grant.last))
        || audited.any(|(transport, first, last)| covers(*transport, *first, *last))
}
