//! Standard output: what was asked for, as text or as JSON.

use std::collections::BTreeMap;
use std::io::{self, BufWriter, Write};

use anyhow::Context as _;
use serde::Serialize;

/// Writes to standard output, buffered. A reader that has seen enough (`| head`) is no error.
pub(crate) fn print(write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> anyhow::Result<()> {
    let mut out = Ended {
        inner: BufWriter::new(anstream::stdout().lock()),
        newlines: 0,
        is_begun: false,
    };
    is_read(write(&mut out).and_then(|()| out.end())).map(drop)
}

/// Whether somebody still reads what was written.
pub(crate) fn is_read(written: io::Result<()>) -> anyhow::Result<bool> {
    match written {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        written => {
            written.context("cannot write to standard output")?;
            Ok(true)
        }
    }
}

/// One JSON document and a newline.
pub(crate) fn print_json(document: &impl Serialize) -> anyhow::Result<()> {
    // Not by way of what takes colours out for people: there are none, and documents are of all sizes.
    let mut out = BufWriter::with_capacity(1 << 16, io::stdout().lock());
    let written = serde_json::to_writer_pretty(&mut out, &Versioned::of(document))
        .map_err(io::Error::from)
        .and_then(|()| writeln!(out))
        .and_then(|()| out.flush());
    is_read(written).map(drop)
}

/// A document of one field.
pub(crate) fn print_field(name: &str, value: &impl Serialize) -> anyhow::Result<()> {
    print_json(&BTreeMap::from([(name, value)]))
}

/// One JSON document on a line of its own.
pub(crate) fn json_line(out: &mut dyn Write, document: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *out, &Versioned::of(document))?;
    writeln!(out)
}

/// A document behind the version of its fields, by which scripts know it.
#[derive(Debug, Serialize)]
pub(crate) struct Versioned<T> {
    schema: u32,
    #[serde(flatten)]
    document: T,
}

impl<T> Versioned<T> {
    pub(crate) const fn of(document: T) -> Self {
        let schema = 1;
        Self { schema, document }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_begins_with_the_version_of_its_fields() {
        let mut out = Vec::new();
        json_line(&mut out, &BTreeMap::from([("a", 1)])).unwrap();
        assert_eq!(out, b"{\"schema\":1,\"a\":1}\n");
    }

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
