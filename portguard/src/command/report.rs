//! `portguard report`: evidence for a security review.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args, ValueEnum};

use super::{drift, print};
use crate::catalog::Catalog;
use crate::counters::Report;
use crate::error::Exit;
use crate::history;
use crate::human::now;
use crate::observe;
use crate::report::{Evidence, Guard, csv, html, markdown};

/// Callers that a report lists by interface.
const CALLERS: usize = 25;

/// Write a report for a security review: the matrix with live numbers, violations, drift, digests and citations
#[derive(Debug, Args)]
pub struct ReportArgs {
    /// Only this interface
    #[arg(short, long, value_name = "IF")]
    interface: Option<String>,
    /// HTML is one self-contained file
    #[arg(long, value_enum, default_value_t = Format::Html)]
    format: Format,
    /// Where to write [default: standard output]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Since the first load, whatever was reset since
    #[arg(long)]
    raw: bool,
    /// Where the agent keeps its samples
    #[arg(long, value_name = "DIR", default_value = history::DIRECTORY)]
    history: PathBuf,
}

/// `--format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// A page to attach.
    Html,
    /// For tickets and wikis.
    Markdown,
    /// For spreadsheets.
    Csv,
}

/// Writes the report.
///
/// # Errors
/// If an interface is named that is not guarded, and what the system refuses.
pub fn run(args: &ReportArgs) -> anyhow::Result<Exit> {
    let evidence = gather(args)?;
    let text = match args.format {
        Format::Html => html(&evidence),
        Format::Markdown => markdown(&evidence),
        Format::Csv => csv(&evidence),
    };
    match &args.output {
        None => print(|out| out.write_all(text.as_bytes()))?,
        Some(path) => {
            replace(path, &text).with_context(|| format!("cannot write `{}`", path.display()))?;
            let _ = writeln!(io::stderr(), "wrote {}", path.display());
        }
    }
    Ok(Exit::Ok)
}

/// Whole or not at all.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(".part");
    let part = path.with_file_name(name);
    fs::write(&part, text)?;
    fs::rename(part, path)
}

fn gather(args: &ReportArgs) -> anyhow::Result<Evidence> {
    let observed = observe::interfaces(args.interface.as_deref())?;
    let seen: Vec<Report> = observed.iter().map(|one| one.report(args.raw)).collect();
    let callers = drift::callers(&observed)?;
    let drift = drift::gather(&drift::in_force(&observed), &seen, &callers)?;
    let catalog = Catalog::embedded()?;
    let knocking = observed.iter().map(|one| one.knocking(&catalog, CALLERS));
    let knocking = knocking.collect::<anyhow::Result<Vec<_>>>()?;
    let guards: Vec<Guard> = observed
        .into_iter()
        .zip(seen)
        .zip(knocking)
        .map(|((one, report), knocking)| Guard {
            knocking,
            history: history::read(&args.history, &one.name),
            report,
            policy: one.live.meta.policy,
            xdp_mode: one.live.meta.xdp_mode.name(),
            loaded_at: one.live.meta.loaded_at,
            loaded_by: one.live.meta.version,
            site: one.live.meta.site,
            warnings: one.live.warnings,
            resets: one.resets.map(|resets| resets.record).unwrap_or_default(),
        })
        .collect();
    let system = nix::sys::utsname::uname().context("cannot ask the kernel for its name")?;
    let text = |part: &std::ffi::OsStr| part.to_string_lossy().into_owned();
    let named = guards.iter().find_map(|guard| guard.policy.host.clone());
    Ok(Evidence {
        host: named.unwrap_or_else(|| text(system.nodename())),
        kernel: format!("{} {}", text(system.sysname()), text(system.release())),
        made_at: now(),
        guards,
        drift,
    })
}
