//! Whether a flood meets as many CPUs as there are: receive queues and their rings.

use std::process::Command;
use std::thread;

use super::super::{Check, Grade};
use crate::host::interface::Interface;
use portguard_policy::human::count;

/// Rings that ride out a pause of a CPU at full rate, and still fit into its caches.
const RINGS: std::ops::RangeInclusive<u32> = 512..=2048;

/// Receive queues against CPUs.
pub(super) fn queues(interface: &Interface, queues: u32) -> Check {
    let cpus = thread::available_parallelism().map_or(1, std::num::NonZero::get);
    judge_queues(
        &interface.name,
        queues,
        u32::try_from(cpus).unwrap_or(u32::MAX),
    )
}

fn judge_queues(name: &str, queues: u32, cpus: u32) -> Check {
    let why =
        "each receive queue is served by one CPU: with few queues, a flood has few CPUs to exhaust";
    let found = format!(
        "{}, {}",
        count(queues.into(), "receive queue"),
        count(cpus.into(), "CPU")
    );
    if queues < cpus {
        Check::new("queues", why, Grade::Note, found).todo(format!(
            "where the card has more: `ethtool -L {name} combined {cpus}`, each queue's interrupt on a CPU of its own"
        ))
    } else {
        Check::new("queues", why, Grade::Ok, found)
    }
}

/// The receive ring, as `ethtool -g` tells it; nothing where the driver has none.
pub(super) fn ring(interface: &Interface) -> Option<Check> {
    let output = Command::new("ethtool")
        .args(["-g", &interface.name])
        .output()
        .ok()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let (largest, current) = rings(&text)?;
    Some(judge_ring(&interface.name, largest, current))
}

/// Largest and current size of the receive ring.
fn rings(text: &str) -> Option<(u32, u32)> {
    let mut sizes = text.lines().filter_map(|line| {
        let size = line.trim().strip_prefix("RX:")?;
        size.trim().parse::<u32>().ok()
    });
    Some((sizes.next()?, sizes.next()?))
}

fn judge_ring(name: &str, largest: u32, current: u32) -> Check {
    let why =
        "a short ring overflows while its CPU pauses; a very long one no longer fits into caches";
    let found = format!("{current} of at most {largest} packets");
    let wanted = current.clamp(*RINGS.start(), *RINGS.end()).min(largest);
    if wanted == current {
        Check::new("ring", why, Grade::Ok, found)
    } else {
        Check::new("ring", why, Grade::Note, found).todo(format!("`ethtool -G {name} rx {wanted}`"))
    }
}

#[cfg(test)]
mod tests {
    use super::{judge_queues, judge_ring, rings};

    const TEXT: &str = "Ring parameters for eth0:
Pre-set maximums:
RX:\t\t4096
RX Mini:\tn/a
TX:\t\t4096
Current hardware settings:
RX:\t\t256
RX Mini:\tn/a
TX:\t\t256
";

    #[test]
    fn rings_are_read() {
        assert_eq!(rings(TEXT), Some((4096, 256)));
        assert_eq!(rings("RX:\t\tn/a\nRX:\t\tn/a\n"), None);
        assert_eq!(rings(""), None);
    }

    #[test]
    fn advice_is_what_to_type() {
        let todo = |check: super::Check| check.todo;
        let short = judge_ring("eth0", 4096, 256);
        assert_eq!(todo(short).as_deref(), Some("`ethtool -G eth0 rx 512`"));
        let long = judge_ring("eth0", 8192, 8192);
        assert_eq!(todo(long).as_deref(), Some("`ethtool -G eth0 rx 2048`"));
        assert_eq!(todo(judge_ring("eth0", 256, 256)), None, "it has no more");
        assert_eq!(todo(judge_ring("eth0", 4096, 1024)), None);
        assert!(
            todo(judge_queues("eth0", 1, 8))
                .unwrap()
                .contains("combined 8")
        );
        assert_eq!(todo(judge_queues("eth0", 8, 8)), None);
        assert_eq!(todo(judge_queues("eth0", 1, 1)), None);
    }
}
