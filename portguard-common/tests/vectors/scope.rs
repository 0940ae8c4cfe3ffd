//! Guarding the host's own addresses only, group addresses, and ranges of ports that stay in audit.

#![expect(clippy::too_many_lines, reason = "tables are long")]

use std::net::Ipv4Addr;

use portguard_common::config::Config;
use portguard_common::packet::{Malformed, Shape};
use portguard_common::reason::Reason;
use portguard_harness::frames::{Frame, Icmp, Ipv4, Ipv6, Tcp, Udp};

use super::{Vector, Want, ethernet, ip4, ip6, raw, v4, v6, vector};
use crate::support::cell;

fn scoped(facts: &mut Config) {
    facts.scoped = 1;
}

fn to4(destination: [u8; 4]) -> Frame {
    ethernet().ipv4(Ipv4::new([10, 0, 0, 9].into(), destination.into()))
}

fn to6(destination: [u16; 8]) -> Frame {
    ethernet().ipv6(Ipv6::new(ip6().source, destination.into()))
}

pub(super) fn vectors() -> Vec<Vector> {
    let ssh = Tcp::syn(40_000, 22);
    let transit = Want::Is(Shape::Ports, Reason::Transit);
    let other6 = [0xfd00, 0, 0, 0, 0, 0, 0, 0xbad];
    let mut list = vec![
        vector(
            "multicast v4",
            "RFC 1112",
            &to4([224, 0, 0, 251]).udp(Udp::new(5, 5353)),
            Want::Closed(5353),
        ),
        vector(
            "broadcast v4",
            "RFC 919",
            &to4([255; 4]).udp(Udp::new(67, 68)),
            Want::Open(68, cell::DHCP),
        ),
        vector(
            "link-local v6",
            "RFC 4291 2.5.6",
            &to6([0xfe80, 0, 0, 0, 0, 0, 0, 9]).udp(Udp::new(5, 5353)),
            Want::Closed(5353),
        ),
        vector(
            "link-local v4",
            "RFC 3927",
            &to4([169, 254, 7, 9]).udp(Udp::new(5, 5353)),
            Want::Closed(5353),
        ),
        vector(
            "multicast v6",
            "RFC 4291 2.7",
            &to6([0xff02, 0, 0, 0, 0, 0, 0, 0xfb]).udp(Udp::new(5, 5353)),
            Want::Closed(5353),
        ),
        vector(
            "transit v4",
            "design 5",
            &to4([10, 0, 0, 2]).tcp(ssh.clone()),
            transit,
        )
        .under(scoped),
        vector(
            "transit v6",
            "design 5",
            &to6(other6).tcp(ssh.clone()),
            transit,
        )
        .under(scoped),
        vector(
            "transit fragment v4",
            "design 5",
            &ethernet()
                .ipv4(Ipv4::new([10, 0, 0, 9].into(), [10, 0, 0, 2].into()).fragment(1, 9, true))
                .payload([0; 8]),
            Want::Is(Shape::Fragment, Reason::Transit),
        )
        .under(scoped),
        vector(
            "transit echo",
            "design 5",
            &to4([10, 0, 0, 2]).icmpv4(Icmp::new(8, 0)),
            Want::Is(Shape::Icmp, Reason::Transit),
        )
        .under(scoped),
        vector(
            "transit GRE",
            "design 5",
            &to6(other6).protocol(47).payload([0; 8]),
            Want::Is(Shape::Protocol, Reason::Transit),
        )
        .under(scoped),
        vector(
            "malformed in transit",
            "design 5",
            &ethernet()
                .ipv4(Ipv4::new([10, 0, 0, 9].into(), [10, 0, 0, 2].into()).ihl(4))
                .tcp(ssh.clone()),
            Want::Bad(Malformed::HeaderLength),
        )
        .under(scoped),
        vector(
            "own v4, scoped",
            "design 5",
            &v4().tcp(ssh.clone()),
            Want::Closed(22),
        )
        .under(scoped),
        vector(
            "own v6, scoped",
            "design 5",
            &v6().tcp(ssh.clone()),
            Want::Closed(22),
        )
        .under(scoped),
        vector(
            "own v4, scoped, open",
            "design 5",
            &v4().tcp(Tcp::syn(4, 443)),
            Want::Open(443, cell::HTTPS),
        )
        .under(scoped),
        vector(
            "multicast v4, scoped",
            "design 5",
            &to4([224, 0, 0, 1]).udp(Udp::new(5, 9)),
            Want::Closed(9),
        )
        .under(scoped),
        vector(
            "last multicast v4, scoped",
            "design 5",
            &to4([239, 255, 255, 255]).udp(Udp::new(5, 9)),
            Want::Closed(9),
        )
        .under(scoped),
        vector(
            "broadcast v4, scoped",
            "design 5",
            &to4([255; 4]).udp(Udp::new(5, 9)),
            Want::Closed(9),
        )
        .under(scoped),
        vector(
            "multicast v6, scoped",
            "design 5",
            &to6([0xff05, 0, 0, 0, 0, 0, 0, 2]).udp(Udp::new(5, 9)),
            Want::Closed(9),
        )
        .under(scoped),
        vector(
            "all zero v4, scoped",
            "RFC 1122 3.2.1.3: old broadcast, which stacks still deliver",
            &ethernet()
                .ipv4(Ipv4::new(Ipv4Addr::UNSPECIFIED, Ipv4Addr::UNSPECIFIED))
                .udp(Udp::new(5, 9)),
            Want::Closed(9),
        )
        .under(scoped),
        vector(
            "audit port",
            "design 4: finer modes",
            &v4().tcp(Tcp::syn(1, 9000)),
            Want::Closed(9000),
        ),
    ];
    // The ports of the policy, one below, one above, and the ends of the space; port 0 is a port (peers d5).
    for (port, tcp, udp, sctp) in [
        (0, None, None, None),
        (52, None, None, None),
        (53, None, Some(cell::DNS), None),
        (54, None, None, None),
        (442, None, None, None),
        (443, Some(cell::HTTPS), None, None),
        (444, None, None, None),
        (2905, None, None, Some(cell::SIGTRAN)),
        (8443, Some(cell::ADMIN), None, None),
        (65_535, None, None, None),
    ] {
        let want =
            |cell: Option<u16>| cell.map_or(Want::Closed(port), |cell| Want::Open(port, cell));
        let origin = "design 5; peers d5: port 0 is a port";
        for (family, frame) in [("v4", v4()), ("v6", v6())] {
            list.push(vector(
                format!("TCP {port} {family}"),
                origin,
                &frame.clone().tcp(Tcp::syn(9, port)),
                want(tcp),
            ));
            list.push(vector(
                format!("UDP {port} {family}"),
                origin,
                &frame.clone().udp(Udp::new(9, port)),
                want(udp),
            ));
            let sctp_frame = frame.sctp(portguard_harness::frames::Sctp::new(9, port));
            list.push(vector(
                format!("SCTP {port} {family}"),
                origin,
                &sctp_frame,
                want(sctp),
            ));
        }
    }
    let mut stranger = ip4();
    stranger.source = [10, 1, 0, 9].into();
    let stranger6 = Ipv6::new([0xfd01, 0, 0, 0, 0, 0, 0, 9].into(), ip6().destination);
    list.push(vector(
        "stranger v4",
        "design 5",
        &ethernet().ipv4(stranger).tcp(Tcp::syn(1, 8443)),
        Want::Foreign(8443),
    ));
    list.push(vector(
        "stranger v6",
        "design 5",
        &ethernet().ipv6(stranger6).tcp(Tcp::syn(1, 8443)),
        Want::Foreign(8443),
    ));
    // The ports of an answer, the documented one as source: no way in.
    list.push(vector(
        "documented port as source",
        "peers d11",
        &v4().tcp(Tcp::new(443, 40_000, Tcp::ACK)),
        Want::Closed(40_000),
    ));
    let for_other = |facts: &mut Config| facts.card = 1;
    let other = Reason::OtherHost;
    for (name, frame, want) in [
        (
            "port, for another host",
            v4().tcp(ssh),
            Want::Is(Shape::Ports, other),
        ),
        (
            "port v6, for another host",
            v6().udp(Udp::new(5, 9)),
            Want::Is(Shape::Ports, other),
        ),
        (
            "ICMP, for another host",
            v4().icmpv4(Icmp::new(13, 0)),
            Want::Is(Shape::Icmp, other),
        ),
        (
            "protocol, for another host",
            v4().protocol(47),
            Want::Is(Shape::Protocol, other),
        ),
        (
            "open, for another host",
            v4().tcp(Tcp::syn(4, 443)),
            Want::Open(443, cell::HTTPS),
        ),
        (
            "EtherType, for another host",
            ethernet().ethertype(0x8847),
            Want::Is(Shape::NonIp, Reason::StrictEthertype),
        ),
    ] {
        let strict = |facts: &mut Config| (facts.card, facts.strict_ethertypes) = (1, 1);
        let is_strict = matches!(want, Want::Is(Shape::NonIp, _));
        let under = if is_strict { strict } else { for_other };
        list.push(vector(name, "eth_type_trans", &frame, want).under(under));
    }
    list.push(raw(
        "padding that looks like a packet",
        "peers d1",
        {
            let mut bytes = v4().tcp(Tcp::syn(1, 22)).build();
            bytes.extend_from_slice(&v4().tcp(Tcp::syn(1, 443)).build()[14..]);
            bytes
        },
        Want::Closed(22),
    ));
    list
}
