//! Numbers that are told in several places are the same, of the same time, and all that there are.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Context as _, Result, ensure};
use portguard_harness::frames::{Frame, Icmp, Ipv4, Udp};
use portguard_harness::traffic::{Connection, PacketSocket, TcpEcho, connect, udp_socket};
use serde_json::Value;

use crate::callers::{HEAVY, LIGHT, PORT, flood, json};
use crate::guard::{Guarded, LONG};
use crate::living::town::{Site, TCP, UDP};

fn number(value: &Value, key: &str) -> Result<u64> {
    value[key]
        .as_u64()
        .with_context(|| format!("no number `{key}` in {value}"))
}

fn list<'v>(value: &'v Value, key: &str) -> Result<&'v Vec<Value>> {
    value[key]
        .as_array()
        .with_context(|| format!("no list `{key}`"))
}

/// The item of a UDP port that arrives.
fn item(drift: &Value, port: u16) -> Result<&Value> {
    list(drift, "items")?
        .iter()
        .find(|item| {
            item["direction"] == "in" && item["transport"] == "udp" && item["port_first"] == port
        })
        .with_context(|| format!("no udp/{port}"))
}

fn caller(callers: &Value, peer: Ipv4Addr) -> Result<&Value> {
    let mut all = callers.as_array().context("callers")?.iter();
    all.find(|caller| caller["peer"] == peer.to_string())
        .with_context(|| format!("no {peer} in {callers}"))
}

fn text(guarded: &Guarded, args: &[&str]) -> Result<String> {
    let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
    let output = guarded.run(&args, None)?;
    ensure!(output.code() <= 1, "{output}");
    Ok(output.stdout)
}

#[test]
fn of_a_flood_nobody_is_told_to_have_sent_more_than_came() -> Result<()> {
    const FLOOD: u64 = 1_000;
    let guarded = Guarded::new()?;
    guarded.load("--audit", &[], &[])?;
    // Beside it, few packets to a port of the same part of the table: one that is looked at stands for hundreds.
    let near = PORT + 1;
    for _ in 0..20 {
        flood(&guarded, PORT, FLOOD / 20, |_| HEAVY)?;
        flood(&guarded, near, 2, |_| LIGHT)?;
    }
    let drift = json(&guarded, &["drift", "--json"])?;
    for (port, peer, sent) in [(PORT, HEAVY, FLOOD), (near, LIGHT, 40)] {
        let item = item(&drift, port)?;
        assert_eq!(item["violations"], sent);
        for caller in list(item, "callers")? {
            let [least, packets, most] =
                ["at_least", "packets", "at_most"].map(|key| number(caller, key));
            let (least, packets, most) = (least?, packets?, most?);
            println!("{port}: {least} <= ~{packets} <= {most} of {sent}");
            ensure!(
                least <= packets && packets <= most && most <= sent,
                "{caller}"
            );
        }
        // Few packets among many need not be looked at. Who was is within its bounds.
        if let Ok(caller) = caller(&item["callers"], peer) {
            ensure!(
                (number(caller, "at_least")?..=number(caller, "at_most")?).contains(&sent),
                "{caller}"
            );
        }
    }
    let heavy = caller(&item(&drift, PORT)?["callers"], HEAVY)?;
    assert_eq!(heavy["estimated"], true);
    let shown = text(&guarded, &["drift"])?;
    let line = shown
        .lines()
        .find(|line| line.contains(&format!("udp/{PORT}")));
    let about = format!("from {HEAVY} (~");
    assert!(line.is_some_and(|line| line.contains(&about)), "{shown}");
    assert!(shown.contains("~ is an estimate"), "{shown}");
    Ok(())
}

/// The third cell of all lines that begin with a direction, up to `end`.
fn third(text: &str, end: Option<&str>) -> Result<u64> {
    let lines = text
        .lines()
        .take_while(|line| end.is_none_or(|end| !line.starts_with(end)));
    let mut sum = 0;
    for line in lines.filter(|line| line.starts_with("in ") || line.starts_with("out ")) {
        let mut cells = line
            .split("  ")
            .map(str::trim)
            .filter(|cell| !cell.is_empty());
        let cell = cells.nth(2).with_context(|| line.to_owned())?;
        let number = cell.replace([',', '~'], "");
        sum += number.parse::<u64>().with_context(|| line.to_owned())?;
    }
    Ok(sum)
}

/// Answers in the host's own conversations, ARP and violations among them.
#[test]
fn the_lines_of_a_view_add_up_to_the_total_above_them() -> Result<()> {
    let guarded = Guarded::new()?;
    guarded.load("--audit", &[7_001], &[])?;
    let link = &guarded.link;
    let all = IpAddr::from([0, 0, 0, 0]);
    let (_near, _far) = (
        TcpEcho::start(&link.left.host, (all, 5_555).into())?,
        TcpEcho::start(&link.right.host, (all, 7_777).into())?,
    );
    for (from, to, port) in [
        (&link.right, &link.left, 5_555),
        (&link.left, &link.right, 7_777),
    ] {
        let target = (to.v4(), port).into();
        let connected = from.host.run(|| Ok(connect(target, LONG)))?;
        ensure!(matches!(connected, Connection::Connected(_)), "{target}");
    }
    flood(&guarded, PORT, 9, |_| HEAVY)?;
    for (by, end) in [
        ("port", None),
        ("reason", None),
        ("peer", Some("top talkers")),
    ] {
        let shown = text(&guarded, &["counters", "--by", by])?;
        let number = |unit: &str| -> Result<u64> {
            let line = shown
                .lines()
                .find(|line| line.starts_with("  ") && line.contains(unit));
            let word = line.and_then(|line| line.split_whitespace().next());
            Ok(word.context("a number")?.replace(',', "").parse()?)
        };
        let violations = if by == "peer" {
            number(" violations")?
        } else {
            0
        };
        assert_eq!(
            third(&shown, end)? + violations,
            number(" packets, ")?,
            "{by}: {shown}"
        );
        ensure!(
            by == "reason" || shown.contains("answers in own conversations"),
            "{shown}"
        );
    }
    let raw = json(&guarded, &["counters", "--json"])?;
    ensure!(
        number(&raw["interfaces"][0]["violations"], "packets")? > 9,
        "{raw}"
    );
    Ok(())
}

#[test]
fn after_a_reset_callers_count_from_then_as_counters_do() -> Result<()> {
    let guarded = Guarded::new()?;
    guarded.load("--audit", &[], &[])?;
    flood(&guarded, PORT, 30, |_| HEAVY)?;
    flood(&guarded, PORT, 3, |_| Ipv4Addr::new(198, 18, 255, 3))?;
    let name = guarded.interface().to_owned();
    text(&guarded, &["counters", "reset", "--interface", &name])?;
    flood(&guarded, PORT, 7, |_| LIGHT)?;
    flood(&guarded, PORT, 5, |_| HEAVY)?;

    let drift = json(&guarded, &["drift", "--json"])?;
    let window = &drift["windows"][0];
    assert_eq!(
        (&window["since"], &window["reset"]),
        (&drift["since"], &true.into())
    );
    let item = item(&drift, PORT)?;
    assert_eq!(item["violations"], 12);
    for (peer, sent) in [(LIGHT, 7), (HEAVY, 5)] {
        let caller = caller(&item["callers"], peer)?;
        assert_eq!(
            [&caller["at_least"], &caller["at_most"]],
            [sent; 2],
            "{caller}"
        );
    }
    assert_eq!(list(item, "callers")?.len(), 2, "{item}");
    let peers = ["counters", "--by", "peer", "--json"];
    let counters = json(&guarded, &peers)?;
    let interface = &counters["interfaces"][0];
    assert_eq!(drift["digest"], interface["digest"]);
    let knocking = &interface["knocking"];
    assert_eq!(
        (
            &knocking["violations"],
            &knocking["attributed"],
            &knocking["exact"]
        ),
        (&12.into(), &12.into(), &true.into())
    );
    assert_eq!(
        (&knocking["reset"], &knocking["since"]),
        (&true.into(), &interface["since"])
    );
    let page = text(&guarded, &["report", "--format", "markdown"])?;
    assert!(
        page.contains("Top talkers of violations since the last reset"),
        "{page}"
    );
    assert!(text(&guarded, &["counters", "--by", "peer"])?.contains("since the last reset"));

    // All of it, where that is asked for.
    let all = json(&guarded, &["counters", "--by", "peer", "--raw", "--json"])?;
    let knocking = &all["interfaces"][0]["knocking"];
    assert_eq!(
        (&knocking["violations"], &knocking["reset"]),
        (&45.into(), &false.into())
    );
    assert_eq!(caller(&knocking["callers"], HEAVY)?["packets"], 35);
    let page = text(&guarded, &["report", "--format", "markdown", "--raw"])?;
    assert!(
        page.contains("Top talkers of violations since the first load"),
        "{page}"
    );
    Ok(())
}

/// Violations of kinds that have no port, which nobody answers: what drift calls each, and how many are sent.
fn kinds(guarded: &Guarded) -> Vec<(&'static str, &'static str, Vec<u8>, u64)> {
    let (from, to) = (&guarded.link.right, &guarded.link.left);
    let frame = || Frame::between(from, to).payload([0; 40]);
    let ip = || Ipv4::new(from.v4(), to.v4());
    let malformed = frame().ipv4(ip().ihl(4)).udp(Udp::new(40_000, UDP));
    vec![
        (
            "undocumented-protocol",
            "protocol 47 (GRE)",
            frame().ipv4(ip().protocol(47)).build(),
            5,
        ),
        (
            "undocumented-protocol",
            "protocol 99",
            frame().ipv4(ip().protocol(99)).build(),
            4,
        ),
        (
            "malformed",
            "malformed (ip-header-length)",
            malformed.build(),
            7,
        ),
        (
            "icmp",
            "ICMP",
            frame().ipv4(ip()).icmpv4(Icmp::new(15, 0)).build(),
            3,
        ),
    ]
}

/// The sum of the spreadsheet, and what stands there without a port.
fn check_csv(guarded: &Guarded, total: u64) -> Result<()> {
    let csv = text(guarded, &["report", "--format", "csv"])?;
    let mut lines = csv.lines();
    let columns: Vec<&str> = lines.next().context("a head")?.split(',').collect();
    let column = |name: &str| {
        columns
            .iter()
            .position(|column| *column == name)
            .context("a column")
    };
    let (violations, reason, transport, first) = (
        column("violations")?,
        column("reason")?,
        column("transport")?,
        column("port_first")?,
    );
    let mut sum = 0;
    let mut reasons = Vec::new();
    for line in lines {
        // No field before those of text has a comma in it here, and the last two are words.
        let fields: Vec<&str> = line.split(',').collect();
        sum += fields[violations].parse::<u64>()?;
        ensure!(fields[first] != "256", "ping has no port: {line}");
        if fields[transport].is_empty() {
            reasons.push(fields[fields.len() - columns.len() + reason].to_owned());
        }
    }
    assert_eq!(sum, total, "{csv}");
    reasons.sort();
    assert_eq!(reasons, ["icmp", "malformed"], "{csv}");
    Ok(())
}

#[test]
fn violations_without_a_port_are_findings_and_nothing_is_missing_from_any_sum() -> Result<()> {
    let guarded = Guarded::new()?;
    let host = &guarded.link.left.host;
    Site::new("audit")?.load(&guarded, &["--audit"])?;
    let any: IpAddr = Ipv4Addr::UNSPECIFIED.into();
    let _door = TcpEcho::start(host, (any, TCP).into())?;
    let _bell = host.run(|| udp_socket((any, UDP).into()))?;
    let drift = json(&guarded, &["drift", "--json"])?;
    assert_eq!(
        (&drift["findings"], list(&drift, "portless")?.len()),
        (&0.into(), 0)
    );

    let right = &guarded.link.right;
    let socket = right.host.run(|| PacketSocket::open(&right.name))?;
    let mut without_port = 0;
    for (_, _, frame, count) in kinds(&guarded) {
        guarded.receive(&socket, &frame, count)?;
        without_port += count;
    }
    let args = ["drift", "--json"].map(str::to_owned);
    let output = guarded.run(&args, None)?;
    assert_eq!(
        output.code(),
        1,
        "no port is a finding, and these are: {output}"
    );
    let drift: Value = serde_json::from_str(&output.stdout)?;
    let portless = list(&drift, "portless")?;
    assert_eq!(drift["findings"], portless.len());
    for (reason, what, _, count) in kinds(&guarded) {
        let one = portless
            .iter()
            .find(|one| one["what"] == what)
            .with_context(|| format!("no {what}: {portless:#?}"))?;
        assert_eq!(
            (&one["reason"], &one["violations"]),
            (&reason.into(), &count.into())
        );
        if reason != "malformed" {
            assert_eq!(one["callers"][0]["peer"], right.v4().to_string());
        }
        assert_eq!(one["callers"][0]["packets"], count);
    }
    let gre = portless.iter().find(|one| one["protocol"] == 47);
    assert!(gre.is_some(), "{portless:#?}");

    // With some of a port, all sums are the same.
    flood(&guarded, PORT, 11, |_| HEAVY)?;
    let total = without_port + 11;
    let counters = json(&guarded, &["counters", "--json"])?;
    assert_eq!(counters["interfaces"][0]["violations"]["packets"], total);
    let drift = json(&guarded, &["drift", "--json"])?;
    let of_items = list(&drift, "items")?
        .iter()
        .chain(list(&drift, "portless")?);
    let sum: u64 = of_items.filter_map(|one| one["violations"].as_u64()).sum();
    assert_eq!(sum, total, "{drift:#}");
    check_csv(&guarded, total)?;
    let table = text(&guarded, &["counters", "--violations"])?;
    for what in ["protocol 47 (GRE)", "malformed (ip-header-length)"] {
        assert!(table.contains(what), "{what}: {table}");
    }
    let short = text(&guarded, &["counters", "--violations", "--top", "1"])?;
    assert!(
        short.contains("not listed: 19 violations of 4 more findings"),
        "{short}"
    );
    let words = text(&guarded, &["drift"])?;
    for wanted in [
        "protocol 47 (GRE)",
        "malformed (ip-header-length)",
        "without a port",
    ] {
        assert!(words.contains(wanted), "{wanted}: {words}");
    }
    for format in ["html", "markdown"] {
        let page = text(&guarded, &["report", "--format", format])?;
        assert!(
            page.contains("protocol 47 (GRE)") && page.contains("malformed (ip-header-length)"),
            "{format}: {page}"
        );
    }
    Ok(())
}

#[test]
fn what_cannot_be_meant_or_is_not_there_is_said() -> Result<()> {
    let guarded = Guarded::new()?;
    guarded.load("--audit", &[], &[])?;
    let run = |args: &[&str]| {
        let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        guarded.run(&args, None)
    };
    for args in [["counters", "--top", "0"], ["drift", "--top", "0"]] {
        let output = run(&args)?;
        ensure!(
            output.code() == 2 && output.stderr.contains("above 0"),
            "{output}"
        );
    }
    // Ping has its words like any other row.
    let rows = text(&guarded, &["counters", "--by", "row"])?;
    let ping = rows
        .lines()
        .find(|line| line.trim_start().starts_with("baseline/echo"));
    ensure!(ping.is_some_and(|line| line.contains("(ping)")), "{rows}");

    let directory = std::env::temp_dir().join(format!("portguard-agree-{}", std::process::id()));
    let flag = format!("--history={}", directory.display());
    let report = ["report", "--format", "html", &flag];
    let missing = run(&report)?;
    ensure!(
        missing.code() == 2 && missing.stderr.contains("there is no directory"),
        "{missing}"
    );
    std::fs::create_dir_all(&directory)?;
    let empty = run(&report)?.success()?;
    ensure!(empty.stderr.contains("no samples in"), "{empty}");
    let file = directory.join(format!("{}.jsonl", guarded.interface()));
    std::fs::write(
        file,
        "{\"at\":1,\"generation\":1,\"packets\":1,\"violations\":0}\n{\"at\":\n",
    )?;
    let damaged = run(&report)?.success()?;
    std::fs::remove_dir_all(&directory)?;
    let words = "1 line of the samples over time is damaged";
    ensure!(
        damaged.stderr.contains(words) && damaged.stdout.contains(words),
        "{damaged}"
    );
    Ok(())
}
