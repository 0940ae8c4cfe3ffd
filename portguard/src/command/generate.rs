//! `portguard completions`: a script by which a shell asks portguard itself what may come next.

use clap::Args;
use clap_complete::Shell;
use serde::Serialize;

use super::complete;
use crate::stdout::{print, print_json};
use portguard_policy::error::Exit;

/// Write a completion script for a shell
///
/// The script asks portguard at each tab key, so that it completes the roles, interfaces, hosts and deployments that are there.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  source <(portguard completions bash)  in this shell only
  portguard completions bash > /etc/bash_completion.d/portguard
      for everybody, from the next shell on
  portguard completions zsh > /usr/local/share/zsh/site-functions/_portguard
  portguard completions fish > ~/.config/fish/completions/portguard.fish")]
pub struct CompletionsArgs {
    /// The shell
    shell: Shell,
    /// Write JSON: the script as a string
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Answer {
    shell: String,
    script: String,
}

/// Writes a completion script.
///
/// # Errors
/// If standard output cannot be written.
pub fn completions(args: &CompletionsArgs) -> anyhow::Result<Exit> {
    let shell = args.shell.to_string();
    let script = complete::script(&shell);
    if args.json {
        print_json(&Answer {
            shell,
            script: String::from_utf8_lossy(&script).into_owned(),
        })?;
    } else {
        print(|out| out.write_all(&script))?;
    }
    Ok(Exit::Ok)
}
