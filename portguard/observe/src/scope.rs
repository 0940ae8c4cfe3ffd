//! Where a policy that judges only what is for the host's own addresses judges too little or too much, as the host is now.

use portguard_kernel::host::diversions::{diversions, doubtful, unforwarded};
use portguard_kernel::host::local;
use portguard_kernel::pins::meta::Meta;

/// What must be mended, in words; nothing where all packets are judged. It asks routing and the packet filter.
pub(crate) fn doubts(interface: &str, meta: &Meta) -> Vec<String> {
    if meta.policy.settings.host_addresses.is_none() {
        return Vec::new();
    }
    let diverted = diversions(interface).into_iter().map(|one| {
        format!("{one}: packets for others that it takes are not judged; write `scope = \"all\"`")
    });
    let judged = unforwarded(interface)
        .into_iter()
        .map(|(one, setting)| format!("{one}: `sysctl -w {setting}=1`"));
    let since = local::since(&meta.local).into_iter().map(|prefix| {
        format!("a route keeps {prefix} for this host since the load, and a rule may lead there: load again, so that it is judged")
    });
    diverted
        .chain(judged)
        .chain(doubtful(interface))
        .chain(since)
        .collect()
}
