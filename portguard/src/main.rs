//! The `portguard` command.

use std::io::{self, IsTerminal as _, Write as _};
use std::process::ExitCode;

use clap::Parser as _;
use portguard::cli::Cli;
use portguard_policy::diagnostic::Rejected;
use portguard_policy::error::{Exit, exit_of, fault_of};

fn main() -> ExitCode {
    let exit = match Cli::parse().run() {
        Ok(exit) => exit,
        Err(error) => {
            report(&error);
            exit_of(&error)
        }
    };
    exit.into()
}

/// Says what went wrong, why, and what to do. Standard error being closed is no reason to fail differently.
fn report(error: &anyhow::Error) {
    let mut err = io::stderr().lock();
    if let Some(rejected) = error.downcast_ref::<Rejected>() {
        let _ = writeln!(err, "{rejected}");
        return;
    }
    let (red, plain) = if err.is_terminal() {
        ("\x1b[1;31m", "\x1b[0m")
    } else {
        ("", "")
    };
    let _ = writeln!(err, "{red}error{plain}: {error:#}");
    if let Some(hint) = fault_of(error).and_then(|fault| fault.hint.as_deref()) {
        let _ = writeln!(err, "\nhint: {hint}");
    }
    debug_assert!(exit_of(error) != Exit::Ok);
}
