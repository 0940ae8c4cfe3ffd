//! Counters: per-CPU maps summed, told in the words of the policy, and counted from a moment that the operator chose.

mod causes;
mod peers;
mod portless;
mod report;
mod reset;
mod snapshot;
mod space;

pub use causes::CauseCount;
pub use portless::Portless;
pub(crate) use report::totals;
pub use report::{Count, Packets, PeerCount, PortCount, ReasonCount, Report, RowCount};
pub use reset::Reset;
pub use snapshot::{Keyed, Snapshot};

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use portguard_kernel::generation::effective::Effective;
    use portguard_policy::policy::Settings;

    /// An interface that counted violations of some ports that arrived, and nothing else.
    pub(crate) fn report(transport: &'static str, ports: &[(u16, u64)]) -> Report {
        let count = |packets| Count { packets, bytes: 0 };
        let line = |&(port, packets): &(u16, u64)| PortCount {
            direction: "in",
            transport,
            port,
            port_last: None,
            documented: false,
            rows: Vec::new(),
            passed: Count::default(),
            violations: Packets { packets },
        };
        let all = ports.iter().map(|(_, packets)| packets).sum();
        Report {
            name: "eth0".to_owned(),
            warnings: Vec::new(),
            generation: 1,
            digest: String::new(),
            mode: "audit",
            outbound: "audit",
            effective: Effective::of(&Settings::default()),
            since: None,
            reset: None,
            totals: count(all),
            violations: count(all),
            reasons: Vec::new(),
            causes: Vec::new(),
            ports: ports.iter().map(line).collect(),
            rows: Vec::new(),
            peers: Vec::new(),
        }
    }
}
