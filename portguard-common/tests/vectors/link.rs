//! Ethernet: EtherTypes, tags, short frames, lengths for types.

#![expect(clippy::too_many_lines, reason = "tables are long")]

use portguard_common::ethernet::STP;
use portguard_common::ethertypes::index;
use portguard_common::packet::{Malformed, Shape};
use portguard_common::reason::Reason;
use portguard_harness::frames::{Tcp, arp_request, number};

use super::{Vector, Want, ethernet, raw, v4, v6, vector};
use crate::support::cell;

pub(super) fn vectors() -> Vec<Vector> {
    let arp = arp_request(
        [2, 0, 0, 0, 0, 2],
        [10, 0, 0, 9].into(),
        [10, 0, 0, 1].into(),
    );
    let is_arp = Want::Is(Shape::Arp, Reason::Arp);
    let open = Want::Open(443, cell::HTTPS);
    let syn = Tcp::syn(40_000, 443);
    let mut list = vec![
        vector("arp", "RFC 826", &arp, is_arp),
        vector(
            "arp, padded",
            "IEEE 802.3 3.2.8",
            &arp.clone().pad(60),
            is_arp,
        ),
        vector(
            "arp in qinq",
            "IEEE 802.1ad",
            &arp.clone().tag(0x88a8, 3).tag(0x8100, 4),
            is_arp,
        ),
        vector("arp, strict", "design 5", &arp, is_arp).under(|facts| facts.strict_ethertypes = 1),
        vector(
            "arp alone with its type",
            "design 5",
            &ethernet().ethertype(number::ARP),
            is_arp,
        ),
        vector(
            "priority tag",
            "IEEE 802.1Q 9.6, VLAN 0; peers d6",
            &v4().tag(0x8100, 0xe000).tcp(syn.clone()),
            open,
        ),
        vector(
            "tag after tag without address",
            "peers d6",
            &v6().tag(0x9100, 1).tag(0x9100, 2).tcp(syn.clone()),
            open,
        ),
        vector(
            "three tags",
            "peers d6: VLAN depth",
            &v4()
                .tag(0x8100, 1)
                .tag(0x8100, 2)
                .tag(0x8100, 3)
                .tcp(syn.clone()),
            Want::Bad(Malformed::VlanDepth),
        ),
        vector(
            "three tags of three kinds",
            "peers d6: VLAN depth",
            &v6()
                .tag(0x88a8, 1)
                .tag(0x9100, 2)
                .tag(0x8100, 3)
                .tcp(syn.clone()),
            Want::Bad(Malformed::VlanDepth),
        ),
        vector(
            "three priority tags, which a stack strips one by one",
            "peers d6: VLAN depth",
            &v4()
                .tag(0x8100, 0)
                .tag(0x8100, 0)
                .tag(0x8100, 0)
                .tcp(syn.clone()),
            Want::Bad(Malformed::VlanDepth),
        ),
        raw(
            "nothing",
            "peers d1",
            Vec::new(),
            Want::Bad(Malformed::Truncated),
        ),
        raw(
            "an address",
            "peers d1",
            vec![2; 6],
            Want::Bad(Malformed::Truncated),
        ),
        raw(
            "no type",
            "peers d1",
            vec![2; 13],
            Want::Bad(Malformed::Truncated),
        ),
        vector(
            "half a tag",
            "peers d6",
            &ethernet()
                .tag(0x8100, 1)
                .ethertype(number::IPV4)
                .truncate(16),
            Want::Bad(Malformed::Truncated),
        ),
        vector(
            "half a second tag",
            "peers d6",
            &ethernet()
                .tag(0x88a8, 1)
                .tag(0x8100, 1)
                .ethertype(number::IPV4)
                .truncate(21),
            Want::Bad(Malformed::Truncated),
        ),
        vector(
            "IPv4 by type, empty",
            "peers d1",
            &ethernet().ethertype(number::IPV4),
            Want::Bad(Malformed::Truncated),
        ),
        vector(
            "IPv6 by type, empty",
            "peers d1",
            &ethernet().ethertype(number::IPV6),
            Want::Bad(Malformed::Truncated),
        ),
        vector(
            "IPv4 in the EtherType of IPv6",
            "RFC 8200 3: version",
            &v4().ethertype(number::IPV6).tcp(syn.clone()),
            Want::Bad(Malformed::Version),
        ),
        vector(
            "IPv6 in the EtherType of IPv4",
            "RFC 791 3.1: version",
            &v6().ethertype(number::IPV4).tcp(syn.clone()),
            Want::Bad(Malformed::Version),
        ),
    ];
    for kind in [
        0x88cc, 0x8809, 0x888e, 0x88e5, 0x8847, 0x8848, 0x8863, 0x8864, 0x88f7, 0x8137, 0, 46,
        1500, 0x05ff, 0x0600, 0x0801, 0x86de, 0x80ff, 0x8101, 0xffff,
    ] {
        // A port matrix behind a header that no IP stack reads under this type.
        let frame = v4().ethertype(kind).tcp(syn.clone());
        let passed = Want::Is(Shape::NonIp, Reason::NonIp);
        let refused = Want::Is(Shape::NonIp, Reason::StrictEthertype);
        list.push(vector(
            format!("type {kind:#06x}"),
            "IEEE 802 numbers",
            &frame,
            passed,
        ));
        list.push(
            vector(
                format!("type {kind:#06x}, strict"),
                "design 5",
                &frame,
                refused,
            )
            .under(|facts| facts.strict_ethertypes = 1),
        );
    }
    // LLDP and spanning tree pass by name, whatever else does not.
    let bridge_group =
        portguard_harness::frames::Frame::new([0x01, 0x80, 0xc2, 0, 0, 0], [2, 0, 0, 0, 0, 2]);
    for (name, kind, llc, passes) in [
        ("lldp", 0x88cc, [2, 7, 4], true),
        ("stp", 38, [0x42, 0x42, 3], true),
        ("lacp", 0x8809, [1, 1, 1], false),
        ("other llc", 38, [0xfe, 0xfe, 3], false),
        ("llc that is cut", 38, [0x42, 0, 0], false),
    ] {
        let frame = bridge_group.clone().ethertype(kind).payload(llc);
        let reason = if passes {
            Reason::NonIp
        } else {
            Reason::StrictEthertype
        };
        list.push(
            vector(
                format!("{name}, strict but for lldp and stp"),
                "IEEE 802.1D 9.2, 802.3 3.2.6",
                &frame,
                Want::Is(Shape::NonIp, reason),
            )
            .under(|config| {
                config.strict_ethertypes = 1;
                config.ethertypes = 1 << index(0x88cc) | 1 << index(STP);
            }),
        );
    }
    list
}
