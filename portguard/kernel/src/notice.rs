//! What is to be said to a person while something is done: in the agent's log where this is the agent, else on standard error.

use std::io::{self, Write as _};
use std::sync::OnceLock;

static WRITER: OnceLock<fn(&str)> = OnceLock::new();

/// Has a program's own writer say it, which knows the terminal; the first that is named stays.
pub fn write_with(writer: fn(&str)) {
    let _ = WRITER.set(writer);
}

/// Says what was done.
pub(crate) fn say(what: &str) {
    if tracing::dispatcher::has_been_set() {
        tracing::info!("{what}");
    } else {
        write(what);
    }
}

/// Says what is less than it could be.
pub(crate) fn warn(what: &str) {
    if tracing::dispatcher::has_been_set() {
        tracing::warn!("{what}");
    } else {
        write(&format!("warning: {what}"));
    }
}

#[expect(clippy::disallowed_methods, reason = "where no writer was named")]
fn write(line: &str) {
    match WRITER.get() {
        Some(writer) => writer(line),
        None => {
            let _ = writeln!(io::stderr().lock(), "{line}");
        }
    }
}
