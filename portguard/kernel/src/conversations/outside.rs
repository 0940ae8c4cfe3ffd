//! The interfaces whose frames come from outside: the guarded ones, and those above them (bridges, bonds, VLANs, tunnels); and
//! which of them are one side of this host. What came in by one side and goes back to it begins no conversation, whatever the
//! packet filter makes of its addresses.

use std::collections::{BTreeMap, BTreeSet};

use aya::maps::{HashMap, Map, MapData};

use super::find;
use crate::error::{Context as _, Error, Kind};
use crate::host::links::{self, Link};
use crate::pins::guarded::guarded;

/// Writes which interfaces they are now; nothing where no interface is guarded.
///
/// # Errors
/// If interfaces cannot be listed, or the map not written.
pub fn follow() -> crate::Result<()> {
    write(&outside(&[])?, true)
}

/// Writes that these are among them, which are about to be guarded.
pub(crate) fn expect(coming: &[u32]) -> crate::Result<()> {
    write(&outside(coming)?, false)
}

fn write(outside: &Sides, is_all: bool) -> crate::Result<()> {
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
    expect_room(outside.len())?;
    let there: Sides = map.iter().collect::<Result<_, _>>()?;
    for (index, side) in outside {
        if there.get(index) != Some(side) {
            map.insert(index, side, 0)
                .context("cannot write map `OUTSIDE`")?;
        }
    }
    let gone = there.keys().filter(|index| !outside.contains_key(index));
    for index in gone.filter(|_| is_all) {
        map.remove(index).context("cannot write map `OUTSIDE`")?;
    }
    Ok(())
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

/// The side that each interface is on.
pub(super) type Sides = BTreeMap<u32, u32>;

/// The interfaces that frames from outside come by, with those that are about to be guarded.
pub(super) fn outside(more: &[u32]) -> crate::Result<Sides> {
    let guarded = guarded().into_iter().chain(more.iter().copied());
    Ok(sides(&links::all()?, guarded))
}

/// A side is a guarded interface and what stands above it, with those that something of that stands on, too. Its number is the
/// lowest index.
fn sides(links: &[Link], guarded: impl IntoIterator<Item = u32>) -> Sides {
    let mut sides: Vec<BTreeSet<u32>> = Vec::new();
    for index in guarded {
        let mut side = links::above(links, [index]);
        sides.retain(|other| {
            let is_apart = side.is_disjoint(other);
            if !is_apart {
                side.extend(other);
            }
            is_apart
        });
        sides.push(side);
    }
    let numbered = sides.into_iter().flat_map(|side| {
        let number = side.first().copied().unwrap_or(0);
        side.into_iter().map(move |index| (index, number))
    });
    numbered.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_shares_an_interface_is_one_side() {
        let link = |index, master, below| Link {
            index,
            master,
            below,
            ..Link::default()
        };
        // 9 is a bridge of 2 and 3; 8 is a VLAN on 4, which is guarded itself; 5 stands alone, and 6 has no guard.
        let links = [
            link(2, Some(9), None),
            link(3, Some(9), None),
            link(9, None, None),
            link(4, None, None),
            link(8, None, Some(4)),
            link(5, None, None),
            link(6, None, None),
        ];
        let found = sides(&links, [8, 3, 5, 4, 2]);
        let wanted = [(2, 2), (3, 2), (9, 2), (4, 4), (8, 4), (5, 5)];
        assert_eq!(found, wanted.into());
    }

    #[test]
    fn more_interfaces_than_there_is_room_for_are_refused_by_their_number() {
        assert!(expect_room(MOST).is_ok());
        let refused = expect_room(MOST + 1).unwrap_err().to_string();
        assert!(refused.contains("4097 interfaces"), "{refused}");
    }
}
