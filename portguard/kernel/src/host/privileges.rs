//! The capabilities of this process.

use std::fs;

use crate::error::{Error, Kind};

mod capability {
    pub(crate) const NET_ADMIN: u32 = 12;
    pub(crate) const SYS_ADMIN: u32 = 21;
    pub(crate) const PERFMON: u32 = 38;
    pub(crate) const BPF: u32 = 39;
}

/// What takes no look at the network to be known: that nothing will come of a load.
///
/// # Errors
/// If this process lacks a capability that a guard takes.
pub fn check() -> Result<(), Error> {
    match missing_capabilities() {
        Some(missing) if !missing.is_empty() => Err(Error::new(
            Kind::NotPermitted,
            format!(
                "this process lacks {}, which guarding takes",
                missing.join(", ")
            ),
        )
        .hint("run as root: `sudo portguard ...`")),
        _ => Ok(()),
    }
}

/// Which of the capabilities that a guard takes this process has not; `None` = unknown.
pub(crate) fn missing_capabilities() -> Option<Vec<&'static str>> {
    let text = fs::read_to_string("/proc/thread-self/status").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    let set = u64::from_str_radix(line.trim(), 16).ok()?;
    let has = |bit: u32| set >> bit & 1 == 1;
    let needed = [
        ("CAP_NET_ADMIN", has(capability::NET_ADMIN)),
        (
            "CAP_BPF",
            has(capability::BPF) || has(capability::SYS_ADMIN),
        ),
        (
            "CAP_PERFMON",
            has(capability::PERFMON) || has(capability::SYS_ADMIN),
        ),
    ];
    let missing = needed.iter().filter(|(_, has)| !has);
    Some(missing.map(|(name, _)| *name).collect())
}
