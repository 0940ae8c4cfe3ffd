//! Which UDP sockets serve: those that were there before an interface was guarded, and those whose port was open. What they
//! say to a port that anybody may be asked at begins no conversation: else who was heard before the policy would be heard
//! again as soon as they say something. A socket that came later, and whose port was never open, is one only if it answers
//! strangers, which the data plane sees.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use aya::maps::{HashMap, Map, MapData};
use portguard_common::track::owner::{NOTED, WAS_OPEN, WAS_THERE};
use portguard_policy::catalog::Transport;
use portguard_policy::policy::Policy;

use super::served::{Served, is_of_clients};
use super::{find, held, programs};
use crate::error::Context as _;
use crate::flows;
use crate::host::owners::ephemeral;
use crate::host::sessions::is_ours;
use crate::host::sockets::{Service, services};

/// Notes them; nothing where there is no state. `to` is about to be in force, and `from` is now: `None` where the interface
/// had no guard. `listed`: the sockets as they were when the state was made sure of, where it was just now.
///
/// # Errors
/// If the kernel does not list its sockets, or the map cannot be written.
pub(crate) fn note_services(
    from: Option<&Policy>,
    to: &Policy,
    listed: Option<Vec<Service>>,
) -> crate::Result<()> {
    let Some(namespace) = find() else {
        return Ok(());
    };
    Served::by(from.into_iter().chain([to])).write(&namespace)?;
    let pin = namespace.directory().join("SERVICES");
    if !pin.exists() {
        return Ok(());
    }
    let map =
        MapData::from_pin(&pin).with_context(|| format!("cannot open `{}`", pin.display()))?;
    let mut map: HashMap<MapData, u64, u32> = Map::HashMap(map).try_into()?;
    let time = u32::try_from(flows::now(namespace.tick_shift())?).unwrap_or(0);
    let known: BTreeMap<u64, u32> = map.iter().collect::<Result<_, _>>()?;
    // Where programs see who asks for a port, they know of those that came since.
    let mut found = match listed {
        Some(listed) if programs::are_ports_followed(namespace.directory()) => {
            held::with_new(&namespace, listed)?
        }
        _ => services()?,
    };
    // Where there is no room for all: those that are connected are clients, most likely.
    found.sort_by_key(|one| one.session.is_some());
    let there: BTreeSet<u64> = found.iter().map(|one| one.cookie).collect();
    for gone in known.keys().filter(|cookie| !there.contains(cookie)) {
        map.remove(gone).context("cannot write map `SERVICES`")?;
    }
    let (first, last) = ephemeral();
    let clients = first..=last;
    for socket in &found {
        let before = known.get(&socket.cookie).copied().unwrap_or(0);
        let standing = standing(socket, from, to, &clients);
        let noted = if before == 0 && standing != 0 {
            time << NOTED
        } else {
            0
        };
        let now = before | standing | noted;
        if now != before && map.insert(socket.cookie, now, 0).is_err() {
            // More than there is room for. Which is which does not matter to those that ask.
            tracing::warn!("there is no room for all UDP sockets that serve");
            break;
        }
    }
    Ok(())
}

/// What a socket is from now on.
fn standing(
    socket: &Service,
    from: Option<&Policy>,
    to: &Policy,
    clients: &RangeInclusive<u16>,
) -> u32 {
    // One that the policy lets ask whom it is connected to hears nobody else.
    if socket.session.is_some_and(|session| is_ours(&session, to)) {
        return 0;
    }
    let policies = || from.into_iter().chain([to]);
    let ranges = || {
        policies()
            .flat_map(open)
            .filter(|ports| ports.contains(&socket.port))
    };
    let bit = |is_so, bit| if is_so { bit } else { 0 };
    // So long a range is of no service, unless its program asked for the port, which is told when it speaks.
    let was_open = ranges().any(|ports| !is_of_clients(&ports, clients, socket.port));
    let may_have_been = from.is_none() || ranges().next().is_some();
    bit(was_open, WAS_OPEN) | bit(may_have_been, WAS_THERE)
}

/// UDP ports of this host at which a policy lets anybody in.
fn open(policy: &Policy) -> impl Iterator<Item = RangeInclusive<u16>> {
    let audited = policy.settings.audit_ports.iter().copied();
    let granted = policy.inbound.iter();
    let granted = granted.map(|grant| (grant.transport, grant.first, grant.last));
    let udp = granted
        .chain(audited)
        .filter(|(transport, ..)| *transport == Transport::Udp);
    udp.map(|(_, first, last)| first..=last)
}
