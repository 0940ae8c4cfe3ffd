//! What a reader relies on beyond the words: one record a line for programs, nothing that asks what can be known, screens
//! that fit, and no page about a host without a guard that reads like a pass.

use std::collections::BTreeSet;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::live::Quiet;
use crate::guard::eventually;

/// Words of a line, wherever its columns stand.
fn words(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}

#[test]
fn check_writes_one_record_a_line_where_it_is_piped() -> Result<()> {
    let quiet = Quiet::new()?;
    let answer = quiet.run("check -c site.toml --json", 80)?.success()?;
    let answer: Value = serde_json::from_str(&answer.stdout)?;
    let piped = quiet
        .shell("unset COLUMNS; $P check -c site.toml | cat", 80)?
        .success()?;
    let mut records = BTreeSet::new();
    for direction in ["inbound", "outbound"] {
        for rule in answer[direction].as_array().context("rules")? {
            for row in rule["rows"].as_array().context("rows")? {
                let row = row.as_str().context("a row")?;
                let port = format!(
                    "{}/{}",
                    rule["transport"].as_str().unwrap_or_default(),
                    rule["port_first"]
                );
                let is_it = |line: &&str| line.starts_with(&port) && words(line).contains(&row);
                let line = piped.stdout.lines().find(is_it);
                records
                    .insert(line.with_context(|| format!("no line of {port} and {row}: {piped}"))?);
            }
        }
    }
    ensure!(records.len() > 10, "{piped}");
    // What a record has to say stands in its own line: none goes on in the next.
    let goes_on = piped.stdout.lines().find(|line| line.starts_with(' '));
    ensure!(goes_on.is_none(), "{piped}");
    Ok(())
}

#[test]
fn a_host_with_one_interface_is_not_asked_for_it() -> Result<()> {
    let quiet = Quiet::new()?;
    let loaded = quiet.shell(
        "$P load --role nexthink/portal --audit --unprinted-peers any --unresolved-peers any --management none",
        80,
    )?;
    let loaded = loaded.success()?;
    ensure!(
        loaded.stderr.contains(quiet.guarded.interface()),
        "{loaded}"
    );
    Ok(())
}

#[test]
fn a_report_of_a_host_without_a_guard_says_that_it_is_no_pass() -> Result<()> {
    let quiet = Quiet::new()?;
    for format in ["html", "markdown"] {
        let output = quiet.run(&format!("report --format {format}"), 80)?;
        ensure!(output.code() == 1, "{output}");
        ensure!(
            output.stdout.to_lowercase().contains("no pass"),
            "{format}: {output}"
        );
        ensure!(output.stderr.starts_with("no pass"), "{output}");
    }
    let json = quiet.run("report --json", 80)?;
    let answer: Value = serde_json::from_str(&json.stdout)?;
    ensure!(json.code() == 1 && answer["guarded"] == false, "{json}");
    Ok(())
}

#[test]
fn the_largest_lines_say_as_much_as_all_of_them() -> Result<()> {
    let quiet = Quiet::new()?;
    quiet.run("load -c site.toml", 80)?.success()?;
    quiet.traffic()?;
    for by in ["port", "row", "reason", "peer"] {
        let all = quiet
            .run(&format!("counters --by {by} --top 100"), 200)?
            .success()?;
        let top = quiet
            .run(&format!("counters --by {by} --top 2"), 200)?
            .success()?;
        let all: BTreeSet<Vec<&str>> = all.stdout.lines().map(words).collect();
        // What counts the rest, and when it was counted, are other words.
        let said = ["not listed", "packets", "talkers", "Top", "more; "];
        for line in top
            .stdout
            .lines()
            .filter(|line| !said.iter().any(|word| line.contains(word)))
        {
            ensure!(
                all.contains(&words(line)),
                "--by {by}: {line} is not in {all:#?}"
            );
        }
    }
    Ok(())
}

#[test]
fn counters_that_are_watched_fit_the_screen() -> Result<()> {
    const ROWS: usize = 24;
    const COLUMNS: usize = 80;
    let quiet = Quiet::new()?;
    quiet.run("load -c site.toml", 80)?.success()?;
    quiet.traffic()?;
    let program = env!("CARGO_BIN_EXE_portguard");
    let mut command = Command::new("script");
    let shown = format!("stty rows {ROWS} cols {COLUMNS}; {program} counters --watch --by row");
    command
        .args(["-qfec", &shown, "/dev/null"])
        .env("TERM", "xterm")
        .env_remove("COLUMNS");
    let watch = quiet.guarded.link.left.host.start(&mut command)?;
    // The second picture has rates.
    eventually("it is drawn again", || {
        Ok(watch.stdout().contains("packets/s"))
    })?;
    let drawn = watch.stdout();
    for picture in drawn.split("\x1b[H") {
        let lines: Vec<&str> = picture.lines().collect();
        ensure!(lines.len() <= ROWS, "{} lines: {picture}", lines.len());
        for line in lines {
            let plain: String = line
                .split('\x1b')
                .map(|piece| {
                    let end = piece.find(|one: char| one.is_ascii_alphabetic());
                    match end {
                        Some(end) if piece.starts_with('[') => {
                            piece.get(end + 1..).unwrap_or_default()
                        }
                        _ => piece,
                    }
                })
                .collect();
            ensure!(plain.trim_end().chars().count() <= COLUMNS, "{plain}");
        }
    }
    Ok(())
}
