//! IPv4: header and total length, options, protocols.

#![expect(clippy::too_many_lines, reason = "tables are long")]

use portguard_common::packet::{Malformed, Shape};
use portguard_common::reason::Reason;
use portguard_harness::frames::{Extension, Frame, Icmp, Ipv4, Tcp, Udp, number};

use super::{Vector, Want, ethernet, ip4, ip6, raw, v4, vector};
use crate::support::cell;

pub(super) const OPEN: Want = Want::Open(443, cell::HTTPS);
pub(super) const LATER: Want = Want::Is(Shape::Fragment, Reason::Fragment);
pub(super) const REFUSED: Want = Want::Is(Shape::Protocol, Reason::UndocumentedProtocol);

pub(super) fn syn() -> Tcp {
    Tcp::syn(40_000, 443)
}

/// The first bytes of a TCP header to this port.
pub(super) fn tcp_head(port: u16, length: usize) -> Vec<u8> {
    let [high, low] = port.to_be_bytes();
    let mut bytes = vec![0x9c, 0x40, high, low];
    bytes.resize(length.max(4), 0);
    bytes.truncate(length);
    bytes
}

pub(super) fn fragment(header: Ipv4, protocol: u8, body: &[u8]) -> Frame {
    ethernet().ipv4(header).protocol(protocol).payload(body)
}

pub(super) fn vectors() -> Vec<Vector> {
    let mut list = headers();
    list.extend(options());
    list.extend(protocols());
    list
}

fn headers() -> Vec<Vector> {
    let length = Want::Bad(Malformed::Length);
    let mut list = vec![
        vector("plain v4", "RFC 791", &v4().tcp(syn()), OPEN),
        vector(
            "padded v4",
            "IEEE 802.3 3.2.8",
            &v4().tcp(syn()).pad(60),
            OPEN,
        ),
        vector(
            "total length below header",
            "RFC 791 3.1",
            &ethernet().ipv4(ip4().total_length(19)).tcp(syn()),
            length,
        ),
        vector(
            "total length 0",
            "RFC 791 3.1",
            &ethernet().ipv4(ip4().total_length(0)).tcp(syn()),
            length,
        ),
        vector(
            "total length below header with options",
            "RFC 791 3.1; peers d2",
            &ethernet()
                .ipv4(ip4().options([1; 8]).total_length(24))
                .tcp(syn()),
            length,
        ),
        vector(
            "total length one above frame",
            "RFC 791 3.1",
            &ethernet().ipv4(ip4().total_length(41)).tcp(syn()),
            length,
        ),
        vector(
            "total length 65535",
            "RFC 791 3.1",
            &ethernet().ipv4(ip4().total_length(65_535)).tcp(syn()),
            length,
        ),
        vector(
            "ports in the padding",
            "peers d1: total length ends before the ports",
            &ethernet().ipv4(ip4().total_length(20)).tcp(syn()),
            Want::Bad(Malformed::Truncated),
        ),
        vector(
            "destination port in the padding",
            "peers d5",
            &ethernet().ipv4(ip4().total_length(22)).tcp(syn()),
            Want::Bad(Malformed::Truncated),
        ),
        vector(
            "flags in the padding",
            "peers d5",
            &ethernet().ipv4(ip4().total_length(39)).tcp(syn()),
            Want::Bad(Malformed::Truncated),
        ),
        vector(
            "seven bytes of UDP",
            "peers d5",
            &v4().protocol(number::UDP).payload([0, 9, 0, 53, 0, 8, 0]),
            Want::Bad(Malformed::Truncated),
        ),
        vector(
            "eleven bytes of SCTP",
            "peers d5",
            &v4()
                .protocol(number::SCTP)
                .payload([0, 9, 11, 89, 0, 0, 0, 0, 0, 0, 0]),
            Want::Bad(Malformed::Truncated),
        ),
        vector(
            "data offset 0",
            "RFC 9293 3.1: the stack's business",
            &v4().tcp(Tcp {
                data_offset: Some(0),
                ..syn()
            }),
            OPEN,
        ),
    ];
    for ihl in 0..5 {
        let frame = ethernet().ipv4(ip4().ihl(ihl)).tcp(syn());
        let want = Want::Bad(Malformed::HeaderLength);
        list.push(vector(
            format!("IHL {ihl}"),
            "RFC 791 3.1; peers d2",
            &frame,
            want,
        ));
    }
    for version in (0..16).filter(|version| *version != 4) {
        let mut header = ip4();
        header.version = Some(version);
        let frame = ethernet().ipv4(header).tcp(syn());
        let want = Want::Bad(Malformed::Version);
        list.push(vector(
            format!("version {version} in IPv4"),
            "RFC 791 3.1",
            &frame,
            want,
        ));
    }
    // IHL that reaches into the TCP header: the ports are where the header says that they are.
    let mut body = tcp_head(22, 20);
    body[4..8].copy_from_slice(&[1, 1, 1, 0]);
    let mut deep = ethernet()
        .ipv4(ip4().ihl(6).protocol(6))
        .payload(vec![1, 1, 1, 0])
        .build();
    deep.extend_from_slice(&tcp_head(443, 20));
    let total = u16::try_from(deep.len() - 14).unwrap().to_be_bytes();
    deep[16..18].copy_from_slice(&total);
    list.push(raw(
        "IHL moves the ports",
        "peers d2: fixed 20 bytes",
        deep,
        OPEN,
    ));
    list.push(raw(
        "IHL 15 at the end of the packet",
        "peers d2",
        ethernet().ipv4(ip4().options([1; 40])).build(),
        Want::Is(Shape::Protocol, Reason::UndocumentedProtocol),
    ));
    list
}

fn options() -> Vec<Vector> {
    let bad = Want::Bad(Malformed::Options);
    let cases: [(&str, &[u8], Want); 21] = [
        ("NOPs", &[1, 1, 1, 1], OPEN),
        ("forty NOPs", &[1; 40], OPEN),
        ("end of list", &[0, 0, 0, 0], OPEN),
        ("record route", &[7, 7, 4, 0, 0, 0, 0, 0], OPEN),
        ("router alert", &[148, 4, 0, 0], OPEN),
        ("timestamp", &[68, 8, 5, 0, 0, 0, 0, 0], OPEN),
        ("security", &[130, 11, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], OPEN),
        ("unknown", &[0x5e, 2, 1, 1], OPEN),
        ("loose source route", &[131, 7, 4, 10, 0, 0, 5, 0], bad),
        ("strict source route", &[137, 7, 4, 10, 0, 0, 5, 0], bad),
        (
            "loose source route behind NOPs",
            &[1, 1, 1, 131, 7, 4, 10, 0, 0, 5, 0, 0],
            bad,
        ),
        (
            "strict source route behind NOPs",
            &[1, 1, 1, 1, 1, 137, 3, 4],
            bad,
        ),
        (
            "loose source route behind an option",
            &[148, 4, 0, 0, 131, 3, 4, 0],
            bad,
        ),
        ("strict source route as the last byte", &[1, 1, 1, 137], bad),
        (
            "source route's number within an option",
            &[7, 7, 131, 137, 131, 137, 131, 0],
            OPEN,
        ),
        ("source route behind the end", &[0, 131, 3, 4], OPEN),
        ("length 0", &[7, 0, 4, 0], bad),
        ("length 1", &[7, 1, 4, 0], bad),
        ("overrun by one", &[7, 5, 4, 0], bad),
        ("length 255", &[1, 7, 255, 4], bad),
        ("type without length", &[1, 1, 1, 7], bad),
    ];
    let mut list = Vec::new();
    for (name, bytes, want) in cases {
        let frame = ethernet().ipv4(ip4().options(bytes)).tcp(syn());
        list.push(vector(
            format!("option: {name}"),
            "RFC 791 3.1, RFC 7126; peers d2",
            &frame,
            want,
        ));
        let closed = ethernet().ipv4(ip4().options(bytes)).tcp(Tcp::syn(443, 22));
        let want = if want == OPEN { Want::Closed(22) } else { want };
        list.push(vector(
            format!("option: {name}, port 22"),
            "peers d2",
            &closed,
            want,
        ));
        let later = fragment(ip4().fragment(1, 9, false).options(bytes), 17, &[0; 8]);
        let want = if want == bad { bad } else { LATER };
        list.push(vector(
            format!("option: {name}, later fragment"),
            "RFC 791 3.1",
            &later,
            want,
        ));
    }
    list
}

fn protocols() -> Vec<Vector> {
    let mut list = vec![
        vector(
            "OSPF, listed",
            "design 5",
            &v4().protocol(89).payload([2; 24]),
            Want::Granted(Shape::Protocol, cell::OSPF),
        ),
        vector(
            "AH in IPv4",
            "RFC 4302; peers d4",
            &v4().extension(Extension::authentication(6)).tcp(syn()),
            REFUSED,
        ),
        vector("IPIP", "peers d10", &v4().ipv4(ip4()).tcp(syn()), REFUSED),
        vector("6in4", "peers d10", &v4().ipv6(ip6()).tcp(syn()), REFUSED),
        vector(
            "VXLAN",
            "RFC 7348; peers d10",
            &v4().udp(Udp::new(9, 4789)).payload(v4().tcp(syn()).build()),
            Want::Closed(4789),
        ),
        vector(
            "IPv6 extension number in IPv4",
            "peers d4",
            &v4().extension(Extension::destination(0)).tcp(syn()),
            REFUSED,
        ),
        vector(
            "no payload at all",
            "design 5",
            &v4().protocol(253),
            REFUSED,
        ),
    ];
    for protocol in (0..=255).filter(|number| ![1, 2, 6, 17, 89, 132].contains(number)) {
        let frame = v4().protocol(protocol).payload(tcp_head(443, 24));
        list.push(vector(
            format!("protocol {protocol}"),
            "IANA protocol numbers; peers d1",
            &frame,
            REFUSED,
        ));
    }
    list.push(vector(
        "echo",
        "RFC 792",
        &v4().icmpv4(Icmp::new(8, 0)),
        Want::Granted(Shape::Icmp, cell::ECHO),
    ));
    list
}
