//! Which UDP ports are clients': by who chose them, as the kernel's sockets have it.

use std::collections::{BTreeMap, BTreeSet};

use crate::host::owners::{Owner, Owners, ephemeral};
use crate::host::sockets::services;

/// The UDP ports of this network namespace that clients have: the kernel picked them, for all sockets that hear whoever comes.
/// Where it does not say, those of its range are.
pub fn clients() -> BTreeSet<u16> {
    let (first, last) = ephemeral();
    let sockets = match services() {
        Ok(sockets) => sockets,
        Err(error) => {
            tracing::info!("UDP ports of clients are known by their numbers only: {error:#}");
            return (first..=last).collect();
        }
    };
    let mut all: BTreeMap<u16, bool> = BTreeMap::new();
    let mut owners = None;
    for socket in sockets {
        if socket.session.is_some() || !(first..=last).contains(&socket.port) {
            continue;
        }
        let owners = owners.get_or_insert_with(Owners::new);
        let asked = owners.as_mut().map_or(Owner::Unknown, |owners| {
            let asked = owners.of_bound(socket.address, socket.port, socket.interface);
            asked.unwrap_or(Owner::Unknown)
        });
        // One that closed since it was listed is nobody's.
        *all.entry(socket.port).or_insert(true) &= asked != Owner::Asked;
    }
    let clients = all.into_iter().filter(|(_, are_clients)| *are_clients);
    clients.map(|(port, _)| port).collect()
}
