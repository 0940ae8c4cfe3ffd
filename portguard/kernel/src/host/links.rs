//! All interfaces of this network namespace: what each is, and by which its packets come.

use std::collections::BTreeSet;

use netlink_packet_core::NLM_F_DUMP;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    BondMode, BridgeStpState, InfoBond, InfoBridge, InfoData, InfoKind, LinkAttribute, LinkFlags,
    LinkInfo, LinkMessage,
};
use netlink_sys::protocols::NETLINK_ROUTE;

use super::netlink::request;
use super::outer::Outer;
use crate::error::Context as _;
use portguard_policy::tunnels::is_device;

/// An interface.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Link {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// What `ip -d link` calls it; nothing for a network card.
    pub kind: Option<String>,
    /// The bridge, bond or VRF that it is part of.
    pub master: Option<u32>,
    /// The interface of this network namespace that it stands on.
    pub below: Option<u32>,
    /// Whether it was brought up.
    pub is_up: bool,
    /// Whether it is the loopback interface.
    pub is_loopback: bool,
    /// Whether it speaks LACP to the switch, as a bond, or spanning tree, as a bridge.
    pub speaks: Option<Speaks>,
    /// What carries it, where it is the end of a tunnel.
    pub(crate) outer: Option<Outer>,
    /// Bytes of the largest packet that is merged or not yet segmented.
    pub largest: u32,
}

/// A protocol below IP that an interface needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speaks {
    /// Link aggregation, mode 802.3ad.
    Lacp,
    /// Spanning tree.
    Stp,
}

/// All of them.
///
/// # Errors
/// If the kernel does not list them.
pub fn all() -> crate::Result<Vec<Link>> {
    let question = RouteNetlinkMessage::GetLink(LinkMessage::default());
    let answers = request(NETLINK_ROUTE, question, NLM_F_DUMP)
        .context("cannot list the network interfaces")?;
    let links = answers.iter().filter_map(|answer| {
        if let RouteNetlinkMessage::NewLink(link) = answer {
            Some(Link::of(link))
        } else {
            None
        }
    });
    Ok(links.collect())
}

impl Link {
    pub(crate) fn of(link: &LinkMessage) -> Self {
        let mut found = Self {
            index: link.header.index,
            is_up: link.header.flags.contains(LinkFlags::Up),
            is_loopback: link.header.flags.contains(LinkFlags::Loopback),
            ..Self::default()
        };
        let mut is_elsewhere = false;
        let mut infos: &[LinkInfo] = &[];
        for attribute in &link.attributes {
            #[expect(
                clippy::wildcard_enum_match_arm,
                reason = "one of many, and more come with each kernel"
            )]
            match attribute {
                LinkAttribute::IfName(name) => found.name.clone_from(name),
                LinkAttribute::Controller(index) => found.master = Some(*index),
                LinkAttribute::Link(index) => found.below = Some(*index),
                // An index of another namespace means nothing here.
                LinkAttribute::LinkNetNsId(_) => is_elsewhere = true,
                LinkAttribute::GsoMaxSize(bytes)
                | LinkAttribute::GroMaxSize(bytes)
                | LinkAttribute::GsoIpv4MaxSize(bytes)
                | LinkAttribute::GroIpv4MaxSize(bytes) => found.largest = found.largest.max(*bytes),
                LinkAttribute::LinkInfo(all) => {
                    for info in all {
                        found.info(info);
                    }
                    infos = all;
                }
                _ => {}
            }
        }
        // The other end of a pair stands beside it, not below.
        if is_elsewhere || found.kind.as_deref() == Some("veth") {
            found.below = None;
        }
        let kind = found.kind.as_deref();
        found.outer = kind.and_then(|kind| Outer::of(&found.name, kind, infos));
        found
    }

    fn info(&mut self, info: &LinkInfo) {
        if let LinkInfo::Kind(kind) = info {
            self.kind = Some(InfoKind::to_string(kind));
        } else if let LinkInfo::Data(InfoData::Bond(bond)) = info {
            let is_lacp = |one: &InfoBond| matches!(one, InfoBond::Mode(BondMode::Ieee8023Ad));
            self.speaks = bond.iter().any(is_lacp).then_some(Speaks::Lacp);
        } else if let LinkInfo::Data(InfoData::Bridge(bridge)) = info {
            let is_stp = |one: &InfoBridge| matches!(one, InfoBridge::StpState(state) if *state != BridgeStpState::Disabled);
            self.speaks = bridge.iter().any(is_stp).then_some(Speaks::Stp);
        }
    }
}

/// These interfaces, and those that get packets from them: bridges, bonds, VLANs, tunnels.
pub fn above(links: &[Link], from: impl IntoIterator<Item = u32>) -> BTreeSet<u32> {
    let mut found: BTreeSet<u32> = from.into_iter().collect();
    loop {
        let count = found.len();
        for link in links {
            if link.below.is_some_and(|below| found.contains(&below)) {
                found.insert(link.index);
            }
            if found.contains(&link.index) {
                found.extend(link.master);
            }
        }
        if found.len() == count {
            return found;
        }
    }
}

/// Interfaces that are up and whose packets no guard sees: neither one on them nor one on all that they come by. Ports go by
/// the bridge or bond that they are part of.
pub fn unguarded<'a>(links: &'a [Link], guarded: &BTreeSet<u32>) -> Vec<&'a Link> {
    // What carries no packets of others, and what only takes copies of them.
    const INERT: [&str; 3] = ["dummy", "ifb", "nlmon"];
    let mut seen = guarded.clone();
    loop {
        let count = seen.len();
        for link in links {
            // What a tunnel brings is inside the packets that the interface below sees.
            let is_tunnel = link.kind.as_deref().is_some_and(is_device);
            let is_below_seen = || link.below.is_some_and(|below| seen.contains(&below));
            let mut ports = links.iter().filter(|port| port.master == Some(link.index));
            let mut is_all_seen = || {
                let mut ports = ports.by_ref().peekable();
                ports.peek().is_some() && ports.all(|port| seen.contains(&port.index))
            };
            if !is_tunnel && (is_below_seen() || is_all_seen()) {
                seen.insert(link.index);
            }
        }
        if seen.len() == count {
            break;
        }
    }
    let is_inert = |link: &Link| {
        link.kind
            .as_deref()
            .is_some_and(|kind| INERT.contains(&kind))
    };
    links
        .iter()
        .filter(|link| {
            let is_port = link.master.is_some();
            link.is_up && !link.is_loopback && !is_port && !is_inert(link)
        })
        .filter(|link| !seen.contains(&link.index))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(index: u32, kind: &str, master: Option<u32>, below: Option<u32>) -> Link {
        Link {
            index,
            name: format!("if{index}"),
            kind: Some(kind.to_owned()),
            master,
            below,
            is_up: true,
            ..Link::default()
        }
    }

    #[test]
    fn what_is_above_an_interface_is_found() {
        // 2 is a port of the bridge 5, on which is the VLAN 6, on which is the tunnel 7; 3 is another port; 4 stands alone.
        let links = [
            link(7, "vxlan", None, Some(6)),
            link(6, "vlan", None, Some(5)),
            link(5, "bridge", None, None),
            link(2, "veth", Some(5), None),
            link(3, "veth", Some(5), None),
            link(4, "veth", None, None),
        ];
        assert_eq!(above(&links, [2]), [2, 5, 6, 7].into());
        assert_eq!(above(&links, [4]), [4].into());
        let circle = [link(2, "a", None, Some(3)), link(3, "b", None, Some(2))];
        assert_eq!(above(&circle, [2]), [2, 3].into());
    }

    #[test]
    fn what_no_guard_sees_is_unguarded() {
        let links = [
            Link {
                is_loopback: true,
                ..link(1, "", None, None)
            },
            link(2, "veth", None, None),
            link(3, "vlan", None, Some(2)),
            link(4, "vxlan", None, Some(2)),
            link(5, "bond", None, None),
            link(6, "veth", Some(5), None),
            link(7, "veth", Some(5), None),
            link(8, "dummy", None, None),
            Link {
                is_up: false,
                ..link(9, "veth", None, None)
            },
        ];
        let names = |guarded: &[u32]| -> Vec<u32> {
            let guarded = guarded.iter().copied().collect();
            unguarded(&links, &guarded)
                .iter()
                .map(|link| link.index)
                .collect()
        };
        assert_eq!(names(&[]), [2, 3, 4, 5]);
        // The VLAN's packets come by its card; what is inside the tunnel is another matter.
        assert_eq!(names(&[2]), [4, 5]);
        // A bond is seen where all its members are.
        assert_eq!(names(&[2, 4, 6]), [5]);
        assert_eq!(names(&[2, 4, 6, 7]), [0_u32; 0]);
        assert_eq!(names(&[5]), [2, 3, 4]);
    }

    /// What comes inside of frames that are not IP was judged nowhere.
    #[test]
    fn what_carries_packets_right_on_the_link_is_a_tunnel() {
        for kind in ["macsec", "hsr", "dsa", "ppp", "batadv"] {
            let above = link(3, kind, None, Some(2));
            let part = link(4, "veth", Some(5), None);
            let whole = link(5, kind, None, None);
            let links = [link(2, "veth", None, None), above, part, whole];
            let left = unguarded(&links, &[2, 4].into());
            let left: Vec<u32> = left.iter().map(|link| link.index).collect();
            assert_eq!(left, [3, 5], "{kind}");
        }
    }
}
