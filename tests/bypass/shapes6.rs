//! Shapes of IPv6.
#![expect(
    clippy::single_range_in_vec_init,
    reason = "one fragment is a list of ranges, too"
)]

use anyhow::Result;
use portguard_harness::frames::{Extension, fragments, number};

use super::aim::Aim;
use super::shapes::{Shape, shape};

pub(super) fn all() -> Vec<Shape> {
    [headers(), chains(), pieces()].concat()
}

fn headers() -> Vec<Shape> {
    vec![
        shape("hop-limit-1", |aim| {
            Ok(vec![aim.with6(|header| header.hop_limit(1))])
        })
        .v6(),
        shape("payload-length-zero", |aim| {
            Ok(vec![aim.with6(|header| header.payload_length(0))])
        })
        .v6()
        .cut("truncated")
        .vain(),
        shape("payload-length-short", |aim| {
            Ok(vec![aim.with6(|header| header.payload_length(12))])
        })
        .v6()
        .udp()
        .vain(),
        shape("payload-length-long", |aim| {
            Ok(vec![aim.with6(|header| header.payload_length(1300))])
        })
        .v6()
        .cut("ip-length")
        .vain(),
        shape("trailer-6", |aim| {
            let mut frame = aim.whole();
            frame.extend(aim.disguised());
            Ok(vec![frame])
        })
        .v6(),
        shape("all-nodes", |aim| {
            let aim = Aim {
                v6_ends: (aim.v6_ends.0, [0xff02, 0, 0, 0, 0, 0, 0, 1].into()),
                to_mac: [0x33, 0x33, 0, 0, 0, 1],
                ..aim.clone()
            };
            Ok(vec![aim.whole()])
        })
        .v6()
        .udp(),
        shape("no-next-header", |aim| {
            let frame = aim.frame().ipv6(aim.ipv6().next(number::NO_NEXT));
            Ok(vec![aim.transport(frame).build()])
        })
        .v6()
        .vain(),
        shape("jumbo-payload", |aim| {
            // RFC 2675: length zero, and the length in an option.
            let length = u32::try_from(aim.length() + 8)?.to_be_bytes();
            let mut header = Extension::hop_by_hop(0);
            header.body = [&[0xc2, 4][..], &length].concat();
            let frame = aim.frame().ipv6(aim.ipv6().payload_length(0));
            Ok(vec![aim.transport(frame.extension(header)).build()])
        })
        .v6()
        .cut("truncated")
        .vain(),
    ]
}

fn chains() -> Vec<Shape> {
    use Extension as X;
    vec![
        shape("hop-by-hop", |aim| Ok(vec![aim.chain([X::hop_by_hop(0)])])).v6(),
        shape("hop-by-hop-long", |aim| {
            Ok(vec![aim.chain([X::hop_by_hop(30)])])
        })
        .v6(),
        shape("hop-by-hop-second", |aim| {
            Ok(vec![aim.chain([X::destination(0), X::hop_by_hop(0)])])
        })
        .v6()
        .cut("extension-headers")
        .vain(),
        shape("destination-options", |aim| {
            Ok(vec![aim.chain([X::destination(2)])])
        })
        .v6(),
        shape("two-kilobytes-of-options", |aim| {
            Ok(vec![aim.chain([X::destination(255)])])
        })
        .v6(),
        shape("eight-headers", |aim| {
            Ok(vec![aim.chain((0..8).map(|_| X::destination(0)))])
        })
        .v6(),
        shape("nine-headers", |aim| {
            Ok(vec![aim.chain((0..9).map(|_| X::destination(0)))])
        })
        .v6()
        .cut("extension-headers"),
        shape("hops-options-route-options", |aim| {
            Ok(vec![aim.chain([
                X::hop_by_hop(0),
                X::destination(0),
                X::routing(4, 0),
                X::destination(1),
            ])])
        })
        .v6()
        .vain(),
        shape("routing-type-0", |aim| {
            Ok(vec![aim.chain([X::routing(0, 2)])])
        })
        .v6()
        .cut("routing-header"),
        shape("routing-type-2", |aim| {
            Ok(vec![aim.chain([X::routing(2, 2)])])
        })
        .v6(),
        shape("routing-type-200", |aim| {
            Ok(vec![aim.chain([X::routing(200, 0)])])
        })
        .v6(),
        shape("authentication-6", |aim| {
            Ok(vec![aim.chain([X::authentication(6)])])
        })
        .v6()
        .vain(),
        shape("length-into-ports", |aim| {
            // The length of the options swallows the transport header, and another follows in its place.
            let mut header = X::destination(0);
            header.second = 1;
            let frame = aim.ip(aim.frame()).extension(header);
            let frame = aim.transport_to(frame, aim.other()).build();
            Ok(vec![frame])
        })
        .v6()
        .udp()
        .vain(),
        shape("atomic-fragment", |aim| {
            Ok(vec![aim.chain([X::fragment(0, false, aim.id)])])
        })
        .v6(),
        shape("atomic-fragment-reserved", |aim| {
            Ok(vec![aim.chain([X::fragment(0, false, aim.id).second(200)])])
        })
        .v6(),
        shape("atomic-fragment-reserved-bits", |aim| {
            let mut header = X::fragment(0, false, aim.id);
            header.body[1] |= 6;
            Ok(vec![aim.chain([header])])
        })
        .v6(),
        shape("two-atomic-fragments", |aim| {
            let again = X::fragment(0, false, aim.id + 1);
            Ok(vec![aim.chain([X::fragment(0, false, aim.id), again])])
        })
        .v6()
        .vain(),
        shape("atomic-then-options", |aim| {
            Ok(vec![
                aim.chain([X::fragment(0, false, aim.id), X::destination(1)]),
            ])
        })
        .v6(),
    ]
}

/// A packet with a destination header before its transport, cut at these bytes of what fragments share out.
fn behind_options(aim: &Aim, disguised: bool, cuts: &[(usize, usize)]) -> Result<Vec<Vec<u8>>> {
    let mut whole = aim.chain([Extension::destination(1)]);
    if disguised {
        let at = 14 + 40 + 16 + 2;
        whole[at..at + 2].copy_from_slice(&aim.other().to_be_bytes());
    }
    let end = 16 + aim.length();
    let ranges: Vec<_> = cuts
        .iter()
        .map(|(from, to)| *from..(*to).min(end))
        .collect();
    fragments(&whole, aim.id, &ranges)
}

fn pieces() -> Vec<Shape> {
    vec![
        shape("options-then-fragments", |aim| {
            behind_options(aim, false, &[(0, 40), (40, 999)])
        })
        .v6(),
        shape("options-end-the-first-fragment", |aim| {
            behind_options(aim, false, &[(0, 16), (16, 999)])
        })
        .v6()
        .cut("first-fragment")
        .vain(),
        shape("options-fill-the-first-fragment", |aim| {
            behind_options(aim, false, &[(0, 8), (8, 999)])
        })
        .v6()
        .cut("first-fragment")
        .vain(),
        shape("ports-rewritten-behind-options", |aim| {
            let mut all = behind_options(aim, true, &[(0, 40)])?;
            all.extend(behind_options(aim, false, &[(16, 40), (40, 999)])?);
            Ok(all)
        })
        .v6()
        .vain(),
        shape("ports-written-first-behind-options", |aim| {
            let mut all = behind_options(aim, false, &[(16, 40)])?;
            all.extend(behind_options(aim, true, &[(0, 40)])?);
            all.extend(behind_options(aim, false, &[(40, 999)])?);
            Ok(all)
        })
        .v6()
        .vain(),
        shape("options-before-fragments", |aim| {
            // Destination options that every hop reads stand before the fragment header.
            let all = aim.pieces(&[0..24, 24..aim.length()])?;
            Ok(all
                .into_iter()
                .map(|mut frame| {
                    let options = [number::FRAGMENT, 0, 1, 4, 0, 0, 0, 0];
                    frame.splice(54..54, options);
                    frame[20] = number::DESTINATION;
                    let length = u16::from_be_bytes([frame[18], frame[19]]) + 8;
                    frame[18..20].copy_from_slice(&length.to_be_bytes());
                    frame
                })
                .collect())
        })
        .v6(),
        shape("fragments-within-a-fragment", |aim| {
            let inner = aim.pieces(&[0..24, 24..aim.length()])?;
            Ok(inner
                .into_iter()
                .map(|mut frame| {
                    // An atomic fragment header around each.
                    let [a, b, c, d] = (aim.id + 9).to_be_bytes();
                    frame.splice(54..54, [number::FRAGMENT, 0, 0, 0, a, b, c, d]);
                    let length = u16::from_be_bytes([frame[18], frame[19]]) + 8;
                    frame[18..20].copy_from_slice(&length.to_be_bytes());
                    frame
                })
                .collect())
        })
        .v6()
        .vain(),
        shape("fragments-of-fragments", |aim| {
            // The fragments of a packet whose first header is another fragment header.
            let nested = aim.chain([Extension::fragment(0, false, aim.id)]);
            fragments(&nested, aim.id + 7, &[0..32, 32..8 + aim.length()])
        })
        .v6()
        .vain(),
        shape("reserved-byte-in-fragments", |aim| {
            let all = aim.pieces(&[0..24, 24..aim.length()])?;
            Ok(all
                .into_iter()
                .map(|mut frame| {
                    frame[55] = 200;
                    frame
                })
                .collect())
        })
        .v6(),
        shape("not-a-multiple-of-8", |aim| {
            let mut all = aim.pieces(&[0..aim.length() - 1])?;
            // "More follow", and yet it has an odd end.
            all[0][57] |= 1;
            all.extend(aim.pieces(&[24..aim.length()])?);
            Ok(all)
        })
        .v6()
        .vain(),
    ]
}
