//! A stream of frames from a seed: every class of traffic that the guard tells apart, and their near misses.
//!
//! Same seed and palette, same frames, on every machine.

mod classes;
mod ipv4;
mod ipv6;
mod mixed;
mod source;

use std::net::{Ipv4Addr, Ipv6Addr};

use fastrand::Rng;

use super::mutate;
use classes::MAKERS;
use source::Source;

/// Names of the classes; each is as likely as any other.
pub const CLASSES: [&str; MAKERS.len()] = names();

/// One frame in this many is damaged after it was made.
const DAMAGED: u32 = 4;

/// What frames are filled with, so that they meet the policy under test: a part of all ports and addresses is drawn from
/// here, the rest at random.
#[derive(Debug, Clone)]
pub struct Palette {
    /// Ports, for either side.
    pub ports: Vec<u16>,
    /// IPv4 addresses, for either side.
    pub v4: Vec<Ipv4Addr>,
    /// IPv6 addresses, for either side.
    pub v6: Vec<Ipv6Addr>,
    /// Link addresses, for either side.
    pub macs: Vec<[u8; 6]>,
    /// The most bytes of payload.
    pub payload: usize,
}

impl Default for Palette {
    fn default() -> Self {
        Self {
            ports: vec![
                0, 22, 53, 67, 68, 80, 123, 443, 546, 547, 2100, 9443, 32_768, 65_535,
            ],
            v4: vec![
                [10, 77, 0, 1].into(),
                [10, 77, 0, 2].into(),
                [192, 0, 2, 7].into(),
            ],
            v6: vec![
                Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 1),
                Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 2),
                Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 7),
            ],
            macs: vec![[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]],
            payload: 64,
        }
    }
}

/// Where a generated frame came from; says enough in a failure message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Label {
    /// One of [`CLASSES`].
    pub class: &'static str,
    /// One of [`super::MUTATIONS`], if it was damaged.
    pub mutation: Option<&'static str>,
}

/// An endless stream of frames.
#[derive(Debug, Clone)]
pub struct Generator {
    rng: Rng,
    palette: Palette,
    previous: Vec<u8>,
}

impl Generator {
    /// A stream of this seed.
    pub fn new(seed: u64) -> Self {
        Self {
            rng: Rng::with_seed(seed),
            palette: Palette::default(),
            previous: Vec::new(),
        }
    }

    /// Draws ports and addresses from this palette.
    #[must_use]
    pub fn palette(mut self, palette: Palette) -> Self {
        self.palette = palette;
        self
    }

    /// The next frame, into a buffer that is used again. It may be of any length, also none.
    pub fn fill(&mut self, frame: &mut Vec<u8>) -> Label {
        let class = make(&mut self.rng, &self.palette, frame);
        let mut mutation = None;
        if self.rng.u32(..DAMAGED) == 0 {
            mutation = Some(mutate(&mut self.rng, frame, &self.previous));
        }
        self.previous.clear();
        self.previous.extend_from_slice(frame);
        Label { class, mutation }
    }
}

impl Iterator for Generator {
    type Item = (Label, Vec<u8>);

    fn next(&mut self) -> Option<Self::Item> {
        let mut frame = Vec::with_capacity(256);
        let label = self.fill(&mut frame);
        Some((label, frame))
    }
}

/// One frame of a random class, undamaged, and the name of its class.
pub fn arbitrary(rng: &mut Rng) -> (&'static str, Vec<u8>) {
    let mut frame = Vec::with_capacity(256);
    let class = make(rng, &Palette::default(), &mut frame);
    (class, frame)
}

fn make(rng: &mut Rng, palette: &Palette, out: &mut Vec<u8>) -> &'static str {
    let (name, maker) = rng.choice(MAKERS).unwrap_or(MAKERS[0]);
    maker(&mut Source { rng, palette }).build_into(out);
    name
}

#[expect(clippy::indexing_slicing, reason = "evaluated by the compiler")]
const fn names() -> [&'static str; MAKERS.len()] {
    let mut names = [""; MAKERS.len()];
    let mut at = 0;
    while at < names.len() {
        names[at] = MAKERS[at].0;
        at += 1;
    }
    names
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::frames::MUTATIONS;

    #[test]
    fn same_seed_same_frames() {
        let frames = |seed| Generator::new(seed).take(2000).collect::<Vec<_>>();
        assert_eq!(frames(1), frames(1));
        assert_ne!(frames(1), frames(2));
    }

    #[test]
    fn every_class_and_every_damage_occurs() {
        let labels: Vec<Label> = Generator::new(3)
            .take(20_000)
            .map(|(label, _)| label)
            .collect();
        let classes: BTreeSet<_> = labels.iter().map(|label| label.class).collect();
        assert_eq!(classes, CLASSES.into_iter().collect());
        let damage: BTreeSet<_> = labels.iter().filter_map(|label| label.mutation).collect();
        assert_eq!(damage, MUTATIONS.into_iter().collect());
    }

    #[test]
    fn names_are_distinct() {
        assert_eq!(
            CLASSES.into_iter().collect::<BTreeSet<_>>().len(),
            CLASSES.len()
        );
    }
}
