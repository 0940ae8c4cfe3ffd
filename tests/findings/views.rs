//! The number of findings, and of their violations, is the same wherever one looks, whatever traffic there was; and what no
//! violation is behind is none of them.

use std::net::UdpSocket;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use portguard_harness::frames::{Frame, Ipv4, Udp};
use portguard_harness::traffic::{PacketSocket, TcpEcho, connect};
use portguard_policy::human::{count, grouped};
use serde_json::Value;

use super::{ANY, SERVICE, list, text, told};
use crate::agent::{get, listening};
use crate::callers::{HEAVY, json};
use crate::guard::{Guarded, LONG, SOON, eventually};

/// Documented, for others than who comes.
const DOCUMENTED: u16 = 9_443;
/// Listens without a document, and nobody comes.
const QUIET: u16 = 9_101;

/// What something is called, and its violations.
type Findings = Vec<(String, u64)>;

fn counters(guarded: &Guarded) -> Result<Findings> {
    let answer = json(guarded, &["counters", "--json"])?;
    Ok(told(list(&answer["interfaces"][0], "findings")?))
}

/// Those of `drift`, its own number of them, and how many mismatches it has.
fn drift(guarded: &Guarded) -> Result<(Findings, u64, u64)> {
    let answer = json(guarded, &["drift", "--json"])?;
    let items = list(&answer, "items")?;
    let mut all: Findings = told(
        &items
            .iter()
            .filter(|item| item["finding"] == true)
            .map(|item| item["traffic"].clone())
            .collect::<Vec<_>>(),
    );
    all.extend(told(list(&answer, "portless")?));
    all.sort();
    let mismatches = items.iter().filter(|item| item["mismatch"] == true).count() as u64;
    let number = |key: &str| answer[key].as_u64().with_context(|| format!("no {key}"));
    ensure!(number("mismatches")? == mismatches, "{answer:#}");
    Ok((all, number("findings")?, mismatches))
}

fn promote(guarded: &Guarded, state: &Path) -> Result<(Findings, String)> {
    let host = &guarded.link.left.host;
    let run = |more: &[&str]| {
        let mut args = guarded.load_args("--enforce", &[], more);
        args[0] = "promote".to_owned();
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let mut command = Guarded::command(&args);
        command.env("STATE_DIRECTORY", state);
        host.output(&mut command, LONG)
    };
    let output = run(&["--json", "--dry-run"])?;
    let answer: Value = serde_json::from_str(&output.stdout).with_context(|| output.to_string())?;
    let findings = told(list(&answer["interfaces"][0], "findings")?);
    Ok((findings, run(&["--dry-run"])?.stdout))
}

/// What stands on a terminal: it moves to the next word rather than write a space.
fn drawn(text: &str) -> String {
    let pieces = text.split('\x1b').map(|piece| {
        let end = piece.find(|one: char| one.is_ascii_alphabetic());
        end.map_or(piece, |end| piece.get(end + 1..).unwrap_or_default())
    });
    pieces.collect::<Vec<_>>().join(" ")
}

/// Compares all views, once the numbers stand still and there are so many findings; whose mismatches these are.
fn agree(guarded: &Guarded, state: &Path, wanted: usize) -> Result<u64> {
    let mut all = Vec::new();
    eventually("the numbers stand still", || {
        let before = std::mem::replace(&mut all, counters(guarded)?);
        Ok(all == before && all.len() >= wanted)
    })
    .with_context(|| format!("{wanted} findings: {all:#?}"))?;
    ensure!(all.len() == wanted, "{wanted} findings: {all:#?}");
    let number = all.len() as u64;
    let violations: u64 = all.iter().map(|(_, violations)| violations).sum();
    // Beside the tests of other namespaces: what listens is read anew by each view.
    let (mut told_by_drift, mut report) = ((Vec::new(), 0, 0), Value::Null);
    eventually("what listens stands still", || {
        told_by_drift = drift(guarded)?;
        report = json(guarded, &["report", "--json"])?;
        Ok(report["mismatches"] == told_by_drift.2)
    })
    .with_context(|| format!("{told_by_drift:?}: {report:#}"))?;
    let (of_drift, told_by_drift, mismatches) = told_by_drift;
    assert_eq!((&of_drift, told_by_drift), (&all, number));
    let status = json(guarded, &["status", "--json"])?;
    let status = &status["interfaces"][0];
    assert_eq!(
        (&status["findings"], &status["violations"]),
        (&number.into(), &violations.into())
    );
    assert_eq!(report["findings"], number);
    assert_eq!(told(list(&report["interfaces"][0], "traffic")?), all);
    let (of_promote, words_of_promote) = promote(guarded, state)?;
    assert_eq!(of_promote, all);

    // In words.
    let findings = count(number, "finding");
    let mismatched = count(mismatches, "mismatch");
    let has = |text: &str, wanted: &str| {
        ensure!(text.contains(wanted), "no `{wanted}` in {text}");
        Ok(())
    };
    has(&text(guarded, &["counters"])?, &format!("; {findings}"))?;
    let left_out = text(guarded, &["counters", "--violations", "--top", "1"])?;
    has(&left_out, &format!("; {findings}"))?;
    let of_status = format!("{} in {findings}\n", grouped(violations));
    has(&text(guarded, &["status"])?, &of_status)?;
    let words = text(guarded, &["drift"])?;
    has(words.lines().last().unwrap_or_default(), &findings)?;
    has(words.lines().last().unwrap_or_default(), &mismatched)?;
    let page = text(guarded, &["report"])?;
    has(&page, &format!("<b>{number}</b><span>findings:"))?;
    has(&page, &format!("<b>{mismatches}</b><span>mismatches"))?;
    if number > 0 {
        has(
            &page,
            &format!("{findings}; their violations add up to all of them"),
        )?;
    }
    let page = text(guarded, &["report", "--format", "markdown"])?;
    has(&page, &format!("## Findings: {number}\n"))?;
    has(&page, &format!("without violations: {mismatches}\n"))?;
    for (what, packets) in &all {
        for view in [&words, &page, &words_of_promote] {
            has(view, what)?;
            has(view, &grouped(*packets))?;
        }
    }
    let csv = text(guarded, &["report", "--format", "csv"])?;
    let column = |line: &str| {
        line.split(',')
            .nth(12)
            .and_then(|field| field.parse::<u64>().ok())
    };
    assert_eq!(
        csv.lines().filter_map(column).sum::<u64>(),
        violations,
        "{csv}"
    );

    // As metrics.
    let (_, metrics) = get(&guarded.link.left.host, "/metrics", "text/plain")?;
    let sum = |name: &str| -> u64 {
        let lines = metrics.lines().filter(|line| line.starts_with(name));
        let values = lines.filter_map(|line| line.rsplit_once(' '));
        values
            .filter_map(|(_, value)| value.parse::<u64>().ok())
            .sum()
    };
    let metered = ["portguard_findings{", "portguard_finding_packets{"].map(sum);
    assert_eq!(metered, [number, violations]);
    Ok(mismatches)
}

#[test]
fn there_is_one_number_of_findings_whatever_came() -> Result<()> {
    let guarded = Guarded::new()?;
    let management = format!("tcp/{DOCUMENTED}=192.0.2.0/24");
    guarded.load("--audit", &[], &["--management", &management])?;
    let (left, right) = (&guarded.link.left, &guarded.link.right);
    let state = std::env::temp_dir().join(format!("{}-views", guarded.interface()));
    std::fs::create_dir_all(&state)?;
    let history = format!("--history={}", state.display());
    let agent = guarded.start(&["agent", "--every=1", &history].map(str::to_owned), None)?;
    listening(&agent)?;

    // Nothing came: whatever is documented and not there is a mismatch, and so is a service that nobody documented.
    let missing = agree(&guarded, &state, 0)?;
    ensure!(missing > 0, "a document without a service");
    let _quiet = TcpEcho::start(&left.host, (ANY, QUIET).into())?;
    assert_eq!(agree(&guarded, &state, 0)?, missing + 1);

    // Somebody uses a service that nobody documented: in and out.
    let _service = TcpEcho::start(&left.host, (ANY, SERVICE).into())?;
    right.host.run(|| {
        for _ in 0..40 {
            ensure!(connect((left.v4(), SERVICE).into(), SOON).is_connected());
        }
        Ok(())
    })?;
    assert_eq!(agree(&guarded, &state, 1)?, missing + 1);

    // A stranger at a documented service.
    let _door = TcpEcho::start(&left.host, (ANY, DOCUMENTED).into())?;
    right.host.run(|| {
        ensure!(connect((left.v4(), DOCUMENTED).into(), SOON).is_connected());
        Ok(())
    })?;
    // That it is not there was the mismatch.
    assert_eq!(agree(&guarded, &state, 2)?, missing);

    // A scan by somebody else.
    let socket = right.host.run(|| PacketSocket::open(&right.name))?;
    let scan = (20_000..20_100).map(|port| {
        Frame::between(right, left)
            .ipv4(Ipv4::new(HEAVY, left.v4()))
            .udp(Udp::new(40_000, port))
            .payload([0; 20])
            .build()
    });
    guarded.receive_all(&socket, scan)?;
    agree(&guarded, &state, 3)?;

    // Answers from another port than was asked.
    for _ in 0..20 {
        let own = left.host.run(|| Ok(UdpSocket::bind("0.0.0.0:0")?))?;
        let port = own.local_addr()?.port();
        right.host.run(|| {
            let answers = UdpSocket::bind(("0.0.0.0", 161))?;
            answers.send_to(b"answer", (left.v4(), port))?;
            Ok(())
        })?;
    }
    agree(&guarded, &state, 4)?;

    // What has no port, of two kinds.
    for protocol in [47, 99] {
        let frame = Frame::between(right, left)
            .payload([0; 40])
            .ipv4(Ipv4::new(right.v4(), left.v4()).protocol(protocol))
            .build();
        guarded.receive(&socket, &frame, 5)?;
    }
    agree(&guarded, &state, 6)?;

    // What the host sends.
    left.host.run(|| {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        for _ in 0..3 {
            socket.send_to(b"?", (right.v4(), 6_667))?;
        }
        Ok(())
    })?;
    agree(&guarded, &state, 7)?;

    let program = env!("CARGO_BIN_EXE_portguard");
    let mut command = Command::new("script");
    let shown = format!("stty rows 30 cols 130; {program} top --view findings");
    command.args(["-qfec", &shown, "/dev/null"]);
    command.env("TERM", "xterm");
    let top = left.host.start(&mut command)?;
    eventually("the dashboard has the same number", || {
        Ok(drawn(&top.stdout()).contains("findings: 7"))
    })?;
    drop(agent);
    std::fs::remove_dir_all(&state)?;
    Ok(())
}
