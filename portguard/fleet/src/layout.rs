//! Where things are in a store: one layout for all of them.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::Hash;

/// The serial of the release that is published: the one small key that every agent watches.
pub const HEAD: &str = "head";
/// How far the rollout is.
pub const POSITION: &str = "position";
/// All chunks.
pub const OBJECTS: &str = "object/";
/// All releases.
pub const RELEASES: &str = "release/";
/// All statuses.
pub const STATUSES: &str = "status/";
/// All signs of life.
pub const ALIVE: &str = "alive/";
/// All holds.
pub const HOLDS: &str = "hold/";
/// All revocations.
pub const REVOKED: &str = "revoked/";
/// All evidence.
pub const EVIDENCE: &str = "evidence/";
/// Who controls the rollout now, where the store has leases.
pub const CONTROLLER: &str = "controller";
/// What happened to the rollout, by time.
pub const HISTORY: &str = "history/";

/// The longest host name, interface name or file name of a release.
const LONGEST: usize = 200;

/// A chunk, by the hash of its compressed bytes.
pub fn object(chunk: &Hash) -> String {
    format!("{OBJECTS}{chunk}")
}

/// A signed release. Twenty digits, so that names sort as numbers do.
pub fn release(serial: u64) -> String {
    format!("{RELEASES}{serial:020}")
}

/// A host's status.
pub fn status(host: &str) -> String {
    format!("{STATUSES}{host}")
}

/// A host's sign of life.
pub fn alive(host: &str) -> String {
    format!("{ALIVE}{host}")
}

/// A host that is to stay as it is.
pub fn hold(host: &str) -> String {
    format!("{HOLDS}{host}")
}

/// A host whose statuses count no more.
pub fn revoked(host: &str) -> String {
    format!("{REVOKED}{host}")
}

/// What enforcing would drop on an interface.
pub fn evidence(host: &str, interface: &str) -> String {
    format!("{EVIDENCE}{host}/{interface}")
}

/// An event of the rollout.
pub fn history(at_nanoseconds: u128) -> String {
    format!("{HISTORY}{at_nanoseconds:030}")
}

/// An event that happens now.
pub(crate) fn history_now() -> String {
    let passed = SystemTime::now().duration_since(UNIX_EPOCH);
    history(passed.map_or(0, |passed| passed.as_nanos()))
}

/// Whether this is the key of an event.
pub fn is_history(key: &str) -> bool {
    let at = key.strip_prefix(HISTORY);
    at.is_some_and(|at| at.len() == 30 && at.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Whether this can be one part of a key: also of a file's path, and never one that leaves its directory.
pub fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= LONGEST
        && !name.starts_with('.')
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b".-_:@".contains(&byte))
}

/// Whether this is a key of the layout: names, parted by slashes.
pub fn is_key(key: &str) -> bool {
    key.split('/').all(is_name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_key_leaves_its_directory() {
        for key in ["head", "status/node-1.example", "evidence/a/eth0"] {
            assert!(is_key(key), "{key}");
        }
        for key in [
            "", "/head", "head/", "a//b", "../head", "a/../b", "a/.b", "a\0", "a b", "ä",
        ] {
            assert!(!is_key(key), "{key}");
        }
    }
}
