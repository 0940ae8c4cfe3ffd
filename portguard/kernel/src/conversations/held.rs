//! Which ports the host's own UDP sockets have: the program that follows them knows of those that came after it, and of the
//! rest the kernel's list tells.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv6Addr;

use aya::maps::{HashMap, Map, MapData};
use portguard_common::conntrack::{Class, Record, record};

use super::Namespace;
use super::adopt::{NOBODY, Writer};
use crate::error::Context as _;
use crate::host::sockets::{Service, services};
use crate::record::record_of;

/// Counts the ports of sockets that no program saw coming, and no more those of sockets that are gone. Gives the sockets.
///
/// # Errors
/// If the kernel does not list its sockets, or the tables cannot be read or written.
pub(super) fn follow(namespace: &Namespace) -> crate::Result<Vec<Service>> {
    let mut writer = Writer::open(namespace.directory())?;
    let mut write = |what, cookie, port| {
        writer.write(&Record {
            set: cookie,
            local_port: port,
            ..record_of(&NOBODY, what, Class::Datagrams)
        })
    };
    let known = counted(namespace)?;
    let sockets = services()?;
    let there = |all: &[Service]| all.iter().map(|socket| socket.cookie).collect();
    let listed: BTreeSet<u64> = there(&sockets);
    // A list that changes while it is read may lack one: who is missed twice is gone.
    let mut missed: BTreeSet<u64> = known.keys().copied().collect();
    missed.retain(|cookie| !listed.contains(cookie));
    let mut new = BTreeSet::new();
    for socket in &sockets {
        if known.get(&socket.cookie) != Some(&u32::from(socket.port)) {
            write(record::HOLD, socket.cookie, socket.port)?;
            new.insert(socket.cookie);
        }
    }
    // One that closed since it was listed was seen by nobody.
    for _ in 0..2 {
        if missed.is_empty() && new.is_empty() {
            break;
        }
        let listed: BTreeSet<u64> = there(&services()?);
        missed.retain(|cookie| !listed.contains(cookie));
        new.retain(|cookie| !listed.contains(cookie));
        for cookie in std::mem::take(&mut missed) {
            write(record::RELEASE, cookie, 0)?;
        }
        missed = std::mem::take(&mut new);
    }
    Ok(sockets)
}

/// The sockets that were listed, and those that asked for a port since.
///
/// # Errors
/// If the tables cannot be read.
pub(super) fn with_new(
    namespace: &Namespace,
    mut listed: Vec<Service>,
) -> crate::Result<Vec<Service>> {
    let there: BTreeSet<u64> = listed.iter().map(|socket| socket.cookie).collect();
    let since = counted(namespace)?.into_iter();
    listed.extend(
        since
            .filter(|(cookie, _)| !there.contains(cookie))
            .map(|(cookie, port)| Service {
                cookie,
                port: u16::try_from(port).unwrap_or(0),
                address: Ipv6Addr::UNSPECIFIED.into(),
                interface: 0,
                session: None,
            }),
    );
    Ok(listed)
}

fn counted(namespace: &Namespace) -> crate::Result<BTreeMap<u64, u32>> {
    let pin = namespace.directory().join("BOUND");
    let map =
        MapData::from_pin(&pin).with_context(|| format!("cannot open `{}`", pin.display()))?;
    let map: HashMap<MapData, u64, u32> = Map::HashMap(map).try_into()?;
    map.iter()
        .collect::<Result<_, _>>()
        .context("cannot read map `BOUND`")
}
