//! `portguard completions`: made from the command line's own definition.

use clap::{Args, Command};
use clap_complete::Shell;

use super::print;
use portguard_policy::error::Exit;

/// Write a completion script for a shell
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

/// Writes a completion script.
///
/// # Errors
/// If standard output cannot be written.
pub fn completions(args: &CompletionsArgs, mut command: Command) -> anyhow::Result<Exit> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "portguard", &mut script);
    print(|out| out.write_all(&script))?;
    Ok(Exit::Ok)
}
