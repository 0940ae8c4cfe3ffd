//! Damage: from a frame that means something to one that nearly does.

use fastrand::Rng;

/// Names of what [`mutate`] does.
pub const MUTATIONS: [&str; 8] = [
    "bit-flip",
    "byte",
    "header-byte",
    "truncate",
    "extend",
    "remove",
    "duplicate",
    "splice",
];

/// Damages a frame in one of the ways of [`MUTATIONS`], and says which. `other` is another frame, whose tail a splice
/// takes. The result may be of any length, also none.
pub fn mutate(rng: &mut Rng, frame: &mut Vec<u8>, other: &[u8]) -> &'static str {
    let length = frame.len();
    if length == 0 {
        frame.extend_from_slice(other);
        return "splice";
    }
    let at = rng.usize(..length);
    match rng.u8(..8) {
        0 => {
            for _ in 0..=rng.u8(..3) {
                let at = rng.usize(..length);
                if let Some(byte) = frame.get_mut(at) {
                    *byte ^= 1 << rng.u8(..8);
                }
            }
            "bit-flip"
        }
        1 => {
            if let Some(byte) = frame.get_mut(at) {
                *byte = interesting(rng);
            }
            "byte"
        }
        2 => {
            // Nearly all that a parser looks at: EtherType, version, lengths, next header, flags.
            let at = rng.usize(12..62);
            if let Some(byte) = frame.get_mut(at) {
                *byte = interesting(rng);
            }
            "header-byte"
        }
        3 => {
            frame.truncate(at);
            "truncate"
        }
        4 => {
            frame.resize(length + rng.usize(1..64), rng.u8(..));
            "extend"
        }
        5 => {
            let end = (at + rng.usize(1..9)).min(length);
            frame.drain(at..end);
            "remove"
        }
        6 => {
            let end = (at + rng.usize(1..9)).min(length);
            let piece = frame.get(at..end).unwrap_or_default().to_vec();
            frame.splice(at..at, piece);
            "duplicate"
        }
        _ => {
            frame.truncate(at);
            let from = rng.usize(..=other.len());
            frame.extend_from_slice(other.get(from..).unwrap_or_default());
            "splice"
        }
    }
}

fn interesting(rng: &mut Rng) -> u8 {
    const VALUES: [u8; 24] = [
        0, 1, 2, 3, 4, 5, 6, 17, 20, 41, 43, 44, 50, 51, 58, 59, 60, 0x40, 0x45, 0x60, 0x80, 132,
        0xfe, 0xff,
    ];
    if rng.bool() {
        rng.u8(..)
    } else {
        rng.choice(VALUES).unwrap_or(0)
    }
}
