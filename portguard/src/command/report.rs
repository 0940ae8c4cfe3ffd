//! `portguard report`: evidence for a security review.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use serde::Serialize;

use super::{catalogs, drift};
use crate::report::{Evidence, Guard, csv, html, markdown};
use crate::stderr::stderr;
use crate::stdout::{print, print_json};
use portguard_fleet::now;
use portguard_observe::counters::Report;
use portguard_observe::findings::{Finding, without_scans};
use portguard_observe::history::{self, Sample};
use portguard_observe::observe::{self, Observed};
use portguard_observe::talkers::TopTalkers;
use portguard_policy::error::{Exit, Fault};
use portguard_policy::human::plain;

/// Callers that a report lists by interface.
const TALKERS: usize = 25;
/// Of so many, those of scans are left out.
const ASKED: usize = 4 * TALKERS;

/// Write a report for a security review: the matrix with live numbers, violations, drift, digests and citations
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  portguard report -o report.html                    one page to attach
  portguard report --format markdown | less
  portguard report --format csv -o report.csv")]
pub struct ReportArgs {
    /// Only this interface
    #[arg(short, long, value_name = "IF")]
    interface: Option<String>,
    /// HTML is one self-contained file
    #[arg(long, value_enum, default_value_t = Format::Html)]
    format: Format,
    /// Write the numbers as JSON instead of a page
    #[arg(long, conflicts_with_all = ["format", "output"])]
    json: bool,
    /// Where to write [default: standard output]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Count from the first load, ignoring resets
    #[arg(long)]
    raw: bool,
    /// Where the agent keeps its samples [default: /var/lib/portguard/history, if it exists]
    #[arg(long, value_name = "DIR")]
    history: Option<PathBuf>,
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
    let exit = if evidence.guards.is_empty() {
        let _ = writeln!(
            stderr(),
            "no pass: no interface of this host is guarded, so there is no evidence of traffic; `portguard load --audit` begins \
             to gather it"
        );
        Exit::Findings
    } else {
        Exit::Ok
    };
    if args.json {
        print_json(&summary(&evidence))?;
        return Ok(exit);
    }
    let text = match args.format {
        Format::Html => html(&evidence),
        Format::Markdown => markdown(&evidence),
        Format::Csv => csv(&evidence),
    };
    match &args.output {
        None => print(|out| out.write_all(text.as_bytes()))?,
        Some(path) => {
            replace(path, &text).with_context(|| format!("cannot write `{}`", path.display()))?;
            let _ = writeln!(stderr(), "wrote {}", path.display());
        }
    }
    Ok(exit)
}

#[derive(Debug, Serialize)]
struct Summary<'e> {
    host: &'e str,
    kernel: &'e str,
    #[serde(serialize_with = "portguard_policy::human::seconds::serialize")]
    made_at: u64,
    /// Whether any interface is guarded; if not, this is no evidence of anything.
    guarded: bool,
    /// Violations by their cause, as every view counts them.
    findings: usize,
    /// Ports that documents and services do not agree about, without any violation.
    mismatches: usize,
    interfaces: Vec<Guarded<'e>>,
}

#[derive(Debug, Serialize)]
struct Guarded<'e> {
    roles: &'e [String],
    #[serde(flatten)]
    report: &'e Report,
    traffic: &'e [Finding],
}

fn summary(evidence: &Evidence) -> Summary<'_> {
    let drift = &evidence.drift;
    Summary {
        host: &evidence.host,
        kernel: &evidence.kernel,
        made_at: evidence.made_at,
        guarded: !evidence.guards.is_empty(),
        findings: drift.findings(),
        mismatches: drift.mismatches(),
        interfaces: evidence
            .guards
            .iter()
            .map(|guard| Guarded {
                roles: &guard.policy.roles,
                report: &guard.report,
                traffic: &guard.findings,
            })
            .collect(),
    }
}

/// Whole or not at all, where there is a file or none; what is not a regular file (a device, a pipe, a symbolic link) is
/// written to as it stands.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    if fs::symlink_metadata(path).is_ok_and(|there| !there.is_file()) {
        return fs::OpenOptions::new()
            .write(true)
            .truncate(true)
            .open(path)?
            .write_all(text.as_bytes());
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let part = path.with_file_name(format!(".{name}.{}.part", std::process::id()));
    // Made anew, or not at all: nobody has put a link of this name there.
    let written = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&part)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .and_then(|()| fs::rename(&part, path));
    if written
        .as_ref()
        .is_err_and(|error| error.kind() != io::ErrorKind::AlreadyExists)
    {
        let _ = fs::remove_file(&part);
    }
    written
}

fn gather(args: &ReportArgs) -> anyhow::Result<Evidence> {
    let observed = observe::interfaces(args.interface.as_deref())?;
    let catalog = catalogs::in_force(observed.iter().map(|one| &one.live.meta))?;
    let here = observe::listeners()?;
    let sights = drift::sights(&observed, &here.1, &catalog, args.raw);
    let drift = drift::gather(&drift::in_force(&observed), &catalog, here, &sights);
    drift::warn(&drift.unread);
    let mut top_talkers: Vec<TopTalkers> = observed
        .iter()
        .map(|one| one.top_talkers(Some(&catalog), ASKED, args.raw))
        .collect();
    let mut histories = Vec::new();
    for (one, sight) in observed.iter().zip(&sights) {
        histories.push(history_of(args, one, &sight.report)?);
    }
    for (top_talkers, sight) in top_talkers.iter_mut().zip(&sights) {
        without_scans(&mut top_talkers.talkers, &sight.findings);
        top_talkers.talkers.truncate(TALKERS);
    }
    let guards: Vec<Guard> = observed
        .into_iter()
        .zip(sights)
        .zip(top_talkers)
        .zip(histories)
        .map(|(((one, sight), top_talkers), (history, damage))| Guard {
            findings: sight.findings,
            top_talkers,
            history,
            report: sight.report,
            policy: one.live.meta.policy,
            xdp_mode: one.live.meta.xdp_mode.name(),
            loaded_at: one.live.meta.loaded_at,
            loaded_by: one.live.meta.version,
            site: one.live.meta.sources.site,
            warnings: one.live.warnings.into_iter().chain(damage).collect(),
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

/// The samples of an interface from the moment that its report counts from a reset, and what is wrong with them. What there
/// is not is said, on standard error.
fn history_of(
    args: &ReportArgs,
    one: &Observed,
    report: &Report,
) -> anyhow::Result<(Vec<Sample>, Option<String>)> {
    let name = one.pinned_name();
    let directory = args.history.as_deref();
    if let Some(given) = directory.filter(|given| !given.is_dir()) {
        let fault = Fault::usage(format!("there is no directory `{}`", given.display()));
        let hint = "`--history` names the one that `portguard agent --history` keeps samples in";
        return Err(fault.hint(hint).into());
    }
    let directory = directory.unwrap_or(Path::new(history::DIRECTORY));
    let read = history::read(directory, &name).with_context(|| {
        let place = directory.display();
        format!("cannot read the samples of `{name}` in `{place}`")
    })?;
    let mut err = stderr();
    let Some(history) = read else {
        let _ = writeln!(
            err,
            "{}: no samples in `{}` yet, so no history: `portguard agent` takes one a minute",
            plain(&name),
            directory.display()
        );
        return Ok((Vec::new(), None));
    };
    let since = report.reset.as_ref().map_or(0, |reset| reset.at);
    let samples = history.samples.into_iter();
    let samples = samples.filter(|sample| sample.at >= since).collect();
    let damage = (history.damaged > 0).then(|| {
        let lines = if history.damaged == 1 {
            "line of the samples over time is"
        } else {
            "lines of the samples over time are"
        };
        format!(
            "{} {lines} damaged and left out (`{}`)",
            history.damaged,
            directory.display()
        )
    });
    if let Some(damage) = &damage {
        let _ = writeln!(err, "warning: {}: {}", plain(&name), plain(damage));
    }
    Ok((samples, damage))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{FileTypeExt as _, symlink};

    use super::*;

    #[test]
    fn what_is_no_file_stays_what_it_is() {
        let directory =
            std::env::temp_dir().join(format!("portguard-report-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let [target, link, pipe] = ["target", "link", "pipe"].map(|name| directory.join(name));
        replace(&target, "one").unwrap();
        symlink(&target, &link).unwrap();
        replace(&link, "two").unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read_to_string(&target).unwrap(), "two");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let reader = std::thread::spawn({
            let pipe = pipe.clone();
            move || fs::read_to_string(pipe).unwrap()
        });
        replace(&pipe, "three").unwrap();
        assert_eq!(reader.join().unwrap(), "three");
        assert!(fs::symlink_metadata(&pipe).unwrap().file_type().is_fifo());
        assert_eq!(
            fs::read_dir(&directory).unwrap().count(),
            3,
            "nothing is left"
        );
        fs::remove_dir_all(&directory).unwrap();
    }
}
