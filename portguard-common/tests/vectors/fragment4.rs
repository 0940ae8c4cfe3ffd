//! IPv4 fragments: first ones with and without ports, later ones, and every mix of the flags beside them.

use portguard_common::packet::{Malformed, Shape};
use portguard_common::reason::Reason;
use portguard_harness::frames::{Tcp, Udp};

use super::ipv4::{LATER, OPEN, REFUSED, fragment, syn, tcp_head};
use super::{Vector, Want, ethernet, ip4, vector};
use crate::support::cell;

pub(super) fn vectors() -> Vec<Vector> {
    let mut list = first_fragments();
    list.extend(later_fragments());
    list
}

fn first_fragments() -> Vec<Vector> {
    let tiny = Want::Bad(Malformed::FirstFragment);
    let mut list = vec![
        vector(
            "first fragment",
            "RFC 791 2.3",
            &ethernet().ipv4(ip4().fragment(1, 0, true)).tcp(syn()),
            OPEN,
        ),
        vector(
            "first fragment, port 22",
            "peers d3",
            &ethernet()
                .ipv4(ip4().fragment(1, 0, true))
                .tcp(Tcp::syn(443, 22)),
            Want::Closed(22),
        ),
        vector(
            "first fragment to UDP",
            "peers d3",
            &ethernet()
                .ipv4(ip4().fragment(1, 0, true))
                .udp(Udp::new(1, 53)),
            Want::Open(53, cell::DNS),
        ),
        vector(
            "first fragment behind options",
            "peers d2, d3",
            &ethernet()
                .ipv4(ip4().fragment(1, 0, true).options([1; 12]))
                .tcp(syn()),
            OPEN,
        ),
        vector(
            "first fragment of ESP",
            "peers d3",
            &fragment(ip4().fragment(1, 0, true), 50, &[0; 8]),
            REFUSED,
        ),
    ];
    for length in 0..=24 {
        let frame = fragment(ip4().fragment(1, 0, true), 6, &tcp_head(443, length));
        let want = if length < 14 { tiny } else { OPEN };
        let name = format!("first fragment with {length} bytes");
        list.push(vector(
            name,
            "RFC 1858, RFC 3128; peers d3: tiny fragments",
            &frame,
            want,
        ));
    }
    // All flags: reserved and "don't fragment" beside "more fragments"; only the last one counts.
    for flags in 0..8u8 {
        let mut header = ip4().fragment(1, 0, flags & 1 != 0);
        header.dont_fragment = flags & 2 != 0;
        header.reserved = flags & 4 != 0;
        let frame = fragment(header, 6, &tcp_head(443, 16));
        let want = if flags & 1 != 0 {
            OPEN
        } else {
            Want::Bad(Malformed::Truncated)
        };
        let name = format!("sixteen bytes of TCP, flags {flags:03b}");
        list.push(vector(
            name,
            "RFC 791 3.1; peers d3: mixing masks",
            &frame,
            want,
        ));
    }
    list
}

fn later_fragments() -> Vec<Vector> {
    let strict = Want::Is(Shape::Fragment, Reason::StrictFragment);
    let mut list = vec![
        vector(
            "later fragment that looks like SSH",
            "peers d3",
            &ethernet()
                .ipv4(ip4().fragment(1, 185, false))
                .tcp(Tcp::syn(1, 22)),
            LATER,
        ),
        vector(
            "later fragment, empty",
            "peers d3",
            &fragment(ip4().fragment(1, 185, true), 6, &[]),
            LATER,
        ),
        vector(
            "TCP at offset 1, strict",
            "RFC 1858 3.2",
            &fragment(ip4().fragment(1, 1, false), 6, &[0; 16]),
            Want::Bad(Malformed::TinyFragment),
        )
        .under(|facts| facts.strict_fragments = 1),
        vector(
            "first fragment, strict",
            "design 5",
            &ethernet().ipv4(ip4().fragment(1, 0, true)).tcp(syn()),
            OPEN,
        )
        .under(|facts| facts.strict_fragments = 1),
    ];
    for (protocol, offset) in [6, 17, 132, 1, 50].into_iter().flat_map(|protocol| {
        [1, 2, 3, 0xff, 0x100, 0x1000, 0x1fff].map(|offset| (protocol, offset))
    }) {
        for more in [false, true] {
            let mut header = ip4().fragment(1, offset, more);
            header.reserved = offset & 2 != 0;
            let frame = fragment(header, protocol, &tcp_head(443, 24));
            let name = format!("protocol {protocol}, offset {offset}, more {more}");
            let is_tiny = protocol == 6 && offset == 1;
            let want = if is_tiny {
                Want::Bad(Malformed::TinyFragment)
            } else {
                LATER
            };
            list.push(vector(
                name.clone(),
                "RFC 791 2.3, RFC 1858 3.2; peers d3",
                &frame,
                want,
            ));
            if !is_tiny {
                let vector = vector(format!("{name}, strict"), "design 5", &frame, strict);
                list.push(vector.under(|facts| facts.strict_fragments = 1));
            }
        }
    }
    list
}
