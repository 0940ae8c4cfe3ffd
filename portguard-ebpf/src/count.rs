//! Which counter a verdict goes to. Exactly one by reason, so that sums need no correction.

use portguard_common::abi::slot;
use portguard_common::packet::Subject;
use portguard_common::reason::{Direction, Reason};
use portguard_common::verdict::Verdict;

use crate::barrier::barrier_var;
use crate::maps::{Amount, Maps};

/// Counts a frame. Returns the weight of a violation that is sampled, else 0.
#[inline(always)]
pub(crate) fn count<S: Subject>(
    maps: &Maps,
    packet: &S,
    verdict: &Verdict,
    direction: Direction,
    amount: Amount,
) -> u32 {
    match verdict.reason {
        Reason::Granted => {
            maps.add_cell(verdict.cell, amount);
            0
        }
        Reason::UndocumentedPort | Reason::UndocumentedProtocol | Reason::UndocumentedPeer => {
            let open = matches!(verdict.reason, Reason::UndocumentedPeer);
            maps.add_violation(direction, verdict.key, open, amount)
        }
        reason => {
            match reason {
                Reason::NonIp | Reason::StrictEthertype => {
                    let slot = slot::ethertype(direction, packet.ethertype());
                    // One state for the verifier, not one for each name.
                    maps.add_slot(barrier_var(slot.into()) as u32, amount);
                }
                Reason::Malformed => {
                    if let Some(cause) = verdict.cause {
                        maps.add_slot(slot::malformed(direction, cause), amount);
                    }
                }
                _ => {}
            }
            let slot = slot::reason(direction, reason);
            maps.add_slot(slot, amount);
            if reason.is_violation() {
                maps.sample_slot(slot)
            } else {
                0
            }
        }
    }
}
