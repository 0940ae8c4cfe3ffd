//! Forgets what closed without a program seeing it.

use std::collections::{BTreeMap, BTreeSet};

use aya::maps::{HashMap, Map, MapData};
use portguard_common::conntrack::{Class, Hashed, Record, Tuple, record, tag};
use portguard_common::packet::{protocol, space};

use super::Namespace;
use super::adopt::{NOBODY, Writer};
use crate::error::Context as _;
use crate::host::sockets::streams;
use crate::record::record_of;

/// Units of time that a cell must be old before it is missed: who opened it may not have been listed yet.
const YOUNG: u64 = 30;

/// Removes conversations of sockets that are not there any more. A program sees every close but that of sockets which were open
/// before it came and for which there was no room in its table.
///
/// # Errors
/// If the kernel does not list its sockets, or the tables cannot be read or written.
pub(super) fn forget_closed(namespace: &Namespace) -> crate::Result<()> {
    let cells = namespace.of_sockets(YOUNG)?;
    let mut map = ends_with(namespace)?;
    let noted: BTreeMap<u64, [u64; 2]> = map
        .iter()
        .collect::<Result<_, _>>()
        .context("cannot read map `ENDS_WITH`")?;
    let mut missed = Missed {
        cells,
        cookies: noted.keys().copied().collect(),
    };
    // A list of sockets that changes while it is read may lack one: who is missed twice is gone.
    for _ in 0..2 {
        if missed.cells.is_empty() && missed.cookies.is_empty() {
            return Ok(());
        }
        missed.retain(namespace, &noted)?;
    }
    let mut writer = Writer::open(namespace.directory())?;
    for (set, cell) in missed.cells {
        writer.write(&Record {
            set: u64::from(set),
            cell,
            ..record_of(&NOBODY, record::REMOVE, Class::Socket)
        })?;
    }
    for cookie in missed.cookies {
        // A program may have been faster.
        let _ = map.remove(&cookie);
    }
    Ok(())
}

/// What no socket has.
struct Missed {
    /// Cells, with their sets.
    cells: Vec<(u32, u64)>,
    /// Sockets with which something was to end.
    cookies: BTreeSet<u64>,
}

impl Missed {
    /// Takes out what a socket has now. `noted` says what ends with which socket.
    fn retain(
        &mut self,
        namespace: &Namespace,
        noted: &BTreeMap<u64, [u64; 2]>,
    ) -> crate::Result<()> {
        let mask = namespace.sets() - 1;
        let there = streams()?;
        let own = there.keys().map(|(local, remote)| {
            let tuple = Tuple {
                space: space(protocol::TCP),
                local: local.ip().into(),
                remote: remote.ip().into(),
                local_port: local.port(),
                remote_port: remote.port(),
            };
            tuple.hash(namespace.key())
        });
        let cookies: BTreeSet<u64> = there.values().copied().collect();
        let others = noted.iter().filter(|(cookie, _)| cookies.contains(cookie));
        let others = others.flat_map(|(_, keys)| keys.map(Hashed::of_key));
        let known: BTreeSet<(u32, u64)> = own
            .chain(others)
            .map(|hashed| (hashed.set & mask, hashed.tag))
            .collect();
        self.cells
            .retain(|(set, cell)| !known.contains(&(*set, tag(*cell))));
        self.cookies.retain(|cookie| !cookies.contains(cookie));
        Ok(())
    }
}

fn ends_with(namespace: &Namespace) -> crate::Result<HashMap<MapData, u64, [u64; 2]>> {
    let pin = namespace.directory().join("ENDS_WITH");
    let map =
        MapData::from_pin(&pin).with_context(|| format!("cannot open `{}`", pin.display()))?;
    Ok(Map::HashMap(map).try_into()?)
}
