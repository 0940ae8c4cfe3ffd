//! The flow table: which conversations the host itself opened.
//!
//! A set of eight cells is one cache line. A cell holds a keyed hash of the tuple and a coarse time; only the egress
//! program and the seeding write. A frame that no flow belongs to is taken for a reply if one of the eight tags of its
//! set equals its own by chance: 8 x 2^-40 a frame at the most, for a sender who does not know the key of this boot.

use crate::wire::addr::Addr;

/// Cells in a set.
pub const WAYS: usize = 8;

/// Bits of a cell that hold the time.
const TIME_BITS: u32 = 24;
const TIME_MASK: u64 = (1 << TIME_BITS) - 1;

/// One cache line of cells: tag in the high 40 bits, time in the low 24; 0 = empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Set {
    /// The cells.
    pub cells: [u64; WAYS],
}

/// A conversation from the host's view; both directions have the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tuple {
    /// Key space of the protocol: see [`crate::wire::packet::space`].
    pub space: u32,
    /// The host's address.
    pub local: Addr,
    /// The other end's address.
    pub remote: Addr,
    /// The host's port.
    pub local_port: u16,
    /// The other end's port.
    pub remote_port: u16,
}

/// A hashed tuple: which set, and which tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hashed {
    /// To be masked with [`crate::engine::tables::Config::flow_mask`].
    pub set: u32,
    /// The tag in place: high 40 bits, never all zero.
    pub tag: u64,
}

impl Tuple {
    /// Hashes with the secret key: rounds of multiply and fold, which nobody can aim without the key.
    #[inline(always)]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "takes the low bits as the set"
    )]
    pub fn hash(&self, key: [u64; 2]) -> Hashed {
        let [first, second] = key;
        let ports = u64::from(self.space) << 32
            | u64::from(self.local_port) << 16
            | u64::from(self.remote_port);
        // Two words a round. The host's own addresses are few and nobody's to choose, so that they go into one word.
        let hash = if self.remote.v6 {
            let hash = mix(self.remote.low ^ first, ports ^ second);
            let local = self.local.low ^ self.local.high.rotate_left(32);
            mix(hash ^ self.remote.high, local ^ first)
        } else {
            let ends = self.remote.low << 32 | self.local.low;
            mix(ends ^ first, ports ^ second)
        };
        // The set comes from the low bits and the tag from the high ones; the lowest tag bit keeps it from being zero.
        Hashed {
            set: hash as u32,
            tag: (hash | 1 << TIME_BITS) & !TIME_MASK,
        }
    }
}

#[inline(always)]
pub(crate) const fn mix(word: u64, key: u64) -> u64 {
    let mut hash = (word ^ word >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15 ^ key << 1 | 1);
    hash ^= hash >> 29;
    hash = hash.wrapping_add(key).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash ^ hash >> 32
}

/// The coarse time: jiffies shifted to about a second a unit, modulo 2^24 (half a year).
#[inline(always)]
pub const fn now(jiffies: u64, tick_shift: u32) -> u64 {
    jiffies >> tick_shift & TIME_MASK
}

/// Units since a cell was refreshed.
#[inline(always)]
pub const fn age(cell: u64, now: u64) -> u64 {
    now.wrapping_sub(cell) & TIME_MASK
}

/// Whether a flow that was refreshed `age` units ago still lives.
#[inline(always)]
pub const fn is_fresh(age: u64, space: u32, tcp_idle: u32, udp_idle: u32) -> bool {
    let idle = if space == 1 { udp_idle } else { tcp_idle };
    age <= idle as u64
}

/// What seeing a flow means for its set. The cell to be written is named by what stands in it: for a verifier, an index
/// would make a state of its own for each cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// It stands there with this very time: nothing to write.
    Fresh,
    /// Its own cell, to be written anew.
    Own(u64),
    /// An empty cell.
    Empty,
    /// The cell of another flow, refreshed so many units ago: the oldest.
    Taken(u64, u64),
}

impl Place {
    /// What stands in the cell that is to be written; `None` if none is.
    #[inline(always)]
    pub const fn replaces(self) -> Option<u64> {
        match self {
            Self::Fresh => None,
            Self::Empty => Some(0),
            Self::Own(cell) | Self::Taken(cell, _) => Some(cell),
        }
    }
}

impl Set {
    /// A cell with this tag, if there is one: nearly always at [`home`].
    #[inline(always)]
    pub fn find(&self, tag: u64) -> Option<u64> {
        if let Some(cell) = self.cells.get(home(tag))
            && same_flow(*cell, tag)
        {
            return Some(*cell);
        }
        for cell in &self.cells {
            let cell = *cell;
            if same_flow(cell, tag) {
                return Some(cell);
            }
        }
        None
    }

    /// Where a flow goes: its own cell, else an empty one, else the oldest.
    ///
    /// Two CPUs that place two new flows into one set at a time may choose the same cell: one of them is forgotten until
    /// its next packet. A flow may so come to have two cells; the first is the one that is found and refreshed, and the
    /// other grows old.
    #[inline(always)]
    pub fn place(&self, tag: u64, now: u64) -> Place {
        if let Some(own) = self.find(tag) {
            return if age(own, now) == 0 {
                Place::Fresh
            } else {
                Place::Own(own)
            };
        }
        let mut oldest = 0;
        let mut oldest_age = 0;
        for cell in &self.cells {
            let cell = *cell;
            if cell == 0 {
                return Place::Empty;
            }
            let age = age(cell, now);
            if age >= oldest_age {
                oldest = cell;
                oldest_age = age;
            }
        }
        Place::Taken(oldest, oldest_age)
    }
}

/// The cell of its set that a flow takes if it is free, so that it is looked at first: one way, which processors foresee,
/// instead of eight.
#[inline(always)]
pub const fn home(tag: u64) -> usize {
    (tag >> TIME_BITS) as usize & (WAYS - 1)
}

/// A cell's content.
#[inline(always)]
pub const fn cell(tag: u64, now: u64) -> u64 {
    tag | now & TIME_MASK
}

/// Whether a cell holds this flow: then nothing but the time is left above the tag.
#[inline(always)]
pub const fn same_flow(cell: u64, tag: u64) -> bool {
    cell.wrapping_sub(tag) <= TIME_MASK
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;
    use crate::wire::packet::{protocol, space};

    extern crate std;

    fn tuple() -> impl Strategy<Value = Tuple> {
        let address = prop_oneof![
            any::<u32>().prop_map(|low| (Addr::v4(low), Addr::v4(!low))),
            any::<[u64; 4]>().prop_map(|[a, b, c, d]| (Addr::v6(a, b), Addr::v6(c, d))),
        ];
        (0u32..3, address, any::<(u16, u16)>()).prop_map(|(space, (local, remote), ports)| Tuple {
            space,
            local,
            remote,
            local_port: ports.0,
            remote_port: ports.1,
        })
    }

    /// What a set means, without cells: at most eight flows with the time of their refreshing.
    fn refresh(model: &mut HashMap<u64, u64>, tag: u64, now: u64) {
        if model.len() == WAYS && !model.contains_key(&tag) {
            let oldest = model.values().map(|then| age(*then, now)).max();
            model.retain(|_, then| Some(age(*then, now)) != oldest);
        }
        model.insert(tag, now);
    }

    proptest! {
        #[test]
        fn a_set_is_its_model(start in 0..=TIME_MASK, steps in prop::collection::vec((0u64..12, 1u64..50), 1..200)) {
            let mut set = Set::default();
            let mut model = HashMap::new();
            let mut now = start;
            for (flow, pause) in steps {
                // Each step takes time, so that no two flows are equally old.
                now = (now + pause) & TIME_MASK;
                let tag = (flow + 1) << TIME_BITS;
                if let Some(old) = set.place(tag, now).replaces() {
                    *set.cells.iter_mut().find(|cell| **cell == old).unwrap() = cell(tag, now);
                }
                refresh(&mut model, tag, now);
                let mut cells: Vec<u64> = set.cells.into_iter().filter(|cell| *cell != 0).collect();
                let mut expected: Vec<u64> =
                    model.iter().map(|(tag, then)| cell(*tag, *then)).collect();
                cells.sort_unstable();
                expected.sort_unstable();
                prop_assert_eq!(cells, expected);
                for flow in 0..12 {
                    let tag = (flow + 1) << TIME_BITS;
                    let then = model.get(&tag).map(|then| cell(tag, *then));
                    prop_assert_eq!(set.find(tag), then);
                }
            }
        }

        #[test]
        fn a_refreshed_flow_is_not_written_twice_in_a_unit(flow in 1u64..1 << 40, now in any::<u64>()) {
            let tag = flow << TIME_BITS;
            let mut set = Set::default();
            prop_assert_eq!(set.place(tag, now), Place::Empty);
            set.cells[0] = cell(tag, now);
            prop_assert_eq!(set.place(tag, now), Place::Fresh);
            let own = set.cells[0];
            prop_assert_eq!(set.place(tag, now.wrapping_add(1)), Place::Own(own));
        }

        #[test]
        fn ages_survive_the_wrap_of_time(then in any::<u64>(), age_now in 0..=TIME_MASK) {
            let then = then & TIME_MASK;
            let now = (then + age_now) & TIME_MASK;
            prop_assert_eq!(age(cell(1 << TIME_BITS, then), now), age_now);
        }

        #[test]
        fn a_hash_depends_on_all_of_a_tuple(tuple in tuple(), key in any::<[u64; 2]>(), other in any::<u16>()) {
            let hashed = tuple.hash(key);
            prop_assert_eq!(hashed, tuple.hash(key));
            prop_assert_ne!(hashed.tag & !TIME_MASK, 0);
            prop_assert_eq!(hashed.tag & TIME_MASK, 0);
            let others = [
                Tuple { remote_port: tuple.remote_port ^ (other | 1), ..tuple },
                Tuple { local_port: tuple.local_port ^ (other | 1), ..tuple },
                Tuple { space: tuple.space ^ 1, ..tuple },
                Tuple { remote: Addr { low: tuple.remote.low ^ 1, ..tuple.remote }, ..tuple },
                Tuple { local: Addr { low: tuple.local.low ^ 1, ..tuple.local }, ..tuple },
                Tuple { local: tuple.remote, remote: tuple.local, ..tuple },
            ];
            for other in others {
                let other = other.hash(key);
                prop_assert!(other != hashed, "64 bits collide by chance only");
            }
            let rekeyed = tuple.hash([key[0] ^ 2, key[1]]);
            prop_assert_ne!(rekeyed, hashed);
        }
    }

    #[test]
    fn time_limits_by_transport() {
        for (protocol, age, fresh) in [
            (protocol::TCP, 100, true),
            (protocol::TCP, 101, false),
            (protocol::SCTP, 100, true),
            (protocol::UDP, 10, true),
            (protocol::UDP, 11, false),
        ] {
            assert_eq!(is_fresh(age, space(protocol), 100, 10), fresh);
        }
    }

    #[test]
    fn sets_fill_evenly() {
        // Sequential ports and addresses are what a host has; no set may get much more than its share.
        let mut sets = [0u32; 256];
        for host in 0..64u32 {
            for port in 0..256u16 {
                let tuple = Tuple {
                    space: 0,
                    local: Addr::v4(0x0a00_0001),
                    remote: Addr::v4(0x0a00_0100 + host),
                    local_port: 32_768 + port,
                    remote_port: 443,
                };
                let hashed = tuple.hash([0x1234_5678_9abc_def1, 0x0fed_cba9_8765_4321]);
                sets[hashed.set as usize & 255] += 1;
            }
        }
        // 64 each on average: 110 is beyond five standard deviations.
        assert!(
            sets.iter().all(|count| (25..110).contains(count)),
            "{sets:?}"
        );
    }
}
