//! The text of verbs and of errors, as a reader has it on 80 and 120 columns.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use insta::Settings;
use portguard_harness::net::Output;

use super::{GUARDED, OFFLINE, REFUSED, scene, site, words};
use crate::guard::Guarded;

const SNAPSHOTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/output/snapshots");
pub(super) const WIDTHS: [u16; 2] = [80, 120];

/// Verbs whose text depends on nothing but their input.
const SHOWN: &[(&str, &str)] = &[
    ("check", "check -c site.toml --host portal1"),
    ("check-verbose", "check -c site.toml --host portal1 -v"),
    ("catalog-list", "catalog list"),
    ("catalog-show", "catalog show nexthink/portal"),
    (
        "explain-pass",
        "explain -c site.toml --host portal1 tcp engine1 ssh",
    ),
    (
        "explain-drop",
        "explain -c site.toml --host portal1 tcp 198.51.100.7 8080",
    ),
    (
        "explain-ping",
        "explain -c site.toml --host portal1 icmp engine1",
    ),
    ("diff", "diff --between site.toml other.toml --host portal1"),
    ("init", "init --host db1=10.0.0.1@thoughtspot/node"),
    (
        "export-nftables",
        "export -c site.toml --host engine1 --format nftables",
    ),
];

/// Mistakes, each with the hint that fits it.
const MISTAKES: &[&str] = &[
    "check -c nowhere.toml",
    "check -c wrong.toml",
    "check --role nexthink/portl",
    "check --role nexthink",
    "check --role nexthink/portal --option foo",
    "check --option foo",
    "check --role wso2/api-manager --offset wso2/api-manager=70000",
    "check --role wso2/api-manager --offset api-manager",
    "check --role nexthink/portal --choose portal-acces=secure",
    "check --role nexthink/portal --peer mailserver=192.0.2.1",
    "check -c site.toml --host portal2",
    "explain -c site.toml --host portal1 tcp engine2 443",
    "explain -c site.toml --host portal1 tcp engine1 htttps",
    "explain -c site.toml --host portal1 tcp engine1 70000",
    "explain -c site.toml --host portal1 tpc engine1 443",
    "explain -c site.toml --host portal1 tcp engine1",
    "explain -c site.toml --host portal1 --frame zz",
    "init",
    "init --host db1",
    "catalog show nexthink/portl",
    "statsu",
    "laod",
    "status --jsn",
];

pub(super) fn settings() -> Settings {
    let mut settings = Settings::new();
    settings.set_snapshot_path(SNAPSHOTS);
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings
}

fn offline(directory: &Path, line: &str, columns: u16) -> Result<Output> {
    let args: Vec<&str> = line.split(' ').collect();
    let output = Guarded::command(&args)
        .current_dir(directory)
        .env("COLUMNS", columns.to_string())
        .output()?;
    Ok(Output {
        status: output.status,
        stdout: String::from_utf8(output.stdout)?,
        stderr: String::from_utf8(output.stderr)?,
    })
}

fn files() -> Result<tempfile::TempDir> {
    let directory = tempfile::tempdir()?;
    let site = site::site("10.0.0.1", &site::Answers::default());
    let write = |name: &str, text: String| std::fs::write(directory.path().join(name), text);
    write("site.toml", site.clone())?;
    write("wrong.toml", site.replace("unprinted", "unprnted"))?;
    write("other.toml", site.replace("192.0.2.6", "192.0.2.66"))?;
    Ok(directory)
}

/// All that is said, but for digests: they change with the tables of each version.
fn whole(output: &Output) -> String {
    let is_digest =
        |word: &str| word.len() == 64 && word.bytes().all(|one| one.is_ascii_hexdigit());
    let mut text = format!(
        "{}\n---- standard error, exit code {}\n{}",
        output.stdout,
        output.code(),
        output.stderr
    );
    let digests: Vec<String> = text
        .split(|one: char| !one.is_ascii_alphanumeric())
        .filter(|word| is_digest(word))
        .map(str::to_owned)
        .collect();
    for digest in digests {
        text = text.replace(&digest, "DIGEST");
    }
    text
}

#[test]
fn verbs_read_as_they_did() -> Result<()> {
    let directory = files()?;
    for (name, line) in SHOWN {
        for columns in WIDTHS {
            let output = offline(directory.path(), line, columns)?;
            let text = whole(&output);
            settings().bind(|| insta::assert_snapshot!(format!("{name}-{columns}"), text));
        }
    }
    Ok(())
}

#[test]
fn mistakes_read_as_they_did_and_their_hints_fit() -> Result<()> {
    let directory = files()?;
    let mut all = String::new();
    for line in MISTAKES {
        let output = offline(directory.path(), line, 100)?;
        ensure!(output.code() == 2, "{line}: {output}");
        ensure!(output.stdout.is_empty(), "{line}: {output}");
        writeln!(all, "$ portguard {line}\n{}", output.stderr)?;
    }
    settings().bind(|| insta::assert_snapshot!("mistakes", all));
    Ok(())
}

/// What is wrong with the ends and the numbers of a text.
fn faults(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    if text.is_empty() {
        return found;
    }
    if !text.ends_with('\n') || text.ends_with("\n\n") {
        let end: String = text.chars().rev().take(40).collect();
        let end: String = end.chars().rev().collect();
        found.push(format!("does not end in one newline: {end:?}"));
    }
    if text.starts_with('\n') {
        found.push("begins with an empty line".to_owned());
    }
    for line in text.lines() {
        if line.ends_with(' ') {
            found.push(format!("white space at the end: {line:?}"));
        }
        let all: Vec<&str> = line.split([' ', '(', '/']).collect();
        for pair in all.windows(2) {
            let [one, thing] = pair else { continue };
            let thing = thing.trim_end_matches([',', '.', ':', ';', ')']);
            let is_plural = thing.len() > 2
                && thing.ends_with('s')
                && !thing.ends_with("ss")
                && !["was", "has", "its", "this", "does", "stays"].contains(&thing)
                && thing.bytes().all(|byte| byte.is_ascii_lowercase());
            if *one == "1" && is_plural {
                found.push(format!("one of many: {line:?}"));
            }
        }
    }
    found
}

#[test]
fn every_output_ends_in_one_newline_and_counts_right() -> Result<()> {
    let scene = scene()?;
    let mut wrong = Vec::new();
    let mut look = |line: &str, is_refused: bool| -> Result<()> {
        let args = words(line, scene.guarded.interface());
        let output = scene.run(&args, Some(80))?;
        let is_script = line.starts_with("completions") || line.starts_with("man");
        for text in [&output.stdout, &output.stderr] {
            let all = faults(text).into_iter();
            wrong.extend(
                all.filter(|_| !is_script)
                    .map(|fault| format!("{line}: {fault}")),
            );
        }
        // Ids, names and addresses are never broken, whatever they take.
        let is_too_wide = |text: &&str| {
            let longest = text.split(' ').map(|word| word.chars().count()).max();
            text.chars().count() > 80 && longest < Some(28)
        };
        // Files for other programs have lines as they come.
        let is_file = is_script
            || ["init", "export", "report", "schema"]
                .iter()
                .any(|verb| line.starts_with(verb));
        let shown = if is_file { "" } else { output.stdout.as_str() };
        for text in shown
            .lines()
            .chain(output.stderr.lines())
            .filter(is_too_wide)
        {
            wrong.push(format!("{line}: wider than 80 columns: {text}"));
        }
        if is_refused {
            ensure!(output.code() != 0, "{line}: {output}");
            // Further in stands what goes on.
            let mut records = output
                .stderr
                .lines()
                .filter(|line| !line.starts_with("    "));
            let last = records.next_back().unwrap_or_default();
            let ends = ["refused: ", "hint: ", "For more information"];
            let is_verdict =
                ends.iter().any(|end| last.starts_with(end)) || last.ends_with("cannot be loaded");
            if !is_verdict {
                wrong.push(format!("{line}: ends in no verdict: {}", output.stderr));
            }
        }
        Ok(())
    };
    for (_, line) in OFFLINE {
        look(line, false)?;
    }
    for line in REFUSED {
        look(line, true)?;
    }
    scene.run(&["load", "-c", "site.toml"], None)?.success()?;
    scene.run(&["load", "-c", "site.toml"], None)?.success()?;
    scene.traffic()?;
    scene.settled()?;
    for line in [
        "doctor --interface IF",
        "bench --rounds 1",
        "events --seconds 0",
    ] {
        look(line, false)?;
    }
    for (_, line) in GUARDED {
        look(line, false)?;
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

#[test]
fn colour_is_where_it_is_wanted_and_nowhere_else() -> Result<()> {
    let program = env!("CARGO_BIN_EXE_portguard");
    let on_a_terminal = |line: &str, name: &str, value: &str| -> Result<String> {
        let shown = format!("{program} {line}");
        let output = Command::new("script")
            .args(["-qec", &shown, "/dev/null"])
            .env("TERM", "xterm")
            .env_remove("NO_COLOR")
            // Where this is set, a dumb terminal counts as one that has colours.
            .env_remove("CI")
            .env(name, value)
            .output()
            .context("script")?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    for line in ["doctor", "check --role nothing/here", "--help"] {
        let is_coloured = |text: &str| text.contains("\x1b[");
        ensure!(is_coloured(&on_a_terminal(line, "LANG", "C")?), "{line}");
        for (name, value) in [("NO_COLOR", "1"), ("TERM", "dumb")] {
            let text = on_a_terminal(line, name, value)?;
            ensure!(!is_coloured(&text), "{line} with {name}: {text:?}");
        }
        let text = on_a_terminal(&format!("--color never {line}"), "LANG", "C")?;
        ensure!(!is_coloured(&text), "{line}: {text:?}");
    }
    Ok(())
}

#[test]
fn what_is_said_wraps_on_a_terminal_and_nowhere_else() -> Result<()> {
    let directory = files()?;
    let program = env!("CARGO_BIN_EXE_portguard");
    for line in MISTAKES {
        let shown = format!(
            "stty cols 60; cd {}; {program} {line}",
            directory.path().display()
        );
        let on_a_terminal = Command::new("script")
            .args(["-qc", &shown, "/dev/null"])
            .env("NO_COLOR", "1")
            .env("TERM", "xterm")
            .env_remove("COLUMNS")
            .output()
            .context("script")?;
        let on_a_terminal = String::from_utf8_lossy(&on_a_terminal.stdout).replace('\r', "");
        let wide = on_a_terminal
            .lines()
            .find(|line| line.chars().count() > 60 && line.trim_start().contains(' '));
        // What is to be typed is not cut where it has no room either.
        let wide = wide.filter(|line| line.split(' ').all(|word| word.chars().count() < 50));
        ensure!(wide.is_none(), "{line}: {wide:?}");
        let mut command = Guarded::command(&line.split(' ').collect::<Vec<_>>());
        let piped = command
            .current_dir(directory.path())
            .env_remove("COLUMNS")
            .output()?;
        let piped = String::from_utf8(piped.stderr)?;
        let words = |text: &str| {
            text.split_whitespace()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        ensure!(
            words(&piped) == words(&on_a_terminal),
            "{line}: {piped}\n{on_a_terminal}"
        );
        let wrapped = piped.lines().find(|line| line.starts_with("    "));
        ensure!(wrapped.is_none(), "{line}: {wrapped:?}");
    }
    Ok(())
}
