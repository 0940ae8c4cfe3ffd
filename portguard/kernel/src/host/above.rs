//! What programs need to know to find the interfaces above the one that a packet came by: the kernel routes a frame as come
//! by a VLAN, bridge, bond or macvlan above, and nobody but the kernel knows at any moment which there are.

use std::collections::BTreeMap;

use aya::util::KernelVersion;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::rule::{RuleAttribute, RuleFlags};
use portguard_common::abi::above::{WORDS, word};

use super::btf;
use super::links::Link;
use super::rules::rules;
use crate::machine;

/// The global of the guard that holds [`places`].
pub(crate) const GLOBAL: &str = "PLACES";

/// What the kernel aligns the memory of a driver behind that of its interface to.
const ALIGNED: u32 = 32;

/// Where programs find members of the kernel's structures: see [`word`].
pub(crate) fn places() -> [u32; WORDS] {
    let mut places = [0; WORDS];
    for (index, structure, name) in [
        (word::QUEUE, "xdp_buff", "rxq"),
        (word::QUEUE_DEVICE, "xdp_rxq_info", "dev"),
        (word::INDEX, "net_device", "ifindex"),
        (word::NAMESPACE, "net_device", "nd_net"),
        (word::UPPER, "net_device", "adj_list"),
        (word::LIST, "netdev_adjacent", "list"),
        (word::FLAGS, "net_device", "priv_flags"),
        (word::ADDRESS, "net_device", "dev_addr"),
        (word::MASTER, "netdev_adjacent", "master"),
        (word::OPERATIONS, "net_device", "rtnl_link_ops"),
        (word::KIND, "rtnl_link_ops", "kind"),
    ] {
        let bits = match btf::member(structure, name) {
            Some(bits) => bits,
            // Newer kernels have it elsewhere, and need it less.
            None if index == word::FLAGS && !hides_vrfs() => continue,
            None => return [0; WORDS],
        };
        if let Some(place) = places.get_mut(index) {
            *place = bits / 8;
        }
    }
    // Where one is not known, no frame counts as another host's.
    for (index, names) in [
        (word::HANDLER, &["rx_handler"][..]),
        (word::PROGRAMS, &["tcx_ingress", "miniq_ingress"]),
        (word::FILTER, &["nf_hooks_ingress"]),
    ] {
        let mut found = names
            .iter()
            .filter_map(|name| btf::member("net_device", name));
        if let (Some(bits), Some(place)) = (found.next(), places.get_mut(index)) {
            *place = bits / 8;
        }
    }
    let (Some(size), Some(place)) = (btf::size("net_device"), places.get_mut(word::PRIVATE)) else {
        return [0; WORDS];
    };
    *place = size.next_multiple_of(ALIGNED);
    if let Some(place) = places.get_mut(word::BUFFER_DEVICE) {
        // Behind two pointers, in a union that has no name. Programs see whether it is the interface that they run for.
        *place = 16;
    }
    if let Some(place) = places.get_mut(word::HIDES_VRFS) {
        *place = hides_vrfs().into();
    }
    places
}

/// Whether the kernel answers programs without a look at VRFs, so that nothing can be said of what comes by one.
pub(crate) fn hides_vrfs() -> bool {
    machine::version().is_none_or(|version| version < KernelVersion::new(5, 18, 0))
}

/// Whether programs find them.
pub(crate) fn are_known() -> bool {
    places().get(word::UPPER).is_some_and(|place| *place != 0)
}

/// Interfaces for which the kernel may have other routes than for the rest, and why.
pub(crate) fn apart(links: &[Link]) -> BTreeMap<u32, String> {
    let mut rules_by_name = Vec::new();
    for (family, command) in [
        (AddressFamily::Inet, "ip rule"),
        (AddressFamily::Inet6, "ip -6 rule"),
    ] {
        for rule in rules(family) {
            let is_inverted = rule.header.flags.contains(RuleFlags::Invert);
            for attribute in rule.attributes {
                if let RuleAttribute::Iifname(name) = attribute {
                    rules_by_name.push((name, is_inverted, command));
                }
            }
        }
    }
    let why = |link: &Link| {
        let mut rules = rules_by_name.iter();
        let is_for =
            |(name, is_inverted, _): &&(String, bool, &str)| (*name == link.name) != *is_inverted;
        if let Some((_, _, command)) = rules.find(is_for) {
            return Some(format!("`{command}` names it"));
        }
        let vrf = vrf(links, link)?;
        Some(format!("it is in VRF `{}`", vrf.name))
    };
    let all = links
        .iter()
        .filter_map(|link| Some((link.index, why(link)?)));
    all.collect()
}

/// The VRF that an interface is in, or is.
fn vrf<'a>(links: &'a [Link], link: &'a Link) -> Option<&'a Link> {
    let mut at = link;
    // A bridge in a bond in a VRF is as deep as it gets.
    for _ in 0..8 {
        if at.kind.as_deref() == Some("vrf") {
            return Some(at);
        }
        let master = at.master?;
        at = links.iter().find(|one| one.index == master)?;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(index: u32, kind: &str, master: Option<u32>) -> Link {
        Link {
            index,
            kind: Some(kind.to_owned()),
            master,
            ..Link::default()
        }
    }

    #[test]
    fn the_vrf_of_an_interface_is_found_through_what_it_is_part_of() {
        let links = [
            link(2, "veth", Some(3)),
            link(3, "bridge", Some(4)),
            link(4, "vrf", None),
            link(5, "veth", Some(6)),
            link(6, "bridge", None),
            link(7, "veth", Some(7)),
        ];
        let of: Vec<Option<u32>> = links
            .iter()
            .map(|link| vrf(&links, link).map(|vrf| vrf.index))
            .collect();
        assert_eq!(of, [Some(4), Some(4), Some(4), None, None, None]);
    }
}
