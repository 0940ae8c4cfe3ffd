//! Reads what a machine wrote. Whatever is not there has failed.

use std::time::Duration;

use super::boot::Booted;
use super::kernels::Kernel;
use crate::shell::{result, say};
use crate::tally::Tally;

/// What became of one kernel.
#[derive(Debug)]
pub(super) struct Report {
    title: String,
    /// One line each, with whether it is good.
    lines: Vec<(Outcome, String)>,
    console: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Passed,
    Failed,
    Skipped,
}

impl Report {
    /// A kernel that could not be had or booted.
    pub(super) fn absent(kernel: &Kernel, error: &anyhow::Error) -> Self {
        let outcome = if kernel.required {
            Outcome::Failed
        } else {
            Outcome::Skipped
        };
        Self {
            title: format!("kernel {}", kernel.id),
            lines: vec![(outcome, format!("cannot be had: {error:#}"))],
            console: String::new(),
        }
    }

    pub(super) fn tally(&self) -> Tally {
        let count = |wanted| {
            self.lines
                .iter()
                .filter(|(outcome, _)| *outcome == wanted)
                .count() as u64
        };
        Tally {
            passed: count(Outcome::Passed),
            failed: count(Outcome::Failed),
            skipped: count(Outcome::Skipped),
        }
    }

    pub(super) fn show(&self, took: Duration) {
        let seconds = took.as_secs_f64();
        result(format_args!(
            "{} ({seconds:.1} s): {}",
            self.title,
            self.tally()
        ));
        for (outcome, line) in &self.lines {
            let word = match outcome {
                Outcome::Passed => "ok     ",
                Outcome::Failed => "FAILED ",
                Outcome::Skipped => "skipped",
            };
            result(format_args!("  {word} {line}"));
        }
        if self.tally().failed > 0 && !self.console.is_empty() {
            say(format_args!("  the end of its console:\n{}", self.console));
        }
    }
}

/// Compares what a kernel said with what it had to say.
pub(super) fn judge(kernel: &Kernel, booted: &Booted, checks: &[String]) -> Report {
    let lines: Vec<&str> = booted.result.lines().map(str::trim).collect();
    let mut report = Report {
        title: format!("kernel {} = {}", kernel.id, booted.release),
        lines: Vec::new(),
        console: booted.console.clone(),
    };
    let kernel_line = format!("KERNEL {}", booted.release);
    let boots = lines.first() == Some(&kernel_line.as_str());
    report.add(
        kernel,
        boots,
        || "boots".to_owned(),
        || {
            format!(
                "boots: the first line is {:?}, not `{kernel_line}`",
                lines.first()
            )
        },
    );
    for (fact, value) in &kernel.facts {
        let wanted = format!("FACT {fact} {value}");
        let found = lines
            .iter()
            .find(|line| line.starts_with(&format!("FACT {fact} ")));
        report.add(
            kernel,
            found == Some(&wanted.as_str()),
            || format!("{fact} is {value}"),
            || format!("{fact} is {value}: it said {found:?}"),
        );
    }
    for check in checks {
        let passed = lines.contains(&format!("PASS {check}").as_str());
        // What it learnt, where that has its name.
        let facts = lines.iter().filter_map(|line| line.strip_prefix("FACT "));
        let learnt = facts
            .into_iter()
            .find(|fact| fact.starts_with(&format!("{check} ")));
        report.add(
            kernel,
            passed,
            || learnt.map_or_else(|| check.clone(), str::to_owned),
            || {
                let why = lines
                    .iter()
                    .find_map(|line| line.strip_prefix(&format!("FAIL {check}: ")));
                format!("{check}: {}", why.unwrap_or("said nothing"))
            },
        );
    }
    // Complaints about what nobody expects, such as the machine itself.
    for line in &lines {
        let Some(rest) = line.strip_prefix("FAIL ") else {
            continue;
        };
        let name = rest.split(':').next().unwrap_or_default();
        if !checks.iter().any(|check| check == name) {
            report.add(kernel, false, String::new, || rest.to_owned());
        }
    }
    let ended = lines.last() == Some(&"END") && !booted.overdue;
    report.add(
        kernel,
        ended,
        || "ends".to_owned(),
        || {
            let how = if booted.overdue {
                "it hung"
            } else {
                "its last line is not `END`"
            };
            format!("ends: {how}")
        },
    );
    report
}

impl Report {
    fn add(
        &mut self,
        kernel: &Kernel,
        good: bool,
        pass: impl Fn() -> String,
        fail: impl Fn() -> String,
    ) {
        self.lines.push(match (good, kernel.supported) {
            (true, _) => (Outcome::Passed, pass()),
            (false, true) => (Outcome::Failed, fail()),
            (false, false) => (
                Outcome::Skipped,
                format!("{} [not supported: {}]", fail(), kernel.because),
            ),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kernel(supported: bool) -> Kernel {
        Kernel {
            id: "6.1".into(),
            suite: "suite".into(),
            packages: String::new(),
            arch: crate::arch::Arch::X86_64,
            required: supported,
            supported,
            because: "old".into(),
            facts: [("hook".to_owned(), "tcx".to_owned())].into(),
        }
    }

    fn booted(result: &str) -> Booted {
        Booted {
            release: "6.1.0".into(),
            result: result.into(),
            console: String::new(),
            overdue: false,
        }
    }

    fn verdict(result: &str) -> Tally {
        judge(&kernel(true), &booted(result), &["a".into(), "b".into()]).tally()
    }

    #[test]
    fn everything_said_is_passed() {
        let tally = verdict("KERNEL 6.1.0\r\nFACT hook tcx\r\nPASS a\r\nPASS b\r\nEND\r\n");
        assert_eq!((tally.passed, tally.failed), (5, 0));
    }

    #[test]
    fn silence_is_failure() {
        assert_eq!(verdict("").failed, 5);
        assert_eq!(
            verdict("KERNEL 6.1.0\nFACT hook tcx\nPASS a\nEND\n").failed,
            1
        );
        assert_eq!(
            verdict("KERNEL 6.1.0\nFACT hook tcx\nPASS a\nPASS b\n").failed,
            1
        );
    }

    #[test]
    fn another_kernel_or_fact_is_failure() {
        assert_eq!(
            verdict("KERNEL 6.2.0\nFACT hook tcx\nPASS a\nPASS b\nEND\n").failed,
            1
        );
        assert_eq!(
            verdict("KERNEL 6.1.0\nFACT hook clsact\nPASS a\nPASS b\nEND\n").failed,
            1
        );
    }

    #[test]
    fn unexpected_complaints_are_failures() {
        let result = "KERNEL 6.1.0\nFACT hook tcx\nPASS a\nPASS b\nFAIL machine: no memory\nEND\n";
        assert_eq!(verdict(result).failed, 1);
    }

    #[test]
    fn what_is_not_supported_fails_nothing_but_is_shown() {
        let report = judge(
            &kernel(false),
            &booted("KERNEL 6.1.0\nFAIL a: refused\nEND\n"),
            &["a".into()],
        );
        let tally = report.tally();
        assert_eq!((tally.passed, tally.failed, tally.skipped), (2, 0, 2));
        assert!(
            report
                .lines
                .iter()
                .any(|(_, line)| line.contains("refused"))
        );
    }

    #[test]
    fn a_required_kernel_that_cannot_be_had_fails() {
        let error = anyhow::anyhow!("no mirror");
        assert_eq!(Report::absent(&kernel(true), &error).tally().failed, 1);
        assert_eq!(Report::absent(&kernel(false), &error).tally().skipped, 1);
    }
}
