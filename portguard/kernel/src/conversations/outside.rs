//! The interfaces whose frames come from outside: the guarded ones, and those above them (bridges, bonds, VLANs, tunnels).
//! What came in by one of them and is forwarded begins no conversation, whatever the packet filter makes of its addresses.

use std::collections::BTreeSet;

use aya::maps::{HashMap, Map, MapData};

use super::find;
use crate::error::{Context as _, Error, Kind};
use crate::host::links;
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

fn write(outside: &BTreeSet<u32>, is_all: bool) -> crate::Result<()> {
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
    let there: BTreeSet<u32> = map.keys().collect::<Result<_, _>>()?;
    for index in outside.difference(&there) {
        map.insert(index, 1, 0)
            .context("cannot write map `OUTSIDE`")?;
    }
    if is_all {
        for index in there.difference(outside) {
            map.remove(index).context("cannot write map `OUTSIDE`")?;
        }
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

/// The interfaces that frames from outside come by, with those that are about to be guarded.
pub(super) fn outside(more: &[u32]) -> crate::Result<BTreeSet<u32>> {
    let guarded = guarded().into_iter().chain(more.iter().copied());
    Ok(links::above(&links::all()?, guarded))
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
