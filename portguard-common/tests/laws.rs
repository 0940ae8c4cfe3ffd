//! Laws that hold for every frame: generated ones of all classes, and plain noise.

mod reference;

use std::collections::BTreeMap;

use portguard_common::frame::HEADER_SPAN;
use portguard_common::packet::{Malformed, Packet, Shape};
use portguard_common::reason::Reason;
use portguard_harness::frames::{CLASSES, Extension, Frame, Generator, Ipv6, Palette, Tcp};
use proptest::prelude::*;

use crate::support::{Matrix, packet_end, parse_slice, parse_split, tagged};
use reference::Seen;

/// Ports and addresses of the [`Matrix`].
fn palette() -> Palette {
    Palette {
        ports: vec![0, 53, 68, 443, 546, 2905, 8443, 9000, 65_535],
        v4: vec![
            [10, 0, 0, 1].into(),
            [10, 0, 0, 9].into(),
            [192, 0, 2, 7].into(),
        ],
        v6: vec![
            [0xfd00, 0, 0, 0, 0, 0, 0, 1].into(),
            [0xfd00, 0, 0, 0, 0, 0, 0, 9].into(),
            [0x2001, 0xdb8, 0, 0, 0, 0, 0, 7].into(),
        ],
        ..Palette::default()
    }
}

fn frames(seed: u64, count: usize) -> impl Iterator<Item = Vec<u8>> {
    let stream = Generator::new(seed).palette(palette());
    stream.take(count).map(|(_, frame)| frame)
}

/// All facts but the length, which the laws below change.
fn but_length(packet: Packet) -> Packet {
    Packet {
        length: 0,
        ..packet
    }
}

#[test]
fn agrees_with_a_second_parser() {
    let mut classes: BTreeMap<&str, u32> = BTreeMap::new();
    let mut shapes: BTreeMap<String, u32> = BTreeMap::new();
    for (label, frame) in Generator::new(1).palette(palette()).take(400_000) {
        let packet = parse_slice(&frame);
        let want = reference::read(&frame);
        assert_eq!(Seen::of(&packet), want, "{label:?} {frame:02x?}");
        *classes.entry(label.class).or_default() += 1;
        *shapes.entry(format!("{:?}", packet.shape)).or_default() += 1;
    }
    println!("{classes:?}\n{shapes:?}");
    assert_eq!(classes.len(), CLASSES.len());
    for cause in Malformed::ALL {
        let shape = format!("{:?}", Shape::Malformed(cause));
        assert!(shapes.contains_key(&shape), "never {shape}");
    }
}

/// Cutting bytes off leaves a frame what it was, or makes it malformed.
#[test]
fn cutting_opens_nothing() {
    let matrix = Matrix::new();
    for frame in frames(2, 20_000) {
        let (whole, judged) = matrix.judge(&frame);
        for length in 0..frame.len() {
            let (packet, verdict) = matrix.judge(&frame[..length]);
            if verdict.reason == Reason::Malformed {
                let is_beyond = packet_end(&frame).is_some_and(|end| end <= length);
                let is_same = judged.reason == Reason::Malformed;
                assert!(is_same || !is_beyond, "{length} of {frame:02x?}");
            } else {
                assert_eq!(
                    but_length(packet),
                    but_length(whole),
                    "{length} of {frame:02x?}"
                );
                assert_eq!(verdict, judged, "{length} of {frame:02x?}");
            }
        }
    }
}

/// Bytes added behind an IP packet change nothing.
#[test]
fn padding_changes_nothing() {
    let matrix = Matrix::new();
    for (index, mut frame) in frames(3, 50_000).enumerate() {
        let (whole, judged) = matrix.judge(&frame);
        let is_short = matches!(
            judged.cause,
            Some(Malformed::Truncated | Malformed::Length | Malformed::VlanDepth)
        );
        if is_short {
            // Padding may complete what was cut.
            continue;
        }
        frame.extend((0..index % 64).map(|byte| u8::try_from(byte * 7 % 256).unwrap_or(0)));
        let (packet, verdict) = matrix.judge(&frame);
        assert_eq!(but_length(packet), but_length(whole), "{frame:02x?}");
        assert_eq!(verdict, judged);
        assert_eq!(packet.length, frame.len());
    }
}

/// One tag more changes nothing, unless it is the third.
#[test]
fn tags_change_nothing() {
    let matrix = Matrix::new();
    for (index, frame) in frames(4, 50_000).enumerate() {
        if frame.len() < 14 {
            continue;
        }
        let kind = [0x8100, 0x88a8, 0x9100][index % 3];
        let (whole, judged) = matrix.judge(&frame);
        let (packet, verdict) = matrix.judge(&tagged(&frame, kind, 0x2fff));
        assert_eq!(packet.vlan, 0x1_2fff);
        let is_third = whole.vlan != 0 && verdict.cause == Some(Malformed::VlanDepth);
        if !is_third {
            assert_eq!(packet.shape, whole.shape, "{frame:02x?}");
            assert_eq!(verdict, judged, "{frame:02x?}");
        }
    }
}

/// Destination options put in front of the transport header hide no ports.
#[test]
fn extension_headers_hide_nothing() {
    let matrix = Matrix::new();
    let mut hit = 0;
    for (index, frame) in frames(5, 400_000).enumerate() {
        let (whole, judged) = matrix.judge(&frame);
        let is_plain = frame.len() > 54 && frame[12..14] == [0x86, 0xdd];
        let is_first = is_plain && [6, 17, 132, 58].contains(&frame[20]);
        if !is_first || !matches!(whole.shape, Shape::Ports | Shape::Icmp) {
            continue;
        }
        let count = index % 8 + 1;
        let mut longer = frame[..54].to_vec();
        for step in 0..count {
            let header = Extension::destination(u8::try_from((index + step) % 3).unwrap_or(0));
            let next = if step + 1 == count { frame[20] } else { 60 };
            longer.extend_from_slice(&[next, header.second]);
            longer.extend_from_slice(&header.body);
        }
        let added = longer.len() - 54;
        longer.extend_from_slice(&frame[54..]);
        longer[20] = 60;
        let length = u16::from_be_bytes([frame[18], frame[19]]) + u16::try_from(added).unwrap();
        longer[18..20].copy_from_slice(&length.to_be_bytes());
        let (packet, verdict) = matrix.judge(&longer);
        assert_eq!(but_length(packet), but_length(whole), "{longer:02x?}");
        assert_eq!(verdict, judged);
        hit += 1;
    }
    assert!(hit > 5_000, "only {hit} frames had something to hide");
}

/// Wherever the part that can be read in place ends.
#[test]
fn pieces_change_nothing() {
    for (index, frame) in frames(6, 100_000).enumerate() {
        let whole = parse_slice(&frame);
        let linear = index % (frame.len() + 1);
        let packet = parse_split(&frame, linear);
        assert_eq!(
            but_length(packet),
            but_length(whole),
            "{linear} of {frame:02x?}"
        );
    }
}

/// Chains that end around the bound of what is copied, in frames longer than that: all eight headers, nearly all full.
#[test]
fn far_headers_are_the_same_in_pieces() {
    let matrix = Matrix::new();
    let (mut opened, mut refused) = (0, 0);
    for (tags, last) in (0..3).flat_map(|tags| (236..=255).map(move |last| (tags, last))) {
        let mut frame = (0..tags).fold(Frame::new([2; 6], [4; 6]), |frame, id| {
            frame.tag(0x8100, id)
        });
        frame = frame.ipv6(Ipv6::new([0xfd00; 8].into(), [0xfd01; 8].into()));
        for _ in 0..7 {
            frame = frame.extension(Extension::destination(255));
        }
        let frame = frame
            .extension(Extension::destination(last))
            .tcp(Tcp::syn(1, 443));
        let bytes = frame.payload(vec![0; 2_000]).build();
        let (whole, verdict) = matrix.judge(&bytes);
        opened += u32::from(verdict.reason == Reason::Granted);
        refused += u32::from(verdict.cause == Some(Malformed::ExtensionHeaders));
        for linear in [0, 54, 3_520, HEADER_SPAN] {
            let packet = parse_split(&bytes, linear);
            assert_eq!(
                packet.shape, whole.shape,
                "{tags} tags, {last}, {linear} in place"
            );
        }
    }
    assert!(
        opened > 30 && refused > 10,
        "{opened} opened, {refused} refused"
    );
}

/// Audit and enforce judge alike; only what becomes of a frame differs.
#[test]
fn the_mode_masks_last() {
    let mut audit = Matrix::new();
    audit.facts.enforce = 0;
    let enforce = Matrix::new();
    let mut dropped = 0;
    for frame in frames(7, 100_000) {
        let (_, counted) = audit.judge(&frame);
        let (_, enforced) = enforce.judge(&frame);
        assert_eq!(counted, enforced);
        assert!(!counted.is_drop(false));
        let is_drop = enforced.reason.is_violation() && !enforced.audit_only;
        assert_eq!(enforced.is_drop(true), is_drop);
        dropped += u32::from(is_drop);
    }
    assert!(dropped > 10_000);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    /// Noise behind every EtherType that is looked into; also proves that nothing panics.
    #[test]
    fn noise_is_read_alike(
        kind in prop::sample::select(vec![[8, 0], [0x86, 0xdd], [0x81, 0], [0x88, 0xa8], [8, 6]]),
        mut bytes in prop::collection::vec(any::<u8>(), 0..200),
        nibble in 0u8..6,
        linear in 0usize..200,
    ) {
        // Most noise fails at the version; the rest is steered past it.
        if let Some(first) = bytes.get_mut(14) {
            *first = match nibble {
                0..=1 => 0x45,
                2 => 0x40 | *first & 15,
                3..=4 => 0x60,
                _ => *first,
            };
        }
        if let Some(slot) = bytes.get_mut(12..14) {
            slot.copy_from_slice(&kind);
        }
        if nibble < 5 && bytes.len() > 34 {
            let length = u16::try_from(bytes.len() - 14).unwrap_or(0).to_be_bytes();
            let at = if kind == [8, 0] { 16 } else { 18 };
            bytes[at..at + 2].copy_from_slice(&length);
        }
        let packet = parse_slice(&bytes);
        prop_assert_eq!(Seen::of(&packet), reference::read(&bytes));
        let split = parse_split(&bytes, linear.min(bytes.len()));
        prop_assert_eq!(but_length(split), but_length(packet));
    }
}
