//! IGMP by type, TTL and destination; and what opens a client's DHCP port.

use portguard_common::packet::Shape;
use portguard_common::reason::Reason;
use portguard_harness::frames::{Ipv4, Udp};

use super::{Vector, Want, ethernet, v4, v6, vector};
use crate::support::cell;

const ESSENTIAL: Want = Want::Is(Shape::Icmp, Reason::IcmpEssential);
const REFUSED: Want = Want::Is(Shape::Icmp, Reason::UndocumentedProtocol);
const ROUTER_ALERT: [u8; 4] = [0x94, 4, 0, 0];

fn igmp(
    kind: u8,
    ttl: u8,
    destination: [u8; 4],
    options: &[u8],
) -> portguard_harness::frames::Frame {
    let mut header = Ipv4::new([10, 0, 0, 9].into(), destination.into()).options(options);
    header.ttl = ttl;
    ethernet()
        .ipv4(header)
        .protocol(2)
        .payload([kind, 0, 0, 0, 0, 0, 0, 0])
}

pub(super) fn vectors() -> Vec<Vector> {
    let group = [239, 1, 2, 3];
    let mut list = Vec::new();
    for (name, kind, destination) in [
        ("query", 0x11, [224, 0, 0, 1]),
        ("query of a group", 0x11, group),
        ("report v1", 0x12, group),
        ("report v2", 0x16, group),
        ("leave", 0x17, [224, 0, 0, 2]),
        ("report v3", 0x22, [224, 0, 0, 22]),
    ] {
        for options in [&[][..], &ROUTER_ALERT] {
            let name = format!("IGMP {name}, {} bytes of options", options.len());
            let frame = igmp(kind, 1, destination, options);
            list.push(vector(name, "RFC 3376 4", &frame, ESSENTIAL));
        }
    }
    for (name, kind, ttl, destination) in [
        ("query from afar", 0x11, 2, [224, 0, 0, 1]),
        ("query with TTL 0", 0x11, 0, [224, 0, 0, 1]),
        ("query to the host", 0x11, 1, [10, 0, 0, 1]),
        ("DVMRP", 0x13, 1, group),
        ("type 0", 0, 1, group),
    ] {
        let frame = igmp(kind, ttl, destination, &[]);
        list.push(vector(
            format!("IGMP {name}"),
            "RFC 3376 4",
            &frame,
            REFUSED,
        ));
    }
    list.push(vector(
        "protocol 2 of IPv6",
        "RFC 3376",
        &v6().protocol(2).payload([0x11, 0, 0, 0, 0, 0, 0, 0]),
        Want::Is(Shape::Protocol, Reason::UndocumentedProtocol),
    ));
    // A client's port hears servers only.
    for from in [0, 53, 66, 68, 547, 40_000] {
        list.push(vector(
            format!("udp/68 from port {from}"),
            "RFC 2131 4.1",
            &v4().udp(Udp::new(from, 68)),
            Want::Closed(68),
        ));
    }
    for from in [0, 53, 67, 546, 40_000] {
        list.push(vector(
            format!("udp/546 from port {from}"),
            "RFC 8415 7.2",
            &v6().udp(Udp::new(from, 546)),
            Want::Closed(546),
        ));
    }
    for from in [0, 40_000] {
        list.push(
            vector(
                format!("udp/68 from port {from}, by a row"),
                "design 5",
                &v4().udp(Udp::new(from, 68)),
                Want::Open(68, cell::DHCP),
            )
            .under(|config| config.dhcp = 0),
        );
    }
    list
}
