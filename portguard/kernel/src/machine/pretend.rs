//! Another kernel than the one that runs, for tests: `PORTGUARD_PRETEND=kernel=4.18.0-553.el8.x86_64,no-btf,no-cgroup2`.

use std::env;

use aya::util::KernelVersion;

use super::Feature;

fn words() -> Vec<String> {
    let said = env::var("PORTGUARD_PRETEND").unwrap_or_default();
    said.split(',').map(str::to_owned).collect()
}

pub(super) fn release() -> Option<String> {
    let words = words();
    let mut all = words.iter();
    all.find_map(|word| word.strip_prefix("kernel=").map(str::to_owned))
}

/// The first three numbers of the release.
pub(super) fn version() -> Option<KernelVersion> {
    let release = release()?;
    let mut numbers = release
        .split(|one: char| !one.is_ascii_digit())
        .map(|number| number.parse().unwrap_or(0));
    let mut next = || numbers.next().unwrap_or(0);
    Some(KernelVersion::new(
        u8::try_from(next()).ok()?,
        u8::try_from(next()).ok()?,
        next(),
    ))
}

/// Whether the pretended kernel is older than a feature.
pub(super) fn lacks(feature: Feature) -> bool {
    let (major, minor) = feature.since();
    version().is_some_and(|version| version < KernelVersion::new(major, minor, 0))
}

pub(super) fn is_without(what: &str) -> bool {
    words()
        .iter()
        .any(|word| word.strip_prefix("no-") == Some(what))
}
