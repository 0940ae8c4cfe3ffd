//! Shapes of IPv4.
#![expect(
    clippy::single_range_in_vec_init,
    reason = "one fragment is a list of ranges, too"
)]

use portguard_harness::frames::{Extension, fragments};

use super::aim::Aim;
use super::shapes::{Shape, shape};

/// The packet with these options.
fn options(aim: &Aim, options: &[u8]) -> Vec<Vec<u8>> {
    vec![aim.with4(|header| header.options(options))]
}

/// A source route of this kind with an address behind the pointer, or all of them visited.
fn route(aim: &Aim, kind: u8, pointer: u8) -> Vec<Vec<u8>> {
    let [a, b, c, d] = aim.v4_ends.0.octets();
    options(aim, &[1, kind, 7, pointer, a, b, c, d])
}

pub(super) fn all() -> Vec<Shape> {
    [headers(), ends(), optional(), pieces()].concat()
}

fn headers() -> Vec<Shape> {
    vec![
        shape("bad-header-checksum", |aim| {
            Ok(vec![aim.with4(|mut header| {
                header.checksum = Some(0x1234);
                header
            })])
        })
        .v4()
        .vain(),
        shape("reserved-flag", |aim| {
            Ok(vec![aim.with4(|mut header| {
                header.reserved = true;
                header
            })])
        })
        .v4(),
        shape("ihl-4", |aim| Ok(vec![aim.with4(|header| header.ihl(4))]))
            .v4()
            .cut("ip-header-length")
            .vain(),
        shape("ihl-0", |aim| Ok(vec![aim.with4(|header| header.ihl(0))]))
            .v4()
            .cut("ip-header-length")
            .vain(),
        shape("ihl-over-ports", |aim| {
            // The ports that a parser of fixed headers reads are not those that the stack reads.
            let (mine, other) = (aim.source_port.to_be_bytes(), aim.other().to_be_bytes());
            Ok(options(aim, &[1, 1, mine[0], 4, other[0], other[1], 1, 0]))
        })
        .v4()
        .udp()
        .vain(),
        shape("total-length-short", |aim| {
            Ok(vec![aim.with4(|header| header.total_length(30))])
        })
        .v4()
        .udp()
        .vain(),
        shape("total-length-within-header", |aim| {
            Ok(vec![aim.with4(|header| header.total_length(30))])
        })
        .v4()
        .tcp()
        .cut("truncated")
        .vain(),
        shape("total-length-zero", |aim| {
            Ok(vec![aim.with4(|header| header.total_length(0))])
        })
        .v4()
        .cut("ip-length")
        .vain(),
        shape("total-length-long", |aim| {
            Ok(vec![aim.with4(|header| header.total_length(1400))])
        })
        .v4()
        .cut("ip-length")
        .vain(),
        shape("trailer", |aim| {
            // The packet ends before the frame does, and what follows looks like a packet.
            let mut frame = aim.whole();
            frame.extend(aim.disguised());
            Ok(vec![frame])
        })
        .v4(),
        shape("version-5", |aim| {
            Ok(vec![aim.with4(|mut header| {
                header.version = Some(5);
                header
            })])
        })
        .v4()
        .cut("ip-version")
        .vain(),
    ]
}

/// Where it is for and where it says to come from.
fn ends() -> Vec<Shape> {
    vec![
        shape("ttl-1", |aim| {
            Ok(vec![aim.with4(|mut header| {
                header.ttl = 1;
                header
            })])
        })
        .v4(),
        shape("broadcast", |aim| {
            let aim = Aim {
                v4_ends: (aim.v4_ends.0, [255; 4].into()),
                to_mac: [255; 6],
                ..aim.clone()
            };
            Ok(vec![aim.whole()])
        })
        .v4()
        .udp(),
        shape("subnet-broadcast", |aim| {
            let aim = Aim {
                v4_ends: (aim.v4_ends.0, [10, 77, 0, 255].into()),
                ..aim.clone()
            };
            Ok(vec![aim.whole()])
        })
        .v4()
        .udp(),
        shape("from-itself", |aim| {
            let aim = Aim {
                v4_ends: (aim.v4_ends.1, aim.v4_ends.1),
                ..aim.clone()
            };
            Ok(vec![aim.whole()])
        })
        .v4()
        .vain(),
        shape("authentication", |aim| {
            Ok(vec![aim.chain([Extension::authentication(6)])])
        })
        .v4()
        .vain(),
    ]
}

fn optional() -> Vec<Shape> {
    vec![
        shape("options-nop", |aim| Ok(options(aim, &[1; 4]))).v4(),
        shape("options-full", |aim| Ok(options(aim, &[1; 40]))).v4(),
        shape("options-end", |aim| {
            Ok(options(aim, &[0, 0x83, 0xff, 0xff]))
        })
        .v4(),
        shape("record-route", |aim| {
            Ok(options(aim, &[7, 11, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0]))
        })
        .v4(),
        shape("timestamp", |aim| {
            Ok(options(aim, &[68, 8, 5, 0, 0, 0, 0, 0]))
        })
        .v4(),
        shape("router-alert", |aim| Ok(options(aim, &[148, 4, 0, 0]))).v4(),
        shape("loose-source-route", |aim| Ok(route(aim, 131, 8)))
            .v4()
            .cut("ip-options"),
        shape("strict-source-route", |aim| Ok(route(aim, 137, 8)))
            .v4()
            .cut("ip-options"),
        shape("source-route-to-go", |aim| Ok(route(aim, 131, 4)))
            .v4()
            .cut("ip-options")
            .vain(),
        shape("option-too-long", |aim| Ok(options(aim, &[7, 40, 4, 0])))
            .v4()
            .cut("ip-options")
            .vain(),
        shape("option-too-short", |aim| Ok(options(aim, &[7, 1, 4, 0])))
            .v4()
            .cut("ip-options")
            .vain(),
        shape("fragments-with-options", |aim| {
            let whole = aim.with4(|header| header.options([1; 12]));
            let end = aim.length();
            fragments(&whole, aim.id, &[0..32, 32..end])
        })
        .v4(),
    ]
}

fn pieces() -> Vec<Shape> {
    vec![
        shape("more-to-come", |aim| {
            Ok(vec![aim.with4(|header| header.fragment(7, 0, true))])
        })
        .v4()
        .vain(),
        shape("fragments-that-must-not-be", |aim| {
            // "Don't fragment" and the reserved flag on fragments.
            let all = aim.pieces(&[0..24, 24..aim.length()])?;
            Ok(all
                .into_iter()
                .map(|mut frame| {
                    frame[20] |= 0xc0;
                    frame[24..26].fill(0);
                    let sum = portguard_harness::frames::checksum(&[&frame[14..34]]);
                    frame[24..26].copy_from_slice(&sum.to_be_bytes());
                    frame
                })
                .collect())
        })
        .v4(),
        shape("beyond-64-kib", |aim| {
            let mut all = aim.pieces(&[0..24])?;
            let id = u16::try_from(aim.id & 0xffff)?;
            let last = aim.with4(|header| header.fragment(id, 0x1fff, false));
            all.push(last);
            Ok(all)
        })
        .v4()
        .vain(),
    ]
}
