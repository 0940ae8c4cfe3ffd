use std::vec::Vec;

use proptest::prelude::*;

use super::cell::{LOW_BITS, LOW_MASK, TIME_BITS, TIME_MASK};
use super::*;
use crate::wire::addr::Addr;

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
