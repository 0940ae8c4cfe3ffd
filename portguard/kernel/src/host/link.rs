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
