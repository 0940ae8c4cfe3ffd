//! IPv6 fragments: atomic, first and later ones, and what stands before and behind their headers.

#![expect(clippy::too_many_lines, reason = "tables are long")]

use portguard_common::packet::{Malformed, Shape};
use portguard_common::reason::Reason;
use portguard_harness::frames::{Extension, Tcp};

use super::ipv6::{CUT, OPEN, REFUSED, behind, first, syn};
use super::{Vector, Want, vector};

const LATER: Want = Want::Is(Shape::Fragment, Reason::Fragment);
const TINY: Want = Want::Bad(Malformed::FirstFragment);

pub(super) fn vectors() -> Vec<Vector> {
    let mut list = first_fragments();
    list.extend(later_fragments());
    list
}

fn first_fragments() -> Vec<Vector> {
    let atomic = || Extension::fragment(0, false, 9);
    let options = Extension::destination;
    let mut head = [0; 16];
    head[..4].copy_from_slice(&[0x9c, 0x40, 1, 187]);
    let mut list = vec![
        vector(
            "atomic fragment",
            "RFC 6946",
            &behind([atomic()]).tcp(syn()),
            OPEN,
        ),
        vector(
            "atomic fragment, port 22",
            "RFC 6946; peers d4",
            &behind([atomic()]).tcp(Tcp::syn(443, 22)),
            Want::Closed(22),
        ),
        vector(
            "atomic fragment with eight bytes",
            "RFC 6946: a whole packet",
            &behind([atomic()]).protocol(6).payload(head),
            CUT,
        ),
        vector(
            "fragment header's reserved byte",
            "RFC 8200 4.5; peers d4: taken for a length",
            &behind([atomic().second(255)]).tcp(syn()),
            OPEN,
        ),
        vector(
            "first fragment's reserved byte",
            "RFC 8200 4.5; peers d4",
            &behind([first().second(1)]).tcp(Tcp::syn(443, 22)),
            Want::Closed(22),
        ),
        vector(
            "first fragment v6",
            "RFC 8200 4.5",
            &behind([first()]).tcp(syn()),
            OPEN,
        ),
        vector(
            "first fragment v6, strict",
            "design 5",
            &behind([first()]).tcp(syn()),
            OPEN,
        )
        .under(|facts| facts.strict_fragments = 1),
        vector(
            "first fragment v6, port 22",
            "peers d3",
            &behind([first()]).tcp(Tcp::syn(443, 22)),
            Want::Closed(22),
        ),
        vector(
            "options in a first fragment",
            "RFC 7112",
            &behind([first(), options(0)]).protocol(6).payload(head),
            OPEN,
        ),
        vector(
            "options in a first fragment, no ports",
            "RFC 7112 5",
            &behind([first(), options(0).next(6)]),
            TINY,
        ),
        vector(
            "options cut by a first fragment",
            "RFC 7112 5",
            &behind([first(), options(0).next(6).second(2)]),
            TINY,
        ),
        vector(
            "half an options header in a first fragment",
            "RFC 7112 5",
            &behind([first()]).protocol(60).payload([6, 0, 1, 4]),
            TINY,
        ),
        vector(
            "AH cut by a first fragment",
            "RFC 7112 5",
            &behind([first(), Extension::authentication(3).next(6).second(4)]),
            TINY,
        ),
        vector(
            "nothing in a first fragment",
            "RFC 7112 5",
            &behind([first()]).protocol(6),
            TINY,
        ),
        vector(
            "no next header in a first fragment",
            "RFC 8200 4.7",
            &behind([first()]).protocol(59),
            REFUSED,
        ),
        vector(
            "first fragment in an atomic one",
            "peers d4: second fragment header",
            &behind([atomic(), first()]).protocol(6).payload(head),
            OPEN,
        ),
        vector(
            "atomic fragment in a first one",
            "peers d4: second fragment header",
            &behind([first(), atomic()]).protocol(6).payload(head),
            OPEN,
        ),
        vector(
            "first fragment in a first one, no ports",
            "peers d4",
            &behind([first(), first()]).protocol(6),
            TINY,
        ),
    ];
    for length in 0..8 {
        let frame = behind([first()]).protocol(6).payload(&head[..length]);
        let want = if length < 14 { TINY } else { OPEN };
        list.push(vector(
            format!("first fragment v6 with {length} bytes"),
            "RFC 7112 5, RFC 1858; peers d3",
            &frame,
            want,
        ));
    }
    // Reserved bits beside the offset are nobody's business.
    for reserved in [2, 4, 6] {
        let mut header = atomic();
        header.body[1] |= reserved;
        let frame = behind([header]).tcp(syn());
        list.push(vector(
            format!("atomic fragment, reserved bits {reserved}"),
            "RFC 8200 4.5; peers d3: masks",
            &frame,
            OPEN,
        ));
    }
    list
}

fn later_fragments() -> Vec<Vector> {
    let strict = Want::Is(Shape::Fragment, Reason::StrictFragment);
    let later = |offset, more| Extension::fragment(offset, more, 7);
    let options = Extension::destination(0);
    let tcp1 = Want::Bad(Malformed::TinyFragment);
    let mut list = vec![
        vector(
            "later fragment v6 that looks like SSH",
            "peers d3",
            &behind([later(181, false)]).tcp(Tcp::syn(1, 22)),
            LATER,
        ),
        vector(
            "later fragment v6 behind options",
            "RFC 8200 4.5",
            &behind([options.clone(), later(181, false)]).payload([0; 8]),
            LATER,
        ),
        vector(
            "later fragment in an atomic one",
            "peers d4: second fragment header",
            &behind([Extension::fragment(0, false, 1), later(3, true)]).payload([0; 8]),
            LATER,
        ),
        vector(
            "later fragment of options",
            "RFC 8200 4.5",
            &behind([later(1, true), options]).tcp(Tcp::syn(1, 22)),
            LATER,
        ),
        vector(
            "later fragment, reserved byte",
            "peers d4",
            &behind([later(2, false).second(255)]).payload([0; 8]),
            LATER,
        ),
        vector(
            "later fragment v6, empty",
            "RFC 8200 4.5",
            &behind([later(9, true)]),
            LATER,
        ),
    ];
    for (protocol, offset) in [6, 17, 132, 58, 50]
        .into_iter()
        .flat_map(|protocol| [1, 2, 0x20, 0x1000, 0x1fff].map(|offset| (protocol, offset)))
    {
        let frame = behind([later(offset, offset & 1 == 0)])
            .protocol(protocol)
            .payload([1; 24]);
        let want = if (protocol, offset) == (6, 1) {
            tcp1
        } else {
            LATER
        };
        let name = format!("next header {protocol}, offset {offset}");
        list.push(vector(
            name.clone(),
            "RFC 8200 4.5, RFC 1858 3.2; peers d3",
            &frame,
            want,
        ));
        if want == LATER {
            let vector = vector(format!("{name}, strict"), "design 5", &frame, strict);
            list.push(vector.under(|facts| facts.strict_fragments = 1));
        }
    }
    list
}
