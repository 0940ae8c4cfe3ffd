//! `portguard completions` and `portguard man`: made from the command line's own definition.

use std::fs;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use super::print;
use crate::cli::Cli;
use portguard_policy::error::Exit;

/// Write a completion script for a shell
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

/// Write the manual page, or one for each verb into a directory
#[derive(Debug, Args)]
pub struct ManArgs {
    /// Directory for the pages of all verbs; without, the main page goes to standard output
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// Writes a completion script.
///
/// # Errors
/// If standard output cannot be written.
pub fn completions(args: &CompletionsArgs) -> anyhow::Result<Exit> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "portguard", &mut script);
    print(|out| out.write_all(&script))?;
    Ok(Exit::Ok)
}

/// Writes manual pages.
///
/// # Errors
/// If the output cannot be written.
pub fn man(args: &ManArgs) -> anyhow::Result<Exit> {
    if let Some(directory) = &args.out {
        fs::create_dir_all(directory)
            .and_then(|()| clap_mangen::generate_to(Cli::command(), directory))
            .with_context(|| format!("cannot write to `{}`", directory.display()))?;
        return Ok(Exit::Ok);
    }
    let mut page = Vec::new();
    clap_mangen::Man::new(Cli::command()).render(&mut page)?;
    print(|out| out.write_all(&page))?;
    Ok(Exit::Ok)
}
