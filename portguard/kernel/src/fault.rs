//! Named steps at which tests make the tool fail, die or wait. Without the feature `fault-injection` they are nothing.

/// The steps of `load`, in the order in which they come by.
pub const LOAD_STEPS: [&str; 17] = [
    "locked",
    "swept",
    "shared",
    "conversations",
    "loaded",
    "read-back",
    "tested",
    "pinned",
    "described",
    "prepared",
    "marked",
    "egress",
    "ingress",
    "swapped",
    "published",
    "finished",
    "stored",
];

/// The steps of the first `load` in a network namespace that others have not.
pub const FOLLOW_STEPS: [&str; 2] = ["followed", "following"];

/// The steps of `unload`.
pub const UNLOAD_STEPS: [&str; 3] = ["unload-ingress", "unload-egress", "unload-pins"];

/// The steps of `rollback`.
pub const ROLLBACK_STEPS: [&str; 5] = [
    "rollback-described",
    "revert-marked",
    "revert-ingress",
    "revert-egress",
    "rollback-swapped",
];

/// The steps of `confirm`.
pub const CONFIRM_STEPS: [&str; 2] = ["confirming", "confirmed"];

/// The steps of `load --migrate` that an ordinary load has not.
pub const MIGRATE_STEPS: [&str; 1] = ["migrated-link"];

/// The steps of healing what a tool left that died.
pub const HEAL_STEPS: [&str; 1] = ["healed"];

/// Passes a named step.
///
/// # Errors
/// Only if a test wants one: `PORTGUARD_FAULT=STEP:fail`. With `kill` the process dies here as if by a crash, with `stop`
/// it waits until it is told to continue.
#[cfg(feature = "fault-injection")]
pub fn step(name: &str) -> crate::Result<()> {
    use nix::sys::signal::{Signal, raise};
    let Ok(wanted) = std::env::var("PORTGUARD_FAULT") else {
        return Ok(());
    };
    match wanted.split_once(':') {
        Some((step, "kill")) if step == name => raise(Signal::SIGKILL)?,
        Some((step, "stop")) if step == name => raise(Signal::SIGSTOP)?,
        Some((step, "fail")) if step == name => {
            return Err(crate::Error::system(format!(
                "made to fail at step `{name}`"
            )));
        }
        _ => {}
    }
    Ok(())
}

/// Passes a named step.
///
/// # Errors
/// Never.
#[cfg(not(feature = "fault-injection"))]
#[expect(clippy::unnecessary_wraps, reason = "as fallible as it is in tests")]
#[inline]
pub fn step(_name: &str) -> crate::Result<()> {
    Ok(())
}
