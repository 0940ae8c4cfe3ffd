//! Features of the kernel's BPF, asked for one by one: distributions carry them back to older versions.

use super::{Check, Grade};
use crate::conversations::cgroup;
use crate::host::owners;
use crate::machine::{self, Feature};

/// What no guard can do without.
const NEEDED: [Feature; 4] = [
    Feature::Xdp,
    Feature::RingBuffers,
    Feature::BootClock,
    Feature::Jiffies,
];

/// What to do about a kernel that lacks some of it.
pub(super) const NEWER: &str = "boot Linux 5.10 or newer, the oldest that is tested";

/// Of what no guard can do without, what this kernel has not.
///
/// # Errors
/// Why the kernel does not say.
pub(super) fn missing() -> Result<Vec<Feature>, String> {
    let mut missing = Vec::new();
    for feature in NEEDED {
        if !machine::has(feature)? {
            missing.push(feature);
        }
    }
    Ok(missing)
}

/// With the first version of Linux that has each.
pub(super) fn listed(features: &[Feature]) -> String {
    let each = features.iter().map(|feature| {
        let (major, minor) = feature.since();
        format!("no {} (Linux {major}.{minor})", feature.name())
    });
    each.collect::<Vec<_>>().join(", ")
}

/// What no guard can do without.
pub(super) fn needed() -> Check {
    let why = "the guard's programs use them";
    let check = |grade, found: String| Check::new("features", why, grade, found);
    match missing() {
        Err(error) => {
            check(Grade::Note, unsaid(&error)).todo("run as root: `sudo portguard doctor`")
        }
        Ok(missing) if missing.is_empty() => check(Grade::Ok, "all there".to_owned()),
        Ok(missing) => check(
            Grade::Error,
            format!("this kernel has {}", listed(&missing)),
        )
        .todo(NEWER),
    }
}

/// How conversations are followed: by sockets from their first packet to their last, or by packets alone.
pub(super) fn sockets() -> Check {
    let why = "a connection of the host is known for exactly as long as its socket is open; by its packets, until the host sends \
               nothing on it for `tcp_idle`, and a UDP socket that is bound to a device later hears answers to what is forwarded from \
               its port";
    let by_packets = |grade, because: &str| {
        let found = format!("{because}: connections are followed by their packets alone");
        Check::new("sockets", why, grade, found)
    };
    match (machine::has(Feature::NamespaceCookies), cgroup::root()) {
        (Ok(true), Ok(_)) => Check::new("sockets", why, Grade::Ok, "followed"),
        (Ok(true), Err(barred)) => {
            by_packets(Grade::Warning, &barred.to_string()).todo(barred.todo())
        }
        (Ok(false), _) => by_packets(
            Grade::Note,
            "no cookies of network namespaces in such programs (Linux 5.15)",
        )
        .todo("longer `tcp_idle` in `[timeouts]` where connections are quiet for hours"),
        (Err(error), _) => by_packets(Grade::Note, &unsaid(&error)),
    }
}

/// Whether services and clients on the ports that the kernel picks are told from each other.
pub(super) fn ports() -> Check {
    let why = "replies to a UDP client are let in; a service must not let in everybody it answered";
    if owners::bit() != 0 {
        return Check::new("udp-ports", why, Grade::Ok, "who picked a port is known");
    }
    let because = if machine::btf().is_err() {
        format!(
            "the kernel does not describe its structures (no `{}`)",
            machine::BTF
        )
    } else {
        "the kernel lets no program read its structures".to_owned()
    };
    let (first, last) = owners::ephemeral();
    let found = format!("{because}: UDP services on ports {first}-{last} look like clients");
    Check::new("udp-ports", why, Grade::Warning, found).todo(format!(
        "boot a kernel with CONFIG_DEBUG_INFO_BTF that is not locked down, or have UDP services listen below {first}"
    ))
}

/// Whether programs see frames of several buffers.
pub(super) fn multi_buffer() -> Check {
    let why = "drivers hand over large frames in several buffers";
    let check = |grade, found: String| Check::new("large-frames", why, grade, found);
    match machine::has(Feature::FrameLength) {
        Ok(true) => check(Grade::Ok, "handled".to_owned()),
        Ok(false) => check(
            Grade::Note,
            "not in this kernel (Linux 5.18): a driver takes the guard only where a frame fits one buffer".to_owned(),
        )
        .todo("an MTU of at most 3,400 or so, if `load` is refused"),
        Err(error) => check(Grade::Note, unsaid(&error)),
    }
}

fn unsaid(error: &str) -> String {
    format!("the kernel does not say: {error}")
}
