//! What is behind the reasons that have no port.

use portguard_common::abi::slot;
use portguard_common::ethertypes;
use portguard_common::packet::Malformed;
use portguard_common::reason::Direction;
use serde::Serialize;

use super::Snapshot;

/// Packets of one cause of malformed frames, or of one EtherType.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CauseCount {
    /// `in` or `out`.
    pub direction: &'static str,
    /// `malformed`, or `ethertype` for what is not IP, whether it passes or not.
    pub kind: &'static str,
    /// Stable name of the cause, or the EtherType as `0x88cc`; `other` for those that are not counted each.
    pub cause: String,
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

impl CauseCount {
    /// `malformed: ip-options`, `ethertype 0x88cc`, `other ethertypes`.
    pub fn name(&self) -> String {
        match (self.kind, self.cause.as_str()) {
            ("malformed", cause) => format!("malformed: {cause}"),
            (_, "other") => "other ethertypes".to_owned(),
            (kind, cause) => format!("{kind} {cause}"),
        }
    }
}

/// Those that there are.
pub(super) fn causes(snapshot: &Snapshot) -> Vec<CauseCount> {
    let mut found = Vec::new();
    for side in [Direction::Ingress, Direction::Egress] {
        let mut push = |kind, cause: String, slot: u32| {
            let counter = snapshot.slot(slot);
            if counter.packets > 0 {
                found.push(CauseCount {
                    direction: side.name(),
                    kind,
                    cause,
                    packets: counter.packets,
                    bytes: counter.bytes,
                });
            }
        };
        for cause in Malformed::ALL {
            let name = cause.name().to_owned();
            push("malformed", name, slot::malformed(side, cause));
        }
        for known in ethertypes::ALL {
            let slot = slot::ethertype(side, known.number);
            // By number where there is one: a name may have two.
            let cause = if known.number < 1536 {
                known.name.to_owned()
            } else {
                format!("{:#06x}", known.number)
            };
            push("ethertype", cause, slot);
        }
        push(
            "ethertype",
            "other".to_owned(),
            slot::ethertype(side, u16::MAX),
        );
    }
    found
}
