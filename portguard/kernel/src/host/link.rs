//! How the frames of an interface start: with an Ethernet header, with the IP header, or with what the guard cannot read.

use netlink_packet_route::link::{LinkAttribute, LinkInfo, LinkLayerType, LinkMessage};

use crate::error::{Error, Kind, gone};
use crate::host::netlink;

/// What a frame starts with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// Ethernet, or the loopback's imitation of it.
    Ethernet,
    /// IPv4 or IPv6.
    Ip,
}

/// What the frames of an interface start with.
///
/// # Errors
/// [`Error`] where XDP and TCX give them with something in front that says not where it ends: the outer headers of a tunnel
/// stand there, or do not, by the kernel's version.
pub fn start(index: u32, name: &str) -> crate::Result<Start> {
    let link = netlink::link(index).map_err(|error| gone(name).caused_by(error))?;
    of(&link).map_err(|kind| {
        Error::new(Kind::Unsuitable, format!(
            "`{name}` has no Ethernet header ({kind}), and what its frames start with is not known"
        ))
        .hint("guard the interface below, which carries the tunnel; tun, WireGuard and PPP interfaces can be guarded")
    })
}

/// The link address of an interface, first octet lowest; `None` where it has none of six octets, or is gone.
pub(crate) fn address(index: u32) -> Option<u64> {
    let link = netlink::link(index).ok()?;
    let octets = link.attributes.into_iter().find_map(|attribute| {
        if let LinkAttribute::Address(octets) = attribute {
            <[u8; 6]>::try_from(octets).ok()
        } else {
            None
        }
    })?;
    Some(u64::from_le_bytes(padded(octets)))
}

/// A link address as eight octets.
fn padded(octets: [u8; 6]) -> [u8; 8] {
    let mut padded = [0; 8];
    padded[..6].copy_from_slice(&octets);
    padded
}

/// As [`start`] says; the kind of the interface where it is none of these.
pub(crate) fn of(link: &LinkMessage) -> Result<Start, String> {
    let kind = kind(link);
    let layer = link.header.link_layer_type;
    match (layer, kind.as_deref()) {
        (LinkLayerType::Ether | LinkLayerType::Loopback, _) => Ok(Start::Ethernet),
        (LinkLayerType::None, Some("tun" | "wireguard")) | (LinkLayerType::Ppp, _) => Ok(Start::Ip),
        (_, Some(kind)) => Err(kind.to_owned()),
        (_, None) => Err(format!("link type {}", u16::from(layer))),
    }
}

/// The kind that the kernel gives an interface, as `ip -d link` shows it.
pub(crate) fn kind(link: &LinkMessage) -> Option<String> {
    link.attributes.iter().find_map(|attribute| {
        let LinkAttribute::LinkInfo(infos) = attribute else {
            return None;
        };
        infos.iter().find_map(|info| {
            if let LinkInfo::Kind(kind) = info {
                Some(kind.to_string())
            } else {
                None
            }
        })
    })
}

#[cfg(test)]
mod tests {
    use netlink_packet_route::link::InfoKind;

    use super::*;

    /// An interface of this kind, by the kernel's number of its link type.
    fn link(layer: u16, kind: &str) -> LinkMessage {
        let mut link = LinkMessage::default();
        link.header.link_layer_type = LinkLayerType::from(layer);
        if !kind.is_empty() {
            let info = vec![LinkInfo::Kind(InfoKind::Other(kind.to_owned()))];
            link.attributes = vec![LinkAttribute::LinkInfo(info)];
        }
        link
    }

    /// Link types as `if_arp.h` numbers them.
    mod layer {
        pub(super) const ETHER: u16 = 1;
        pub(super) const INFINIBAND: u16 = 32;
        pub(super) const PPP: u16 = 512;
        pub(super) const RAWIP: u16 = 519;
        pub(super) const TUNNEL: u16 = 768;
        pub(super) const TUNNEL6: u16 = 769;
        pub(super) const LOOPBACK: u16 = 772;
        pub(super) const SIT: u16 = 776;
        pub(super) const GRE: u16 = 778;
        pub(super) const GRE6: u16 = 823;
        pub(super) const NONE: u16 = 65_534;
    }

    #[test]
    fn interfaces_are_taken_by_what_their_frames_start_with() {
        for (number, kind, start) in [
            (layer::ETHER, "", Start::Ethernet),
            (layer::ETHER, "veth", Start::Ethernet),
            (layer::ETHER, "tun", Start::Ethernet),
            (layer::ETHER, "gretap", Start::Ethernet),
            (layer::LOOPBACK, "", Start::Ethernet),
            (layer::NONE, "tun", Start::Ip),
            (layer::NONE, "wireguard", Start::Ip),
            (layer::PPP, "ppp", Start::Ip),
            (layer::PPP, "", Start::Ip),
        ] {
            assert_eq!(of(&link(number, kind)), Ok(start), "{number} {kind}");
        }
    }

    #[test]
    fn tunnels_whose_frames_start_with_who_knows_what_are_refused_by_name() {
        for (number, kind) in [
            (layer::TUNNEL, "ipip"),
            (layer::TUNNEL6, "ip6tnl"),
            (layer::SIT, "sit"),
            (layer::GRE, "gre"),
            (layer::GRE6, "ip6gre"),
            (layer::NONE, "xfrm"),
            (layer::NONE, "ipvlan"),
            (layer::NONE, "netkit"),
            (layer::TUNNEL, "vti"),
            (layer::RAWIP, "rmnet"),
            (layer::INFINIBAND, "ipoib"),
        ] {
            assert_eq!(of(&link(number, kind)), Err(kind.to_owned()), "{number}");
        }
        assert_eq!(of(&link(32, "")), Err("link type 32".to_owned()));
        assert_eq!(
            of(&link(layer::NONE, "")),
            Err("link type 65534".to_owned())
        );
    }
}
