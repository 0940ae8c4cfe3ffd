//! Which counter a verdict goes to. Exactly one by reason, so that sums need no correction.

use portguard_common::abi::slot;
use portguard_common::packet::Subject;
use portguard_common::reason::{Direction, Reason};
use portguard_common::verdict::Verdict;

use crate::maps::Maps;

/// Packets and bytes of a frame.
pub(crate) type Weight = (u64, u64);

/// Counts a frame; of a violation, says for how many it stands if it is to be looked at closely: else 0.
#[inline(always)]
pub(crate) fn count<S: Subject>(
    maps: &Maps,
    packet: &S,
    verdict: &Verdict,
    direction: Direction,
    weight: Weight,
) -> u32 {
    match verdict.reason {
        Reason::Granted => {
            maps.add_cell(verdict.cell, weight);
            0
        }
        Reason::UndocumentedPort | Reason::UndocumentedProtocol | Reason::UndocumentedPeer => {
            let Some(key) = verdict.key else { return 0 };
            let open = matches!(verdict.reason, Reason::UndocumentedPeer);
            maps.add_violation(direction, key, open, weight)
        }
        reason => {
            match reason {
                Reason::NonIp | Reason::StrictEthertype => {
                    maps.add_slot(slot::ethertype(direction, packet.ethertype()), weight);
                }
                Reason::Malformed => {
                    if let Some(cause) = verdict.cause {
                        maps.add_slot(slot::malformed(direction, cause), weight);
                    }
                }
                _ => {}
            }
            let slot = slot::reason(direction, reason);
            maps.add_slot(slot, weight);
            if reason.is_violation() {
                maps.pace_slot(slot)
            } else {
                0
            }
        }
    }
}
