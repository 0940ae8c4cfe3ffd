//! The only process of an emulated kernel: sets the machine up, checks the guard, writes what it saw, and powers off.
//!
//! The result goes line by line to the second serial port, for a judge outside that knows what must be there:
//! `KERNEL release`, then `FACT name value`, `PASS name` or `FAIL name: why` in the order of [`checks::all`], then `END`.
//!
//! `portguard-guest --list` names the checks; `portguard-guest --here PORTGUARD` runs them on this machine.
#![expect(
    clippy::indexing_slicing,
    reason = "of JSON values only, where a missing key is null"
)]
#![expect(
    clippy::disallowed_methods,
    reason = "an emulated machine has no terminal"
)]

mod checks;
mod living;
mod machine;
mod program;
mod soak;
mod world;

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;

use crate::world::World;

/// Where the judge put the guard.
const PORTGUARD: &str = "/bin/portguard";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        _ if std::process::id() == 1 => machine::run(|out| report(Path::new(PORTGUARD), out)),
        ["--list"] => list(),
        ["--here", portguard] => report(Path::new(portguard), &mut io::stdout()),
        _ => Err(anyhow::anyhow!(
            "usage: portguard-guest --list | --here PORTGUARD"
        )),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            let _ = writeln!(io::stderr(), "error: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn list() -> Result<bool> {
    for (name, _) in checks::all() {
        writeln!(io::stdout(), "{name}")?;
    }
    Ok(true)
}

/// Runs the checks in order; what follows a failed one is not reached, since each builds on those before.
fn report(portguard: &Path, out: &mut dyn Write) -> Result<bool> {
    let release = nix::sys::utsname::uname()?;
    writeln!(out, "KERNEL {}", release.release().to_string_lossy())?;
    let mut world = World::new(portguard)?;
    let mut good = true;
    for (name, check) in checks::all() {
        if !good {
            writeln!(out, "FAIL {name}: not reached")?;
            continue;
        }
        match check(&mut world) {
            Ok(()) => {
                for (fact, value) in world.facts.drain(..) {
                    writeln!(out, "FACT {fact} {value}")?;
                }
                writeln!(out, "PASS {name}")?;
            }
            Err(error) => {
                good = false;
                writeln!(out, "FAIL {name}: {}", one_line(&format!("{error:#}")))?;
            }
        }
    }
    writeln!(out, "END")?;
    Ok(good)
}

/// The judge reads lines; a verifier's log may be megabytes.
fn one_line(text: &str) -> String {
    const HEAD: usize = 400;
    const TAIL: usize = 1200;
    let words: Vec<char> = text
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
        .chars()
        .collect();
    if words.len() <= HEAD + TAIL {
        return words.into_iter().collect();
    }
    let head: String = words.iter().take(HEAD).collect();
    let tail: String = words.iter().skip(words.len() - TAIL).collect();
    format!("{head} [...] {tail}")
}
