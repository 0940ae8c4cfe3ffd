//! The conversations of the host: which of them it began, and when they end.
//!
//! Only what leaves the host, and its sockets, begin one. A set of seven cells and a word is one cache line. A cell holds a
//! keyed hash of the tuple, what is known of the conversation ([`Class`]), and a coarse time. A frame that belongs to no
//! conversation is taken for a reply if one of the seven tags of its set equals its own by chance: 7 x 2^-39 a frame at the
//! most, for a sender who does not know the key.
//!
//! UDP has no handshake to tell who began, so that a second table of the same shape keeps the tuples that the *other* end
//! began: undocumented datagrams that were let in. It only ever takes rights away.

use crate::wire::addr::Addr;

/// Cells in a set.
pub const WAYS: usize = 7;
/// Cells of a set that TCP may have: one is always left for the rest. TCP beyond goes to the overflow table.
pub const TCP_WAYS: usize = 6;

/// Of these, cells that TCP may have which no socket of this host is known to have: one is always left for those.
pub const OTHERS_WAYS: usize = 5;

/// Bits of a cell below its tag.
const LOW_BITS: u32 = 24;
const LOW_MASK: u64 = (1 << LOW_BITS) - 1;
/// Bits of a cell that hold the time; the class stands between it and the tag.
const TIME_BITS: u32 = 21;
const TIME_MASK: u64 = (1 << TIME_BITS) - 1;

/// Units of time that a conversation which ended is still known for: the last segments may come twice.
pub const CLOSING: u32 = 120;
/// Units of time that an opening may wait for its answer.
pub const OPENING: u32 = 120;

/// One cache line of cells: tag in the high 40 bits, class in three, time in the low 21; 0 = empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Set {
    /// The cells.
    pub cells: [u64; WAYS],
    /// Not 0 once a conversation of this set went to the overflow table.
    pub spilled: u32,
    /// Held by who writes; readers see whole cells without.
    pub lock: bpf_spin_lock,
}

/// The kernel's lock, which it knows by this name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct bpf_spin_lock {
    val: u32,
}

/// Ports of a [`Page`].
pub const PAGE_PORTS: usize = 1024;

/// How many sockets have each of some ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Page {
    /// By port, modulo [`PAGE_PORTS`].
    pub counts: [u32; PAGE_PORTS],
    /// Held by who counts; readers see whole numbers without.
    pub lock: bpf_spin_lock,
}

/// What is known of a conversation, and so how long it lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Class {
    /// Not TCP: until nothing was sent for `udp_idle`.
    Datagrams = 0,
    /// TCP that ended: for [`CLOSING`] units.
    Closing = 1,
    /// TCP that was asked for and not answered yet: for [`OPENING`] units.
    Opening = 2,
    /// TCP (or SCTP) that is known by its packets: until nothing was sent for `tcp_idle`.
    Packets = 3,
    /// TCP of a socket of this namespace: until the socket closes.
    Socket = 4,
    /// TCP that is known by its packets, and of which this end is closed: as long as [`Self::Packets`], but it gives way,
    /// since whether the other end is closed too does not show.
    HalfClosed = 5,
    /// Not TCP, and nobody's here: it was forwarded. As [`Self::Datagrams`], as long as no socket of the host has its port.
    Forwarded = 6,
}

impl Class {
    /// The class of a cell.
    #[inline(always)]
    pub const fn of(cell: u64) -> Self {
        match cell >> TIME_BITS & 7 {
            0 => Self::Datagrams,
            1 => Self::Closing,
            2 => Self::Opening,
            3 => Self::Packets,
            5 => Self::HalfClosed,
            6 => Self::Forwarded,
            _ => Self::Socket,
        }
    }

    /// Whether a live cell of it gives way to nothing.
    #[inline(always)]
    pub const fn stays(self) -> bool {
        matches!(self, Self::Opening | Self::Packets | Self::Socket)
    }

    /// Cells that it may share with others of TCP in a set.
    #[inline(always)]
    pub const fn ways(self) -> usize {
        if matches!(self, Self::Socket) {
            TCP_WAYS
        } else {
            OTHERS_WAYS
        }
    }
}

/// How long conversations live, in units of [`now`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lifetimes {
    /// See [`Class::Packets`].
    pub tcp_idle: u32,
    /// See [`Class::Datagrams`].
    pub udp_idle: u32,
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
    /// To be masked with [`crate::engine::config::Config::flow_mask`].
    pub set: u32,
    /// The tag in place: high 40 bits, never all zero.
    pub tag: u64,
}

impl Hashed {
    /// The key of the overflow table.
    #[inline(always)]
    pub const fn key(self) -> u64 {
        self.tag | self.set as u64 & LOW_MASK
    }

    /// The tuple that has this key.
    #[inline(always)]
    pub const fn of_key(key: u64) -> Self {
        Self {
            set: (key & LOW_MASK) as u32,
            tag: tag(key),
        }
    }
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
        // The set comes from the low bits and the tag from the high ones; the highest tag bit keeps it from being zero: the
        // low ones choose the home cell.
        Hashed {
            set: hash as u32,
            tag: (hash | 1 << 63) & !LOW_MASK,
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

/// The coarse time: jiffies shifted to about a second a unit, modulo 2^21 (24 days).
#[inline(always)]
pub const fn now(jiffies: u64, tick_shift: u32) -> u64 {
    jiffies >> tick_shift & TIME_MASK
}

/// Units since a cell was written.
#[inline(always)]
pub const fn age(cell: u64, now: u64) -> u64 {
    now.wrapping_sub(cell) & TIME_MASK
}

/// A cell's content.
#[inline(always)]
pub const fn cell(tag: u64, class: Class, now: u64) -> u64 {
    tag | (class as u64) << TIME_BITS | now & TIME_MASK
}

/// The tag of a cell.
#[inline(always)]
pub const fn tag(cell: u64) -> u64 {
    cell & !LOW_MASK
}

/// Whether a cell holds this conversation: then nothing but class and time is left above the tag.
#[inline(always)]
pub const fn same_flow(cell: u64, tag: u64) -> bool {
    cell.wrapping_sub(tag) <= LOW_MASK
}

/// Whether the conversation of a cell still lives.
#[inline(always)]
pub fn is_live(cell: u64, lifetimes: Lifetimes, now: impl FnOnce() -> u64) -> bool {
    let idle = match Class::of(cell) {
        Class::Socket => return true,
        Class::Packets | Class::HalfClosed => lifetimes.tcp_idle,
        Class::Datagrams | Class::Forwarded => lifetimes.udp_idle,
        Class::Opening => OPENING,
        Class::Closing => CLOSING,
    };
    age(cell, now()) <= u64::from(idle)
}

/// The cell of its set that a conversation takes if it is free, so that it is looked at first: one way, which processors
/// foresee, instead of seven. The middle cell is that of two in eight.
#[inline(always)]
pub const fn home(tag: u64) -> usize {
    // A sum of two small numbers: verifiers before 6.6 do not learn from a comparison that the lock's place is left out.
    let bits = (tag >> LOW_BITS) as usize;
    (bits & 3) + (bits >> 2 & 1) * 3
}

/// Where a conversation goes that its set does not know. The cell is named by what stands in it: for a verifier, an index
/// would make a state of its own for each cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Into a cell that is empty, or of a conversation that is over.
    Free(u64),
    /// Into the cell of one that may still have lived.
    Taken(u64),
    /// Nowhere in this set.
    Full,
}

/// Above every [`score`]: this cell stays.
const STAYS: u64 = 4 << 32;

/// How readily a cell gives way to a new conversation, the lowest first.
#[inline(always)]
fn score(cell: u64, lifetimes: Lifetimes, now: u64) -> u64 {
    if cell == 0 {
        return 0;
    }
    if !is_live(cell, lifetimes, || now) {
        return 1;
    }
    let rank: u64 = match Class::of(cell) {
        Class::Closing => 1,
        Class::Datagrams | Class::Forwarded => 2,
        Class::HalfClosed => 3,
        Class::Opening | Class::Packets | Class::Socket => return STAYS,
    };
    rank << 32 | (TIME_MASK - age(cell, now))
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

    /// Where a new conversation of a class goes: an empty cell, else one that is over, else the oldest that may give way:
    /// one that is closed before one that is not TCP, then one that is half closed, and never another live one of TCP: see
    /// [`gives_way`].
    #[inline(always)]
    pub fn place(&self, class: Class, lifetimes: Lifetimes, now: u64) -> Place {
        let cells = self.cells;
        Self::place_among(
            |way| cells.get(way).copied().unwrap_or(0),
            class,
            lifetimes,
            now,
            |number| number,
        )
    }

    /// As [`Self::place`], among cells that are read one after the other: so none has to wait on a small stack. After each, a
    /// `barrier_var` makes one state for verifiers of whatever it was.
    #[inline(always)]
    pub fn place_among(
        cell: impl Fn(usize) -> u64,
        class: Class,
        lifetimes: Lifetimes,
        now: u64,
        barrier_var: impl Fn(u64) -> u64,
    ) -> Place {
        let mut best = (STAYS, 0);
        let mut stay = 0;
        for way in 0..WAYS {
            let cell = cell(way);
            let score = barrier_var(score(cell, lifetimes, now));
            stay += u64::from(score == STAYS);
            if score < best.0 {
                best = (score, cell);
            }
            best = (barrier_var(best.0), barrier_var(best.1));
            stay = barrier_var(stay);
        }
        let (score, cell) = best;
        if score == STAYS || class.stays() && stay >= class.ways() as u64 {
            Place::Full
        } else if score <= 1 || matches!(Class::of(cell), Class::Closing) {
            Place::Free(cell)
        } else {
            Place::Taken(cell)
        }
    }
}

/// Whether a cell gives way to a connection for which its set has no place: nobody has answered what it holds, for a unit of
/// time; or, to a socket of the host's own, at all.
#[inline(always)]
pub const fn gives_way(cell: u64, to: Class, now: u64) -> bool {
    cell != 0
        && matches!(Class::of(cell), Class::Opening)
        && (matches!(to, Class::Socket) || age(cell, now) != 0)
}

/// What a packet that leaves says about its conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Said {
    /// TCP: asks to open it.
    Opens,
    /// TCP: goes on with it.
    Speaks,
    /// TCP: closes this end.
    Closes,
    /// TCP: refuses, or breaks off.
    Resets,
    /// Has no handshake: whoever speaks first opens.
    Datagram,
}

/// What becomes of the conversation of a packet that leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Nothing: it is known and fresh, or is no conversation of the host's.
    Same,
    /// The cell that it has is written anew, with this class.
    Renew(Class),
    /// It is not known. With this class it begins, if nothing speaks against that.
    Begin(Class),
}

/// Decides on that. `own` is the cell that it has.
#[inline(always)]
pub fn next(
    own: Option<u64>,
    said: Said,
    space: u32,
    lifetimes: Lifetimes,
    now: impl FnOnce() -> u64,
) -> Next {
    let Some(cell) = own else {
        return match said {
            Said::Opens => Next::Begin(Class::Opening),
            Said::Datagram => Next::Begin(class_of(space)),
            Said::Speaks | Said::Closes | Said::Resets => Next::Same,
        };
    };
    let before = Class::of(cell);
    if matches!(before, Class::Socket) {
        return Next::Same;
    }
    let now = now();
    let is_over = !is_live(cell, lifetimes, || now);
    let class = match said {
        Said::Datagram if is_over => return Next::Begin(class_of(space)),
        Said::Datagram => before,
        Said::Opens => Class::Opening,
        // It is the host's own, however long it was quiet: who began does not change.
        Said::Speaks if matches!(before, Class::Packets) => before,
        _ if is_over => return Next::Same,
        Said::Speaks if matches!(before, Class::Opening) => Class::Packets,
        // What it still says was known when it closed: whoever has the same ports next is somebody else.
        _ if matches!(before, Class::Closing) => return Next::Same,
        Said::Speaks => before,
        Said::Closes => Class::HalfClosed,
        Said::Resets => Class::Closing,
    };
    if class as u8 == before as u8 && age(cell, now) == 0 {
        Next::Same
    } else {
        Next::Renew(class)
    }
}

/// The class of a conversation without handshake: SCTP is kept as long as TCP.
#[inline(always)]
const fn class_of(space: u32) -> Class {
    if space == 1 {
        Class::Datagrams
    } else {
        Class::Packets
    }
}

/// What is done to the table from outside the packets' path: a record of it, behind an Ethernet header, is what
/// `portguard_adopt` is run on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Record {
    /// See [`record`].
    pub what: u8,
    /// The [`Class`], as a number.
    pub class: u8,
    /// See [`Tuple::space`].
    pub space: u8,
    /// 1 = IPv6.
    pub v6: u8,
    /// See [`Tuple::local_port`].
    pub local_port: u16,
    /// See [`Tuple::remote_port`].
    pub remote_port: u16,
    /// See [`Tuple::local`].
    pub local: [u64; 2],
    /// See [`Tuple::remote`].
    pub remote: [u64; 2],
    /// With [`record::REMOVE`]: the number of the set, and the cell that is to be emptied if it still stands there. With
    /// [`record::OURS`]: the cookie of the TCP socket whose close ends it, 0 = none.
    pub set: u64,
    /// See there.
    pub cell: u64,
}

/// What a [`Record`] asks for, and what was done.
pub mod record {
    /// Make known a conversation that the host began.
    pub const OURS: u8 = 1;
    /// Make known one that the other end began.
    pub const THEIRS: u8 = 2;
    /// Empty a cell.
    pub const REMOVE: u8 = 3;
    /// A UDP socket, whose cookie stands where the set would, has the local port.
    pub const HOLD: u8 = 4;
    /// That socket is closed.
    pub const RELEASE: u8 = 5;
    /// Where the record stands.
    pub const AT: usize = 14;

    /// Answer: it was there already.
    pub const KNOWN: u32 = 0;
    /// Answer: done.
    pub const DONE: u32 = 1;
    /// Answer: done, in the overflow table.
    pub const SPILLED: u32 = 2;
    /// Answer: no room.
    pub const LOST: u32 = 3;
    /// Answer: not understood.
    pub const WRONG: u32 = 1 << 16;
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    extern crate std;

    const LIFETIMES: Lifetimes = Lifetimes {
        tcp_idle: 400,
        udp_idle: 20,
    };

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

    fn class() -> impl Strategy<Value = Class> {
        prop_oneof![
            4 => Just(Class::Datagrams),
            1 => Just(Class::Closing),
            1 => Just(Class::Opening),
            1 => Just(Class::Packets),
            2 => Just(Class::Socket),
            1 => Just(Class::HalfClosed),
        ]
    }

    /// A conversation as the model has it.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
    struct Known {
        tag: u64,
        class: u8,
        then: u64,
    }

    impl Known {
        fn lives(&self, now: u64) -> bool {
            let past = now.wrapping_sub(self.then) & TIME_MASK;
            match self.class {
                0 => past <= u64::from(LIFETIMES.udp_idle),
                1 => past <= u64::from(CLOSING),
                2 => past <= u64::from(OPENING),
                3 | 5 => past <= u64::from(LIFETIMES.tcp_idle),
                _ => true,
            }
        }
    }

    /// What a set means, in the words of the specification: who must give way to a new conversation, if anybody.
    fn begin(model: &mut Vec<Known>, new: Known) -> bool {
        let now = new.then;
        let lives = |one: &Known| one.lives(now);
        let stays = |class: u8| (2..=4).contains(&class);
        let tcp = |one: &&Known| stays(one.class) && lives(one);
        let ways = if new.class == Class::Socket as u8 {
            6
        } else {
            5
        };
        if stays(new.class) && model.iter().filter(tcp).count() >= ways {
            return false;
        }
        if model.len() == WAYS {
            let oldest = |class: u8| {
                let of_it = model.iter().filter(|one| one.class == class);
                of_it.max_by_key(|one| now.wrapping_sub(one.then) & TIME_MASK)
            };
            let over = model.iter().find(|one| !lives(one));
            let Some(victim) = over
                .or_else(|| oldest(1))
                .or_else(|| oldest(0))
                .or_else(|| oldest(5))
                .copied()
            else {
                return false;
            };
            model.retain(|one| *one != victim);
        }
        model.push(new);
        true
    }

    fn put(set: &mut Set, old: u64, new: u64) {
        *set.cells.iter_mut().find(|cell| **cell == old).unwrap() = new;
    }

    proptest! {
        #[test]
        fn a_set_is_its_model(
            start in 0..=TIME_MASK,
            steps in prop::collection::vec((0u64..24, class(), 1u64..30), 1..300),
        ) {
            let mut set = Set::default();
            let mut model: Vec<Known> = Vec::new();
            let mut now = start;
            for (flow, class, pause) in steps {
                // Each step takes time, so that no two are equally old.
                now = (now + pause) & TIME_MASK;
                let tag = (flow << 3 | 1 << 39) << LOW_BITS;
                if let Some(own) = set.find(tag) {
                    put(&mut set, own, cell(tag, class, now));
                    let own = model.iter_mut().find(|one| one.tag == tag).unwrap();
                    (own.class, own.then) = (class as u8, now);
                } else {
                    // Which of several that are over goes is nobody's business: the model follows.
                    let placed = set.place(class, LIFETIMES, now);
                    let new = Known { tag, class: class as u8, then: now };
                    if let Place::Free(old) = placed && old != 0 {
                        let gone = |one: &Known| one.tag == old & !LOW_MASK && (!one.lives(now) || one.class == 1);
                        prop_assert!(model.iter().any(gone));
                        if !model.iter().any(|one| one.tag == old & !LOW_MASK && one.lives(now)) {
                            model.retain(|one| one.tag != old & !LOW_MASK);
                        }
                    }
                    match placed {
                        Place::Free(old) | Place::Taken(old) => {
                            prop_assert!(begin(&mut model, new));
                            put(&mut set, old, cell(tag, class, now));
                        }
                        Place::Full => {
                            prop_assert!(!begin(&mut model.clone(), new));
                            // Each step took time: of what opens, all may go.
                            let mut gone = set.cells.into_iter().filter(|cell| gives_way(*cell, class, now));
                            let opening = model.iter().any(|one| one.class == Class::Opening as u8);
                            prop_assert!(gone.clone().all(|cell| Class::of(cell) == Class::Opening));
                            prop_assert_eq!(gone.next().is_some(), opening);
                        }
                    }
                }
                let mut cells: Vec<u64> = set.cells.into_iter().filter(|cell| *cell != 0).collect();
                let mut expected: Vec<u64> = model
                    .iter()
                    .map(|one| one.tag | u64::from(one.class) << TIME_BITS | one.then)
                    .collect();
                cells.sort_unstable();
                expected.sort_unstable();
                prop_assert_eq!(cells, expected);
            }
        }

        #[test]
        fn datagrams_never_push_out_tcp(steps in prop::collection::vec((0u64..1 << 39, 0u64..5), 1..400)) {
            let mut set = Set::default();
            let mut now = 0;
            let tcp: Vec<u64> = (1..=TCP_WAYS as u64).map(|flow| flow << 40).collect();
            for tag in &tcp {
                let Place::Free(old) = set.place(Class::Socket, LIFETIMES, now) else { panic!("{set:?}") };
                put(&mut set, old, cell(*tag, Class::Socket, now));
            }
            prop_assert_eq!(set.place(Class::Socket, LIFETIMES, now), Place::Full);
            for (flow, pause) in steps {
                now += pause;
                let tag = (flow | 1 << 39) << LOW_BITS;
                match set.place(Class::Datagrams, LIFETIMES, now) {
                    Place::Free(old) | Place::Taken(old) => put(&mut set, old, cell(tag, Class::Datagrams, now)),
                    Place::Full => prop_assert!(false, "there is always room for one: {set:?}"),
                }
                for tag in &tcp {
                    prop_assert!(set.find(*tag).is_some());
                }
            }
        }

        #[test]
        fn ages_survive_the_wrap_of_time(then in any::<u64>(), age_now in 0..=TIME_MASK) {
            let then = then & TIME_MASK;
            let now = (then + age_now) & TIME_MASK;
            prop_assert_eq!(age(cell(1 << LOW_BITS, Class::Packets, then), now), age_now);
        }

        #[test]
        fn a_hash_depends_on_all_of_a_tuple(tuple in tuple(), key in any::<[u64; 2]>(), other in any::<u16>()) {
            let hashed = tuple.hash(key);
            prop_assert_eq!(hashed, tuple.hash(key));
            prop_assert_ne!(hashed.tag & !LOW_MASK, 0);
            prop_assert_eq!(hashed.tag & LOW_MASK, 0);
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
    fn each_class_has_its_own_lifetime() {
        for (class, last) in [
            (Class::Datagrams, 20),
            (Class::Closing, u64::from(CLOSING)),
            (Class::Opening, u64::from(OPENING)),
            (Class::Packets, 400),
            (Class::HalfClosed, 400),
        ] {
            let cell = cell(1 << 63, class, 0);
            assert_eq!(Class::of(cell), class);
            assert!(is_live(cell, LIFETIMES, || last), "{class:?}");
            assert!(!is_live(cell, LIFETIMES, || last + 1), "{class:?}");
        }
        let socket = cell(1 << 63, Class::Socket, 0);
        assert!(is_live(socket, LIFETIMES, || TIME_MASK));
    }

    /// What TCP says, in order: what is known of the conversation after each, `None` if it is not known.
    #[test]
    fn tcp_by_its_packets_begins_with_an_opening_and_ends_with_a_close() {
        use Said::{Closes, Opens, Resets, Speaks};
        let run = |steps: &[(Said, u64, Option<Class>)]| {
            let mut own = None;
            for (index, (said, at, known)) in steps.iter().enumerate() {
                match next(own, *said, 0, LIFETIMES, || *at) {
                    Next::Same => {}
                    Next::Renew(class) | Next::Begin(class) => {
                        own = Some(cell(1 << 63, class, *at));
                    }
                }
                let now = own.filter(|cell| is_live(*cell, LIFETIMES, || *at));
                assert_eq!(now.map(Class::of), *known, "step {index} of {steps:?}");
            }
        };
        let (opening, packets, closing) = (Class::Opening, Class::Packets, Class::Closing);
        let half = Class::HalfClosed;
        run(&[(Speaks, 0, None), (Closes, 0, None), (Resets, 0, None)]);
        // The rest of a half-closed connection may take its time.
        run(&[
            (Opens, 0, Some(opening)),
            (Speaks, 1, Some(packets)),
            (Speaks, 300, Some(packets)),
            (Closes, 500, Some(half)),
            (Speaks, 700, Some(half)),
            (Speaks, 1100, Some(half)),
            (Speaks, 1501, None),
        ]);
        // What is broken off is known for a little longer, whatever is said.
        run(&[
            (Opens, 0, Some(opening)),
            (Resets, 10, Some(closing)),
            (Speaks, 50, Some(closing)),
            (Closes, 90, Some(closing)),
            (Speaks, 131, None),
            (Opens, 132, Some(opening)),
        ]);
        // Never answered.
        run(&[(Opens, 0, Some(opening)), (Speaks, 200, None)]);
        // Quiet for too long, and the host speaks again.
        run(&[
            (Opens, 0, Some(opening)),
            (Speaks, 0, Some(packets)),
            (Speaks, 1000, Some(packets)),
        ]);
    }

    #[test]
    fn what_sockets_say_is_left_to_them() {
        let own = Some(cell(1 << 63, Class::Socket, 0));
        for said in [Said::Opens, Said::Speaks, Said::Closes, Said::Resets] {
            assert_eq!(next(own, said, 0, LIFETIMES, || 7), Next::Same);
        }
    }

    #[test]
    fn datagrams_that_are_over_begin_anew() {
        let own = Some(cell(1 << 63, Class::Datagrams, 0));
        let ask = |at| next(own, Said::Datagram, 1, LIFETIMES, || at);
        assert_eq!(ask(0), Next::Same);
        assert_eq!(ask(20), Next::Renew(Class::Datagrams));
        assert_eq!(ask(21), Next::Begin(Class::Datagrams));
        let sctp = next(None, Said::Datagram, 2, LIFETIMES, || 0);
        assert_eq!(sctp, Next::Begin(Class::Packets));
    }

    #[test]
    fn sets_and_homes_fill_evenly() {
        // Sequential ports and addresses are what a host has; no set may get much more than its share.
        let mut sets = [0u32; 256];
        let mut homes = [0u32; WAYS];
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
                homes[home(hashed.tag)] += 1;
            }
        }
        // 64 each on average: 110 is beyond five standard deviations.
        assert!(
            sets.iter().all(|count| (25..110).contains(count)),
            "{sets:?}"
        );
        // 2,048 each, and twice that for the middle one.
        homes[WAYS / 2] /= 2;
        assert!(
            homes.iter().all(|count| (1800..2300).contains(count)),
            "{homes:?}"
        );
    }
}
