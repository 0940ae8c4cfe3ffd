//! One problem is one finding with one number, whichever view one looks at.

mod elsewhere;
mod views;

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use portguard_harness::traffic::{TcpEcho, connect};
use serde_json::Value;

use super::agent::{get, listening};
use super::callers::json;
use super::guard::{Guarded, LONG, SOON, eventually};

const ANY: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
/// Listens without a document.
const SERVICE: u16 = 9_100;
/// A service whose clients hear another port's answers.
const AGENT: u16 = 161;

fn list<'v>(answer: &'v Value, key: &str) -> Result<&'v Vec<Value>> {
    answer[key]
        .as_array()
        .with_context(|| format!("no {key} in {answer}"))
}

/// `what` and number of each finding.
fn told(findings: &[Value]) -> Vec<(String, u64)> {
    let one = |finding: &Value| {
        let what = finding["what"].as_str().unwrap_or_default().to_owned();
        (what, finding["violations"].as_u64().unwrap_or_default())
    };
    let mut all: Vec<_> = findings.iter().map(one).collect();
    all.sort();
    all
}

fn counters(guarded: &Guarded) -> Result<Vec<(String, u64)>> {
    let answer = json(guarded, &["counters", "--violations", "--json"])?;
    Ok(told(list(&answer["interfaces"][0], "findings")?))
}

fn text(guarded: &Guarded, args: &[&str]) -> Result<String> {
    let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
    let output = guarded.run(&args, None)?;
    ensure!(output.code() <= 1, "{output}");
    Ok(output.stdout)
}

/// `1234567` as people read it.
fn grouped(number: u64) -> String {
    portguard_policy::human::grouped(number)
}

#[test]
fn a_scraper_of_an_undocumented_service_is_one_finding_in_every_view() -> Result<()> {
    let guarded = Guarded::new()?;
    guarded.load("--audit", &[], &[])?;
    let link = &guarded.link;
    let (host, there) = (&link.left.host, &link.right.host);
    let _service = TcpEcho::start(host, (ANY, SERVICE).into())?;
    let here: SocketAddr = (link.left.v4(), SERVICE).into();
    there.run(|| {
        for _ in 0..12 * 100 {
            ensure!(connect(here, SOON).is_connected());
        }
        Ok(())
    })?;
    // The last answers are on their way.
    let mut before = Vec::new();
    eventually("the numbers stand still", || {
        let now = counters(&guarded)?;
        let is_still = !now.is_empty() && now == before;
        before = now;
        Ok(is_still)
    })?;
    let [(what, number)] = &before[..] else {
        anyhow::bail!("one finding: {before:?}")
    };
    assert_eq!(what, &format!("tcp/{SERVICE}"));
    ensure!(*number >= 1_200 * 4, "{number}");

    // Counters, in words.
    let table = text(&guarded, &["counters", "--violations"])?;
    ensure!(table.lines().count() < 12, "{table}");
    ensure!(
        table.contains(&grouped(*number)) && table.contains("1 finding"),
        "{table}"
    );
    // Ports of its clients fill no list.
    let answer = json(&guarded, &["counters", "--violations", "--json"])?;
    let interface = &answer["interfaces"][0];
    ensure!(list(interface, "ports")?.len() == 2, "{interface:#}");
    assert_eq!(&interface["violations"]["packets"], number);
    let by_peer = text(&guarded, &["counters", "--by", "peer"])?;
    ensure!(by_peer.lines().count() < 30, "{by_peer}");

    // Drift.
    let drift = json(&guarded, &["drift", "--json"])?;
    let traffic: Vec<Value> = list(&drift, "items")?
        .iter()
        .filter(|item| item["traffic"].is_object())
        .map(|item| item["traffic"].clone())
        .collect();
    assert_eq!(told(&traffic), before);
    let found = list(&drift, "items")?
        .iter()
        .filter(|item| item["finding"] == true);
    assert_eq!(drift["findings"], found.count());
    let item = list(&drift, "items")?
        .iter()
        .find(|item| item["traffic"].is_object());
    assert_eq!(item.context("an item")?["violations"], *number);
    ensure!(text(&guarded, &["drift"])?.contains(&grouped(*number)));

    // The report, in its formats.
    for format in ["html", "markdown"] {
        let page = text(&guarded, &["report", "--format", format])?;
        ensure!(page.contains(&grouped(*number)), "{format}: {page}");
        ensure!(page.matches("9100").count() < 20, "{format}: {page}");
    }

    // What is asked before enforcing: each flow is known, and so nothing is unlisted.
    let state = std::env::temp_dir().join(format!("{}-findings", guarded.interface()));
    std::fs::create_dir_all(&state)?;
    let mut args = guarded.load_args("--enforce", &[], &["--json", "--dry-run"]);
    *args.first_mut().context("a verb")? = "promote".to_owned();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let mut command = Guarded::command(&args);
    command.env("STATE_DIRECTORY", &state);
    let output = host.output(&mut command, LONG)?;
    let answer: Value = serde_json::from_str(&output.stdout).with_context(|| output.to_string())?;
    let case = &answer["interfaces"][0];
    assert_eq!(told(list(case, "findings")?), before);
    let flows = list(case, "flows")?;
    ensure!(flows.len() == 1 && flows[0]["what"] == *what, "{flows:#?}");
    ensure!(
        !case["against"].to_string().contains("more flows than"),
        "{case:#}"
    );

    // Metrics.
    let history = format!("--history={}", state.display());
    let args = ["agent", "--every=1", &history].map(str::to_owned);
    let agent = guarded.start(&args, None)?;
    listening(&agent)?;
    let (_, metrics) = get(host, "/metrics", "text/plain")?;
    let sample = |name: &str, wanted: u64| -> Result<()> {
        let mut lines = metrics.lines().filter(|line| line.starts_with(name));
        let line = lines.find(|line| line.contains("kind=\"undocumented-port\""));
        let line = line.with_context(|| format!("no {name}: {metrics}"))?;
        ensure!(line.ends_with(&format!(" {wanted}")), "{line}");
        Ok(())
    };
    sample("portguard_findings{", 1)?;
    sample("portguard_finding_packets{", *number)?;
    drop(agent);
    std::fs::remove_dir_all(&state)?;

    // The dashboard, on a terminal of its own.
    let program = env!("CARGO_BIN_EXE_portguard");
    let mut command = Command::new("script");
    let shown = format!("stty rows 30 cols 130; {program} top --view findings");
    command.args(["-qfec", &shown, "/dev/null"]);
    command.env("TERM", "xterm");
    let top = host.start(&mut command)?;
    let seen = top.wait_for(&format!("tcp/{SERVICE}"), Duration::from_secs(10))?;
    ensure!(seen.contains(&grouped(*number)), "{seen}");
    Ok(())
}

#[test]
fn scans_and_answers_from_elsewhere_are_one_finding_each() -> Result<()> {
    let guarded = Guarded::new()?;
    guarded.load("--audit", &[], &[])?;
    let link = &guarded.link;
    let there = &link.right.host;
    // Somebody tries a thousand ports.
    let here = link.left.v4();
    there.run(|| {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        for port in 20_000..21_000_u16 {
            let _ = socket.send_to(b"?", (here, port));
        }
        Ok(())
    })?;
    let all = counters(&guarded)?;
    assert_eq!(all, [("scan of 1,000 ports".to_owned(), 1_000)]);

    // Nor do its ports fill the list of talkers.
    let by_peer = text(&guarded, &["counters", "--by", "peer"])?;
    ensure!(!by_peer.contains("udp/20"), "{by_peer}");
    let page = text(&guarded, &["report"])?;
    ensure!(page.matches("udp/20").count() < 3, "{page}");

    // The host asks one port of a peer, and another of its ports answers.
    let guarded = Guarded::new()?;
    guarded.load("--audit", &[], &[])?;
    let link = &guarded.link;
    let (host, there, here) = (&link.left.host, &link.right.host, link.left.v4());
    for _ in 0..40 {
        let own = host.run(|| Ok(UdpSocket::bind("0.0.0.0:0")?))?;
        let port = own.local_addr()?.port();
        there.run(|| {
            let answers = UdpSocket::bind(("0.0.0.0", AGENT))?;
            answers.send_to(b"answer", (here, port))?;
            Ok(())
        })?;
    }
    let all = counters(&guarded)?;
    assert_eq!(all, [("udp from 161".to_owned(), 40)]);
    let drift = json(&guarded, &["drift", "--json"])?;
    assert_eq!(drift["states"]["answers-from-elsewhere"], 1, "{drift:#}");
    let words = text(&guarded, &["drift"])?;
    ensure!(words.contains("udp from 161"), "{words}");
    Ok(())
}

#[test]
fn a_wrong_peer_of_a_documented_port_is_a_finding() -> Result<()> {
    let guarded = Guarded::new()?;
    let own = ["--management", "tcp/9443=192.0.2.0/24"];
    guarded.load("--audit", &[], &own)?;
    let link = &guarded.link;
    let _service = TcpEcho::start(&link.left.host, (ANY, 9_443).into())?;
    link.right.host.run(|| {
        ensure!(connect((link.left.v4(), 9_443).into(), SOON).is_connected());
        Ok(())
    })?;
    let drift = json(&guarded, &["drift", "--json"])?;
    let items = list(&drift, "items")?;
    let found = items
        .iter()
        .find(|item| item["state"] == "undocumented-peer-seen");
    let found = found.with_context(|| format!("{drift:#}"))?;
    ensure!(
        found["port_first"] == 9_443 && found["finding"] == true,
        "{found:#}"
    );
    ensure!(found["violations"].as_u64() >= Some(3), "{found:#}");
    assert_eq!(counters(&guarded)?.len(), 1);
    Ok(())
}

#[test]
fn what_is_documented_and_left_out_is_not_called_undocumented() -> Result<()> {
    let guarded = Guarded::new()?;
    guarded.load("--audit", &[], &[])?;
    // Of nodes only, and there is no other.
    let host = &guarded.link.left.host;
    let _service = TcpEcho::start(host, SocketAddr::new(ANY, 2_181))?;
    let target = SocketAddr::new(guarded.link.left.v4().into(), 2_181);
    guarded.link.right.host.run(|| {
        drop(connect(target, LONG));
        Ok(())
    })?;
    eventually("the packets are counted", || {
        Ok(!counters(&guarded)?.is_empty())
    })?;
    let answer = json(&guarded, &["counters", "--violations", "--json"])?;
    let finding = &list(&answer["interfaces"][0], "findings")?[0];
    assert_eq!(
        finding["left_out"][0]["row"], "thoughtspot/intracluster-2181",
        "{finding:#}"
    );
    let words = text(&guarded, &["counters", "--violations"])?;
    ensure!(
        words.contains("left out here") && !words.contains("not documented"),
        "{words}"
    );
    let drift = text(&guarded, &["drift"])?;
    ensure!(drift.contains("listening-left-out"), "{drift}");
    Ok(())
}

#[test]
fn what_is_in_force_is_explained_where_neither_site_nor_role_is_named() -> Result<()> {
    let guarded = Guarded::new()?;
    let packet = ["explain", "tcp", "203.0.113.9", "9999"];
    for (mode, wanted) in [
        ("--audit", "counted, not dropped"),
        ("--enforce", "mode     enforce"),
    ] {
        guarded.load(mode, &[], &["--confirm-within", "0"])?;
        let words = text(&guarded, &packet)?;
        ensure!(
            words.contains("undocumented-port") && words.contains(wanted),
            "{words}"
        );
    }
    Ok(())
}
