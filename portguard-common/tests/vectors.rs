//! Every line of the table of packet semantics: a frame, where the shape is known from, and what has to become of it.

mod fragment4;
mod fragment6;
mod icmp;
mod igmp;
mod ipv4;
mod ipv6;
mod link;
mod scope;

use portguard_common::config::Config;
use portguard_common::packet::{Malformed, Shape};
use portguard_common::reason::Reason;
use portguard_harness::frames::{Frame, Ipv4, Ipv6};

use crate::support::{Matrix, packet_end, parse_slice, parse_split, tagged};

/// What has to become of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Want {
    /// Port, and the cell that is counted.
    Open(u16, u16),
    /// Port that is documented for others.
    Foreign(u16),
    /// Port that nobody is granted.
    Closed(u16),
    /// Anything else: shape and reason.
    Is(Shape, Reason),
    /// Not a port, and granted: shape and cell.
    Granted(Shape, u16),
    /// Malformed.
    Bad(Malformed),
}

/// One frame.
struct Vector {
    name: String,
    /// Section of a specification, or the bypass that others fell for.
    origin: &'static str,
    frame: Vec<u8>,
    want: Want,
    facts: fn(&mut Config),
}

/// A frame under the ordinary policy.
fn vector(name: impl Into<String>, origin: &'static str, frame: &Frame, want: Want) -> Vector {
    raw(name, origin, frame.build(), want)
}

/// The same of bytes.
fn raw(name: impl Into<String>, origin: &'static str, frame: Vec<u8>, want: Want) -> Vector {
    Vector {
        name: name.into(),
        origin,
        frame,
        want,
        facts: |_| {},
    }
}

impl Vector {
    /// Under other facts.
    fn under(mut self, facts: fn(&mut Config)) -> Self {
        self.facts = facts;
        self
    }

    fn matrix(&self) -> Matrix {
        let mut matrix = Matrix::new();
        (self.facts)(&mut matrix.facts);
        matrix
    }

    fn at(&self) -> String {
        format!("{} ({})", self.name, self.origin)
    }
}

fn ethernet() -> Frame {
    Frame::new([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2])
}

/// From a peer to the host.
fn ip4() -> Ipv4 {
    Ipv4::new([10, 0, 0, 9].into(), [10, 0, 0, 1].into())
}

/// From a peer to the host.
fn ip6() -> Ipv6 {
    Ipv6::new(
        [0xfd00, 0, 0, 0, 0, 0, 0, 9].into(),
        [0xfd00, 0, 0, 0, 0, 0, 0, 1].into(),
    )
}

fn v4() -> Frame {
    ethernet().ipv4(ip4())
}

fn v6() -> Frame {
    ethernet().ipv6(ip6())
}

fn all() -> Vec<Vector> {
    let mut vectors = Vec::new();
    vectors.extend(link::vectors());
    vectors.extend(ipv4::vectors());
    vectors.extend(ipv6::vectors());
    vectors.extend(fragment4::vectors());
    vectors.extend(fragment6::vectors());
    vectors.extend(icmp::vectors());
    vectors.extend(igmp::vectors());
    vectors.extend(scope::vectors());
    vectors
}

#[test]
fn become_what_they_should() {
    let mut wrong = Vec::new();
    for vector in all() {
        let (packet, verdict) = vector.matrix().judge(&vector.frame);
        let got = (packet.shape, verdict.reason);
        let is_right = match vector.want {
            Want::Open(port, cell) => {
                got == (Shape::Ports, Reason::Granted)
                    && packet.destination_port == port
                    && verdict.cell == cell
            }
            Want::Foreign(port) => {
                got == (Shape::Ports, Reason::UndocumentedPeer) && packet.destination_port == port
            }
            Want::Closed(port) => {
                got == (Shape::Ports, Reason::UndocumentedPort) && packet.destination_port == port
            }
            Want::Is(shape, reason) => got == (shape, reason),
            Want::Granted(shape, cell) => got == (shape, Reason::Granted) && verdict.cell == cell,
            Want::Bad(cause) => {
                got == (Shape::Malformed(cause), Reason::Malformed) && verdict.cause == Some(cause)
            }
        };
        if !is_right {
            let (at, want) = (vector.at(), vector.want);
            wrong.push(format!("{at}: want {want:?}, got {packet:?} {verdict:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn cover_every_reason_and_every_cause() {
    let seen: Vec<_> = all()
        .iter()
        .map(|vector| vector.matrix().judge(&vector.frame).1)
        .collect();
    for reason in Reason::ALL {
        // Replies take a flow table, which has tests of its own.
        let is_seen = seen.iter().any(|verdict| verdict.reason == reason);
        assert!(
            is_seen || reason == Reason::Reply,
            "no vector for {reason:?}"
        );
    }
    for cause in Malformed::ALL {
        let is_seen = seen.iter().any(|verdict| verdict.cause == Some(cause));
        assert!(is_seen, "no vector for {cause:?}");
    }
}

#[test]
fn have_names_of_their_own() {
    let mut names: Vec<_> = all().into_iter().map(|vector| vector.name).collect();
    let count = names.len();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), count);
    assert!(count > 150, "{count} vectors");
}

/// Bytes cut off never open anything: a frame is malformed, or it is what it was.
#[test]
fn cut_anywhere_open_nothing() {
    for vector in all() {
        let matrix = vector.matrix();
        let (whole, whole_verdict) = matrix.judge(&vector.frame);
        for length in 0..vector.frame.len() {
            let cut = &vector.frame[..length];
            let (packet, verdict) = matrix.judge(cut);
            let at = format!("{} cut to {length}", vector.at());
            if verdict.reason == Reason::OtherHost {
                assert!(matrix.facts.card != 0, "{at}: {packet:?}");
            } else if whole_verdict.reason == Reason::Malformed {
                assert_eq!(verdict.reason, Reason::Malformed, "{at}: {packet:?}");
            } else if packet_end(&vector.frame).is_some_and(|end| end <= length) {
                assert_eq!(packet.shape, whole.shape, "{at}");
                assert_eq!(verdict, whole_verdict, "{at}");
            } else if verdict.reason != Reason::Malformed {
                let is_other = matches!(packet.shape, Shape::Arp | Shape::NonIp);
                let is_no_wider = verdict == whole_verdict || verdict.reason.is_violation();
                assert!(is_other && is_no_wider, "{at}: {packet:?}");
            }
        }
    }
}

/// One or two tags of any kind change nothing; a third is malformed.
#[test]
fn behind_tags_stay_what_they_are() {
    for vector in all().into_iter().filter(|vector| {
        vector.frame.len() >= 14 && !matches!(vector.frame[12..14], [0x81 | 0x91, 0] | [0x88, 0xa8])
    }) {
        let matrix = vector.matrix();
        let plain = matrix.judge(&vector.frame).1;
        for outer in [0x8100, 0x88a8, 0x9100] {
            let one = tagged(&vector.frame, outer, 0);
            assert_eq!(matrix.judge(&one).1, plain, "{} in {outer:#x}", vector.at());
            for control in [0, 5, 0xffff] {
                let two = tagged(&tagged(&vector.frame, 0x8100, 7), outer, control);
                let (packet, verdict) = matrix.judge(&two);
                assert_eq!(verdict, plain, "{} in {outer:#x}, 0x8100", vector.at());
                assert_eq!(packet.vlan, u32::from(control) | 1 << 16);
                let three = matrix.judge(&tagged(&two, outer, 1));
                if matrix.facts.card != 0 {
                    assert_eq!(three.1.reason, Reason::OtherHost, "{}", vector.at());
                    continue;
                }
                assert_eq!(three.1.cause, Some(Malformed::VlanDepth), "{}", vector.at());
            }
        }
    }
}

/// Wherever the linear part ends, a frame is what it is in one piece.
#[test]
fn in_pieces_stay_what_they_are() {
    for vector in all() {
        let whole = parse_slice(&vector.frame);
        for linear in 0..=vector.frame.len() {
            let mut packet = parse_split(&vector.frame, linear);
            assert!(packet.length <= whole.length);
            packet.length = whole.length;
            assert_eq!(packet, whole, "{} with {linear} in place", vector.at());
        }
    }
}
