//! What a program must know of this host, beside its policy.

use crate::clock::tick_shift;
use crate::conversations::Namespace;
use crate::host::link::{self, Start};
use crate::host::owners::ephemeral;
use crate::object::HostFacts;
use crate::pins::meta::XdpModeName;

/// What only this host knows: how the interface's frames start, and the key and the clock of the table of conversations,
/// where there is one.
pub(crate) fn of_host(
    conversations: Option<&Namespace>,
    start: Start,
    (interface, mode): (u32, XdpModeName),
) -> HostFacts {
    // In generic mode the kernel knows already whose a frame is, and that can be something else than its link address says.
    let is_told_later = start == Start::Ethernet && mode == XdpModeName::Native;
    let facts = HostFacts {
        raw_ip: start == Start::Ip,
        card: if is_told_later {
            (interface, link::address(interface).unwrap_or_default())
        } else {
            (0, 0)
        },
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
