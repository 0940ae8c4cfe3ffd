//! What operators type.

#![expect(
    clippy::indexing_slicing,
    reason = "a field that an answer lacks is null, and what was looked for does not come"
)]

use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};
use portguard_harness::net::{Output, Process};
use serde_json::Value;

use super::{Field, PATIENCE, PUBLISHERS};
use crate::shell::say;

impl Field {
    pub(super) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .arg("fleet")
            .args(arguments)
            .arg("--directory")
            .arg(&self.directory)
            .env("COLUMNS", "100")
            .env_remove("PORTGUARD_CONFIG");
        command
    }

    pub(super) fn verb(&self, arguments: &[&str]) -> Result<Output> {
        self.hub.output(&mut self.command(arguments), PATIENCE)
    }

    pub(super) fn json(&self, arguments: &[&str]) -> Result<Value> {
        let output = self.verb(arguments)?;
        serde_json::from_str(&output.stdout).with_context(|| output.to_string())
    }

    /// Runs a verb and shows what it says, or those of its lines that have one of these words.
    pub(in crate::demo::fleet) fn show(&self, arguments: &[&str], words: &[&str]) -> Result<()> {
        let output = self.verb(arguments)?;
        ensure!(
            output.code() < 2,
            "`portguard fleet {}`: {output}",
            arguments.join(" ")
        );
        say(format_args!(
            "    $ portguard fleet {}",
            arguments.join(" ")
        ));
        let mut is_shown = false;
        for line in output.stdout.lines().chain(output.stderr.lines()) {
            // What had no room on its line goes on below.
            let goes_on = is_shown && line.starts_with("    ");
            is_shown = goes_on || words.is_empty() || words.iter().any(|word| line.contains(word));
            if is_shown {
                say(format_args!("    {}", line.trim_end()));
            }
        }
        Ok(())
    }

    /// Runs a verb that is refused, and shows why.
    pub(in crate::demo::fleet) fn refused(&self, arguments: &[&str], why: &str) -> Result<()> {
        let output = self.verb(arguments)?;
        ensure!(
            output.code() == 2 && output.stderr.contains(why),
            "`portguard fleet {}` was not refused as it should be: {output}",
            arguments.join(" ")
        );
        say(format_args!(
            "    $ portguard fleet {}",
            arguments.join(" ")
        ));
        for line in output.stderr.lines() {
            say(format_args!("    {line}"));
        }
        Ok(())
    }

    /// Both publishers sign.
    pub(in crate::demo::fleet) fn sign(&self, more: &[&str]) -> Result<()> {
        for publisher in PUBLISHERS {
            let key = self.path(&format!("{publisher}.key")).display().to_string();
            let mut verb = vec!["sign", "-s", &key];
            verb.extend(more);
            self.verb(&verb)?.success()?;
        }
        let (names, more) = (PUBLISHERS.join(" and "), more.concat());
        say(format_args!(
            "    $ portguard fleet sign {more}     by {names}"
        ));
        Ok(())
    }

    /// Plans, signs, publishes, and lets the rollout begin.
    pub(in crate::demo::fleet) fn publish(&self, more: &[&str]) -> Result<()> {
        let mut plan = vec!["plan"];
        plan.extend(more);
        self.show(&plan, &["release", "rollback"])?;
        self.sign(&[])?;
        self.show(&["apply", "--start"], &[])
    }

    /// Until all of these hosts are there; a rollout that halts meanwhile ends it.
    pub(in crate::demo::fleet) fn wait(&self, state: &str, selector: &str) -> Result<()> {
        let timeout = format!("{}s", PATIENCE.as_secs() - 10);
        let verb = [
            "status",
            "--json",
            "--wait",
            state,
            "-l",
            selector,
            "--timeout",
            &timeout,
        ];
        let said = self.json(&verb)?;
        if said["waited"]["result"] == "reached" {
            return Ok(());
        }
        let logs: Vec<String> = self.processes.iter().map(Process::stderr).collect();
        bail!("not all are {state}: {said:#}\n{}", logs.join("\n---\n"))
    }

    /// Until a host is there again, where it was further on.
    pub(in crate::demo::fleet) fn wait_back(&self, state: &str, host: &str) -> Result<()> {
        let selector = format!("host={host}");
        let verb = ["status", "--json", "-l", &selector];
        self.eventually(&verb, |said| said["hosts"][0]["state"] == state)
    }

    fn eventually(&self, verb: &[&str], is_so: impl Fn(&Value) -> bool) -> Result<()> {
        let begun = Instant::now();
        loop {
            let said = self.json(verb)?;
            if is_so(&said) {
                return Ok(());
            }
            ensure!(begun.elapsed() < PATIENCE, "it does not come: {said:#}");
        }
    }

    /// Until the rollout is.
    pub(in crate::demo::fleet) fn wait_for_phase(&self, phase: &str) -> Result<()> {
        self.eventually(&["status", "--json"], |said| {
            said["position"]["phase"] == phase
        })
    }
}
