//! What the host sends, and the answers to it: the same frames through both programs and through the same functions here,
//! which keep a flow table of their own.

use std::collections::BTreeMap;
use std::net::IpAddr;

use aya::maps::{MapData, PerCpuArray};
use aya::{TestRun as _, TestRunOptions};
use portguard_common::abi::{Counter, slot};
use portguard_common::packet::{Packet, Shape};
use portguard_common::parse::parse;
use portguard_common::reason::{Direction, Reason};
use portguard_common::verdict::{self, Verdict};
use portguard_harness::frames::{Frame, Generator, Ipv4, Ipv6, Sctp, Tcp, Udp};
use portguard_kernel::object::{HostFacts, Loaded};
use portguard_policy::policy::{GrantKind, Outbound, Policy};

use super::tally::Tally;
use super::tracked::Tracked;
use super::{BATCH, DROP, PASS, SHORTEST, frames_wanted, image, loaded, policies};

/// `TC_ACT_UNSPEC`: the next program decides.
const NEXT: u32 = u32::MAX;
const SHOT: u32 = 2;

/// The kernel puts a frame for a test run of this hook in one page, beside its own.
const LONGEST: usize = 3000;

/// Conversations that answers are made of: the newest.
const REMEMBERED: usize = 64;

/// Every inbound row for outbound as well, so that both have all kinds.
fn policy(mut policy: Policy, outbound: Outbound) -> Policy {
    policy.outbound = policy
        .inbound
        .iter()
        .filter(|grant| grant.kind != GrantKind::Management)
        .cloned()
        .collect();
    policy.settings.outbound = outbound;
    policy
}

/// Whether this hook's test run takes a frame: newer kernels want the whole first IP header of what says to have one.
fn is_runnable(frame: &[u8]) -> bool {
    let shortest = match frame.get(12..14) {
        Some([0x08, 0x00]) => SHORTEST + 20,
        Some([0x86, 0xdd]) => SHORTEST + 40,
        _ => SHORTEST,
    };
    (shortest..=LONGEST).contains(&frame.len())
}

fn run(guard: &mut Loaded, direction: Direction, frame: &[u8]) -> u32 {
    let options = TestRunOptions {
        data_in: Some(frame),
        ..TestRunOptions::default()
    };
    let result = match direction {
        Direction::Ingress => guard
            .ingress()
            .expect("an ingress program")
            .test_run(options),
        Direction::Egress => guard.egress().expect("an egress program").test_run(options),
    };
    result
        .unwrap_or_else(|error| panic!("no run of {} bytes: {error}", frame.len()))
        .return_value
}

/// What the other end of a conversation says: mostly an answer, sometimes a new opening.
fn answer(packet: &Packet, noise: u8) -> Option<Vec<u8>> {
    let (from, to): (IpAddr, IpAddr) = (packet.destination.into(), packet.source.into());
    let frame = Frame::new([2; 6], [4; 6]);
    let frame = match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => frame.ipv4(Ipv4::new(from, to)),
        (IpAddr::V6(from), IpAddr::V6(to)) => frame.ipv6(Ipv6::new(from, to)),
        _ => return None,
    };
    // One in eight is of a neighbouring port.
    let (port, own) = (
        packet.destination_port ^ u16::from(noise % 8 == 7),
        packet.source_port,
    );
    // Chunks of SCTP that open, answer and go on.
    let mut payload = [noise; 8];
    let frame = match packet.protocol {
        6 => frame.tcp(Tcp::new(port, own, noise & 0x3f)),
        17 => frame.udp(Udp::new(port, own)),
        _ => {
            payload[0] = noise & 3;
            frame.sctp(Sctp::new(port, own))
        }
    };
    Some(frame.payload(payload).build())
}

/// Both programs, and what they are held to.
struct Bench<'a> {
    guard: Loaded,
    flows: Tracked<'a>,
    tally: Tally,
    seen: BTreeMap<(&'static str, &'static str), u64>,
}

impl Bench<'_> {
    fn judge(&mut self, direction: Direction, frame: &[u8]) -> (Packet, Verdict) {
        let packet = parse(&mut &*frame).expect("a slice has no part out of line");
        let verdict = verdict::judge(&self.flows, &packet, direction);
        let facts = self.guard.facts;
        let (enforce, keep, drop) = match direction {
            Direction::Ingress => (facts.enforce, PASS, DROP),
            Direction::Egress => (facts.enforce_out, NEXT, SHOT),
        };
        let is_drop = verdict.is_drop(enforce != 0);
        let want = if is_drop { drop } else { keep };
        let got = run(&mut self.guard, direction, frame);
        assert_eq!(
            got, want,
            "{direction:?} {packet:?} {verdict:?} {frame:02x?}"
        );
        self.tally.add_to(direction, &packet, &verdict);
        match direction {
            _ if is_drop => {}
            Direction::Egress => self.flows.sent(&packet, &verdict, frame),
            Direction::Ingress => self.flows.received(&packet, &verdict),
        }
        let name = (direction.name(), verdict.reason.name(direction));
        *self.seen.entry(name).or_default() += 1;
        (packet, verdict)
    }

    fn expect_same(&self) {
        let mut counted = Tally::read(&self.guard);
        let slots: PerCpuArray<&MapData, Counter> = self
            .guard
            .map("SLOTS")
            .expect("the object has it")
            .try_into()
            .expect("of this type");
        let sum = |index| -> u64 {
            let all = slots.get(&index, 0).expect("a slot");
            all.iter().map(|counter| counter.packets).sum()
        };
        assert_eq!(sum(slot::FLOWS_CREATED), self.flows.created);
        assert_eq!(sum(slot::FLOWS_EVICTED), 0);
        counted.forget_flows();
        counted.expect_same(&self.tally);
    }
}

/// Sends generated frames, and has every other one answered.
fn compare(policy: &Policy, seed: u64, count: usize, seen: &mut BTreeMap<String, u64>) {
    let mut image = image(policy);
    // All of it comes from sockets of this host and to them: nothing is forwarded.
    image.own.clear();
    let host = HostFacts {
        flow_key: [0x0123_4567_89ab_cdef ^ seed, 0xfedc_ba98_7654_3210],
        ..HostFacts::default()
    };
    let guard = loaded(&image, &host);
    let facts = guard.facts;
    let mut bench = Bench {
        guard,
        flows: Tracked::new(&image, facts),
        tally: Tally::new(),
        seen: BTreeMap::new(),
    };
    let mut generator = Generator::new(seed).palette(policies::palette());
    let mut frame = Vec::new();
    let mut said = Vec::new();
    let mut done = 0;
    while done < count {
        generator.fill(&mut frame);
        if !is_runnable(&frame) {
            continue;
        }
        let (packet, verdict) = bench.judge(Direction::Egress, &frame);
        done += 1;
        if matches!(packet.shape, Shape::Ports) && verdict.reason != Reason::Reply {
            said.push(packet);
        }
        let noise = frame
            .iter()
            .fold(0_u8, |sum, byte| sum.rotate_left(1) ^ byte);
        let of = usize::from(noise) % said.len().max(1);
        if let Some(back) = said.get(of).and_then(|packet| answer(packet, noise)) {
            bench.judge(Direction::Ingress, &back);
            done += 1;
        }
        if said.len() > REMEMBERED {
            said.swap_remove(of);
        }
        if done % BATCH < 2 {
            bench.expect_same();
        }
    }
    bench.expect_same();
    println!(
        "{:?} {:?}: {done} frames, {} flows",
        policy.host, policy.settings.outbound, bench.flows.created
    );
    for ((direction, reason), count) in bench.seen {
        *seen.entry(format!("{direction} {reason}")).or_default() += count;
    }
}

#[test]
fn kernel_and_host_agree_on_what_is_sent_and_answered() {
    let policies = policies::all();
    let count = frames_wanted().div_ceil(16 * policies.len());
    let mut seen = BTreeMap::new();
    for (index, one) in (0..).zip(&policies) {
        for (outbound, seed) in [(Outbound::Enforce, 200), (Outbound::Audit, 300)] {
            let policy = policy(one.clone(), outbound);
            compare(&policy, seed + index, count, &mut seen);
        }
    }
    println!("{seen:#?}");
    // Every reason of what is sent by this host, and answers that are let in.
    let missing: Vec<_> = Reason::ALL
        .iter()
        .filter(|reason| !matches!(reason, Reason::Transit | Reason::OtherHost))
        .map(|reason| format!("out {}", reason.name(Direction::Egress)))
        .chain(["in reply".to_owned(), "in undocumented-port".to_owned()])
        .filter(|name| !seen.contains_key(name))
        .collect();
    assert!(missing.is_empty(), "never met: {missing:?}");
}
