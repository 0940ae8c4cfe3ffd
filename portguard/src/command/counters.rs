//! `portguard counters`: what passed, by row and port, and what did not.

mod reset;
mod text;

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::io::{self, IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use clap::{Args, Subcommand, ValueEnum};
use serde::Serialize;

use self::text::Rates;
use super::{catalogs, traffic};
use crate::stdout::{is_read, json_line, print, print_json};
use portguard_common::talkers::CLIENT_PORTS;
use portguard_fleet::now;
use portguard_observe::counters::{PortCount, ReasonCount, Report, RowCount, Snapshot};
use portguard_observe::findings::{Finding, Kind, name_left_out, without_scans};
use portguard_observe::observe::{self, Observed};
use portguard_observe::talkers::TopTalkers;
use portguard_policy::error::Exit;

/// Talkers that are listed unless `--top` says more.
const TALKERS: usize = 20;
/// Of so many, those of scans are left out.
const ASKED: usize = 4 * TALKERS;

/// Show counters by port, row, reason or peer, with the document's rows cited
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
Examples:
  portguard counters --violations  what enforcing would drop, one line a cause
  portguard counters --by row      which rows of the documents are used
  portguard counters --by peer --top 10  who causes violations
  portguard counters --watch --json | jq -c '.interfaces[] | {name, violations}'
  portguard counters reset --note \"after the upgrade\""
)]
pub struct CountersArgs {
    #[command(subcommand)]
    verb: Option<Verb>,
    /// Only this interface
    #[arg(short, long, value_name = "IF")]
    interface: Option<String>,
    /// What to sum by
    #[arg(long, value_enum, default_value_t = By::Port)]
    by: By,
    /// Only undocumented traffic
    #[arg(long)]
    violations: bool,
    /// Only the N largest
    #[arg(long, value_name = "N", value_parser = super::at_least_one)]
    top: Option<usize>,
    /// Count from the first load, ignoring resets
    #[arg(long)]
    raw: bool,
    /// Refresh every N seconds, with rates, until interrupted; with `--json`, one object a line
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "1",
          value_parser = clap::value_parser!(u64).range(1..=3600))]
    watch: Option<u64>,
    /// Write JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Reset(reset::ResetArgs),
}

/// `--by`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum By {
    /// Transport and port.
    Port,
    /// Row of a document.
    Row,
    /// Reason of the verdict.
    Reason,
    /// Peers that the policy names, and top talkers.
    Peer,
}

#[derive(Debug, Serialize)]
struct Answer {
    /// When it was read.
    #[serde(serialize_with = "portguard_policy::human::seconds::serialize")]
    time: u64,
    interfaces: Vec<Shown>,
}

impl Answer {
    fn new(args: &CountersArgs, observed: &[Observed]) -> anyhow::Result<Self> {
        let all = observed.iter().map(|one| narrowed(one, args));
        Ok(Self {
            time: now(),
            interfaces: all.collect::<anyhow::Result<_>>()?,
        })
    }
}

/// Shows the counters.
///
/// # Errors
/// If an interface is named that is not guarded, and what the system refuses.
pub fn run(args: &CountersArgs) -> anyhow::Result<Exit> {
    if let Some(Verb::Reset(args)) = &args.verb {
        return reset::run(args);
    }
    if let Some(seconds) = args.watch {
        return watch(args, Duration::from_secs(seconds));
    }
    let observed = observe::interfaces(args.interface.as_deref())?;
    if args.json {
        print_json(&Answer::new(args, &observed)?)?;
    } else {
        let screen = screen(args, &observed, None)?;
        print(|out| out.write_all(&screen))?;
    }
    Ok(Exit::Ok)
}

/// What is shown of an interface.
#[derive(Debug, Serialize)]
struct Shown {
    #[serde(flatten)]
    report: Report,
    /// Violations by their cause.
    findings: Vec<Finding>,
    /// Who caused violations; only where it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[serde(rename = "knocking")]
    top_talkers: Option<TopTalkers>,
    /// All rows, for what ports are for.
    #[serde(skip)]
    rows: Vec<RowCount>,
    /// What passed and is counted for no port, with what that is.
    #[serde(skip)]
    without_port: Vec<(ReasonCount, &'static str)>,
    /// Ports beyond `--top`, and packets that passed by them.
    #[serde(skip)]
    ports_left_out: (usize, u64),
    /// How many violations there were, and what becomes of such.
    #[serde(skip)]
    violated: String,
    #[serde(skip)]
    violations_only: bool,
    /// Findings beyond `--top`.
    findings_left_out: usize,
    /// Violations of those.
    violations_left_out: u64,
}

fn narrowed(one: &Observed, args: &CountersArgs) -> anyhow::Result<Shown> {
    let mut report = one.report(args.raw);
    let rows = report.rows.clone();
    let mut findings = one.findings(&observe::sockets()?, args.raw);
    let meta = &one.live.meta;
    let catalog = (args.by == By::Peer || traffic::may_be_left_out(&findings, meta))
        .then(|| catalogs::in_force(std::iter::once(meta)))
        .transpose()?;
    if let Some(catalog) = &catalog {
        name_left_out(&mut findings, &meta.policy, catalog);
    }
    let without_port = report.passed_without_port();
    let without_port = without_port
        .map(|(count, what)| (count.clone(), what))
        .collect();
    let violated = report.describe_violations();
    fold_clients(&mut report, &findings);
    let ports_left_out = narrow(&mut report, args);
    let left_out = match args.top {
        Some(top) if args.by == By::Port => findings.split_off(top.min(findings.len())),
        _ => Vec::new(),
    };
    let mut top_talkers = None;
    if args.by == By::Peer {
        let most = match (args.top, args.json) {
            (Some(top), _) => top,
            (None, true) => usize::MAX,
            (None, false) => ASKED,
        };
        let mut all = one.top_talkers(catalog.as_ref(), most, args.raw);
        if args.top.is_none() && !args.json {
            without_scans(&mut all.talkers, &findings);
            all.talkers.truncate(TALKERS);
        }
        top_talkers = Some(all);
    }
    Ok(Shown {
        report,
        findings,
        top_talkers,
        rows,
        without_port,
        ports_left_out,
        violated,
        violations_only: args.violations,
        findings_left_out: left_out.len(),
        violations_left_out: left_out.iter().map(|one| one.violations).sum(),
    })
}

/// Ports of other hosts' clients, which this host answered, are one line a transport: they say nothing each.
pub(super) fn fold_clients(report: &mut Report, findings: &[Finding]) {
    let asked = |port: &PortCount| {
        findings.iter().any(|finding| {
            finding.kind == Kind::UndocumentedDestinationPort
                && finding
                    .transport
                    .is_some_and(|one| one.to_string() == port.transport)
                && finding.port_first.is_some_and(|first| first <= port.port)
                && finding.port_last.is_some_and(|last| port.port <= last)
        })
    };
    let (clients, mut others): (Vec<PortCount>, Vec<PortCount>) = std::mem::take(&mut report.ports)
        .into_iter()
        .partition(|port| {
            port.direction == "out"
                && !port.documented
                && port.passed.packets == 0
                && port.port >= CLIENT_PORTS
                && matches!(port.transport, "tcp" | "udp" | "sctp")
                && !asked(port)
        });
    let mut folded: BTreeMap<&'static str, PortCount> = BTreeMap::new();
    for port in clients {
        if let Some(sum) = folded.get_mut(port.transport) {
            sum.violations.packets += port.violations.packets;
        } else {
            let all = PortCount {
                port: CLIENT_PORTS,
                port_last: Some(u16::MAX),
                ..port
            };
            folded.insert(all.transport, all);
        }
    }
    others.extend(folded.into_values());
    report.ports = others;
}

/// When the counters were last looked at, and what they were.
struct Before {
    at: Instant,
    snapshots: BTreeMap<String, Snapshot>,
}

fn screen(
    args: &CountersArgs,
    observed: &[Observed],
    before: Option<&Before>,
) -> anyhow::Result<Vec<u8>> {
    let mut out = Vec::new();
    if observed.is_empty() {
        writeln!(out, "no interface is guarded")?;
    }
    for (index, one) in observed.iter().enumerate() {
        if index > 0 {
            writeln!(out)?;
        }
        let delta = before.map(|before| {
            let earlier = before.snapshots.get(&one.name);
            let delta = one.raw.since(earlier.unwrap_or(&one.raw));
            let report = Report::new(&one.name, &one.live.meta, &delta);
            (report, before.at.elapsed().as_secs_f64())
        });
        let rates = delta.as_ref().map(|(delta, seconds)| Rates {
            delta,
            seconds: *seconds,
        });
        text::interface(&mut out, &narrowed(one, args)?, args.by, rates.as_ref())?;
    }
    Ok(out)
}

/// Redraws on a terminal, appends elsewhere; ends well when interrupted.
fn watch(args: &CountersArgs, every: Duration) -> anyhow::Result<Exit> {
    super::block_on(async {
        let mut stop = std::pin::pin!(super::interrupted()?);
        let mut clock = tokio::time::interval(every);
        let mut before: Option<Before> = None;
        loop {
            tokio::select! {
                () = &mut stop => return Ok(Exit::Ok),
                _ = clock.tick() => {}
            }
            let observed = observe::interfaces(args.interface.as_deref())?;
            if args.json {
                let mut line = Vec::new();
                json_line(&mut line, &Answer::new(args, &observed)?)?;
                if !append(&[&line])? {
                    return Ok(Exit::Ok);
                }
                continue;
            }
            let at = Instant::now();
            let drawn = screen(args, &observed, before.as_ref())?;
            if !redraw(&fitted(drawn))? {
                return Ok(Exit::Ok);
            }
            let snapshots = observed
                .into_iter()
                .map(|one| (one.name, one.raw))
                .collect();
            before = Some(Before { at, snapshots });
        }
    })
}

/// What fits on the terminal: scrolled away, the head would be gone.
fn fitted(drawn: Vec<u8>) -> Vec<u8> {
    let Ok((_, rows)) = ratatui::crossterm::terminal::size() else {
        return drawn;
    };
    if !io::stdout().is_terminal() || rows < 2 {
        return drawn;
    }
    cut(drawn, rows.into())
}

fn cut(drawn: Vec<u8>, rows: usize) -> Vec<u8> {
    let lines = drawn.split(|byte| *byte == b'\n').count() - 1;
    if lines < rows {
        return drawn;
    }
    let kept = rows.saturating_sub(2);
    let end = drawn
        .iter()
        .enumerate()
        .filter(|(_, byte)| **byte == b'\n')
        .nth(kept.saturating_sub(1))
        .map_or(0, |(at, _)| at + 1);
    let mut shown = drawn.get(..end).unwrap_or_default().to_vec();
    let more = format!(
        "... {} more lines; `--top`, `--violations` or a taller screen\n",
        lines - kept
    );
    shown.extend_from_slice(more.as_bytes());
    shown
}

/// The same numbers as lines of JSON, with the talkers, until interrupted.
///
/// # Errors
/// As [`run`].
pub(super) fn lines(interface: Option<&str>, every: Duration) -> anyhow::Result<Exit> {
    let args = CountersArgs {
        verb: None,
        interface: interface.map(str::to_owned),
        by: By::Peer,
        violations: false,
        top: None,
        raw: false,
        watch: Some(every.as_secs()),
        json: true,
    };
    watch(&args, every)
}

/// Says whether anybody still reads.
fn append(parts: &[&[u8]]) -> anyhow::Result<bool> {
    let mut out = io::stdout().lock();
    let written = parts.iter().try_for_each(|part| out.write_all(part));
    is_read(written.and_then(|()| out.flush()))
}

/// Says whether anybody still reads.
fn redraw(drawn: &[u8]) -> anyhow::Result<bool> {
    // Home, then erase what is below: flickers less than erasing first, and needs no colour.
    if io::stdout().is_terminal() {
        append(&[b"\x1b[H\x1b[J", drawn])
    } else {
        append(&[drawn, b"\n"])
    }
}

/// Says of how many ports, and packets that passed by them, nothing is shown.
fn narrow(report: &mut Report, args: &CountersArgs) -> (usize, u64) {
    if args.violations {
        report.ports.retain(|port| port.violations.packets > 0);
        report.reasons.retain(|reason| reason.violation);
        let reasons = &report.reasons;
        report.causes.retain(|cause| {
            let mut reasons = reasons.iter();
            cause.kind == "malformed"
                || reasons.any(|reason| {
                    reason.reason == "strict-ethertype" && reason.direction == cause.direction
                })
        });
    }
    let Some(top) = args.top else {
        return (0, 0);
    };
    let only = args.violations;
    report.ports.sort_by_key(|port| {
        let passed = if only { 0 } else { port.passed.packets };
        Reverse(port.violations.packets.max(passed))
    });
    let left = report.ports.split_off(top.min(report.ports.len()));
    let left = left.iter().filter(|port| text::is_listed(port));
    let left = left.fold((0, 0), |(ports, packets), port| {
        (ports + 1, packets + port.passed.packets)
    });
    report.rows.sort_by_key(|row| Reverse(row.packets));
    report.rows.truncate(top);
    report.reasons.sort_by_key(|reason| Reverse(reason.packets));
    report.reasons.truncate(top);
    report.peers.sort_by_key(|peer| Reverse(peer.packets));
    report.peers.truncate(top);
    left
}

#[cfg(test)]
mod tests {
    use super::cut;

    #[test]
    fn a_watched_screen_keeps_its_head() {
        let lines = (0..50).fold(String::new(), |text, number| {
            text + &format!("line {number}\n")
        });
        let shown = String::from_utf8(cut(lines.clone().into_bytes(), 24)).unwrap();
        assert_eq!(shown.lines().count(), 23);
        assert!(
            shown.starts_with("line 0\n") && shown.contains("... 28 more lines"),
            "{shown}"
        );
        assert_eq!(cut(lines.clone().into_bytes(), 60), lines.into_bytes());
    }
}
