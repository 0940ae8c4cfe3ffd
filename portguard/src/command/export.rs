//! `portguard export`: the same policy for other points of enforcement.

use clap::{Args, ValueEnum};

use super::explain::accept;
use super::selection::{Resolving, SelectionArgs};
use super::{print, print_json};
use portguard_policy::error::Exit;
use portguard_policy::export::{Document, ruleset};

/// Write the policy for another point of enforcement
///
/// Differences between nftables and the guard are listed in docs/nftables.md.
#[derive(Debug, Args)]
pub struct ExportArgs {
    #[command(flatten)]
    selection: SelectionArgs,
    /// Only the roles that this interface serves
    #[arg(short, long, value_name = "IF")]
    interface: Option<String>,
    /// What to write
    #[arg(long, value_enum)]
    format: Format,
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
        Format::Nftables => {
            let text = ruleset(&policy, args.interface.as_deref());
            print(|out| out.write_all(text.as_bytes()))?;
        }
        Format::Json => print_json(&Document::new(&policy))?,
    }
    Ok(Exit::Ok)
}
