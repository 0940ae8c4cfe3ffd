//! The interfaces whose frames come from outside: the guarded ones, and those above them (bridges, bonds, VLANs, tunnels).
//! What came in by one of them and is forwarded begins no conversation, whatever the packet filter makes of its addresses.

use std::borrow::BorrowMut;
use std::collections::{BTreeMap, BTreeSet};

use aya::maps::{HashMap, Map, MapData};
use portguard_common::abi::outside;

use super::find;
use crate::error::{Context as _, Error, Kind};
use crate::host::above;
use crate::host::links::{self, Link};
use crate::pins::guarded::guarded;

/// Writes which interfaces they are now; nothing where no interface is guarded.
///
/// # Errors
/// If interfaces cannot be listed, or the map not written.
pub fn follow() -> crate::Result<()> {
    write_namespace(&kinds(&[])?, true)
}

/// Writes that these are among them, which are about to be guarded.
pub(crate) fn expect(coming: &[u32]) -> crate::Result<()> {
    write_namespace(&kinds(coming)?, false)
}

/// The same for a guard that shares no tables with others, into its own map.
pub(crate) fn expect_alone(coming: &[u32], map: &mut Map) -> crate::Result<()> {
    let mut map: HashMap<&mut MapData, u32, u32> = map.try_into()?;
    write(&mut map, &kinds(coming)?, false)
}

fn write_namespace(kinds: &BTreeMap<u32, u32>, is_all: bool) -> crate::Result<()> {
    let Some(namespace) = find() else {
        return Ok(());
    };
    let pin = namespace.directory().join("OUTSIDE");
    if !pin.exists() {
        return Ok(());
    }
    let map =
        MapData::from_pin(&pin).with_context(|| format!("cannot open `{}`", pin.display()))?;
    let mut map: HashMap<MapData, u32, u32> = Map::HashMap(map).try_into()?;
    write(&mut map, kinds, is_all)
}

fn write<T: BorrowMut<MapData>>(
    map: &mut HashMap<T, u32, u32>,
    kinds: &BTreeMap<u32, u32>,
    is_all: bool,
) -> crate::Result<()> {
    expect_room(kinds.len())?;
    let there: BTreeMap<u32, u32> = map.iter().collect::<Result<_, _>>()?;
    for (index, kind) in kinds {
        if there.get(index) != Some(kind) {
            map.insert(index, kind, 0)
                .context("cannot write map `OUTSIDE`")?;
        }
    }
    if is_all {
        for index in there.keys().filter(|index| !kinds.contains_key(index)) {
            map.remove(index).context("cannot write map `OUTSIDE`")?;
        }
    }
    Ok(())
}

/// What each of them is, with those that are about to be guarded.
fn kinds(coming: &[u32]) -> crate::Result<BTreeMap<u32, u32>> {
    let links = links::all()?;
    let apart = above::apart(&links);
    let kind = |index: &u32| {
        if apart.contains_key(index) {
            outside::APART
        } else {
            outside::PLAIN
        }
    };
    let all = above_guarded(&links, coming);
    Ok(all.iter().map(|index| (*index, kind(index))).collect())
}

/// Interfaces that the data plane has room for.
const MOST: usize = 4096;

fn expect_room(count: usize) -> crate::Result<()> {
    if count <= MOST {
        return Ok(());
    }
    let what = format!(
        "there are {count} interfaces that are guarded or stand on one that is (VLANs, bridges, tunnels), and room for {MOST}"
    );
    let hint = "guard the interfaces below which fewer stand, or take unused ones away: `ip -br link` lists them";
    Err(Error::new(Kind::TooLarge, what).hint(hint))
}

/// The interfaces that frames from outside come by, with those that are about to be guarded.
pub(super) fn outside(more: &[u32]) -> crate::Result<BTreeSet<u32>> {
    Ok(above_guarded(&links::all()?, more))
}

fn above_guarded(links: &[Link], more: &[u32]) -> BTreeSet<u32> {
    let guarded = guarded().into_iter().chain(more.iter().copied());
    links::above(links, guarded)
}

#[cfg(test)]
mod tests {
    use super::{MOST, expect_room};

    #[test]
    fn more_interfaces_than_there_is_room_for_are_refused_by_their_number() {
        assert!(expect_room(MOST).is_ok());
        let refused = expect_room(MOST + 1).unwrap_err().to_string();
        assert!(refused.contains("4097 interfaces"), "{refused}");
    }
}
