//! `portguard explain --pcap`: each frame of a capture, and sums by reason.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Write};
use std::path::Path;

use serde::Serialize;

use super::{ExplainArgs, exit};
use crate::stderr::say;
use crate::stdout::{json_line, print};
use portguard_policy::error::{Exit, Fault};
use portguard_policy::explain::capture::{self, CaptureError, Captured, End};
use portguard_policy::explain::{Answer, Explainer, Outcome};
use portguard_policy::human::plain_lines;

/// A frame of a capture, `--json`.
#[derive(Debug, Serialize)]
struct FrameAnswer<'a> {
    frame: u64,
    #[serde(flatten)]
    judged: Option<Judged<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'static str>,
}

/// An answer without the rows' citations.
#[derive(Debug, Serialize)]
struct Judged<'a> {
    verdict: Outcome,
    reason: &'a str,
    rows: &'a [String],
    mode: &'static str,
    direction: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<&'static str>,
    #[serde(flatten)]
    packet: &'a portguard_policy::explain::Summary,
    nearest: &'a [portguard_policy::explain::Near],
}

#[derive(Debug, Serialize)]
struct Sum {
    direction: &'static str,
    verdict: Outcome,
    reason: String,
    frames: u64,
}

const CUT: &str = "the capture has only part of this frame";

pub(super) fn run(
    args: &ExplainArgs,
    explainer: &Explainer<'_>,
    path: &Path,
) -> anyhow::Result<Exit> {
    let shown = path.display().to_string();
    let file = File::open(path)
        .map_err(|error| Fault::usage(format!("cannot open {}: {error}", plain_lines(&shown))))?;
    let mut sums: BTreeMap<(&'static str, Outcome, String), u64> = BTreeMap::new();
    let mut broken = None;
    let mut is_cut = false;
    print(|out| {
        let result = capture::read(BufReader::new(file), |captured| {
            one(args, explainer, &captured, out, &mut sums)
        });
        match result {
            Ok(end) => {
                is_cut = end == End::Cut;
                summary(args, &sums, out)
            }
            Err(Failure::Write(error)) => Err(error),
            Err(Failure::Capture(error)) => {
                broken = Some(error);
                Ok(())
            }
        }
    })?;
    if let Some(error) = broken {
        return Err(Fault::usage(format!("{}: {error}", plain_lines(&shown))).into());
    }
    if is_cut {
        say(&format!(
            "note: {} ends within a frame; all before it were judged",
            plain_lines(&shown)
        ));
    }
    let drops = sums.keys().any(|(_, outcome, _)| *outcome == Outcome::Drop);
    Ok(exit(if drops { Outcome::Drop } else { Outcome::Pass }))
}

/// A capture that cannot be read, or an output that cannot be written.
enum Failure {
    Capture(CaptureError),
    Write(io::Error),
}

impl From<CaptureError> for Failure {
    fn from(error: CaptureError) -> Self {
        Self::Capture(error)
    }
}

fn one(
    args: &ExplainArgs,
    explainer: &Explainer<'_>,
    captured: &Captured,
    out: &mut dyn Write,
    sums: &mut BTreeMap<(&'static str, Outcome, String), u64>,
) -> Result<(), Failure> {
    let told = args.inbound_packet || args.outbound_packet;
    let direction = match captured.direction {
        Some(direction) if !told => direction,
        _ => args.direction(),
    };
    let answer: Option<Answer> = captured
        .packet
        .map(|packet| explainer.packet(&packet, direction));
    if let Some(answer) = &answer {
        *sums
            .entry((answer.direction, answer.verdict, answer.reason.clone()))
            .or_default() += 1;
    }
    let written = if args.json {
        let judged = answer.as_ref().map(|answer| Judged {
            verdict: answer.verdict,
            reason: &answer.reason,
            rows: &answer.rows,
            mode: answer.mode,
            direction: answer.direction,
            cause: answer.cause,
            packet: &answer.packet,
            nearest: &answer.nearest,
        });
        let line = FrameAnswer {
            frame: captured.number,
            error: judged.is_none().then_some(CUT),
            judged,
        };
        json_line(out, &line)
    } else {
        let number = captured.number;
        match &answer {
            Some(answer) => writeln!(
                out,
                "{number}: {}, {}: {}",
                answer.packet,
                answer.direction,
                plain_lines(&answer.headline())
            ),
            None => writeln!(out, "{number}: {CUT}"),
        }
    };
    written.map_err(Failure::Write)
}

fn summary(
    args: &ExplainArgs,
    sums: &BTreeMap<(&'static str, Outcome, String), u64>,
    out: &mut dyn Write,
) -> io::Result<()> {
    if args.json {
        let summary = sums
            .iter()
            .map(|((direction, verdict, reason), frames)| Sum {
                direction,
                verdict: *verdict,
                reason: reason.clone(),
                frames: *frames,
            })
            .collect::<Vec<_>>();
        return json_line(out, &BTreeMap::from([("summary", summary)]));
    }
    writeln!(out)?;
    for ((direction, outcome, reason), frames) in sums {
        writeln!(
            out,
            "{frames:>8}  {direction:<3}  {}  {reason}",
            outcome.name()
        )?;
    }
    Ok(())
}
