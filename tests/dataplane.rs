//! What the loaded programs do beyond a verdict: flows, segments, deadlines, events. All by test run.

mod membership;
mod openings;

use aya::maps::{MapData, PerCpuArray, RingBuf};
use aya::{TestRun as _, TestRunOptions};
use portguard_common::abi::{Counter, EVENT_HEAD, Event, TalkerSet, control, slot};
use portguard_common::addr::Addr;
use portguard_common::reason::{Direction, Reason};
use portguard_common::sampler::RATE;
use portguard_common::talkers::{SETS, Talker};
use portguard_kernel::object::{HostFacts, Loaded, load};
use portguard_policy::catalog::Transport;
use portguard_policy::cells::Directory;
use portguard_policy::image::Image;
use portguard_policy::policy::{Grant, GrantKind, Outbound, Peers, Policy, Settings};

const DROP: u32 = 1;
const PASS: u32 = 2;
/// `TC_ACT_UNSPEC`: the next program decides.
const NEXT: u32 = u32::MAX;
const SHOT: u32 = 2;

const SYN: u8 = 0x02;
const SYN_ACK: u8 = 0x12;
const ACK: u8 = 0x10;
const RST: u8 = 0x14;

const HOST: [u8; 4] = [192, 0, 2, 1];
const PEER: [u8; 4] = [198, 51, 100, 7];

/// A TCP frame of a given IP length.
fn tcp(source: ([u8; 4], u16), destination: ([u8; 4], u16), flags: u8, length: u16) -> Vec<u8> {
    let mut frame = vec![2; 12];
    frame.extend([8, 0, 0x45, 0]);
    frame.extend(length.to_be_bytes());
    frame.extend([0, 0, 0, 0, 64, 6, 0, 0]);
    frame.extend(source.0);
    frame.extend(destination.0);
    frame.extend(source.1.to_be_bytes());
    frame.extend(destination.1.to_be_bytes());
    frame.extend([0; 8]);
    frame.extend([0x50, flags, 0, 0, 0, 0, 0, 0]);
    frame.resize(200, 0);
    frame
}

fn sent(port: u16, flags: u8) -> Vec<u8> {
    tcp((HOST, 40_000), (PEER, port), flags, 40)
}

fn received(port: u16, flags: u8) -> Vec<u8> {
    tcp((PEER, port), (HOST, 40_000), flags, 40)
}

fn policy(outbound: Outbound) -> Policy {
    Policy {
        inbound: vec![Grant {
            kind: GrantKind::Documented,
            transport: Transport::Tcp,
            first: 22,
            last: 22,
            peers: Peers::Any,
            row: "t/ssh".into(),
            until: None,
        }],
        settings: Settings {
            enforce: true,
            outbound,
            ..Settings::default()
        },
        ..Policy::default()
    }
}

fn guard(outbound: Outbound, host: &HostFacts) -> Loaded {
    let image = Image::build(&policy(outbound), Directory::default()).unwrap();
    load(&image, host, None).unwrap()
}

fn ingress(guard: &mut Loaded, frame: &[u8]) -> u32 {
    let options = TestRunOptions {
        data_in: Some(frame),
        ..TestRunOptions::default()
    };
    guard
        .ingress()
        .unwrap()
        .test_run(options)
        .unwrap()
        .return_value
}

fn egress(guard: &mut Loaded, frame: &[u8], context: Option<&[u8]>) -> u32 {
    let options = TestRunOptions {
        data_in: Some(frame),
        ctx_in: context,
        ..TestRunOptions::default()
    };
    guard
        .egress()
        .unwrap()
        .test_run(options)
        .unwrap()
        .return_value
}

fn counter(guard: &Loaded, slot: u32) -> (u64, u64) {
    let slots: PerCpuArray<&MapData, Counter> = guard.map("SLOTS").unwrap().try_into().unwrap();
    let sum = |field: fn(&Counter) -> u64| slots.get(&slot, 0).unwrap().iter().map(field).sum();
    (sum(|counter| counter.packets), sum(|counter| counter.bytes))
}

#[test]
fn what_the_host_opens_is_answered() {
    for multi_buffer in [false, true] {
        let host = HostFacts {
            multi_buffer,
            ..HostFacts::default()
        };
        let guard = &mut guard(Outbound::Audit, &host);
        assert_eq!(
            ingress(guard, &received(443, SYN_ACK)),
            DROP,
            "nothing is open"
        );
        assert_eq!(egress(guard, &sent(443, SYN), None), NEXT);
        assert_eq!(ingress(guard, &received(443, SYN_ACK)), PASS);
        assert_eq!(ingress(guard, &received(443, ACK)), PASS);
        assert_eq!(
            ingress(guard, &received(443, SYN)),
            DROP,
            "an opening is no answer"
        );
        assert_eq!(
            ingress(guard, &received(444, ACK)),
            DROP,
            "another port of the peer"
        );
        assert_eq!(egress(guard, &sent(443, ACK), None), NEXT);
        assert_eq!(counter(guard, slot::FLOWS_CREATED).0, 1, "once a flow");
        assert_eq!(counter(guard, slot::FLOWS_EVICTED).0, 0);
        let reply = slot::reason(Direction::Ingress, Reason::Reply);
        assert_eq!(counter(guard, reply), (2, 400));
    }
}

#[test]
fn answers_and_refusals_open_nothing() {
    let guard = &mut guard(Outbound::Audit, &HostFacts::default());
    for flags in [SYN_ACK, RST] {
        assert_eq!(egress(guard, &sent(443, flags), None), NEXT);
    }
    // A reply of a documented service.
    let reply = tcp((HOST, 22), (PEER, 50_000), ACK, 40);
    assert_eq!(egress(guard, &reply, None), NEXT);
    assert_eq!(
        counter(guard, slot::reason(Direction::Egress, Reason::Reply)).0,
        1
    );
    assert_eq!(counter(guard, slot::FLOWS_CREATED).0, 0);
    assert_eq!(ingress(guard, &received(443, ACK)), DROP);
}

#[test]
fn what_is_not_sent_is_not_remembered() {
    let guard = &mut guard(Outbound::Enforce, &HostFacts::default());
    assert_eq!(egress(guard, &sent(443, SYN), None), SHOT);
    assert_eq!(counter(guard, slot::FLOWS_CREATED).0, 0);
    assert_eq!(ingress(guard, &received(443, SYN_ACK)), DROP);
}

/// A context with numbers at the offsets that `struct __sk_buff` has them at.
fn context(fields: &[(usize, u32)]) -> Vec<u8> {
    let mut context = vec![0; 192];
    for (offset, value) in fields {
        context[*offset..offset + 4].copy_from_slice(&value.to_ne_bytes());
    }
    context
}

#[test]
fn segments_are_counted_and_never_malformed() {
    let guard = &mut guard(Outbound::Audit, &HostFacts::default());
    let segmented = context(&[(160, 5000), (164, 4), (176, 1400)]);
    // The length in the header of what is still to be cut may be anything; zero is how large ones leave it.
    for length in [0, 19, 65_535] {
        let frame = tcp((HOST, 22), (PEER, 50_000), ACK, length);
        assert_eq!(egress(guard, &frame, Some(&segmented)), NEXT);
    }
    let reply = slot::reason(Direction::Egress, Reason::Reply);
    assert_eq!(counter(guard, reply), (12, 15_000));
    let whole = tcp((HOST, 22), (PEER, 50_000), ACK, 0);
    assert_eq!(egress(guard, &whole, None), NEXT);
    assert_eq!(
        counter(guard, slot::reason(Direction::Egress, Reason::Malformed)).0,
        1
    );
}

#[test]
fn overdue_generations_give_way() {
    let host = HostFacts {
        deadline: 1,
        ..HostFacts::default()
    };
    let guard = &mut guard(Outbound::Enforce, &host);
    let violation = slot::reason(Direction::Ingress, Reason::Malformed);
    assert_eq!(
        ingress(guard, &received(9, SYN)),
        PASS,
        "there is no generation before"
    );
    assert_eq!(ingress(guard, &[0x45; 20]), PASS);
    assert_eq!(egress(guard, &sent(9, SYN), None), NEXT);
    assert_eq!(ingress(guard, &received(9, SYN)[..20]), PASS);
    assert_eq!(counter(guard, slot::OVERDUE).0, 4);
    assert_eq!(counter(guard, violation).0, 1, "counted as in audit");

    // A generation before that enforces decides about every frame, and counts it.
    let mut before = self::guard(Outbound::Enforce, &HostFacts::default());
    let program = before.ingress().unwrap().fd().unwrap().try_clone().unwrap();
    guard.set_previous(Direction::Ingress, &program).unwrap();
    let program = before.egress().unwrap().fd().unwrap().try_clone().unwrap();
    guard.set_previous(Direction::Egress, &program).unwrap();
    assert_eq!(ingress(guard, &received(9, SYN)), DROP);
    assert_eq!(egress(guard, &sent(9, SYN), None), SHOT);
    assert_eq!(counter(guard, slot::OVERDUE).0, 6);

    guard.set_control(control::CONFIRMED, 1).unwrap();
    assert_eq!(ingress(guard, &received(9, SYN)), DROP);
    assert_eq!(counter(guard, slot::OVERDUE).0, 6);
    assert_eq!(counter(guard, violation).0, 1);
}

/// Wider or narrower: what an overdue generation would pass is for the one before it to judge, in both directions.
#[test]
fn overdue_generations_pass_nothing_by_themselves() {
    let host = HostFacts {
        deadline: 1,
        ..HostFacts::default()
    };
    let wider = &mut guard(Outbound::Audit, &host);
    let mut policy = policy(Outbound::Enforce);
    policy.inbound.clear();
    let image = Image::build(&policy, Directory::default()).unwrap();
    let mut before = load(&image, &HostFacts::default(), None).unwrap();
    let (open, sent) = (tcp((PEER, 50_000), (HOST, 22), SYN, 40), sent(443, SYN));
    assert_eq!(ingress(wider, &open), PASS);
    assert_eq!(egress(wider, &sent, None), NEXT);
    let program = before.ingress().unwrap().fd().unwrap().try_clone().unwrap();
    wider.set_previous(Direction::Ingress, &program).unwrap();
    let program = before.egress().unwrap().fd().unwrap().try_clone().unwrap();
    wider.set_previous(Direction::Egress, &program).unwrap();
    assert_eq!(ingress(wider, &open), DROP);
    assert_eq!(egress(wider, &sent, None), SHOT);
    // Neither plain frames nor others.
    assert_eq!(ingress(wider, &open[..20]), DROP);
}

#[test]
fn events_are_for_listeners() {
    for multi_buffer in [false, true] {
        let host = HostFacts {
            multi_buffer,
            ..HostFacts::default()
        };
        let guard = &mut guard(Outbound::Audit, &host);
        let frame = received(9, SYN);
        assert_eq!(ingress(guard, &frame), DROP);
        assert_eq!(events(guard).len(), 0, "nobody listens");
        guard.set_control(control::LISTENERS, u64::MAX).unwrap();
        assert_eq!(ingress(guard, &frame), DROP);
        assert_eq!(egress(guard, &sent(9, SYN), None), NEXT);
        let heard = events(guard);
        assert_eq!(heard.len(), 2);
        let number =
            |event: &[u8], offset: usize| u16::from_ne_bytes([event[offset], event[offset + 1]]);
        for (event, ports, dropped) in [(&heard[0], (9, 40_000), 1), (&heard[1], (40_000, 9), 0)] {
            assert_eq!(event.len(), size_of::<Event>());
            assert_eq!((number(event, 56), number(event, 58)), ports);
            assert_eq!(event[62], Reason::UndocumentedPort as u8);
            assert_eq!(event[67], dropped);
        }
        assert_eq!(usize::from(number(&heard[1], 68)), EVENT_HEAD, "captured");
        assert_eq!(heard[1][72..72 + EVENT_HEAD], sent(9, SYN)[..EVENT_HEAD]);

        // A flood has a bounded share, whatever the ports that it is for.
        for port in (1..16).map(|chunk| chunk * 4096) {
            let frame = tcp((PEER, 9), (HOST, port), SYN, 40);
            for _ in 0..100 {
                ingress(guard, &frame);
            }
        }
        assert!(counter(guard, slot::EVENTS_LOST).0 > 500);
        assert!(events(guard).len() < 400);
    }
}

/// All of `(what, packets)` that the kernel keeps of who knocked.
fn talkers(guard: &Loaded) -> Vec<Talker> {
    let map: PerCpuArray<&MapData, TalkerSet> = guard.map("TALKERS").unwrap().try_into().unwrap();
    (0..SETS)
        .flat_map(|set| map.get(&set, 0).unwrap().to_vec())
        .flat_map(|set| set.places)
        .filter(|knock| !knock.is_empty())
        .collect()
}

#[test]
fn top_talkers_are_kept_without_listeners() {
    let host = HostFacts {
        // Units of time longer than the test.
        tick_shift: 30,
        ..HostFacts::default()
    };
    let guard = &mut guard(Outbound::Audit, &host);
    for _ in 0..10 {
        ingress(guard, &received(9, SYN));
        egress(guard, &sent(9, SYN), None);
    }
    let noted = talkers(guard);
    let sum = |direction: Direction, field: fn(&Talker) -> u64| -> u64 {
        let of = noted.iter().filter(|knock| knock.direction() == direction);
        of.map(field).sum()
    };
    assert_eq!(sum(Direction::Ingress, |knock| knock.packets), 10);
    assert_eq!(sum(Direction::Ingress, |knock| knock.dropped), 10);
    assert_eq!(sum(Direction::Egress, |knock| knock.packets), 10);
    assert_eq!(sum(Direction::Egress, |knock| knock.dropped), 0);
    for knock in &noted {
        // A client's port says nothing: the service does that calls it.
        let port = match knock.direction() {
            Direction::Ingress => (0, true, 9),
            Direction::Egress => (9, false, 0),
        };
        let found = (knock.port(), knock.is_to_client(), knock.service());
        assert_eq!((knock.protocol(), found), (6, port));
        assert_eq!(knock.addr(), Addr::v4(u32::from_be_bytes(PEER)));
        assert_eq!(knock.reason(), Reason::UndocumentedPort as u8);
        assert!(knock.first > 0 && knock.first <= knock.last);
    }

    // A flood is sampled beyond the first of a unit of time, and what is not sampled is missing, never too much.
    let options = TestRunOptions {
        data_in: Some(&received(9, SYN)),
        repeat: 10_000,
        ..TestRunOptions::default()
    };
    guard.ingress().unwrap().test_run(options).unwrap();
    let known: u64 = talkers(guard)
        .iter()
        .filter(|knock| knock.direction() == Direction::Ingress)
        .map(|knock| knock.packets)
        .sum();
    let cpus = aya::util::nr_cpus().unwrap() as u64;
    assert!(known <= 10_010, "{known}");
    assert!(known > 10_010 - u64::from(RATE) * cpus, "{known}");
}

fn events(guard: &mut Loaded) -> Vec<Vec<u8>> {
    let mut ring: RingBuf<&mut MapData> = guard.map_mut("EVENTS").unwrap().try_into().unwrap();
    let mut events = Vec::new();
    while let Some(event) = ring.next() {
        events.push(event.to_vec());
    }
    events
}
