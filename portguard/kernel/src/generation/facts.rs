//! What a program must know of this host, beside its policy.

use crate::clock::tick_shift;
use crate::conversations::Namespace;
use crate::host::link::Start;
use crate::host::owners::ephemeral;
use crate::object::HostFacts;

/// What only this host knows: how the interface's frames start, and the key and the clock of the table of conversations,
/// where there is one.
pub(crate) fn of_host(conversations: Option<&Namespace>, link: Start) -> HostFacts {
    let facts = HostFacts {
        raw_ip: link == Start::Ip,
        picked_ports: ephemeral(),
        ..HostFacts::default()
    };
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
