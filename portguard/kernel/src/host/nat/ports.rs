//! Sets of destination ports, by family and transport: exact, and cheap to cut and join.

use std::fmt;
use std::ops::RangeInclusive;

use portguard_policy::catalog::Transport;

/// The transports that have ports here, in the order of their words.
const TRANSPORTS: [Transport; 3] = [Transport::Tcp, Transport::Udp, Transport::Sctp];
/// Words of 64 ports a transport.
const WORDS: usize = 1 << 10;

/// IPv4 or IPv6: a rule for one leaves the other alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

/// In the order of their words.
const SPACES: [(Family, Transport); 6] = [
    (Family::V4, Transport::Tcp),
    (Family::V4, Transport::Udp),
    (Family::V4, Transport::Sctp),
    (Family::V6, Transport::Tcp),
    (Family::V6, Transport::Udp),
    (Family::V6, Transport::Sctp),
];

/// How many of the protocols that have no ports, such as GRE.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Others {
    None,
    Some,
    All,
}

/// Which ports of which transports and families, a bit each; and of each family, how many of the other protocols.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Ports {
    bits: Vec<u64>,
    others: [Others; 2],
}

impl fmt::Debug for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.ranges()).finish()
    }
}

impl Ports {
    /// None.
    pub(super) fn none() -> Self {
        Self {
            bits: vec![0; SPACES.len() * WORDS],
            others: [Others::None; 2],
        }
    }

    /// All ports of all transports, and whatever has none.
    pub(super) fn all() -> Self {
        Self {
            bits: vec![u64::MAX; SPACES.len() * WORDS],
            others: [Others::All; 2],
        }
    }

    /// With so many of the protocols that have no ports.
    #[must_use]
    pub(super) fn with(mut self, others: Others) -> Self {
        self.others = [others; 2];
        self
    }

    /// Whether there is any protocol among them that has no ports.
    pub(super) fn has_others(&self) -> bool {
        self.others != [Others::None; 2]
    }

    /// All ports of one transport.
    pub(super) fn of(transport: Transport) -> Self {
        Self::such(|which, _| which == transport)
    }

    /// Everything of one family.
    pub(super) fn of_family(family: Family) -> Self {
        let mut ports = Self::none();
        ports.others = match family {
            Family::V4 => [Others::All, Others::None],
            Family::V6 => [Others::None, Others::All],
        };
        for (words, (which, _)) in ports.bits.chunks_mut(WORDS).zip(SPACES) {
            words.fill(if which == family { u64::MAX } else { 0 });
        }
        ports
    }

    /// Those that a test holds for, of both families.
    pub(super) fn such(mut test: impl FnMut(Transport, u16) -> bool) -> Self {
        let mut ports = Self::none();
        for (words, (_, transport)) in ports.bits.chunks_mut(WORDS).zip(SPACES) {
            for (word, first) in words.iter_mut().zip((0..=u16::MAX).step_by(64)) {
                for bit in 0..64 {
                    *word |= u64::from(test(transport, first + bit)) << bit;
                }
            }
        }
        ports
    }

    /// Those of both.
    #[must_use]
    pub(super) fn and(&self, other: &Self) -> Self {
        let both = self.bits.iter().zip(&other.bits);
        let ([one4, one6], [other4, other6]) = (self.others, other.others);
        Self {
            bits: both.map(|(one, other)| one & other).collect(),
            others: [one4.min(other4), one6.min(other6)],
        }
    }

    /// Adds those of another.
    pub(super) fn add(&mut self, other: &Self) {
        for (one, other) in self.bits.iter_mut().zip(&other.bits) {
            *one |= other;
        }
        for (one, other) in self.others.iter_mut().zip(other.others) {
            *one = (*one).max(other);
        }
    }

    /// Takes those of another away. Of protocols without ports, nobody knows which some are.
    pub(super) fn remove(&mut self, other: &Self) {
        for (one, other) in self.bits.iter_mut().zip(&other.bits) {
            *one &= !other;
        }
        for (one, other) in self.others.iter_mut().zip(other.others) {
            if other == Others::All {
                *one = Others::None;
            }
        }
    }

    /// Those that are not of another.
    #[must_use]
    pub(super) fn without(mut self, other: &Self) -> Self {
        self.remove(other);
        self
    }

    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        !self.has_others() && self.bits.iter().all(|word| *word == 0)
    }

    /// Those that are there in either family, in both.
    #[must_use]
    pub(super) fn in_any_family(&self) -> Self {
        let (v4, v6) = self.bits.split_at(self.bits.len() / 2);
        let either: Vec<u64> = v4.iter().zip(v6).map(|(v4, v6)| v4 | v6).collect();
        let [others4, others6] = self.others;
        Self {
            bits: either.repeat(2),
            others: [others4.max(others6); 2],
        }
    }

    /// As ranges, by transport and port, whatever the family.
    pub(super) fn ranges(&self) -> Vec<(Transport, RangeInclusive<u16>)> {
        let mut found: Vec<(Transport, RangeInclusive<u16>)> = Vec::new();
        let any = self.in_any_family();
        for (words, transport) in any.bits.chunks(WORDS).zip(TRANSPORTS) {
            for (word, first) in words.iter().zip((0..=u16::MAX).step_by(64)) {
                if *word == 0 {
                    continue;
                }
                for bit in (0..64).filter(|bit| word >> bit & 1 == 1) {
                    let port = first + bit;
                    match found.last_mut() {
                        Some((same, range))
                            if *same == transport && range.end().checked_add(1) == Some(port) =>
                        {
                            *range = *range.start()..=port;
                        }
                        _ => found.push((transport, port..=port)),
                    }
                }
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_cut_joined_and_told_as_ranges() {
        let range = |ports: RangeInclusive<u16>| Ports::such(|_, port| ports.contains(&port));
        let tcp = Ports::of(Transport::Tcp);
        let mut some = range(63..=64).and(&tcp);
        some.add(&range(65..=65).and(&tcp));
        some.add(&range(65_535..=65_535).and(&Ports::of(Transport::Sctp)));
        assert_eq!(
            some.ranges(),
            [
                (Transport::Tcp, 63..=65),
                (Transport::Sctp, 65_535..=65_535)
            ]
        );
        some.remove(&range(64..=64));
        assert_eq!(some.ranges().len(), 3);
        assert!(some.clone().without(&some).is_empty());
        assert_eq!(
            Ports::all().ranges(),
            TRANSPORTS.map(|transport| (transport, 0..=65_535))
        );
        assert_eq!(Ports::all().and(&some), some);
        let four = some.and(&Ports::of_family(Family::V4));
        assert!(four.and(&Ports::of_family(Family::V6)).is_empty());
        assert_eq!((four.ranges(), four.in_any_family()), (some.ranges(), some));
    }
}
