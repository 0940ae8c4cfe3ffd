//! `portguard diff`: what a policy would change.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::explain::accept;
use super::selection::{Resolving, SelectionArgs};
use crate::fold::{folded, width};
use crate::stdout::{print, print_json};
use portguard_observe::observe::{self, Guard};
use portguard_policy::diff::{Difference, diff};
use portguard_policy::error::{Exit, Fault};
use portguard_policy::human::plain_lines;
use portguard_policy::policy::Policy;

/// Show what loading would change, or how two site files differ
///
/// Compares rows, what is open to whom, and settings. Exit code 0 = no difference, 1 = differences.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  portguard diff -c site.toml  what `load -c site.toml` would change
  portguard diff --between old.toml new.toml --host db1")]
pub struct DiffArgs {
    #[command(flatten)]
    selection: SelectionArgs,
    /// Interface whose policy in force is compared [default: all guarded ones]
    #[arg(short, long, value_name = "IF")]
    interface: Option<String>,
    /// Compare two site files instead of a file with the policy in force
    #[arg(long, num_args = 2, value_names = ["BEFORE", "AFTER"])]
    between: Option<Vec<PathBuf>>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Answer {
    same: bool,
    comparisons: Vec<Comparison>,
}

#[derive(Debug, Serialize)]
struct Comparison {
    before: String,
    after: String,
    #[serde(flatten)]
    difference: Difference,
}

/// Compares.
///
/// # Errors
/// [`portguard_policy::diagnostic::Rejected`] policies, and nothing to compare with.
pub fn run(args: &DiffArgs) -> anyhow::Result<Exit> {
    let comparisons = match args.between.as_deref() {
        Some([before, after]) => vec![Comparison {
            difference: diff(
                &compiled(
                    args,
                    Some(before),
                    args.interface.as_deref(),
                    Resolving::WhenTold,
                )?,
                &compiled(
                    args,
                    Some(after),
                    args.interface.as_deref(),
                    Resolving::WhenTold,
                )?,
            ),
            before: before.display().to_string(),
            after: after.display().to_string(),
        }],
        _ => against_running(args)?,
    };
    let same = comparisons.iter().all(|one| one.difference.same);
    if args.json {
        print_json(&Answer { same, comparisons })?;
    } else {
        print(|out| {
            for one in &comparisons {
                let text = format!("{} -> {}\n{}", one.before, one.after, one.difference);
                for line in plain_lines(&text).lines() {
                    writeln!(out, "{}", folded(line, width()))?;
                }
            }
            Ok(())
        })?;
    }
    Ok(if same { Exit::Ok } else { Exit::Findings })
}

/// Names are resolved as `load` does: the question is what loading would change.
fn against_running(args: &DiffArgs) -> anyhow::Result<Vec<Comparison>> {
    let guards = observe::guards(args.interface.as_deref())?;
    if guards.is_empty() {
        return Err(Fault::usage("no interface is guarded")
            .hint("compare two site files with `--between BEFORE AFTER`")
            .into());
    }
    let mut comparisons = Vec::new();
    for Guard {
        name: interface,
        live,
        ..
    } in guards
    {
        let before = live.meta.policy;
        let after = compiled(args, None, Some(&interface), Resolving::Always)?;
        comparisons.push(Comparison {
            difference: diff(&before, &after),
            before: format!("in force on {interface}"),
            after: args
                .selection
                .site()
                .map_or("the command line".to_owned(), |path| {
                    path.display().to_string()
                }),
        });
    }
    Ok(comparisons)
}

fn compiled(
    args: &DiffArgs,
    file: Option<&PathBuf>,
    interface: Option<&str>,
    resolving: Resolving,
) -> anyhow::Result<Policy> {
    let mut selection = args.selection.clone();
    if let Some(file) = file {
        selection.config = Some(file.clone());
    }
    Ok(accept(selection.load(resolving)?.compile(interface))?)
}
