//! What a program must know of this host, beside its policy.

use crate::conversations::Namespace;
use crate::object::HostFacts;

/// What only this host knows: the key and the clock of the table of conversations, where there is one.
pub(crate) fn of_host(conversations: Option<&Namespace>) -> HostFacts {
    let facts = HostFacts::default();
    match conversations {
        Some(namespace) => HostFacts {
            tick_shift: namespace.tick_shift(),
            flow_key: namespace.key(),
            flow_sets: Some(namespace.sets()),
            ..facts
        },
        None => HostFacts {
            tick_shift: tick_shift(),
            ..facts
        },
    }
}

/// How far to shift jiffies right for units of about a second: the coarse clock's resolution is one jiffy.
pub(crate) fn tick_shift() -> u32 {
    let tick = nix::time::clock_getres(nix::time::ClockId::CLOCK_MONOTONIC_COARSE)
        .map_or(4_000_000, |resolution| resolution.tv_nsec());
    let hertz = u32::try_from(1_000_000_000 / tick.max(1)).unwrap_or(250);
    hertz.max(1).ilog2()
}
