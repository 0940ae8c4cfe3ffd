//! What it means that the kernel refuses an object.

use crate::error::{Error, Kind, errno};
use crate::host::privileges::missing_capabilities;

/// Says what a refusal of the kernel means.
pub(crate) fn refused(what: &str, error: Error) -> Error {
    let text = format!("{error:#}");
    let missing = missing_capabilities().unwrap_or_default();
    let fault = match errno(&error) {
        // Whatever it says then: without them it says all kinds of things.
        _ if !missing.is_empty() => Error::new(
            Kind::NotPermitted,
            format!(
                "the kernel refused the guard's program (`{what}`): this process lacks {}",
                missing.join(", ")
            ),
        )
        .hint("run as root, or with CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON"),
        Some(1 | 13) if !text.contains("verifier") || text.contains("processed 0 insns") => {
            Error::new(
                Kind::NotPermitted,
                "the kernel does not let this process load eBPF programs",
            )
            .hint("run as root, or with CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON")
        }
        Some(12) => Error::new(
            Kind::NoMemory,
            "the kernel has no memory left for the guard's maps",
        )
        .hint("see `portguard doctor` for what the policy needs"),
        _ => Error::new(
            Kind::Refused,
            format!("the kernel refused the guard's program (`{what}`)"),
        )
        .hint(format!("the end of what it said:\n{}", tail(&text, 12))),
    };
    fault.caused_by(error)
}

/// The last lines of a text.
fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text
        .lines()
        .filter(|line| !line.trim().is_empty())
        .collect();
    let from = all.len().saturating_sub(lines);
    all.get(from..).unwrap_or_default().join("\n")
}
