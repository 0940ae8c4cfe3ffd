//! `cargo xtask test`: every test of the workspace, on this kernel.

use std::io::{self, BufRead as _, BufReader, IsTerminal as _, Write as _};
use std::process::Stdio;

use anyhow::{Context as _, Result, bail};

use crate::shell::{Missing, line_of, result, say};
use crate::tally::Tally;
use crate::workspace::{cargo, is_root, which};
use crate::{setup, workspace};

#[derive(Debug, clap::Args)]
pub(crate) struct TestArgs {
    /// Only tests whose name contains one of these
    pub(crate) filter: Vec<String>,
    /// Only the tests of this package; again for more
    #[arg(long, short, value_name = "NAME")]
    pub(crate) package: Vec<String>,
    /// Show what tests print though they pass
    #[arg(long)]
    pub(crate) nocapture: bool,
    /// Those that take minutes as well: whole systems over real sockets, every change of the catalog
    #[arg(long)]
    pub(crate) ignored: bool,
    /// Build with optimisation: a slower build, faster tests
    #[arg(long)]
    pub(crate) release: bool,
}

pub(crate) fn run(args: &TestArgs) -> Result<()> {
    let tally = all(args, Vec::new())?;
    result(tally);
    if !tally.is_good() {
        bail!("not every test passed");
    }
    Ok(())
}

/// Everything, for `ci`.
pub(crate) fn everything() -> Result<Tally> {
    let args = TestArgs {
        filter: Vec::new(),
        package: Vec::new(),
        nocapture: false,
        ignored: false,
        release: false,
    };
    all(&args, Vec::new())
}

/// Tests with variables of the environment set for them.
pub(crate) fn all(args: &TestArgs, variables: Vec<(String, String)>) -> Result<Tally> {
    let TestArgs {
        filter,
        package,
        nocapture,
        ignored,
        release,
    } = args;
    let through_sudo = become_root()?;
    setup::ensure(&setup::TEST)?;
    setup::servers()?;
    setup::udev()?;
    let mut command = cargo();
    if through_sudo {
        // The build stays the user's own; only the test programs run as root.
        let runner = "target.'cfg(all())'.runner = ['sudo', '--preserve-env']";
        command.args(["--config", runner]);
    }
    command.envs(variables);
    command.args(["test", "--no-fail-fast"]);
    if package.is_empty() {
        command.arg("--workspace");
    }
    for name in package {
        command.args(["--package", name]);
    }
    if *release {
        command.arg("--release");
    }
    command.arg("--");
    if *nocapture {
        command.arg("--nocapture");
    }
    if *ignored {
        command.arg("--include-ignored");
    }
    command.args(filter);
    if io::stdout().is_terminal() {
        command.env("CARGO_TERM_COLOR", "always");
    }
    say(format_args!("running {}", line_of(&command)));

    let mut child = command.stdout(Stdio::piped()).spawn()?;
    let stdout = child.stdout.take().context("no output of cargo")?;
    let mut tally = Tally::default();
    for line in BufReader::new(stdout).split(b'\n') {
        let line = line?;
        let _ = io::stdout().lock().write_all(&line);
        let _ = io::stdout().lock().write_all(b"\n");
        if let Some(counted) = count(&String::from_utf8_lossy(&line)) {
            tally += counted;
        }
    }
    let status = child.wait()?;
    if !status.success() && tally.failed == 0 {
        bail!("{} failed ({status}) after {tally}", line_of(&command));
    }
    if tally == Tally::default() {
        bail!("no test ran: nothing is named like that");
    }
    Ok(tally)
}

/// Whether test programs must be called through sudo to be root.
fn become_root() -> Result<bool> {
    if is_root() {
        return Ok(false);
    }
    let ask =
        "the tests load eBPF programs and make network namespaces of their own, which takes root";
    if which("sudo").is_none() || !io::stdin().is_terminal() {
        return Err(Missing::error(
            ask,
            "as root: cargo xtask test; or: sudo --preserve-env env PATH=\"$PATH\" cargo xtask test",
        ));
    }
    say(format_args!("{ask}: they are called through sudo"));
    crate::shell::show(std::process::Command::new("sudo").arg("--validate"))?;
    Ok(true)
}

/// Reads one closing line of a test program.
fn count(line: &str) -> Option<Tally> {
    let line = workspace::without_colours(line);
    let facts = line.trim_start().strip_prefix("test result: ")?;
    let number = |what: &str| -> Option<u64> {
        facts
            .split([';', '.'])
            .find_map(|fact| fact.trim().strip_suffix(what)?.trim().parse().ok())
    };
    Some(Tally {
        passed: number("passed")?,
        failed: number("failed")?,
        skipped: number("ignored")?,
    })
}

#[cfg(test)]
mod tests {
    use super::{Tally, count};

    #[test]
    fn closing_lines_are_read() {
        let line = "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 3 filtered out; finished in 0.21s";
        let tally = Tally {
            passed: 12,
            failed: 0,
            skipped: 1,
        };
        assert_eq!(count(line), Some(tally));
    }

    #[test]
    fn coloured_closing_lines_are_read() {
        let line = "test result: \u{1b}[31mFAILED\u{1b}[0m. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.00s";
        let tally = Tally {
            passed: 1,
            failed: 2,
            skipped: 0,
        };
        assert_eq!(count(line), Some(tally));
    }

    #[test]
    fn other_lines_are_not() {
        assert_eq!(count("test parity ... ok"), None);
        assert_eq!(count("test result: ok."), None);
    }
}
