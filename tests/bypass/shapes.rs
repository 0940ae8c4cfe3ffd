//! The hostile shapes, each with a name: those of both families are here.
#![expect(
    clippy::single_range_in_vec_init,
    reason = "one fragment is a list of ranges, too"
)]

use std::ops::Range;

use anyhow::Result;
use portguard_harness::frames::{Frame, Tcp, Udp, number};

use super::aim::Aim;
use super::hosts::{INNER, INNERMOST, OUTER, VLAN};
use super::{shapes4, shapes6};

/// Whether enforce drops a shape that a stack would deliver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cut {
    /// It does not: what is documented arrives.
    Never,
    /// It is malformed, for this cause.
    As(&'static str),
    /// One of its frames is, and the others may make the packet without it.
    InPart(&'static str),
}

/// One way to write a packet that a stack may take for another.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    pub(super) name: &'static str,
    /// IPv4, IPv6.
    families: [bool; 2],
    /// UDP, TCP.
    transports: [bool; 2],
    pub(super) cut: Cut,
    /// Whether an unguarded host delivers it, of whatever port.
    pub(super) delivers: bool,
    /// Whether it takes a device for VLANs.
    pub(super) on_vlan: bool,
    pub(super) frames: fn(&Aim) -> Result<Vec<Vec<u8>>>,
}

type Make = fn(&Aim) -> Result<Vec<Vec<u8>>>;

/// Of both families and transports, and delivered.
pub(super) const fn shape(name: &'static str, frames: Make) -> Shape {
    Shape {
        name,
        families: [true; 2],
        transports: [true; 2],
        cut: Cut::Never,
        delivers: true,
        on_vlan: false,
        frames,
    }
}

impl Shape {
    pub(super) const fn v4(mut self) -> Self {
        self.families = [true, false];
        self
    }

    pub(super) const fn v6(mut self) -> Self {
        self.families = [false, true];
        self
    }

    pub(super) const fn udp(mut self) -> Self {
        self.transports = [true, false];
        self
    }

    pub(super) const fn tcp(mut self) -> Self {
        self.transports = [false, true];
        self
    }

    /// Malformed for this cause.
    pub(super) const fn cut(mut self, cause: &'static str) -> Self {
        self.cut = Cut::As(cause);
        self
    }

    /// One of its frames is malformed for this cause.
    const fn cut_in_part(mut self, cause: &'static str) -> Self {
        self.cut = Cut::InPart(cause);
        self
    }

    /// No stack of today delivers it; another may.
    pub(super) const fn vain(mut self) -> Self {
        self.delivers = false;
        self
    }

    /// To a device for VLANs.
    const fn on_vlan(mut self) -> Self {
        self.on_vlan = true;
        self
    }

    /// Every family and transport that it has.
    pub(super) fn aims(&self) -> impl Iterator<Item = Aim> {
        let (families, transports) = (self.families, self.transports);
        [false, true].into_iter().flat_map(move |v6| {
            [false, true]
                .into_iter()
                .filter(move |tcp| families[usize::from(v6)] && transports[usize::from(*tcp)])
                .map(move |tcp| Aim::new(v6, tcp))
        })
    }
}

pub(super) fn all() -> Vec<Shape> {
    [
        fragments(),
        frames(),
        transports(),
        shapes4::all(),
        shapes6::all(),
    ]
    .concat()
}

/// In pieces of so many bytes.
fn every(aim: &Aim, size: usize) -> Vec<Range<usize>> {
    portguard_harness::frames::split(aim.length(), size)
}

fn fragments() -> Vec<Shape> {
    vec![
        shape("plain", |aim| Ok(vec![aim.whole()])),
        shape("fragments-in-order", |aim| aim.pieces(&every(aim, 24))),
        shape("fragments-last-first", |aim| {
            let mut all = aim.pieces(&every(aim, 24))?;
            all.reverse();
            Ok(all)
        }),
        shape("fragments-first-last", |aim| {
            let mut all = aim.pieces(&every(aim, 24))?;
            all.rotate_left(1);
            Ok(all)
        }),
        shape("fragments-twice", |aim| {
            let all = aim.pieces(&every(aim, 24))?;
            let doubled = all.iter().flat_map(|one| [one.clone(), one.clone()]);
            Ok(doubled.collect())
        }),
        shape("fragments-of-16", |aim| aim.pieces(&every(aim, 16))),
        shape("fragments-of-8", |aim| aim.pieces(&every(aim, 8))).udp(),
        // RFC 1858: the flags in the second fragment.
        shape("fragments-of-8-tcp", |aim| aim.pieces(&every(aim, 8)))
            .tcp()
            .cut("first-fragment"),
        shape("tiny-second", |aim| {
            aim.pieces(&[0..24, 8..24, 24..aim.length()])
        })
        .tcp()
        .cut_in_part("tiny-fragment"),
        shape("second-only", |aim| aim.pieces(&[24..aim.length()])).vain(),
        shape("first-only", |aim| aim.pieces(&[0..24])).vain(),
        shape("hole", |aim| aim.pieces(&[0..24, 32..aim.length()])).vain(),
        shape("first-disguised-before", |aim| {
            let mut all = aim.disguises(&[0..24])?;
            all.extend(aim.pieces(&[0..24, 24..aim.length()])?);
            Ok(all)
        })
        .vain(),
        shape("first-disguised-after", |aim| {
            let mut all = aim.pieces(&[0..24])?;
            all.extend(aim.disguises(&[0..24])?);
            all.extend(aim.pieces(&[24..aim.length()])?);
            Ok(all)
        })
        .vain(),
        shape("first-disguised-last-first", |aim| {
            let mut all = aim.pieces(&[24..aim.length()])?;
            all.extend(aim.disguises(&[0..24])?);
            all.extend(aim.pieces(&[0..24])?);
            Ok(all)
        })
        .vain(),
        shape("longer-disguise", |aim| {
            let mut all = aim.disguises(&[0..24])?;
            all.extend(aim.pieces(&[0..40, 40..aim.length()])?);
            Ok(all)
        })
        .vain(),
        shape("shorter-disguise", |aim| {
            let mut all = aim.disguises(&[0..40])?;
            all.extend(aim.pieces(&[0..24, 24..aim.length()])?);
            Ok(all)
        })
        .vain(),
        shape("overlap-behind", |aim| {
            aim.pieces(&[0..32, 24..aim.length()])
        })
        .vain(),
        shape("overlap-last-first", |aim| {
            aim.pieces(&[24..aim.length(), 0..32])
        })
        .vain(),
        shape("beyond-the-end", |aim| {
            let mut all = aim.pieces(&every(aim, 24))?;
            all.extend(aim.pieces(&[56..aim.length()])?);
            Ok(all)
        }),
    ]
}

/// The packet behind tags, to the addresses of the VLAN's device.
fn tagged(aim: &Aim, net: u16, tags: &[(u16, u16)]) -> Vec<Vec<u8>> {
    let mut aim = aim.clone();
    let [_, net4] = net.to_be_bytes();
    aim.v4_ends = ([10, 77, net4, 2].into(), [10, 77, net4, 1].into());
    let v6 = |last| [0xfd77, 0, 0, net, 0, 0, 0, last].into();
    aim.v6_ends = (v6(2), v6(1));
    let frame = tags
        .iter()
        .fold(aim.frame(), |frame, (kind, id)| frame.tag(*kind, *id));
    vec![aim.transport(aim.ip(frame)).build()]
}

/// The packet behind tags that name no VLAN.
fn untagged(aim: &Aim, tags: &[u16]) -> Vec<u8> {
    let frame = tags
        .iter()
        .fold(aim.frame(), |frame, kind| frame.tag(*kind, 0xa000));
    aim.transport(aim.ip(frame)).build()
}

fn frames() -> Vec<Shape> {
    vec![
        shape("padded", |aim| {
            Ok(vec![aim.transport(aim.ip(aim.frame())).pad(300).build()])
        }),
        shape("vlan", |aim| Ok(tagged(aim, VLAN, &[(number::VLAN, VLAN)]))).on_vlan(),
        shape("vlan-priority", |aim| {
            Ok(tagged(aim, VLAN, &[(number::VLAN, 0xe000 | VLAN)]))
        })
        .on_vlan(),
        shape("qinq", |aim| {
            let tags = [(number::QINQ, OUTER), (number::VLAN, INNER)];
            Ok(tagged(aim, INNER, &tags))
        })
        .on_vlan(),
        shape("three-vlans", |aim| {
            let tags = [
                (number::QINQ, OUTER),
                (number::VLAN, INNER),
                (number::VLAN, INNERMOST),
            ];
            Ok(tagged(aim, INNERMOST, &tags))
        })
        .on_vlan()
        .cut("vlan-depth"),
        // Id 0 is no VLAN: the stack takes such tags off and goes on.
        shape("priority-tag", |aim| {
            Ok(vec![untagged(aim, &[number::VLAN])])
        }),
        shape("priority-tags", |aim| {
            Ok(vec![untagged(aim, &[number::QINQ, number::VLAN])])
        }),
        shape("three-priority-tags", |aim| {
            Ok(vec![untagged(
                aim,
                &[number::QINQ, number::VLAN, number::VLAN],
            )])
        })
        .cut("vlan-depth"),
        shape("priority-tag-and-fragments", |aim| {
            let whole = untagged(aim, &[number::VLAN]);
            let ranges = every(aim, 24);
            portguard_harness::frames::fragments(&whole, aim.id, &ranges)
        }),
        shape("tag-of-another", |aim| {
            let frame = aim.frame().tag(number::VLAN, 99);
            Ok(vec![aim.transport(aim.ip(frame)).build()])
        })
        .vain(),
        shape("old-tag", |aim| {
            Ok(vec![untagged(aim, &[number::QINQ_OLD])])
        })
        .vain(),
        shape("other-ethertype", |aim| {
            let wrong = if aim.v6 { number::IPV4 } else { number::IPV6 };
            let frame = aim.frame().ethertype(wrong);
            Ok(vec![aim.transport(aim.ip(frame)).build()])
        })
        .cut("ip-version")
        .vain(),
        shape("jumbo-frame", |aim| {
            let frame = aim.transport(aim.ip(aim.frame()));
            let mut payload = aim.payload();
            payload.resize(8000, 1);
            Ok(vec![frame.payload(payload).build()])
        }),
        shape("jumbo-fragments", |aim| {
            let frame = aim.transport(aim.ip(aim.frame()));
            let mut payload = aim.payload();
            payload.resize(30_000, 1);
            let frame = frame.payload(payload).build();
            let start = if aim.v6 { 54 } else { 34 };
            let ranges = portguard_harness::frames::split(frame.len() - start, 8000);
            portguard_harness::frames::fragments(&frame, aim.id, &ranges)
        }),
    ]
}

fn transports() -> Vec<Shape> {
    vec![
        shape("odd-length", |aim| {
            let mut payload = aim.payload();
            payload.truncate(7);
            let frame = aim.transport(aim.ip(aim.frame())).payload(payload);
            Ok(vec![frame.build()])
        }),
        shape("no-payload", |aim| {
            let frame = aim.transport(aim.ip(aim.frame())).payload([]);
            Ok(vec![frame.build()])
        }),
        shape("source-port-zero", |aim| {
            let aim = Aim {
                source_port: 0,
                ..aim.clone()
            };
            Ok(vec![aim.whole()])
        })
        .udp(),
        shape("bad-checksum", |aim| {
            let mut frame = aim.whole();
            let last = frame.len() - 1;
            frame[last] ^= 0xff;
            Ok(vec![frame])
        })
        .vain(),
        shape("udp-longer-than-packet", |aim| {
            Ok(vec![datagram(aim, Some(200), None)])
        })
        .udp()
        .vain(),
        shape("udp-shorter-than-packet", |aim| {
            Ok(vec![datagram(aim, Some(16), Some(0))])
        })
        .udp()
        .vain(),
        shape("udp-of-no-length", |aim| {
            Ok(vec![datagram(aim, Some(0), None)])
        })
        .udp()
        .vain(),
        shape("udp-without-checksum", |aim| {
            Ok(vec![datagram(aim, None, Some(0))])
        })
        .udp(),
        shape("syn-with-ecn", |aim| Ok(vec![segment(aim, 0xc2, vec![])])).tcp(),
        shape("syn-with-push", |aim| {
            Ok(vec![segment(aim, Tcp::SYN | Tcp::PSH | Tcp::URG, vec![])])
        })
        .tcp(),
        shape("syn-with-fin", |aim| {
            Ok(vec![segment(aim, Tcp::SYN | Tcp::FIN, vec![])])
        })
        .tcp()
        .vain(),
        shape("syn-with-options", |aim| {
            Ok(vec![segment(aim, Tcp::SYN, vec![1; 40])])
        })
        .tcp(),
    ]
}

fn datagram(aim: &Aim, length: Option<u16>, checksum: Option<u16>) -> Vec<u8> {
    let header = Udp {
        length,
        checksum,
        ..Udp::new(aim.source_port, aim.port())
    };
    let frame = aim.ip(aim.frame()).udp(header);
    frame.payload(aim.payload()).build()
}

fn segment(aim: &Aim, flags: u8, options: Vec<u8>) -> Vec<u8> {
    let header = Tcp {
        options,
        ..Tcp::new(aim.source_port, aim.port(), flags)
    };
    let frame: Frame = aim.ip(aim.frame()).tcp(header);
    frame.payload(aim.payload()).build()
}
