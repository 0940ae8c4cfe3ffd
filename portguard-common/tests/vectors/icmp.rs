//! ICMP of both families by type, neighbour discovery by hop limit.

#![expect(clippy::too_many_lines, reason = "tables are long")]

use portguard_common::packet::{Malformed, Shape};
use portguard_common::reason::Reason;
use portguard_harness::frames::{
    Extension, Icmp, neighbour_advertisement, neighbour_solicitation, number, router_advertisement,
};

use super::{Vector, Want, ethernet, ip4, ip6, v4, v6, vector};
use crate::support::cell;

const ESSENTIAL: Want = Want::Is(Shape::Icmp, Reason::IcmpEssential);
const REFUSED: Want = Want::Is(Shape::Icmp, Reason::Icmp);
const REPLY: Want = Want::Is(Shape::Icmp, Reason::EchoReply);
const ECHO: Want = Want::Granted(Shape::Icmp, cell::ECHO);

pub(super) fn vectors() -> Vec<Vector> {
    let mac = [2, 0, 0, 0, 0, 2];
    let (peer, host) = (ip6().source, ip6().destination);
    let mut list = vec![
        vector(
            "solicitation",
            "RFC 4861 7.1.1",
            &neighbour_solicitation(mac, peer, host),
            ESSENTIAL,
        ),
        vector(
            "advertisement",
            "RFC 4861 7.1.2",
            &neighbour_advertisement(mac, mac, peer, host),
            ESSENTIAL,
        ),
        vector(
            "router advertisement",
            "RFC 4861 6.1.2",
            &router_advertisement(mac, peer),
            ESSENTIAL,
        ),
        vector(
            "listener report behind hop-by-hop",
            "RFC 3810 5.2",
            &v6()
                .extension(Extension::hop_by_hop(0))
                .icmpv6(Icmp::new(143, 0)),
            ESSENTIAL,
        ),
        vector(
            "echo in a first fragment",
            "RFC 791 2.3",
            &ethernet()
                .ipv4(ip4().fragment(1, 0, true))
                .icmpv4(Icmp::new(8, 0)),
            ECHO,
        ),
        vector(
            "three bytes of ICMP in a first fragment",
            "RFC 1858",
            &ethernet()
                .ipv4(ip4().fragment(1, 0, true))
                .protocol(number::ICMPV4)
                .payload([8, 0, 0]),
            Want::Bad(Malformed::FirstFragment),
        ),
        vector(
            "seven bytes of ICMP",
            "RFC 792",
            &v4().protocol(number::ICMPV4).payload([8, 0, 0, 0, 0, 0, 0]),
            Want::Bad(Malformed::Truncated),
        ),
        vector(
            "seven bytes of ICMPv6",
            "RFC 4443",
            &v6()
                .protocol(number::ICMPV6)
                .payload([128, 0, 0, 0, 0, 0, 0]),
            Want::Bad(Malformed::Truncated),
        ),
        vector(
            "ICMPv6 in IPv4",
            "peers d1: the number of another family",
            &v4()
                .protocol(number::ICMPV6)
                .payload([135, 0, 0, 0, 0, 0, 0, 0]),
            Want::Is(Shape::Protocol, Reason::UndocumentedProtocol),
        ),
        vector(
            "ICMP in IPv6",
            "peers d1: the number of another family",
            &v6()
                .protocol(number::ICMPV4)
                .payload([3, 0, 0, 0, 0, 0, 0, 0]),
            Want::Is(Shape::Protocol, Reason::UndocumentedProtocol),
        ),
    ];
    for kind in 0..=255 {
        let want = match kind {
            0 => REPLY,
            3 | 4 | 11 | 12 => ESSENTIAL,
            8 => ECHO,
            _ => REFUSED,
        };
        let frame = v4().icmpv4(Icmp::new(kind, 0));
        list.push(vector(
            format!("ICMP type {kind}"),
            "RFC 792; peers d7",
            &frame,
            want,
        ));
    }
    for kind in 0..=255 {
        for limit in [0, 1, 64, 254, 255] {
            let want = match kind {
                1..=4 | 130..=132 | 143 => ESSENTIAL,
                133..=137 if limit == 255 => ESSENTIAL,
                128 => ECHO,
                129 => REPLY,
                _ => REFUSED,
            };
            let frame = ethernet()
                .ipv6(ip6().hop_limit(limit))
                .icmpv6(Icmp::new(kind, 0));
            let name = format!("ICMPv6 type {kind}, hop limit {limit}");
            list.push(vector(
                name,
                "RFC 4443, RFC 4861 7.1, RFC 3810; peers d7",
                &frame,
                want,
            ));
        }
    }
    list
}
