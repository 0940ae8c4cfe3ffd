//! `portguard export`: the same policy for other points of enforcement.

use clap::{Args, ValueEnum};
use serde::Serialize;

use super::explain::accept;
use super::selection::{Resolving, SelectionArgs};
use crate::stdout::{print, print_json};
use portguard_policy::error::Exit;
use portguard_policy::export::{Document, ruleset};

/// Write the policy for another point of enforcement
///
/// Differences between nftables and the guard are listed in docs/nftables.md.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  portguard export -c site.toml --host db1 --format nftables > db1.nft
      then `nft -c -f db1.nft`
  portguard export --role thoughtspot/node --unprinted-peers any \\
      --unresolved-peers any --json")]
pub struct ExportArgs {
    #[command(flatten)]
    selection: SelectionArgs,
    /// Only the roles that this interface serves
    #[arg(short, long, value_name = "IF")]
    interface: Option<String>,
    /// What to write
    #[arg(long, value_enum, required_unless_present = "json")]
    format: Option<Format>,
    /// Write JSON: the compiled policy, or with `--format nftables` the ruleset as a string
    #[arg(long)]
    json: bool,
}

/// A ruleset, `--json`.
#[derive(Debug, Serialize)]
struct Answer {
    format: &'static str,
    text: String,
}

/// `--format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// A ruleset for `nft -f`.
    Nftables,
    /// The compiled policy.
    Json,
}

/// Exports.
///
/// # Errors
/// [`portguard_policy::diagnostic::Rejected`] policies.
pub fn run(args: &ExportArgs) -> anyhow::Result<Exit> {
    let loaded = args.selection.load(Resolving::Always)?;
    let policy = accept(loaded.compile(args.interface.as_deref()))?;
    match args.format {
        Some(Format::Nftables) => {
            let text = ruleset(&policy, args.interface.as_deref());
            if args.json {
                print_json(&Answer {
                    format: "nftables",
                    text,
                })?;
            } else {
                print(|out| out.write_all(text.as_bytes()))?;
            }
        }
        Some(Format::Json) | None => print_json(&Document::new(&policy))?,
    }
    Ok(Exit::Ok)
}
