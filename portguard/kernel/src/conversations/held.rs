//! Which ports the host's own UDP sockets have: the program that follows them knows of those that came after it, and of the
//! rest the kernel's list tells.

use std::collections::BTreeMap;

use aya::maps::{HashMap, Map, MapData};
use portguard_common::conntrack::{Class, Record, record};

use super::Namespace;
use super::adopt::{NOBODY, Writer};
use crate::error::Context as _;
use crate::host::sockets::services;
use crate::record::record_of;

/// Counts the ports of sockets that no program saw coming, and no more those of sockets that are gone.
///
/// # Errors
/// If the kernel does not list its sockets, or the tables cannot be read or written.
pub(super) fn follow(namespace: &Namespace) -> crate::Result<()> {
    let mut writer = Writer::open(namespace.directory())?;
    let mut write = |what, cookie, port| {
        writer.write(&Record {
            set: cookie,
            local_port: port,
            ..record_of(&NOBODY, what, Class::Datagrams)
        })
    };
    let known = counted(namespace)?;
    for (cookie, port) in listed()? {
        if known.get(&cookie) != Some(&u32::from(port)) {
            write(record::HOLD, cookie, port)?;
        }
    }
    // One that closed since it was listed was seen by nobody. A list that changes while it is read may lack one: who is
    // missed twice is gone.
    let mut gone = counted(namespace)?;
    for _ in 0..2 {
        if gone.is_empty() {
            break;
        }
        let there = listed()?;
        gone.retain(|cookie, _| !there.contains_key(cookie));
    }
    for cookie in gone.into_keys() {
        write(record::RELEASE, cookie, 0)?;
    }
    Ok(())
}

fn listed() -> crate::Result<BTreeMap<u64, u16>> {
    Ok(services()?
        .into_iter()
        .map(|socket| (socket.cookie, socket.port))
        .collect())
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
