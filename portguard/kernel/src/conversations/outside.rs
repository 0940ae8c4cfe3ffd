//! The interfaces whose frames come from outside: the guarded ones, and those above them (bridges, bonds, VLANs, tunnels).
//! What came in by one of them and is forwarded begins no conversation, whatever the packet filter makes of its addresses.

use std::collections::BTreeSet;

use anyhow::Context as _;
use aya::maps::{HashMap, Map, MapData};
use netlink_packet_core::NLM_F_DUMP;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use portguard_common::reason::Direction;

use super::find;
use crate::hook::attach;
use crate::host::netlink::request;
use crate::pins::bpffs::layouts;

/// An interface, and those that it is above or part of.
struct Device {
    index: u32,
    /// The bridge, bond or VRF that it is part of.
    master: Option<u32>,
    /// The interface that it sends through.
    lower: Option<u32>,
}

/// Writes which interfaces they are now; nothing where no interface is guarded. `more` are about to be.
///
/// # Errors
/// If interfaces cannot be listed, or the map not written.
pub fn follow(more: &[u32]) -> anyhow::Result<()> {
    let Some(namespace) = find() else {
        return Ok(());
    };
    let pin = namespace.directory().join("OUTSIDE");
    if !pin.exists() {
        return Ok(());
    }
    let guarded = layouts()
        .into_iter()
        .filter(|layout| layout.interface().1)
        .filter_map(|layout| attach::inspect(&layout.link(Direction::Ingress)).ok()?)
        .map(|link| link.ifindex)
        .chain(more.iter().copied())
        .filter(|index| *index != 0)
        .collect();
    let outside = above(&devices()?, guarded);
    let map =
        MapData::from_pin(&pin).with_context(|| format!("cannot open `{}`", pin.display()))?;
    let mut map: HashMap<MapData, u32, u32> = Map::HashMap(map).try_into()?;
    let there: BTreeSet<u32> = map.keys().collect::<Result<_, _>>()?;
    for index in outside.difference(&there) {
        map.insert(index, 1, 0)
            .context("cannot write map `OUTSIDE`")?;
    }
    for index in there.difference(&outside) {
        map.remove(index).context("cannot write map `OUTSIDE`")?;
    }
    Ok(())
}

fn devices() -> anyhow::Result<Vec<Device>> {
    let question = RouteNetlinkMessage::GetLink(LinkMessage::default());
    let answers = request(NETLINK_ROUTE, question, NLM_F_DUMP)
        .context("cannot list the network interfaces")?;
    Ok(answers
        .into_iter()
        .filter_map(|answer| {
            let RouteNetlinkMessage::NewLink(link) = answer else {
                return None;
            };
            let mut device = Device {
                index: link.header.index,
                master: None,
                lower: None,
            };
            let mut is_elsewhere = false;
            for attribute in link.attributes {
                if let LinkAttribute::Controller(index) = attribute {
                    device.master = Some(index);
                } else if let LinkAttribute::Link(index) = attribute {
                    device.lower = Some(index);
                } else if let LinkAttribute::LinkNetNsId(_) = attribute {
                    is_elsewhere = true;
                }
            }
            if is_elsewhere {
                // The other end of a veth pair, say: its number means nothing here.
                device.lower = None;
            }
            Some(device)
        })
        .collect())
}

/// The guarded interfaces and all above them.
fn above(devices: &[Device], mut outside: BTreeSet<u32>) -> BTreeSet<u32> {
    loop {
        let count = outside.len();
        for device in devices {
            if device.lower.is_some_and(|lower| outside.contains(&lower)) {
                outside.insert(device.index);
            }
            if outside.contains(&device.index) {
                outside.extend(device.master);
            }
        }
        if outside.len() == count {
            return outside;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_above_a_guarded_interface_is_outside() {
        let device = |index, master, lower| Device {
            index,
            master,
            lower,
        };
        // 2 is a port of the bridge 5, on which is the VLAN 6, on which is the tunnel 7; 3 is another port; 4 stands alone.
        let devices = [
            device(7, None, Some(6)),
            device(6, None, Some(5)),
            device(5, None, None),
            device(2, Some(5), None),
            device(3, Some(5), None),
            device(4, None, None),
        ];
        assert_eq!(above(&devices, [2].into()), [2, 5, 6, 7].into());
        assert_eq!(above(&devices, [4].into()), [4].into());
    }

    #[test]
    fn a_veth_pair_within_a_namespace_ends() {
        let ends = [(2, 3), (3, 2)].map(|(index, lower)| Device {
            index,
            master: None,
            lower: Some(lower),
        });
        assert_eq!(above(&ends, [2].into()), [2, 3].into());
    }
}
