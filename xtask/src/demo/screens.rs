//! Pictures of what operators see, for the documentation: the demo's host in audit, its verbs on a terminal, and its report in a
//! browser.

mod draw;

use std::fs;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::attempt;
use super::probes::probes;
use super::stage::Stage;
use crate::setup::{SCREENS as TOOLS, ensure_tools};
use crate::shell::{Missing, say};
use crate::workspace::{is_root, target};

/// A terminal as people have it.
const COLUMNS: NonZero<u16> = NonZero::new(112).unwrap();
/// Rounds of traffic, at most, for the rates that `top` shows.
const ROUNDS: usize = 40;
const PATIENCE: Duration = Duration::from_mins(1);

/// Verbs by the name of their picture, and how many of their lines it shows.
const SCREENS: [(&str, &str, u16); 4] = [
    ("status", "status", 20),
    ("counters", "counters --violations", 20),
    (
        "explain",
        "explain --running pgdemo0 tcp 10.77.0.66 2101",
        20,
    ),
    ("drift", "drift", 26),
];
/// More lines than any of them prints.
const LINES: u16 = 400;
const TOP: u16 = 24;

/// Draws all of them into a folder.
pub(crate) fn draw(program: PathBuf, folder: &Path) -> Result<()> {
    if !is_root() {
        return Err(Missing::error(
            "screens are of a real guard, which takes root",
            "as root: cargo xtask docs --screens",
        ));
    }
    ensure_tools(&TOOLS)?;
    let stage = Stage::new(program)?;
    stage.load("--audit")?;
    let probes = probes();
    attempt(&stage, &probes)?;
    for (name, line, rows) in SCREENS {
        let shown = stage
            .terminal(line, COLUMNS.get(), LINES)?
            .output(PATIENCE)?;
        picture(folder, name, line, &shown.stdout, (LINES, rows))?;
    }
    let top = stage.terminal("top", COLUMNS.get(), TOP)?;
    // Until it shows a rate of both kinds of packets.
    for _ in 0..ROUNDS {
        attempt(&stage, &probes)?;
        let shown = emulate(&top.stdout(), TOP)?.screen().contents();
        if shown.contains("passed")
            && !shown.contains("passed 0/s")
            && !shown.contains("violations 0/s")
        {
            break;
        }
    }
    picture(folder, "top", "top", &top.stdout(), (TOP, TOP))?;
    drop(top);
    report(&stage, folder)
}

fn picture(
    folder: &Path,
    name: &str,
    line: &str,
    bytes: &str,
    (rows, shown): (u16, u16),
) -> Result<()> {
    let terminal = emulate(bytes, rows)?;
    let title = format!("portguard {line}");
    let text = draw::svg(terminal.screen(), shown, &title);
    let path = folder.join(format!("{name}.svg"));
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    say(path.display());
    Ok(())
}

/// A terminal that has been sent these bytes.
fn emulate(bytes: &str, rows: u16) -> Result<vt100::Parser> {
    let rows = NonZero::new(rows).context("a terminal without lines")?;
    let mut terminal = vt100::Parser::new(rows, COLUMNS, 0);
    terminal.process(bytes.as_bytes());
    Ok(terminal)
}

/// The first page of the report.
fn report(stage: &Stage, folder: &Path) -> Result<()> {
    let page = target().join(format!("report-{}.html", std::process::id()));
    fs::write(&page, stage.text(&["report", "--format", "html"])?)?;
    let path = folder.join("report.png");
    let mut command = Command::new("chromium");
    command
        .args([
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--no-first-run",
        ])
        .args(["--disable-background-networking", "--hide-scrollbars"])
        .args(["--window-size=1120,1000", "--force-device-scale-factor=1"])
        .arg(format!(
            "--user-data-dir={}",
            page.with_extension("profile").display()
        ))
        .arg(format!("--screenshot={}", path.display()))
        .arg(format!("file://{}", page.display()));
    let output = stage.run(&mut command, PATIENCE)?;
    let _ = fs::remove_dir_all(page.with_extension("profile"));
    fs::remove_file(&page)?;
    ensure!(path.exists(), "chromium drew nothing: {output}");
    say(path.display());
    Ok(())
}
