//! What is behind the reasons.

use portguard_common::abi::slot;
use portguard_common::packet::Malformed;
use portguard_common::reason::Direction;

use super::{Count, Snapshot};

/// Details behind the reasons: malformed causes and EtherTypes with their counts, where there are any.
pub fn details(snapshot: &Snapshot) -> Vec<(&'static str, String, Count)> {
    let mut found = Vec::new();
    for side in [Direction::Ingress, Direction::Egress] {
        let mut push = |name: String, slot: u32| {
            let counter = snapshot.slot(slot);
            if counter.packets > 0 {
                found.push((side.name(), name, counter.into()));
            }
        };
        for cause in Malformed::ALL {
            push(
                format!("malformed: {}", cause.name()),
                slot::malformed(side, cause),
            );
        }
        for ethertype in slot::ETHERTYPES {
            push(
                format!("ethertype {ethertype:#06x}"),
                slot::ethertype(side, ethertype),
            );
        }
        push("other ethertypes".to_owned(), slot::ethertype(side, 0));
    }
    found
}
