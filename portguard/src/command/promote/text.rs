//! What speaks for and against enforcing, for people.

use std::collections::BTreeSet;
use std::io::{self, Write};

use super::{CLOSES, Case};
use crate::command::table::Column::{Number, Prose, SpareWhole, Whole};
use crate::command::table::{Grid, hanging};
use crate::command::traffic;
use portguard_observe::evidence::judge::{Judged, State};
use portguard_policy::human::{count, duration, grouped, plain, time};

/// Rows that come near a flow, of which so many are named.
const NEAREST: usize = 3;
/// Flows that are so few that what to do about each is shown unasked.
const FEW: usize = 3;

/// A time that is not always known.
fn moment(at: u64) -> String {
    if at == 0 { "-".to_owned() } else { time(at) }
}

pub(super) fn text(out: &mut dyn Write, case: &Case, verbose: bool) -> io::Result<()> {
    writeln!(
        out,
        "{}: inbound {}, outbound {}\n  watched for {} since {}, {}",
        plain(&case.interface),
        case.effective.inbound,
        case.effective.outbound,
        duration(case.watched_seconds),
        time(case.since),
        count(case.packets, "packet")
    )?;
    if let Some(because) = &case.effective.because {
        hanging(out, "  warning: ", &plain(because))?;
    }
    traffic::table(
        out,
        &case.findings,
        Some("\nFindings since the first load\n"),
    )?;
    if !case.flows.is_empty() {
        writeln!(out, "By peer\n")?;
        let mut table = Grid::new(&[
            ("", Whole),
            ("flow", Whole),
            ("peer", Whole),
            ("packets", Number),
            ("last", SpareWhole),
            ("by", Prose),
            ("reason", SpareWhole),
            ("first", SpareWhole),
        ]);
        for flow in &case.flows {
            let by = match (&flow.accepted, flow.rows.is_empty()) {
                (Some(said), _) => format!("{} on {}: {}", said.by, time(said.at), said.why),
                (None, false) => flow.rows.join(", "),
                (None, true) => String::new(),
            };
            table.row([
                flow.state.name().to_owned(),
                format!("{} {}", flow.direction, flow.what),
                flow.peer.clone().unwrap_or_else(|| "unknown".to_owned()),
                grouped(flow.packets),
                moment(flow.last),
                plain(&by),
                flow.reason.clone(),
                moment(flow.first),
            ]);
        }
        writeln!(out, "{table}")?;
        writeln!(
            out,
            "packets of a flow are estimates where violations came faster than 64 a second"
        )?;
    }
    unexplained(out, &case.flows, verbose)?;
    if case.against.is_empty() {
        writeln!(out, "\n{}: ready to enforce", case.interface)?;
    }
    for reason in &case.against {
        writeln!(out)?;
        let mut words = plain(&reason.message);
        if reason.code == CLOSES {
            words.push_str("; load it in audit first");
        }
        hanging(out, &format!("{}: ", case.interface), &words)?;
    }
    if !case.against.is_empty() {
        let reasons = count(case.against.len() as u64, "reason");
        writeln!(
            out,
            "\n{}: refused for {reasons}; what is in force stays",
            case.interface
        )?;
    }
    Ok(())
}

/// What nobody has said anything about: the rows that come near, and what to do. Many flows only where they are asked for.
fn unexplained(out: &mut dyn Write, flows: &[Judged], verbose: bool) -> io::Result<()> {
    let mut shown = BTreeSet::new();
    let open: Vec<&Judged> = flows
        .iter()
        .filter(|flow| flow.state == State::Unexplained)
        // One of before a load and one of after it have the same answer.
        .filter(|flow| shown.insert((&flow.direction, &flow.what, &flow.peer)))
        .collect();
    if open.len() > FEW && !verbose {
        writeln!(out)?;
        let more = "`-v` shows, for each flow, the nearest rows, how to accept it, and a row that would admit it";
        return hanging(out, "", more);
    }
    open.into_iter().try_for_each(|flow| advice(out, flow))
}

fn advice(out: &mut dyn Write, flow: &Judged) -> io::Result<()> {
    let peer = flow.peer.as_deref();
    let of = peer.unwrap_or("unknown peers");
    writeln!(out, "\n{} {} of {of}:", flow.direction, flow.what)?;
    for near in flow.nearest.iter().take(NEAREST) {
        hanging(out, "  ", &plain(&near.words))?;
    }
    let rest = flow.nearest.len().saturating_sub(NEAREST);
    if rest > 0 {
        let rows = count(rest as u64, "more row");
        writeln!(out, "  and {rows} that are less near; `--json` has all")?;
    }
    let accepts = if flow.direction == "out" { "out:" } else { "" };
    let peer = peer.map_or(String::new(), |peer| format!("={peer}"));
    writeln!(
        out,
        "  to drop it: `--accept {accepts}{}{peer} --because ...`",
        flow.what
    )?;
    if let Some(lines) = &flow.site {
        writeln!(
            out,
            "  to admit it, in the site file:\n    {}",
            lines.replace('\n', "\n    ")
        )?;
    }
    Ok(())
}
