//! Commands inside a host: output collected, time bounded, killed on drop.

use std::fmt;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::traffic::wait_readable;

/// How long output may still arrive after the end of the process (a child of it may hold the pipe).
const DRAIN: Duration = Duration::from_secs(1);

/// A running command. Killed when dropped; processes that it started itself are its own to end. It stays in the caller's
/// process group, so that an interrupt from the terminal ends it, too.
#[derive(Debug)]
pub struct Process {
    child: Child,
    pidfd: OwnedFd,
    what: String,
    stdout: Stream,
    stderr: Stream,
}

/// What a finished command said.
#[derive(Debug, Clone)]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// What it wrote to standard output (bytes that are not text replaced).
    pub stdout: String,
    /// What it wrote to standard error.
    pub stderr: String,
}

impl Output {
    /// The exit code; -1 if a signal ended it.
    pub fn code(&self) -> i32 {
        self.status.code().unwrap_or(-1)
    }

    /// Itself if the exit code was 0, else an error that shows everything.
    pub fn success(self) -> Result<Self> {
        if self.status.success() {
            Ok(self)
        } else {
            bail!("{self}")
        }
    }
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}\nstdout: {}\nstderr: {}",
            self.status,
            self.stdout.trim_end(),
            self.stderr
        )
    }
}

impl Process {
    /// Starts in the namespaces of the calling thread. Standard input is empty.
    pub(super) fn start(command: &mut Command) -> Result<Self> {
        let what = format!("{command:?}");
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting {what}"))?;
        let stdout = Stream::read(child.stdout.take());
        let stderr = Stream::read(child.stderr.take());
        // Not reaped yet, so the number is still this child's.
        let pidfd = pidfd_open(Pid::from_child(&child), PidfdFlags::empty())
            .with_context(|| format!("watching {what}"))?;
        Ok(Self {
            child,
            pidfd,
            what,
            stdout,
            stderr,
        })
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for the end, and returns all output; at the timeout the process is killed, which is an error.
    pub fn output(mut self, timeout: Duration) -> Result<Output> {
        let Some(status) = self.wait(timeout)? else {
            let threads = threads(self.id());
            self.kill();
            bail!(
                "{} did not end within {timeout:?}\nthreads: {threads}\nstdout: {}\nstderr: {}",
                self.what,
                self.stdout.text(),
                self.stderr.text()
            );
        };
        let deadline = Instant::now() + DRAIN;
        self.stdout.wait(deadline, |_, ended| ended);
        self.stderr.wait(deadline, |_, ended| ended);
        Ok(Output {
            status,
            stdout: self.stdout.text(),
            stderr: self.stderr.text(),
        })
    }

    /// Waits for the end; `None` at the timeout, with the process still running.
    pub fn wait(&mut self, timeout: Duration) -> Result<Option<ExitStatus>> {
        wait_readable(&self.pidfd, Instant::now() + timeout)?;
        Ok(self.child.try_wait()?)
    }

    /// Waits until standard output contains the text, and returns all that was written until then.
    pub fn wait_for(&self, text: &str, timeout: Duration) -> Result<String> {
        let found = self.stdout.wait(Instant::now() + timeout, |bytes, ended| {
            ended || contains(bytes, text.as_bytes())
        });
        let written = self.stdout.text();
        if found && written.contains(text) {
            return Ok(written);
        }
        bail!(
            "{} did not write `{text}` within {timeout:?}\nstdout: {written}\nstderr: {}",
            self.what,
            self.stderr.text()
        )
    }

    /// What was written to standard output so far.
    pub fn stdout(&self) -> String {
        self.stdout.text()
    }

    /// What was written to standard error so far.
    pub fn stderr(&self) -> String {
        self.stderr.text()
    }

    /// Asks it to end, as `kill PID` and service managers do.
    pub fn terminate(&self) -> Result<()> {
        self.signal(Signal::TERM)
    }

    /// Interrupts it, as control-C does.
    pub fn interrupt(&self) -> Result<()> {
        self.signal(Signal::INT)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        pidfd_send_signal(&self.pidfd, signal).with_context(|| format!("signalling {}", self.what))
    }

    /// Kills it and waits for its end, as a crash would.
    pub fn kill(&mut self) {
        // An error means that it ended before: just as well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A pipe that is read as it fills, so that its writer never blocks.
#[derive(Debug, Clone, Default)]
struct Stream(Arc<(Mutex<State>, Condvar)>);

#[derive(Debug, Default)]
struct State {
    bytes: Vec<u8>,
    ended: bool,
}

impl Stream {
    fn read<R: Read + Send + 'static>(pipe: Option<R>) -> Self {
        let stream = Self::default();
        let Some(mut pipe) = pipe else { return stream };
        let writer = stream.clone();
        thread::spawn(move || {
            let mut chunk = [0; 16 * 1024];
            loop {
                let count = pipe.read(&mut chunk).unwrap_or(0);
                let mut state = writer.0.0.lock().unwrap_or_else(PoisonError::into_inner);
                state
                    .bytes
                    .extend_from_slice(chunk.get(..count).unwrap_or_default());
                state.ended = count == 0;
                writer.0.1.notify_all();
                if count == 0 {
                    return;
                }
            }
        });
        stream
    }

    /// Whether the condition held before the deadline.
    fn wait(&self, deadline: Instant, done: impl Fn(&[u8], bool) -> bool) -> bool {
        let state = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        let left = deadline.saturating_duration_since(Instant::now());
        let (state, _) = self
            .0
            .1
            .wait_timeout_while(state, left, |state| !done(&state.bytes, state.ended))
            .unwrap_or_else(PoisonError::into_inner);
        done(&state.bytes, state.ended)
    }

    fn text(&self) -> String {
        let state = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&state.bytes).into_owned()
    }
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    needle.is_empty()
        || haystack
            .windows(needle.len())
            .any(|window| window == needle)
}

/// What each thread of a process waits for in the kernel, as far as it can be told: for who asks why it did not end.
fn threads(process: u32) -> String {
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{process}/task")) else {
        return "gone".into();
    };
    let read = |task: &std::path::Path, name: &str| {
        let text = std::fs::read_to_string(task.join(name)).unwrap_or_default();
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    tasks
        .flatten()
        .map(|task| task.path())
        .map(|task| {
            let [comm, wchan, stack] = ["comm", "wchan", "stack"].map(|name| read(&task, name));
            format!("{comm} in {wchan} [{stack}]")
        })
        .collect::<Vec<_>>()
        .join("; ")
}
