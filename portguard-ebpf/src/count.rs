//! Which counter a verdict goes to. Exactly one by reason, so that sums need no correction.

use portguard_common::abi::slot;
use portguard_common::packet::Packet;
use portguard_common::reason::{Direction, Reason};
use portguard_common::verdict::Verdict;

use crate::maps::Maps;

/// Counts a frame; of violations, says how many of the same kind this CPU saw before.
#[inline(always)]
pub(crate) fn count(maps: &Maps, packet: &Packet, verdict: &Verdict, direction: Direction) -> u32 {
    let bytes = packet.length;
    match verdict.reason {
        Reason::Granted => {
            maps.add_cell(verdict.cell, bytes);
            0
        }
        Reason::UndocumentedPort | Reason::UndocumentedProtocol | Reason::UndocumentedPeer => {
            let Some(key) = verdict.key else { return 1 };
            let open = matches!(verdict.reason, Reason::UndocumentedPeer);
            maps.add_violation(direction, key, open, bytes)
        }
        reason => {
            match reason {
                Reason::NonIp | Reason::StrictEthertype => {
                    maps.add_slot(slot::ethertype(direction, packet.ethertype), bytes);
                }
                Reason::Malformed => {
                    if let Some(cause) = verdict.cause {
                        maps.add_slot(slot::malformed(direction, cause), bytes);
                    }
                }
                _ => {}
            }
            maps.add_slot(slot::reason(direction, reason), bytes)
        }
    }
}
