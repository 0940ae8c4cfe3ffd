//! What went wrong, for people on standard error, and for programs as JSON on standard output.

use std::collections::BTreeMap;
use std::io::Write as _;

use crate::stderr::stderr;
use crate::stdout::Versioned;
use portguard_kernel::{Error, Kind};
use portguard_policy::diagnostic::{Diagnostic, Level, Rejected};
use portguard_policy::error::{Exit, Fault};
use portguard_policy::human::{count, plain_lines};
use serde::Serialize;

#[derive(Debug, Serialize)]
struct Failure<'e> {
    /// Stable: that of the first error, else `usage` or `system`.
    code: &'e str,
    message: String,
    #[serde(rename = "where", skip_serializing_if = "Option::is_none")]
    location: Option<&'e str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<&'e str>,
    /// Everything that was noticed, where input was refused.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    diagnostics: &'e [Diagnostic],
}

/// The code of an exit.
const fn code(exit: Exit) -> &'static str {
    match exit {
        Exit::Ok => "ok",
        Exit::Findings => "findings",
        Exit::Usage => "usage",
        Exit::System => "system",
    }
}

/// The exit code of an error: that of the [`Fault`] or the [`Error`] in it, [`Exit::Usage`] for refused input, else
/// [`Exit::System`].
pub fn exit_of(error: &anyhow::Error) -> Exit {
    if let Some(fault) = error.downcast_ref::<Fault>() {
        fault.exit
    } else if let Some(error) = error.downcast_ref::<Error>() {
        error.exit()
    } else if error.is::<Rejected>() {
        Exit::Usage
    } else {
        Exit::System
    }
}

/// Whether it is known before anything is tried.
fn is_hopeless(error: &anyhow::Error) -> bool {
    let kind = error.downcast_ref::<Error>().map(Error::kind);
    matches!(kind, Some(Kind::KernelTooOld | Kind::NotPermitted))
}

/// What to do about it.
pub fn hint_of(error: &anyhow::Error) -> Option<&str> {
    match error.downcast_ref::<Fault>() {
        Some(fault) => fault.hint.as_deref(),
        None => error.downcast_ref::<Error>().and_then(Error::todo),
    }
}

/// Says what went wrong, why, and what to do.
pub fn say(error: &anyhow::Error) {
    let mut err = stderr();
    let _ = writeln!(
        err,
        "\x1b[1;31merror\x1b[0m: {}",
        plain_lines(&format!("{error:#}"))
    );
    if let Some(hint) = hint_of(error) {
        let _ = writeln!(err, "\n\x1b[1;36mhint\x1b[0m: {}", plain_lines(hint));
    }
}

/// Says what went wrong, why, and what to do; of a verb that would have changed something (`changes`), also that it did not.
/// An output that is closed is no reason to fail differently.
pub fn report(error: &anyhow::Error, as_json: bool, changes: bool) {
    let mut err = stderr();
    if let Some(rejected) = error.downcast_ref::<Rejected>() {
        let all: Vec<&Diagnostic> = rejected.0.iter().collect();
        let _ = diagnostics(&mut err, &all);
        let errors = rejected.0.iter().filter(|one| one.level == Level::Error);
        let errors = count(errors.count() as u64, "error");
        // What changes nothing anyway needs no word of that.
        let unchanged = if changes { ", nothing changed" } else { "" };
        let _ = writeln!(err, "refused: {errors}{unchanged}");
    } else {
        say(error);
        let last = match exit_of(error) {
            Exit::Usage if changes => "refused: nothing changed",
            Exit::System if changes && is_hopeless(error) => "refused: nothing changed",
            Exit::System if changes => "failed: `portguard status` shows what is in force",
            Exit::Ok | Exit::Findings | Exit::Usage | Exit::System => "",
        };
        if !last.is_empty() {
            let _ = writeln!(err, "{last}");
        }
    }
    if as_json {
        json(error);
    }
}

fn json(error: &anyhow::Error) {
    let rejected = error.downcast_ref::<Rejected>();
    let all = rejected.map_or(&[][..], |rejected| &rejected.0);
    let first = all
        .iter()
        .find(|one| one.level == Level::Error)
        .or(all.first());
    let failure = match first {
        Some(first) => Failure {
            code: first.code,
            message: first.message.clone(),
            location: first.location.as_deref(),
            hint: first.hint.as_deref(),
            diagnostics: all,
        },
        None => Failure {
            code: code(exit_of(error)),
            message: format!("{error:#}"),
            location: None,
            hint: hint_of(error),
            diagnostics: &[],
        },
    };
    write(&failure);
}

/// Stands where the answer would.
fn write(error: &Failure<'_>) {
    let answer = Versioned::of(BTreeMap::from([("error", error)]));
    if let Ok(text) = serde_json::to_string_pretty(&answer) {
        let _ = writeln!(std::io::stdout().lock(), "{text}");
    }
}

/// A command line that was not understood, as JSON.
pub fn usage(error: &clap::Error) {
    let text = error.render().to_string();
    let mut parts = text.trim().splitn(2, "\n\n");
    let message = parts.next().unwrap_or_default();
    let message = message.trim_start_matches("error: ").to_owned();
    let rest = parts.next().unwrap_or_default();
    let tip = rest
        .lines()
        .find_map(|line| line.trim().strip_prefix("tip: "));
    write(&Failure {
        code: code(Exit::Usage),
        message,
        location: None,
        hint: tip.or(Some("`--help` shows how it is called")),
        diagnostics: &[],
    });
}

/// Diagnostics, errors last: those are what one reads first.
///
/// # Errors
/// Those of the writer.
pub fn diagnostics(out: &mut dyn std::io::Write, all: &[&Diagnostic]) -> std::io::Result<()> {
    let mut sorted = all.to_vec();
    sorted.sort_by_key(|diagnostic| diagnostic.level);
    for diagnostic in sorted {
        let level = diagnostic.level.name();
        let colour = match diagnostic.level {
            Level::Error => "\x1b[1;31m",
            Level::Warning => "\x1b[1;33m",
            Level::Note => "\x1b[1m",
        };
        let text = plain_lines(&diagnostic.to_string());
        let marked = text.replacen(
            &format!("{level}[{}]", diagnostic.code),
            &format!("{colour}{level}\x1b[0m[{}]", diagnostic.code),
            1,
        );
        writeln!(out, "{marked}")?;
    }
    Ok(())
}
