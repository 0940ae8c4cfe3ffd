//! What no bytes whatsoever may break. Two programs feed it: a bounded run below, and the fuzzer of `tests/fuzz`.

use portguard_common::packet::{Packet, Shape, Subject};
use portguard_common::parse::{parse_early, parse_plain};
use portguard_common::reason::Reason;
use portguard_common::verdict;

use crate::support::{Matrix, packet_end, parse_split};

/// Takes two bytes that say where the frame is cut and where its linear part ends, and the frame. Panics if a law is broken.
pub(crate) fn check(input: &[u8]) {
    let [cut, linear, frame @ ..] = input else {
        return;
    };
    let place = |share: u8| frame.len() * usize::from(share) / 255;
    let matrix = Matrix::new();
    let (whole, judged) = matrix.judge(frame);

    // Nobody but a plain packet is taken for one, and what is looked up of it is the same.
    if let Some(plain) = parse_plain(&frame, 0) {
        expect_alike(&plain, &whole);
        assert_eq!(verdict::ingress(&matrix, &plain), judged);
        assert_eq!(
            verdict::egress(&matrix, &plain),
            verdict::egress(&matrix, &whole)
        );
    }

    // The same of what its first headers say enough about, which is never a plain packet's.
    if let Some(early) = parse_early(&mut &*frame, 0) {
        assert_eq!(parse_plain(&frame, 0).map(|_| ()), None, "plain, or not");
        assert_eq!(early.shape(), whole.shape);
        assert_eq!(early.ethertype(), whole.ethertype);
        assert_eq!(early.length(), whole.length);
        assert_eq!(verdict::ingress(&matrix, &early), judged);
        assert_eq!(
            verdict::egress(&matrix, &early),
            verdict::egress(&matrix, &whole)
        );
    } else {
        assert!(!matches!(whole.shape, Shape::Arp | Shape::NonIp), "early");
    }

    // However it lies in memory.
    let split = parse_split(frame, place(*linear));
    assert_eq!(split.shape, whole.shape, "in pieces");
    assert_eq!(verdict::ingress(&matrix, &split), judged);

    // What is cut off opens nothing: the rest is what it was, or malformed.
    let short = &frame[..place(*cut)];
    let (_, verdict) = matrix.judge(short);
    if verdict.reason == Reason::Malformed {
        let is_padding = packet_end(frame).is_some_and(|end| end <= short.len());
        assert!(judged.reason == Reason::Malformed || !is_padding);
    } else {
        assert_eq!(verdict, judged, "cut short");
    }
    assert!(!judged.is_drop(false), "audit drops nothing");
    if judged.reason == Reason::Malformed {
        assert!(judged.is_drop(true), "what cannot be parsed is not passed");
        assert!(judged.cause.is_some());
    }
}

/// All that a subject can be asked for.
fn expect_alike(plain: &impl Subject, packet: &Packet) {
    assert_eq!(plain.shape(), packet.shape);
    assert_eq!(plain.ethertype(), packet.ethertype);
    assert_eq!(plain.source(), packet.source);
    assert_eq!(plain.destination(), packet.destination);
    assert_eq!(plain.protocol(), packet.protocol);
    assert_eq!(plain.source_port(), packet.source_port);
    assert_eq!(plain.destination_port(), packet.destination_port);
    assert_eq!(plain.tcp_flags(), packet.tcp_flags);
    assert_eq!(plain.length(), packet.length);
    assert_eq!(plain.hop_limit(), packet.hop_limit);
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use portguard_harness::frames::{Generator, mutate};

    use super::check;

    /// Seconds of a longer run.
    const SECONDS: &str = "PORTGUARD_FUZZ_SECONDS";

    /// Frames that every run tries.
    const AT_LEAST: usize = 500_000;

    /// Damage on top of damage: what one mutation makes of a frame, the next begins with.
    #[test]
    fn no_damage_breaks_a_law() {
        let seconds = std::env::var(SECONDS).ok();
        let seconds = seconds.map_or(0, |text| text.parse().expect("a number of seconds"));
        let end = Instant::now() + Duration::from_secs(seconds);
        let mut rng = fastrand::Rng::with_seed(20_261_122 + seconds);
        let mut generator = Generator::new(rng.u64(..));
        let (mut frame, mut other, mut tried) = (Vec::new(), Vec::new(), 0);
        while tried < AT_LEAST || Instant::now() < end {
            generator.fill(&mut frame);
            for _ in 0..rng.u8(1..6) {
                mutate(&mut rng, &mut frame, &other);
                let mut input = vec![rng.u8(..), rng.u8(..)];
                input.extend_from_slice(&frame);
                check(&input);
                tried += 1;
            }
            std::mem::swap(&mut frame, &mut other);
        }
        println!("{tried} damaged frames");
    }
}
