//! What holds of every verb that the command line has: examples that can be typed, and JSON, of errors too.

use anyhow::{Context as _, Result, ensure};
use clap::CommandFactory as _;
use portguard::cli::Cli;
use portguard_harness::net::Lab;

use super::documents;
use crate::guard::{Guarded, LONG};

/// What verbs that go on are called with, so that they end.
const ENDING: [(&str, &[&str]); 2] = [("agent", &["--once"]), ("events", &["--seconds", "0"])];
/// Goes on until nobody reads.
const ENDLESS: &str = "top";

/// All verbs that can be called, with those below them: `catalog show`.
fn verbs() -> Vec<Vec<String>> {
    fn collect(command: &clap::Command, path: &[String], found: &mut Vec<Vec<String>>) {
        for verb in command.get_subcommands().filter(|verb| !verb.is_hide_set()) {
            let mut path = path.to_vec();
            path.push(verb.get_name().to_owned());
            if !verb.is_subcommand_required_set() {
                found.push(path.clone());
            }
            collect(verb, &path, found);
        }
    }
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    let mut found = Vec::new();
    collect(&command, &[], &mut found);
    found
}

/// What stands below the flags of a verb, as it is written.
fn examples(verb: &[String]) -> Option<String> {
    let top = Cli::command();
    let mut command = &top;
    for name in verb {
        command = command.find_subcommand(name)?;
    }
    let text = command.get_after_help()?.to_string();
    Some(text.split_once("Examples:\n")?.1.to_owned())
}

/// The words of an example: to where it is explained, or another command begins.
fn typed(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quote = None;
    let mut before = ' ';
    for one in line.chars() {
        match (quote, one) {
            (None, '\'' | '"') => quote = Some(one),
            (Some(open), _) if open == one => quote = None,
            (None, '|' | '&' | '>' | ';' | '#') => break,
            (None, ' ') if before == ' ' => break,
            (None, ' ') => words.push(String::new()),
            _ => {
                if let Some(word) = words.last_mut() {
                    word.push(one);
                }
            }
        }
        before = one;
    }
    words.retain(|word| !word.is_empty());
    words
}

#[test]
fn every_verb_has_examples_and_each_can_be_typed() -> Result<()> {
    let mut wrong = Vec::new();
    let all = verbs();
    ensure!(all.len() > 30, "{all:?}");
    for verb in all {
        let Some(text) = examples(&verb) else {
            wrong.push(format!("{verb:?} has no examples"));
            continue;
        };
        let wide = text.lines().filter(|line| line.chars().count() > 80);
        wrong.extend(wide.map(|line| format!("{verb:?}: wider than 80 columns: {line}")));
        let text = text.replace("\\\n      ", "");
        let lines = text.lines().map(str::trim);
        let lines = lines.map(|line| line.trim_start_matches("sudo "));
        let mut examples = 0;
        for line in lines.filter(|line| line.starts_with("portguard ")) {
            examples += 1;
            if let Err(error) = Cli::command().try_get_matches_from(typed(line)) {
                wrong.push(format!("{verb:?}: `{line}`: {error}"));
            }
        }
        if examples == 0 {
            wrong.push(format!("{verb:?} has no examples that call it"));
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

#[test]
fn every_verb_answers_in_json_and_so_do_its_errors() -> Result<()> {
    let host = Lab::new()?.host("verbs")?;
    let directory = tempfile::tempdir()?;
    let run = |verb: &[String], more: &[&str]| {
        let mut args: Vec<&str> = verb.iter().map(String::as_str).collect();
        args.extend(more);
        args.push("--json");
        let mut command = Guarded::command(&args);
        command
            .current_dir(directory.path())
            .env("STATE_DIRECTORY", directory.path().join("state"))
            .env("HOME", directory.path());
        host.output(&mut command, LONG)
    };
    let mut wrong = Vec::new();
    for verb in verbs() {
        let output = run(&verb, &["--no-such-flag"])?;
        let error = documents(&output.stdout)?;
        let [error] = &error[..] else {
            wrong.push(format!("{verb:?}: one error: {output}"));
            continue;
        };
        let has = |key: &str| {
            error["error"][key]
                .as_str()
                .is_some_and(|text| !text.is_empty())
        };
        if error["schema"] != 1 || !["code", "message", "hint"].into_iter().all(has) {
            wrong.push(format!("{verb:?}: {error}"));
        }
        if output.code() != 2 {
            wrong.push(format!("{verb:?}: exit code {}", output.code()));
        }
        if verb == [ENDLESS] {
            continue;
        }
        // Where nothing is guarded, and nothing is said.
        let ending = ENDING.iter().find(|(name, _)| verb == [*name]);
        let output = run(&verb, ending.map_or(&[][..], |(_, more)| more))?;
        let answers = documents(&output.stdout).with_context(|| format!("{verb:?}: {output}"))?;
        if !(0..=3).contains(&output.code()) {
            wrong.push(format!("{verb:?}: exit code {}: {output}", output.code()));
        }
        if answers.is_empty() && ending.is_none() {
            wrong.push(format!("{verb:?}: no answer: {output}"));
        }
        let is_refused = output.code() > 1;
        for answer in answers {
            if answer["schema"] != 1 {
                wrong.push(format!("{verb:?}: no schema: {answer}"));
            }
            // A matrix that cannot be loaded is shown all the same, with the reasons.
            let reasons = answer["diagnostics"]
                .as_array()
                .is_some_and(|all| !all.is_empty());
            if is_refused && !answer["error"]["message"].is_string() && !reasons {
                wrong.push(format!("{verb:?}: refused without an error: {output}"));
            }
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}
