//! The verbs of the command line. Each file owns its arguments and its `run`.

pub mod agent;
pub mod bench;
pub mod catalog;
mod catalogs;
pub mod check;
pub mod complete;
pub mod confirm;
pub mod counters;
pub mod diff;
pub mod doctor;
mod draft;
pub mod drift;
pub mod events;
pub mod explain;
pub mod export;
#[cfg(feature = "fleet")]
pub mod fleet;
pub mod flows;
pub mod generate;
pub mod init;
pub mod load;
pub mod man;
pub mod promote;
pub mod report;
pub mod schema;
pub mod selection;
pub mod setup;
pub mod status;
mod table;
pub mod top;
pub(crate) mod traffic;
pub mod unload;

use std::io::{self, BufWriter, Write};

use anyhow::Context;

/// Writes to standard output, buffered. A reader that has seen enough (`| head`) is no error.
fn print(write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> anyhow::Result<()> {
    let mut out = Ended {
        inner: BufWriter::new(anstream::stdout().lock()),
        newlines: 0,
        is_begun: false,
    };
    match write(&mut out).and_then(|()| out.end()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(error).context("cannot write to standard output")
        }
        _ => Ok(()),
    }
}

/// Ends in one newline, whatever is written: tables end in an empty line, for what may follow.
struct Ended<W> {
    inner: W,
    /// Held back until something follows.
    newlines: usize,
    is_begun: bool,
}

impl<W: Write> Ended<W> {
    fn end(&mut self) -> io::Result<()> {
        if self.is_begun {
            self.inner.write_all(b"\n")?;
        }
        self.inner.flush()
    }
}

impl<W: Write> Write for Ended<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let last = bytes.iter().rposition(|byte| *byte != b'\n');
        let kept = last.map_or(0, |last| last + 1);
        let (text, newlines) = bytes.split_at(kept);
        if !text.is_empty() {
            for _ in 0..std::mem::take(&mut self.newlines) {
                self.inner.write_all(b"\n")?;
            }
            self.inner.write_all(text)?;
            self.is_begun = true;
        }
        self.newlines += newlines.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// One JSON document and a newline.
fn print_json(document: &impl serde::Serialize) -> anyhow::Result<()> {
    // Not by way of what takes colours out for people: there are none, and documents are of all sizes.
    let mut out = BufWriter::with_capacity(1 << 16, io::stdout().lock());
    let written = serde_json::to_writer_pretty(&mut out, document)
        .map_err(io::Error::from)
        .and_then(|()| writeln!(out))
        .and_then(|()| out.flush());
    match written {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(error).context("cannot write to standard output")
        }
        _ => Ok(()),
    }
}

/// A number of things to show: of none there is nothing to see.
fn at_least_one(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|number| *number > 0);
    number.ok_or_else(|| "expected a whole number above 0".to_owned())
}

/// Completes when somebody interrupts or ends this process, who then gets to clean up and to say so with exit code 0.
fn interrupted() -> anyhow::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for signals")?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for signals")?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_ends_in_one_newline() {
        let ended = |parts: &[&str]| {
            let mut out = Ended {
                inner: Vec::new(),
                newlines: 0,
                is_begun: false,
            };
            for part in parts {
                out.write_all(part.as_bytes()).unwrap();
            }
            out.end().unwrap();
            String::from_utf8(out.inner).unwrap()
        };
        assert_eq!(ended(&[]), "");
        assert_eq!(ended(&["\n"]), "");
        assert_eq!(ended(&["a"]), "a\n");
        assert_eq!(ended(&["a\n", "\n\n"]), "a\n");
        assert_eq!(ended(&["a\n\nb", "\n", "\n", "c \n"]), "a\n\nb\n\nc \n");
    }
}
