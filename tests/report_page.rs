//! The report before a browser: it asks nobody, complains of nothing, draws its plots, and fits a sheet of A4.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use portguard_harness::net::Lab;
use portguard_harness::traffic::{TcpEcho, UdpEcho, connect, exchange_udp};
use portguard_observe::history::{Sample, append};
use serde_json::Value;

use super::guard::Guarded;

/// A browser on a busy machine.
const PATIENCE: Duration = Duration::from_mins(2);
/// A sheet of A4, landscape, in CSS pixels and in points.
const SHEET: (u64, u64) = (1123, 794);
const SHEET_POINTS: (f64, f64) = (842.0, 595.0);

/// Measures the laid-out page; its answer is the last element of the dumped document.
const MEASURE: &str = r#"<script>addEventListener("load", () => {
  const box = e => e.getBoundingClientRect();
  const all = s => [...document.querySelectorAll(s)];
  const wide = all("main *").filter(e => box(e).right > document.documentElement.clientWidth + 1);
  const answer = {
    title: document.title,
    sections: all("h2").map(e => e.id),
    plots: all("svg").filter(e => box(e).width > 0).map(e => [e.getAttribute("aria-label"), all("rect").filter(r => e.contains(r) && box(r).width > 0 && box(r).height > 0).length]),
    wide: wide.slice(0, 5).map(e => e.tagName + " " + e.textContent.slice(0, 60)),
    scroll: document.documentElement.scrollWidth,
    client: document.documentElement.clientWidth,
    small: all("svg text").filter(t => box(t).width > 0 && parseFloat(getComputedStyle(t).fontSize) * box(t.ownerSVGElement).width / t.ownerSVGElement.viewBox.baseVal.width < 10).map(t => t.textContent),
    links: all("a").filter(a => !a.hash || !document.querySelector(a.hash)).length,
    fetched: performance.getEntriesByType("resource").length,
    clipped: all("svg text").filter(t => box(t).left < box(t.ownerSVGElement).left - 1 || box(t).right > box(t.ownerSVGElement).right + 1).map(t => t.textContent),
  };
  const out = document.createElement("pre");
  out.id = "measured";
  out.textContent = JSON.stringify(answer);
  document.body.append(out);
  if (parent !== window) parent.postMessage(out.textContent, "*");
});</script></body>"#;

/// A telephone: the page in a frame of this width, in CSS pixels, whose answer is taken over.
const TELEPHONE: &str = r#"<!DOCTYPE html><iframe src="measuring.html" width="400" height="800"></iframe><pre id="measured"></pre>
<script>addEventListener("message", e => document.querySelector("pre").textContent = e.data);</script>"#;

struct Browser {
    lab: Lab,
    directory: PathBuf,
}

impl Browser {
    /// In a network namespace that leads nowhere.
    fn new(directory: &Path) -> Result<Self> {
        Ok(Self {
            lab: Lab::new()?,
            directory: directory.to_owned(),
        })
    }

    fn open(&self, page: &Path, more: &[&str]) -> Result<(String, String)> {
        let host = self.lab.host("nowhere")?;
        let mut command = Command::new("chromium");
        command
            .args([
                "--headless=new",
                "--no-sandbox",
                "--disable-gpu",
                "--no-first-run",
            ])
            .args([
                "--disable-background-networking",
                "--disable-component-update",
            ])
            .args(["--enable-logging=stderr", "--hide-scrollbars"])
            .arg(format!(
                "--user-data-dir={}",
                self.directory.join("profile").display()
            ))
            .arg(format!("--window-size={},{}", SHEET.0, SHEET.1))
            .args(more)
            .arg(format!("file://{}", page.display()));
        let output = host
            .start(&mut command)
            .context(
                "this test needs Debian's package `chromium`: `cargo xtask setup` installs it",
            )?
            .output(PATIENCE)?;
        ensure!(output.code() == 0, "{output}");
        Ok((output.stdout, output.stderr))
    }
}

/// A host with listeners, traffic that is documented and traffic that is not, and a day of samples.
fn report(directory: &Path) -> Result<PathBuf> {
    let guarded = Guarded::new()?;
    let host = &guarded.link.left.host;
    guarded.load("--audit", &[7_001], &[])?;
    let all = "0.0.0.0".parse::<std::net::IpAddr>()?;
    let _web = TcpEcho::start(host, (all, 443).into())?;
    let _odd = TcpEcho::start(host, (all, 5_555).into())?;
    let _open = UdpEcho::start(host, (all, 7_001).into())?;
    guarded.link.right.host.run(|| {
        for port in [443, 5_555, 22, 8_080, 3_306, 6_379, 11_211, 9_200] {
            connect(
                (guarded.link.left.v4(), port).into(),
                Duration::from_secs(2),
            );
        }
        for _ in 0..20 {
            exchange_udp(
                (guarded.link.left.v4(), 7_001).into(),
                b"on",
                Duration::from_secs(2),
            )?;
        }
        Ok(())
    })?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let history = directory.join("history");
    for step in 0..240_u64 {
        let violations = step * 7 + (step / 20 % 3) * 40 * (step % 20);
        let sample = Sample {
            at: now - 86_400 + step * 360,
            generation: 1,
            packets: step * 900,
            violations: violations.max(step * 7),
        };
        append(&history, guarded.interface(), &sample)?;
    }
    let page = directory.join("report.html");
    let mut args: Vec<String> = ["report", "--output"].map(str::to_owned).into();
    args.push(page.display().to_string());
    args.push(format!("--history={}", history.display()));
    guarded.run(&args, None)?.success()?;
    Ok(page)
}

/// What a page wrote to the console. The browser's own pages write there, too, such as that the machine is slow.
fn console(said: &str) -> Vec<&str> {
    let lines = said.lines().filter(|line| line.contains("CONSOLE"));
    lines
        .filter(|line| !line.contains("source: chrome://"))
        .collect()
}

/// What a page that measures itself found.
fn measured(browser: &Browser, page: &Path) -> Result<Value> {
    let (dom, said) = browser.open(page, &["--dump-dom"])?;
    let measured = dom
        .split("<pre id=\"measured\">")
        .nth(1)
        .and_then(|rest| rest.split("</pre>").next())
        .with_context(|| said)?
        .replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&amp;", "&");
    Ok(serde_json::from_str(&measured)?)
}

/// Reads the size of every page of a PDF file.
fn are_sheets_of_a4(pdf: &[u8]) -> Result<()> {
    let pdf = String::from_utf8_lossy(pdf);
    let boxes: Vec<&str> = pdf
        .split("/MediaBox [")
        .skip(1)
        .filter_map(|rest| rest.split(']').next())
        .collect();
    assert!((1..=40).contains(&boxes.len()), "{} sheets", boxes.len());
    for sheet in boxes {
        let edges: Vec<f64> = sheet
            .split_whitespace()
            .map(str::parse)
            .collect::<Result<_, _>>()?;
        let is_close = |a: f64, b: f64| (a - b).abs() < 2.0;
        assert!(
            is_close(edges[2], SHEET_POINTS.0) && is_close(edges[3], SHEET_POINTS.1),
            "{sheet}"
        );
    }
    Ok(())
}

#[test]
fn a_browser_shows_it_whole_and_asks_nobody() -> Result<()> {
    let directory = std::env::temp_dir().join(format!("portguard-page-{}", std::process::id()));
    std::fs::create_dir_all(&directory)?;
    let page = report(&directory)?;
    let browser = Browser::new(&directory)?;

    // As it is: nothing on the console, nothing from anywhere, and sheets of A4.
    let (log, sheets) = (directory.join("net.json"), directory.join("report.pdf"));
    let (_, said) = browser.open(
        &page,
        &[
            &format!("--log-net-log={}", log.display()),
            "--no-pdf-header-footer",
            &format!("--print-to-pdf={}", sheets.display()),
        ],
    )?;
    assert_eq!(console(&said), [""; 0], "{said}");
    let log = std::fs::read_to_string(log)?;
    assert!(
        log.contains("file://"),
        "the browser's log is not of this page"
    );
    // What the browser asks for itself, it does not ask for an origin.
    let of_page = |line: &&str| {
        line.contains("\"initiator\":\"") && !line.contains("\"initiator\":\"not an origin\"")
    };
    let asked: Vec<&str> = log.lines().filter(of_page).collect();
    assert!(asked.is_empty(), "{asked:#?}");
    are_sheets_of_a4(&std::fs::read(sheets)?)?;

    // A copy that measures itself, at the width of a sheet.
    let text = std::fs::read_to_string(&page)?;
    let measuring = text
        .replace(
            "style-src 'unsafe-inline'",
            "style-src 'unsafe-inline'; script-src 'unsafe-inline'",
        )
        .replace("</body>", MEASURE);
    let copy = directory.join("measuring.html");
    std::fs::write(&copy, measuring)?;
    let measured = measured(&browser, &copy)?;
    let title = measured["title"].as_str().context("a title")?;
    assert!(title.starts_with("Port matrix evidence: "), "{title}");
    let sections: Vec<&str> = measured["sections"]
        .as_array()
        .context("sections")?
        .iter()
        .filter_map(Value::as_str)
        .collect();
    for wanted in [
        "brief",
        "violations",
        "drift",
        "matrix",
        "unused",
        "omitted",
        "provenance",
    ] {
        assert!(
            sections.contains(&wanted),
            "{wanted} is not among {sections:?}"
        );
    }
    let plots = measured["plots"].as_array().context("plots")?;
    assert!(plots.len() >= 3, "{plots:?}");
    for plot in plots {
        assert!(plot[1].as_u64() > Some(0), "{plot} is empty");
    }
    assert_eq!(
        measured["wide"],
        serde_json::json!([]),
        "wider than the sheet"
    );
    assert_eq!(measured["scroll"], measured["client"], "{measured}");
    assert_eq!(
        measured["clipped"],
        serde_json::json!([]),
        "labels beyond their plot"
    );
    assert_eq!(
        (&measured["links"], &measured["fetched"]),
        (&0.into(), &0.into())
    );
    assert_eq!(measured["small"], serde_json::json!([]), "text too small");

    // And on a telephone: tables scroll for themselves, and what plots say can be read.
    let telephone = directory.join("telephone.html");
    std::fs::write(&telephone, TELEPHONE)?;
    let measured = self::measured(&browser, &telephone)?;
    let plots = measured["plots"].as_array().context("plots")?;
    assert!(plots.len() >= 3, "{plots:?}");
    for fault in ["small", "clipped"] {
        assert_eq!(measured[fault], serde_json::json!([]), "{fault}");
    }
    assert_eq!(measured["scroll"], measured["client"], "{measured}");
    std::fs::remove_dir_all(directory)?;
    Ok(())
}
