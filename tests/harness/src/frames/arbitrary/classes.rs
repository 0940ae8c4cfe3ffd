//! The classes: one maker each.

use super::source::Source;
use super::{ipv4, ipv6, mixed};
use crate::frames::Frame;

type Maker = fn(&mut Source<'_>) -> Frame;

/// Name and maker; each is as likely as any other.
pub(super) const MAKERS: [(&str, Maker); 31] = [
    ("ipv4", |source| source.ipv4()),
    ("ipv6", |source| source.ipv6()),
    ("arp", mixed::arp),
    ("other-ethertype", mixed::other_ethertype),
    ("length-field", mixed::length_field),
    ("vlan", mixed::vlan),
    ("vlan-deep", mixed::vlan_deep),
    ("ipv4-options", ipv4::options),
    ("ipv4-source-route", ipv4::source_route),
    ("ipv4-bad-options", ipv4::bad_options),
    ("ipv4-bad-header", ipv4::bad_header),
    ("ipv4-first-fragment", ipv4::first_fragment),
    ("ipv4-later-fragment", ipv4::later_fragment),
    ("ipv4-tiny-fragment", ipv4::tiny_fragment),
    ("ipv6-bad-header", ipv6::bad_header),
    ("ipv6-fragment", ipv6::fragment),
    ("ipv6-atomic-fragment", ipv6::atomic_fragment),
    ("ipv6-chain", ipv6::chain),
    ("ipv6-long-chain", ipv6::long_chain),
    ("ipv6-routing", ipv6::routing),
    ("ipv6-broken-chain", ipv6::broken_chain),
    ("authentication", mixed::authentication),
    ("other-protocol", mixed::other_protocol),
    ("encapsulated", mixed::encapsulated),
    ("icmpv4", ipv4::icmpv4),
    ("icmpv6", ipv6::icmpv6),
    ("neighbour", ipv6::neighbour),
    ("dhcp", mixed::dhcp_message),
    ("group", mixed::group),
    ("truncated", mixed::truncated),
    ("noise", mixed::noise),
];
