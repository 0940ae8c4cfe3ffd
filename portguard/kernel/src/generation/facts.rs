//! What a program must know of this host, beside its policy.

use std::fs::File;
use std::io::Read as _;

use anyhow::Context as _;

use crate::object::HostFacts;
use crate::pins::meta::Meta;

/// What only this host knows. The flow table outlives generations, and is only of use with the key and the clock that
/// filled it. From audit to enforce the key is drawn anew all the same: in audit the host answers strangers, too, and the
/// flows of these answers would let the strangers go on. What the host itself has open is seeded from its sockets.
pub(crate) fn of_host(previous: Option<&Meta>, enforce: bool) -> anyhow::Result<HostFacts> {
    let mut facts = HostFacts {
        tick_shift: tick_shift(),
        ..HostFacts::default()
    };
    if let Some(meta) = previous {
        facts.tick_shift = meta.tick_shift;
    }
    if let Some(meta) = previous.filter(|meta| meta.policy.settings.enforce || !enforce) {
        facts.flow_key = meta.flow_key;
    } else {
        let mut halves = [[0; 8]; 2];
        let mut random = File::open("/dev/urandom").context("cannot open `/dev/urandom`")?;
        for half in &mut halves {
            random.read_exact(half)?;
        }
        facts.flow_key = halves.map(u64::from_le_bytes);
    }
    Ok(facts)
}

/// How far to shift jiffies right for units of about a second: the coarse clock's resolution is one jiffy.
fn tick_shift() -> u32 {
    let tick = nix::time::clock_getres(nix::time::ClockId::CLOCK_MONOTONIC_COARSE)
        .map_or(4_000_000, |resolution| resolution.tv_nsec());
    let hertz = u32::try_from(1_000_000_000 / tick.max(1)).unwrap_or(250);
    hertz.max(1).ilog2()
}
