//! What takes packets for others to this host's own sockets: redirects of the packet filter, and rules by which a packet gets
//! another route than the one that a guard can ask for. A guard that passes what is for others must not be blind to them.

use std::collections::BTreeSet;
use std::fs;

use netlink_packet_route::AddressFamily;
use netlink_packet_route::route::{RouteMessage, RouteType};
use netlink_packet_route::rule::{RuleAttribute, RuleMessage};
use portguard_common::abi::above::ASKED;

use super::above;
use super::filters;
use super::links::{self, Link};
use super::local::{OWN, is_asked_first, is_kept, kept, number, routes};
use super::nat::{self, World};
use super::rules::{rules, table};
use crate::machine;

/// All of them, for packets that come by an interface, each as what a person wants to read.
pub fn diversions(interface: &str) -> Vec<String> {
    let world = World::here(&[interface.to_owned()]);
    let read = nat::read(&world.for_others(kept()));
    let redirects = read.published.into_iter();
    let redirects = redirects.filter(|one| one.is_host).map(|one| {
        let (first, last) = one.ports().into_inner();
        let ports = if first == last {
            first.to_string()
        } else {
            format!("{first}-{last}")
        };
        format!(
            "{} hands {}/{ports} on to a port of this host ({})",
            one.rule, one.transport, one.to
        )
    });
    let mut found: Vec<String> = redirects.collect();
    // Rules that rewrite addresses or ports without translation, or send frames on or twice; and whatever nobody knows here, such
    // as all of a table that no tool tells.
    let unread = read.unread.into_iter();
    found.extend(
        unread.map(|one| format!("{} may hand packets on to this host: {}", one.rule, one.why)),
    );
    let links = links::all().unwrap_or_default();
    let stack = stack(&links, interface);
    let passed = links.iter().filter(|link| stack.contains(&link.index));
    found.extend(passed.flat_map(filters::rewriting));
    for (family, name) in [(AddressFamily::Inet, "ip"), (AddressFamily::Inet6, "ip -6")] {
        let local = local_tables(family);
        let rules = rules(family);
        // Whoever leads some packets elsewhere decides which of them come to what stands behind.
        let behind: BTreeSet<u32> = rules.iter().map(table).collect();
        let behind = behind.intersection(&local).next().copied();
        let diverting = rules
            .iter()
            .filter_map(|rule| diverts(rule, &local, behind));
        found.extend(diverting.map(|why| format!("`{name} rule` {why}")));
    }
    let apart = apart(&links, interface);
    // What the kernel says of its structures is long: it is asked where there is something to say.
    if !apart.is_empty() && !above::are_known() {
        let apart = apart.into_iter();
        found.extend(apart.map(|(name, why)| {
            format!(
                "`{name}` may have routes of its own ({why}), and the kernel does not tell programs of interfaces that stand on \
                 each other (no `{}`, or it is locked down)",
                machine::BTF
            )
        }));
    }
    found
}

/// An interface and what stands on it, by index; empty where the interface is not among the `links`.
fn stack(links: &[Link], interface: &str) -> BTreeSet<u32> {
    let own = links.iter().find(|link| link.name == interface);
    own.map_or_else(BTreeSet::new, |own| links::above(links, [own.index]))
}

/// Of an interface and what stands on it, those that may have other routes than the others, each with why.
fn apart(links: &[Link], interface: &str) -> Vec<(String, String)> {
    let Some(own) = links.iter().find(|link| link.name == interface) else {
        return Vec::new();
    };
    let all = links::above(links, [own.index]);
    let apart = above::apart(links);
    let why = |link: &Link| apart.get(&link.index);
    let all: Vec<&Link> = links
        .iter()
        .filter(|link| all.contains(&link.index))
        .collect();
    // What is in the same VRF has the same routes; what rules name need not.
    let is_ruled = |why: &String| !why.contains("VRF");
    if all
        .iter()
        .all(|link| why(link) == why(own) && !why(link).is_some_and(is_ruled))
    {
        return Vec::new();
    }
    let found = all
        .into_iter()
        .filter_map(|link| Some((link.name.clone(), why(link)?.clone())));
    found.collect()
}

/// What passes through an interface and may be judged all the same, since the kernel may route it as come by another: as what a
/// person wants to read.
pub fn doubtful(interface: &str) -> Vec<String> {
    let links = links::all().unwrap_or_default();
    let apart = apart(&links, interface).into_iter();
    let mut found: Vec<String> = apart
        .map(|(name, why)| {
            format!(
                "`{name}` may have routes of its own ({why}): what is forwarded passes only where none of `{interface}` and what \
                 stands on it would keep it"
            )
        })
        .collect();
    let stack = stack(&links, interface);
    let vrf = |link: &&Link| stack.contains(&link.index) && link.kind.as_deref() == Some("vrf");
    if let (true, Some(vrf)) = (above::hides_vrfs(), links.iter().find(vrf)) {
        found.push(format!(
            "before Linux 5.18 programs are not told what VRF `{}` keeps: all that arrives is judged",
            vrf.name
        ));
    }
    let count = stack.len();
    if count > ASKED {
        found.push(format!(
            "{count} interfaces stand on each other here, and no more than {ASKED} are asked for: all that arrives is judged"
        ));
    }
    if !found.is_empty() && !above::are_known() {
        return Vec::new();
    }
    found
}

/// What is bridged and judged all the same, since this host has no route by which the kernel would say that it is for others: as
/// what a person wants to read.
pub fn unrouted(interface: &str) -> Vec<String> {
    if !is_bridged(&links::all().unwrap_or_default(), interface) {
        return Vec::new();
    }
    let families = [
        (AddressFamily::Inet, "IPv4"),
        (AddressFamily::Inet6, "IPv6"),
    ];
    let found = families.into_iter().filter_map(|(family, name)| {
        let routes = routes(family).unwrap_or_default();
        let is_default = |route: &RouteMessage| {
            route.header.destination_prefix_length == 0 && route.header.kind == RouteType::Unicast
        };
        (!routes.iter().any(is_default)).then(|| {
            format!(
                "this host has no default route of {name}: what is bridged to hosts (virtual machines, containers) to which it has \
                 no route is judged as its own; give it a route, or write rows for them"
            )
        })
    });
    found.collect()
}

/// What passes through an interface and would be judged all the same, since the kernel says of none of it that it would be
/// forwarded: as what a person wants to read, and the setting that has it say so.
pub fn unforwarded(interface: &str) -> Vec<(String, String)> {
    let is_on = |path: &str| {
        let text = fs::read_to_string(format!("/proc/sys/net/{path}"));
        text.ok().map(|text| text.trim() != "0")
    };
    let links = links::all().unwrap_or_default();
    let (is_bridged, beside) = (is_bridged(&links, interface), beside(&links, interface));
    let mut found = Vec::new();
    for family in ["ipv4", "ipv6"] {
        let own = format!("{family}/conf/{interface}/forwarding");
        // Where the kernel does not have the family, nothing passes.
        if is_on(&own) != Some(false) {
            continue;
        }
        let is_routed = is_on(&format!("{family}/conf/all/forwarding")) == Some(true)
            || is_on(&format!("{family}/conf/{interface}/force_forwarding")) == Some(true);
        let what = match (is_bridged, is_routed) {
            (true, _) => "what is bridged to the other ports",
            (false, true) => "what is forwarded",
            (false, false) => continue,
        };
        let setting = setting(family, interface);
        found.push((format!("{what} is judged, since `{setting}` is 0"), setting));
    }
    for (family, name) in ["ipv4", "ipv6"]
        .into_iter()
        .flat_map(|family| beside.iter().map(move |name| (family, name)))
    {
        let of = |name: &str| is_on(&format!("{family}/conf/{name}/forwarding"));
        if of(interface) == Some(true) && of(name) == Some(false) {
            let setting = setting(family, name);
            let what = format!(
                "what is forwarded is judged, since `{name}` takes what `{interface}` does and `{setting}` is 0"
            );
            found.push((what, setting));
        }
    }
    found
}

/// The setting that has an interface forward, as `sysctl` is told.
fn setting(family: &str, interface: &str) -> String {
    if interface.contains('.') {
        format!("net/{family}/conf/{interface}/forwarding")
    } else {
        format!("net.{family}.conf.{interface}.forwarding")
    }
}

/// What stands on an interface and may take any frame that it takes: VLANs, since a card may hide the tags of frames, and `MACsec`.
fn beside(links: &[Link], interface: &str) -> Vec<String> {
    const KINDS: [&str; 2] = ["vlan", "macsec"];
    let is_one = |link: &&Link| {
        link.kind
            .as_deref()
            .is_some_and(|kind| KINDS.contains(&kind))
    };
    let stack = stack(links, interface);
    let all = links.iter().filter(is_one);
    all.filter(|link| stack.contains(&link.index) && link.name != interface)
        .map(|link| link.name.clone())
        .collect()
}

/// Whether an interface is a port of a bridge that has others.
fn is_bridged(links: &[Link], interface: &str) -> bool {
    let port = links.iter().find(|link| link.name == interface);
    let Some(master) = port.and_then(|port| port.master) else {
        return false;
    };
    let is_bridge = |link: &Link| link.index == master && link.kind.as_deref() == Some("bridge");
    let ports = links.iter().filter(|link| link.master == Some(master));
    links.iter().any(is_bridge) && ports.count() > 1
}

/// Tables that have routes to this host itself; the kernel's own where it is not asked first.
fn local_tables(family: AddressFamily) -> BTreeSet<u32> {
    let routes = routes(family).unwrap_or_default().into_iter();
    let kept = routes.filter(is_kept);
    let is_asked_first = is_asked_first(family);
    kept.map(|route| number(&route))
        .filter(|table| *table != OWN || !is_asked_first)
        .collect()
}

/// Why a rule leads to this host, or to what leads there `behind` it, by something that a guard cannot ask for; `None` if it
/// does not.
fn diverts(rule: &RuleMessage, local: &BTreeSet<u32>, behind: Option<u32>) -> Option<String> {
    let to = Some(table(rule)).filter(|table| local.contains(table));
    let table = to.or(behind)?;
    let is_six = rule.header.family == AddressFamily::Inet6;
    let mut by = Vec::new();
    if rule.header.tos != 0 {
        by.push("tos");
    }
    for attribute in &rule.attributes {
        #[expect(
            clippy::wildcard_enum_match_arm,
            reason = "one of many, and more come with each kernel"
        )]
        match attribute {
            RuleAttribute::FwMark(mark) if *mark != 0 => by.push("fwmark"),
            // A mark of nothing, of which some bits count, is one.
            RuleAttribute::FwMask(mask) if !by.contains(&"fwmark") && selects_none(rule, *mask) => {
                by.push("fwmark");
            }
            RuleAttribute::IpProtocol(_) => by.push("ipproto"),
            RuleAttribute::SourcePortRange(_) => by.push("sport"),
            RuleAttribute::DestinationPortRange(_) => by.push("dport"),
            RuleAttribute::TunId(id) if *id != 0 => by.push("tun_id"),
            // Programs are answered by what such a rule would not take, in IPv6.
            RuleAttribute::SuppressPrefixLen(least) if is_six && *least != u32::MAX => {
                by.push("suppress_prefixlength");
            }
            RuleAttribute::SuppressIfGroup(group) if is_six && *group != u32::MAX => {
                by.push("suppress_ifgroup");
            }
            // New selectors (DSCP, flow label) of newer kernels.
            RuleAttribute::Other(_) => by.push("a selector that is not known here"),
            _ => {}
        }
    }
    let what = if to.is_some() {
        "leads packets"
    } else {
        "decides about packets"
    };
    (!by.is_empty()).then(|| {
        format!(
            "{what} by {} on the way to table {table}, which has routes to this host",
            by.join(", ")
        )
    })
}

/// Whether a rule is for packets without a mark, by these bits of it.
fn selects_none(rule: &RuleMessage, mask: u32) -> bool {
    let has_mark =
        |attribute: &RuleAttribute| matches!(attribute, RuleAttribute::FwMark(mark) if *mark != 0);
    mask != 0 && !rule.attributes.iter().any(has_mark)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vlans_on_an_interface_take_what_it_takes() {
        let link = |index: u32, name: &str, kind: &str, below: Option<u32>| Link {
            index,
            name: name.to_owned(),
            kind: Some(kind.to_owned()),
            below,
            ..Link::default()
        };
        let links = [
            link(2, "a0", "veth", None),
            link(3, "a0.6", "vlan", Some(2)),
            link(4, "mv0", "macvlan", Some(2)),
            link(5, "b0", "veth", None),
            link(6, "b0.6", "vlan", Some(5)),
            link(7, "vx0", "vxlan", Some(2)),
        ];
        assert_eq!(beside(&links, "a0"), ["a0.6"]);
        assert_eq!(setting("ipv4", "a0.6"), "net/ipv4/conf/a0.6/forwarding");
        assert_eq!(setting("ipv6", "a0"), "net.ipv6.conf.a0.forwarding");
    }

    #[test]
    fn a_rule_diverts_by_what_nobody_can_ask_for_and_to_this_host_only() {
        let rule = |table: u8, attributes: Vec<RuleAttribute>| {
            let mut rule = RuleMessage::default();
            rule.header.table = table;
            rule.attributes = attributes;
            rule
        };
        let local = BTreeSet::from([100]);
        let mark = || vec![RuleAttribute::FwMark(1)];
        let diverts = |rule: &RuleMessage, local| diverts(rule, local, None);
        assert!(diverts(&rule(100, mark()), &local).is_some_and(|why| why.contains("fwmark")));
        // As `wg-quick` has them: not to this host.
        assert_eq!(diverts(&rule(99, mark()), &local), None);
        // Unless another rule leads there, to which this one lets come what it does not take.
        assert!(super::diverts(&rule(99, mark()), &local, Some(100)).is_some());
        // What a guard asks for with the addresses and the interface.
        let source = RuleAttribute::Source([10, 0, 0, 1].into());
        assert_eq!(diverts(&rule(100, vec![source]), &local), None);
        // No mark at all, by some bits of it or by all.
        for mask in [1, u32::MAX] {
            let none = rule(100, vec![RuleAttribute::FwMask(mask)]);
            assert!(diverts(&none, &local).is_some());
        }
        let mut tos = rule(100, vec![RuleAttribute::FwMark(0)]);
        assert_eq!(diverts(&tos, &local), None);
        tos.header.tos = 16;
        assert!(diverts(&tos, &local).is_some());
    }
}
