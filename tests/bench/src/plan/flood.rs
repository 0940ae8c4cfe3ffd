//! A flood from spoofed sources to random ports: each packet a violation that is counted and, as far as it is looked at,
//! put down to its caller; with and without somebody who listens to events.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use aya::maps::{Array, Map, MapData, RingBuf};
use fastrand::Rng;
use portguard_common::abi::control;
use portguard_harness::traffic::wait_readable;
use portguard_kernel::object::Loaded;
use portguard_policy::policy::Outbound;

use super::cases::{BOTH4, BOTH6, CLOSED, DROP, WAYS, hot, stranger, turns};
use super::frames::{SYN, ends, tcp};
use super::policies::{host6, load, plain};
use super::{Case, Extent, Group, Hook, Plan};
use crate::programs::{Program, Variation};

/// How long a reader sleeps at most.
const NAP: Duration = Duration::from_hours(1);

pub(super) fn add(plan: &mut Plan, extent: &Extent) -> Result<()> {
    if !extent.wants(&["flood/"]) {
        return Ok(());
    }
    let quiet = load(&plain(Outbound::Audit))?;
    let mut listened = load(&plain(Outbound::Audit))?;
    listen(&mut listened)?;
    for (name, guard) in [("quiet", quiet), ("listened", listened)] {
        let program = plan.program(Program::Guard(Box::new(guard), Hook::Ingress));
        for v6 in [false, true] {
            spoofed(plan, program, v6, name);
        }
        // Without ports: judged and told of by the closer look alone.
        let malformed = tcp(ends(false), (40_000, CLOSED), SYN).truncate(40).build();
        plan.push(case(program, format!("flood/malformed-{name}"), malformed));
    }
    Ok(())
}

fn case(program: usize, name: String, frame: Vec<u8>) -> Case {
    hot(Group::Class, program, name, frame, DROP)
}

/// Sources and ports of which none comes twice in a row, and nearly none twice at all.
fn spoofed(plan: &mut Plan, program: usize, v6: bool, name: &str) {
    let mut rng = Rng::with_seed(9);
    let ways = (0..WAYS).map(|_| {
        let source = if v6 {
            host6(&mut rng).into()
        } else {
            stranger(&mut rng)
        };
        Variation::new(source, rng.u16(1024..), rng.u16(8192..))
    });
    let (places, family) = if v6 { (BOTH6, 6) } else { (BOTH4, 4) };
    let frame = tcp(ends(v6), (40_000, CLOSED), SYN).build();
    let case = case(program, format!("flood/v{family}-spoofed-{name}"), frame);
    plan.push(turns(case, ways.collect(), places));
}

/// Listens to events for as long as this process lives, as `portguard events --follow` does, and throws them away.
fn listen(guard: &mut Loaded) -> Result<()> {
    let control = guard.ebpf.map_mut("CONTROL").context("no map `CONTROL`")?;
    let mut words: Array<&mut MapData, u64> = control.try_into()?;
    words.set(control::LISTENERS, u64::MAX, 0)?;
    let events: Map = guard.ebpf.take_map("EVENTS").context("no map `EVENTS`")?;
    let mut ring = RingBuf::try_from(events)?;
    thread::spawn(move || {
        while wait_readable(&ring, Instant::now() + NAP).is_ok() {
            while ring.next().is_some() {}
        }
    });
    Ok(())
}
