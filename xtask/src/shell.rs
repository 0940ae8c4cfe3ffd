//! Talking to a person, and running commands under their eyes.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, BufRead, BufReader, IsTerminal as _, Read, Write as _};
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

/// The machine lacks something that only its owner can get. Says what, and the commands.
#[derive(Debug, thiserror::Error)]
#[error("{what}\n\nhint: {hint}")]
pub(crate) struct Missing {
    /// What is missing, and why it is needed.
    pub(crate) what: String,
    /// How to get it.
    pub(crate) hint: String,
}

impl Missing {
    pub(crate) fn error(what: impl Into<String>, hint: impl Into<String>) -> anyhow::Error {
        anyhow::Error::new(Self {
            what: what.into(),
            hint: hint.into(),
        })
    }
}

/// Lines of a failed command that are shown.
const TAIL: usize = 30;
/// How often a log, which shows no spinner, hears that a command still runs.
const SIGN_OF_LIFE: Duration = Duration::from_secs(20);

/// Says a line to the person, on standard error. Nobody listening is no failure.
pub(crate) fn say(line: impl fmt::Display) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// Writes a line of the result, on standard output. Nobody listening is no failure.
pub(crate) fn result(line: impl fmt::Display) {
    let mut out = io::stdout().lock();
    let _ = writeln!(out, "{line}");
    let _ = out.flush();
}

/// What a command printed, if it succeeded.
pub(crate) fn capture(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start {}", line_of(command)))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{}: {}\n{}", line_of(command), output.status, said.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a command that talks for itself.
pub(crate) fn show(command: &mut Command) -> Result<()> {
    let status = command
        .status()
        .with_context(|| format!("cannot start {}", line_of(command)))?;
    if !status.success() {
        bail!("{} failed ({status})", line_of(command));
    }
    Ok(())
}

/// Runs a command quietly: one line that says what goes on, its output only if it fails.
pub(crate) fn step(what: &str, command: &mut Command) -> Result<()> {
    let begun = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {}", line_of(command)))?;
    let (sender, receiver) = mpsc::channel();
    forward(child.stdout.take(), sender.clone());
    forward(child.stderr.take(), sender);

    let mut progress = Progress::new(what);
    let mut tail = VecDeque::with_capacity(TAIL);
    loop {
        match receiver.recv_timeout(Duration::from_millis(200)) {
            Ok(line) => {
                if tail.len() == TAIL {
                    tail.pop_front();
                }
                tail.push_back(line);
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
        progress.tick(begun.elapsed(), tail.back().map_or("", String::as_str));
    }
    let status = child.wait()?;
    progress.end(begun.elapsed(), status.success());
    if !status.success() {
        for line in &tail {
            say(format_args!("    {line}"));
        }
        bail!("{} failed ({status})", line_of(command));
    }
    Ok(())
}

/// The command as one could type it.
pub(crate) fn line_of(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    words.extend(
        command
            .get_args()
            .map(|word| word.to_string_lossy().into_owned()),
    );
    format!("`{}`", words.join(" "))
}

fn forward(stream: Option<impl Read + Send + 'static>, to: Sender<String>) {
    let Some(stream) = stream else { return };
    thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            if to.send(line).is_err() {
                return;
            }
        }
    });
}

/// One line: rewritten in place on a terminal, in a log begun and ended.
struct Progress<'a> {
    what: &'a str,
    terminal: bool,
    spoken: Duration,
}

impl<'a> Progress<'a> {
    fn new(what: &'a str) -> Self {
        let terminal = io::stderr().is_terminal();
        if !terminal {
            say(format_args!("  {what} ..."));
        }
        Self {
            what,
            terminal,
            spoken: Duration::ZERO,
        }
    }

    fn tick(&mut self, elapsed: Duration, last: &str) {
        let pause = if self.terminal {
            Duration::from_millis(200)
        } else {
            SIGN_OF_LIFE
        };
        if elapsed < self.spoken + pause {
            return;
        }
        self.spoken = elapsed;
        let seconds = elapsed.as_secs();
        let last: String = last
            .chars()
            .filter(|char| !char.is_control())
            .take(60)
            .collect();
        if self.terminal {
            let what = self.what;
            let _ = write!(io::stderr().lock(), "\r\x1b[K  {what} ({seconds} s) {last}");
        } else {
            say(format_args!("    {seconds} s: {last}"));
        }
    }

    fn end(&self, elapsed: Duration, ok: bool) {
        let start = if self.terminal { "\r\x1b[K" } else { "" };
        let verdict = if ok { "done" } else { "FAILED" };
        let (what, seconds) = (self.what, elapsed.as_secs_f64());
        say(format_args!("{start}  {what}: {verdict} in {seconds:.1} s"));
    }
}
