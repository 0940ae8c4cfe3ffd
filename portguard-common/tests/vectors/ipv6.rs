//! IPv6: payload length, extension headers, protocols.

#![expect(clippy::too_many_lines, reason = "tables are long")]

use portguard_common::packet::{Malformed, Shape};
use portguard_common::reason::Reason;
use portguard_harness::frames::{Extension, Frame, Sctp, Tcp, Udp, number};

use super::{Vector, Want, ethernet, ip4, ip6, v6, vector};
use crate::support::cell;

pub(super) const OPEN: Want = Want::Open(443, cell::HTTPS);
pub(super) const REFUSED: Want = Want::Is(Shape::Protocol, Reason::UndocumentedProtocol);
pub(super) const CUT: Want = Want::Bad(Malformed::Truncated);
const CHAIN: Want = Want::Bad(Malformed::ExtensionHeaders);

pub(super) fn syn() -> Tcp {
    Tcp::syn(40_000, 443)
}

pub(super) fn behind(extensions: impl IntoIterator<Item = Extension>) -> Frame {
    extensions.into_iter().fold(v6(), Frame::extension)
}

pub(super) fn first() -> Extension {
    Extension::fragment(0, true, 7)
}

pub(super) fn vectors() -> Vec<Vector> {
    let mut list = headers();
    list.extend(chains());
    list
}

fn headers() -> Vec<Vector> {
    let length = Want::Bad(Malformed::Length);
    let mut list = vec![
        vector("plain v6", "RFC 8200", &v6().tcp(syn()), OPEN),
        vector(
            "padded v6",
            "IEEE 802.3 3.2.8",
            &v6().tcp(syn()).pad(90),
            OPEN,
        ),
        vector(
            "DHCPv6",
            "RFC 8415",
            &v6().udp(Udp::new(547, 546)),
            Want::Open(546, cell::DHCPV6),
        ),
        vector(
            "SCTP v6",
            "RFC 9260",
            &v6().sctp(Sctp::new(1, 2905)),
            Want::Open(2905, cell::SIGTRAN),
        ),
        vector(
            "payload length 0",
            "RFC 8200 3",
            &ethernet().ipv6(ip6().payload_length(0)).tcp(syn()),
            CUT,
        ),
        vector(
            "jumbogram",
            "RFC 2675 2: hop-by-hop option 0xc2",
            &ethernet()
                .ipv6(ip6().payload_length(0))
                .extension(jumbo(28))
                .tcp(syn()),
            CUT,
        ),
        vector(
            "jumbo option in a small packet",
            "RFC 2675 3",
            &behind([jumbo(28)]).tcp(syn()),
            OPEN,
        ),
        vector(
            "payload length ends in the ports",
            "peers d5",
            &ethernet().ipv6(ip6().payload_length(3)).tcp(syn()),
            CUT,
        ),
        vector(
            "payload length ends in the header",
            "peers d5",
            &ethernet().ipv6(ip6().payload_length(19)).tcp(syn()),
            CUT,
        ),
        vector(
            "payload length one above frame",
            "RFC 8200 3",
            &ethernet().ipv6(ip6().payload_length(21)).tcp(syn()),
            length,
        ),
        vector(
            "payload length 65535",
            "RFC 8200 3",
            &ethernet().ipv6(ip6().payload_length(65_535)).tcp(syn()),
            length,
        ),
        vector(
            "no next header",
            "RFC 8200 4.7",
            &v6().protocol(number::NO_NEXT).payload([0x9c, 0x40, 1, 187]),
            REFUSED,
        ),
        vector(
            "no next header, empty",
            "RFC 8200 4.7",
            &v6().protocol(number::NO_NEXT),
            REFUSED,
        ),
        vector(
            "OSPF v6, listed",
            "design 5",
            &v6().protocol(89).payload([3; 16]),
            Want::Granted(Shape::Protocol, cell::OSPF),
        ),
        vector("4in6", "peers d10", &v6().ipv4(ip4()).tcp(syn()), REFUSED),
        vector("6in6", "peers d10", &v6().ipv6(ip6()).tcp(syn()), REFUSED),
    ];
    for version in (0..16).filter(|version| *version != 6) {
        let mut header = ip6();
        header.version = Some(version);
        let frame = ethernet().ipv6(header).tcp(syn());
        list.push(vector(
            format!("version {version} in IPv6"),
            "RFC 8200 3",
            &frame,
            Want::Bad(Malformed::Version),
        ));
    }
    let known = [0, 6, 17, 43, 44, 51, 58, 60, 89, 132];
    for protocol in (0..=255).filter(|number| !known.contains(number)) {
        let frame = v6()
            .protocol(protocol)
            .payload([0x9c, 0x40, 1, 187, 0, 0, 0, 0]);
        list.push(vector(
            format!("next header {protocol}"),
            "IANA protocol numbers; peers d1",
            &frame,
            REFUSED,
        ));
    }
    list
}

/// Hop-by-hop options with the jumbo payload option of this length.
fn jumbo(length: u32) -> Extension {
    let mut header = Extension::hop_by_hop(0);
    header.body = [[0xc2, 4].as_slice(), &length.to_be_bytes()].concat();
    header
}

fn chains() -> Vec<Vector> {
    let hops = || Extension::hop_by_hop(0);
    let options = Extension::destination;
    let rh0 = Want::Bad(Malformed::RoutingHeader);
    let mut list = vec![
        vector(
            "hop-by-hop",
            "RFC 8200 4.3",
            &behind([hops()]).tcp(syn()),
            OPEN,
        ),
        vector(
            "hop-by-hop, port 22",
            "peers d4",
            &behind([hops()]).tcp(Tcp::syn(443, 22)),
            Want::Closed(22),
        ),
        vector(
            "long hop-by-hop",
            "RFC 8200 4.3",
            &behind([Extension::hop_by_hop(255)]).tcp(syn()),
            OPEN,
        ),
        vector(
            "hop-by-hop twice",
            "RFC 8200 4.1; peers d4",
            &behind([hops(), hops()]).tcp(syn()),
            CHAIN,
        ),
        vector(
            "hop-by-hop behind options",
            "RFC 8200 4.1; peers d4",
            &behind([options(0), hops()]).tcp(syn()),
            CHAIN,
        ),
        vector(
            "hop-by-hop behind fragment",
            "RFC 8200 4.1",
            &behind([first(), hops()]).tcp(syn()),
            CHAIN,
        ),
        vector(
            "destination options",
            "RFC 8200 4.6",
            &behind([options(3)]).tcp(syn()),
            OPEN,
        ),
        vector(
            "all in order",
            "RFC 8200 4.1",
            &behind([
                hops(),
                options(0),
                Extension::routing(2, 2),
                Extension::fragment(0, false, 1),
                Extension::authentication(6),
                options(1),
            ])
            .tcp(syn()),
            OPEN,
        ),
        vector(
            "AH, 24 bytes",
            "RFC 4302 2.2: 4-byte units; peers d4",
            &behind([Extension::authentication(6)]).tcp(syn()),
            OPEN,
        ),
        vector(
            "AH, 12 bytes",
            "RFC 4302 2.2",
            &behind([Extension::authentication(3)]).tcp(syn()),
            OPEN,
        ),
        vector(
            "AH, 1028 bytes",
            "RFC 4302 2.2",
            &behind([Extension::authentication(255)]).tcp(syn()),
            OPEN,
        ),
        vector(
            "AH in 8-byte units",
            "peers d4: AH unit",
            &behind([Extension::authentication(6).second(2)]).tcp(syn()),
            Want::Is(Shape::Ports, Reason::UndocumentedPort),
        ),
        vector(
            "AH overrun",
            "RFC 4302 2.2",
            &behind([Extension::authentication(6).second(255)]).tcp(syn()),
            CUT,
        ),
        vector(
            "options overrun",
            "RFC 8200 4.2",
            &behind([options(0).second(255)]).tcp(syn()),
            CUT,
        ),
        vector(
            "options end the packet",
            "RFC 8200 4.2",
            &behind([options(0).next(6)]),
            CUT,
        ),
        vector(
            "options overrun by one unit",
            "RFC 8200 4.2",
            &behind([options(0).next(6).second(1)]),
            CUT,
        ),
        vector(
            "half a header",
            "RFC 8200 4.2",
            &v6().protocol(60).payload([6, 0, 1, 4]),
            CUT,
        ),
        vector(
            "nothing behind hop-by-hop's number",
            "RFC 8200 4.3",
            &v6().protocol(0),
            CUT,
        ),
        vector(
            "options that end in no next header",
            "RFC 8200 4.7",
            &behind([options(0)]).protocol(number::NO_NEXT),
            REFUSED,
        ),
        vector(
            "ESP behind options",
            "RFC 4303",
            &behind([options(0)]).protocol(number::ESP).payload([0; 16]),
            REFUSED,
        ),
        vector(
            "routing type 0 behind options",
            "RFC 5095",
            &behind([options(0), Extension::routing(0, 2)]).tcp(syn()),
            rh0,
        ),
        vector(
            "routing type 0 in a first fragment",
            "RFC 5095",
            &behind([first(), Extension::routing(0, 0)]).tcp(syn()),
            rh0,
        ),
        vector(
            "routing type 0 with nothing left",
            "RFC 5095",
            &behind([Extension::routing(0, 0)]).tcp(syn()),
            rh0,
        ),
    ];
    for kind in [1, 2, 3, 4, 253, 255] {
        let frame = behind([Extension::routing(kind, 2)]).tcp(syn());
        list.push(vector(
            format!("routing type {kind}"),
            "RFC 6275 6.4, RFC 8754; design 5",
            &frame,
            OPEN,
        ));
    }
    for count in 1..=20 {
        let frame = behind(vec![options(0); count]).tcp(syn());
        let want = if count <= 8 { OPEN } else { CHAIN };
        list.push(vector(
            format!("{count} headers"),
            "RFC 8504 5.3; peers d4: depth",
            &frame,
            want,
        ));
        let frame = behind(vec![Extension::fragment(0, false, 1); count]).udp(Udp::new(443, 22));
        let want = if count <= 8 { Want::Closed(22) } else { CHAIN };
        list.push(vector(
            format!("{count} atomic fragment headers"),
            "RFC 8504 5.3; peers d4",
            &frame,
            want,
        ));
    }
    list
}
