//! What routes keep for this host itself, beside those that the kernel asks before all others: packets for these are judged
//! however they are routed, since rules may go by what a guard cannot ask for.

use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_core::NLM_F_DUMP;
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteLwEnCapType, RouteMessage, RouteType,
};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleFlags, RuleMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use portguard_common::abi::local::{PREFIXES, WORDS};

use super::netlink::request;
use super::rules::{rules, table};
use crate::error::{Error, Kind};

/// The global of the guard that holds [`words`].
pub(crate) const GLOBAL: &str = "LOCAL";

/// The kernel's own table.
pub(super) const OWN: u32 = 255;

/// Encapsulations by which packets go on to somebody else (Linux, `net/core/lwtunnel.c`).
const ENCLOSES: [RouteLwEnCapType; 7] = [
    RouteLwEnCapType::None,
    RouteLwEnCapType::Mpls,
    RouteLwEnCapType::Ip,
    RouteLwEnCapType::Ip6,
    RouteLwEnCapType::Seg6,
    RouteLwEnCapType::Ioam6,
    RouteLwEnCapType::Xfrm,
];

/// Such destinations, none within another. One that takes in everything is left out: whether anything is for others then is
/// decided by rules alone.
///
/// # Errors
/// What the kernel refuses.
pub fn prefixes() -> crate::Result<Vec<IpNet>> {
    let mut found = Vec::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let is_asked_first = is_asked_first(family);
        for route in routes(family)? {
            let is_asked = is_asked_first && number(&route) == OWN && route.header.tos == 0;
            if is_kept(&route) && !is_asked || is_unpacked(&route) {
                found.extend(destination(&route));
            }
        }
    }
    let mut found = IpNet::aggregate(&found);
    found.retain(|prefix| prefix.prefix_len() > 0);
    Ok(found)
}

/// Whatever any route of any table keeps for this host, but what takes in everything.
pub(super) fn kept() -> Vec<IpNet> {
    let families = [AddressFamily::Inet, AddressFamily::Inet6].into_iter();
    let routes = families.flat_map(|family| routes(family).unwrap_or_default());
    let nets = routes
        .filter(is_kept)
        .filter_map(|route| destination(&route));
    nets.filter(|net| net.prefix_len() > 0).collect()
}

/// What is judged by them, to be said.
pub fn describe(prefixes: &[IpNet]) -> Option<String> {
    const SHOWN: usize = 4;
    let named: Vec<String> = prefixes
        .iter()
        .take(SHOWN)
        .map(ToString::to_string)
        .collect();
    let more = match prefixes.len().saturating_sub(SHOWN) {
        0 => String::new(),
        count => format!(" and {count} more"),
    };
    (!named.is_empty()).then(|| {
        format!(
            "routes that the kernel does not ask first, or that unpack packets, keep {}{more} for this host: what is for these is \
             judged, whatever rules say",
            named.join(", ")
        )
    })
}

/// Whether the kernel asks its own table before any rule decides.
pub(super) fn is_asked_first(family: AddressFamily) -> bool {
    rules(family).first().is_some_and(asks_all)
}

/// The destinations that came after these were looked up.
pub fn since(known: &[IpNet]) -> Vec<IpNet> {
    let now = prefixes().unwrap_or_default().into_iter();
    now.filter(|prefix| !known.iter().any(|one| one.contains(prefix)))
        .collect()
}

/// As programs have them: how many, and of each the address and the mask, high and low halves.
///
/// # Errors
/// [`Error`] if they are more than programs look through.
pub(crate) fn words(prefixes: &[IpNet]) -> Result<[u64; WORDS], Error> {
    if prefixes.len() > PREFIXES {
        let what = format!(
            "{} prefixes are this host's own by routes outside of table `local`, and no more than {PREFIXES} can be judged",
            prefixes.len()
        );
        return Err(Error::new(Kind::TooLarge, what).hint("write `scope = \"all\"`"));
    }
    let mut words = [0; WORDS];
    let half = |bits: u128| u64::try_from(bits & u128::from(u64::MAX)).unwrap_or_default();
    let halves = |bits: u128| [half(bits >> 64), half(bits)];
    let each = prefixes.iter().flat_map(|prefix| {
        let (address, mask) = match (prefix.network(), prefix.netmask()) {
            (IpAddr::V4(address), IpAddr::V4(mask)) => (
                u128::from(address.to_bits()),
                u128::MAX << 32 | u128::from(mask.to_bits()),
            ),
            (IpAddr::V6(address), IpAddr::V6(mask)) => (address.to_bits(), mask.to_bits()),
            // A prefix and its mask are of one family.
            _ => (0, 0),
        };
        [halves(address), halves(mask)].concat()
    });
    let count = [prefixes.len() as u64].into_iter();
    for (word, value) in words.iter_mut().zip(count.chain(each)) {
        *word = value;
    }
    Ok(words)
}

/// Whether a rule leads every packet to the kernel's own table.
fn asks_all(rule: &RuleMessage) -> bool {
    let header = &rule.header;
    let selects = rule.attributes.iter().any(|attribute| {
        !matches!(
            attribute,
            RuleAttribute::Table(_)
                | RuleAttribute::Priority(_)
                | RuleAttribute::Protocol(_)
                | RuleAttribute::SuppressPrefixLen(u32::MAX)
        )
    });
    table(rule) == OWN
        && header.action == RuleAction::ToTable
        && !header.flags.contains(RuleFlags::Invert)
        && [header.dst_len, header.src_len, header.tos] == [0; 3]
        && !selects
}

/// Whether this host takes what a route leads somewhere.
pub(super) fn is_kept(route: &RouteMessage) -> bool {
    matches!(
        route.header.kind,
        RouteType::Local | RouteType::Broadcast | RouteType::Anycast
    )
}

/// Whether a route changes what comes to it (`encap` of `ip route`), so that what it was may be for this host: programs are told of
/// such a route that it has an encapsulation, not which. Those that only enclose, and what nothing is changed by, are left out.
fn is_unpacked(route: &RouteMessage) -> bool {
    let unpacks = |attributes: &[RouteAttribute]| {
        attributes.iter().any(|attribute| {
            matches!(attribute, RouteAttribute::EncapType(kind) if !ENCLOSES.contains(kind))
        })
    };
    let by_hops = |attribute: &RouteAttribute| matches!(attribute, RouteAttribute::MultiPath(hops) if hops.iter().any(|hop| unpacks(&hop.attributes)));
    unpacks(&route.attributes) || route.attributes.iter().any(by_hops)
}

/// All routes of a family.
pub(super) fn routes(family: AddressFamily) -> crate::Result<Vec<RouteMessage>> {
    let mut question = RouteMessage::default();
    question.header.address_family = family;
    let question = RouteNetlinkMessage::GetRoute(question);
    let answers = request(NETLINK_ROUTE, question, NLM_F_DUMP)?;
    let routes = answers.into_iter().filter_map(|answer| {
        if let RouteNetlinkMessage::NewRoute(route) = answer {
            Some(route)
        } else {
            None
        }
    });
    Ok(routes.collect())
}

/// The number of a route's table.
pub(super) fn number(route: &RouteMessage) -> u32 {
    let named = route.attributes.iter().find_map(|attribute| {
        if let RouteAttribute::Table(table) = attribute {
            Some(*table)
        } else {
            None
        }
    });
    named.unwrap_or_else(|| route.header.table.into())
}

fn destination(route: &RouteMessage) -> Option<IpNet> {
    let address = route.attributes.iter().find_map(|attribute| {
        #[expect(
            clippy::wildcard_enum_match_arm,
            reason = "one of many, and more come with each kernel"
        )]
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(address)) => Some(IpAddr::V4(*address)),
            RouteAttribute::Destination(RouteAddress::Inet6(address)) => Some(IpAddr::V6(*address)),
            _ => None,
        }
    })?;
    let prefix = IpNet::new(address, route.header.destination_prefix_length).ok()?;
    Some(prefix.trunc())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_compare_addresses_as_the_prefixes_say() {
        let prefixes: Vec<IpNet> = ["10.60.0.0/16", "fd60::/32"]
            .map(|text| text.parse().unwrap())
            .into();
        let words = words(&prefixes).unwrap();
        assert_eq!(
            words[..9],
            [
                2,
                0,
                0x0a3c_0000,
                u64::MAX,
                0xffff_ffff_ffff_0000,
                0xfd60_0000_0000_0000,
                0,
                0xffff_ffff_0000_0000,
                0
            ]
        );
        let many = vec![prefixes[0]; PREFIXES + 1];
        assert!(super::words(&many).is_err());
    }

    #[test]
    fn only_a_rule_for_all_packets_asks_the_kernels_own_table_first() {
        let rule = |attributes: Vec<RuleAttribute>| {
            let mut rule = RuleMessage::default();
            rule.header.table = 255;
            rule.header.action = RuleAction::ToTable;
            rule.attributes = attributes;
            rule
        };
        assert!(asks_all(&rule(vec![RuleAttribute::Table(255)])));
        assert!(!asks_all(&rule(vec![RuleAttribute::Table(254)])));
        assert!(!asks_all(&rule(vec![RuleAttribute::FwMark(0)])));
        let mut inverted = rule(Vec::new());
        inverted.header.flags.insert(RuleFlags::Invert);
        assert!(!asks_all(&inverted));
        let mut by_class = rule(Vec::new());
        by_class.header.tos = 16;
        assert!(!asks_all(&by_class));
    }
}
