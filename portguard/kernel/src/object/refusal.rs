//! What it means that the kernel refuses an object.

use crate::host::privileges::missing_capabilities;
use portguard_policy::error::Fault;

/// Says what a refusal of the kernel means.
pub(crate) fn refused(what: &str, error: anyhow::Error) -> anyhow::Error {
    let errno = error
        .chain()
        .find_map(|cause| cause.downcast_ref::<std::io::Error>())
        .and_then(std::io::Error::raw_os_error);
    let text = format!("{error:#}");
    let missing = missing_capabilities().unwrap_or_default();
    let fault = match errno {
        // Whatever it says then: without them it says all kinds of things.
        _ if !missing.is_empty() => Fault::system(format!(
            "the kernel refused the guard's program (`{what}`): this process lacks {}",
            missing.join(", ")
        ))
        .hint("run as root, or with CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON"),
        Some(1 | 13) if !text.contains("verifier") || text.contains("processed 0 insns") => {
            Fault::system("the kernel does not let this process load eBPF programs")
                .hint("run as root, or with CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON")
        }
        Some(12) => Fault::system("the kernel has no memory left for the guard's maps")
            .hint("see `portguard doctor` for what the policy needs"),
        _ => Fault::system(format!("the kernel refused the guard's program (`{what}`)"))
            .hint(format!("the end of what it said:\n{}", tail(&text, 12))),
    };
    error.context(fault)
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
