//! Standard error: what is said to people. On a terminal lines wrap between words; elsewhere each record is one line.

use std::io::{self, IsTerminal as _, StderrLock, Write};
use std::mem;

use anstream::AutoStream;

use crate::fold::{columns, folded};

/// Standard error, line by line. What has no newline yet is written by a flush, or at the end.
#[expect(clippy::disallowed_methods, reason = "the one place that writes there")]
pub(crate) fn stderr() -> Stderr<AutoStream<StderrLock<'static>>> {
    Stderr {
        width: columns(io::stderr().is_terminal()),
        inner: anstream::stderr().lock(),
        line: Vec::new(),
    }
}

/// Says a line to a person; nobody there is no reason to fail.
pub fn say(line: &str) {
    let _ = writeln!(stderr(), "{line}");
}

/// A writer that wraps.
pub(crate) struct Stderr<W: Write> {
    inner: W,
    /// Columns of the terminal; `None` = each line as it is.
    width: Option<usize>,
    line: Vec<u8>,
}

impl<W: Write> Stderr<W> {
    fn put(&mut self) -> io::Result<()> {
        let line = mem::take(&mut self.line);
        match std::str::from_utf8(&line) {
            Ok(text) => self.inner.write_all(folded(text, self.width).as_bytes()),
            Err(_) => self.inner.write_all(&line),
        }
    }
}

impl<W: Write> Write for Stderr<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            match part.strip_suffix(b"\n") {
                Some(end) => {
                    self.line.extend_from_slice(end);
                    self.put()?;
                    self.inner.write_all(b"\n")?;
                }
                None => self.line.extend_from_slice(part),
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.put()?;
        self.inner.flush()
    }
}

impl<W: Write> Drop for Stderr<W> {
    fn drop(&mut self) {
        let _ = self.flush();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fold::visible;

    fn written(text: &str, width: Option<usize>) -> String {
        let mut out = Vec::new();
        let mut err = Stderr {
            inner: &mut out,
            width,
            line: Vec::new(),
        };
        // In pieces, as formatting gives them.
        for piece in text.as_bytes().chunks(3) {
            err.write_all(piece).unwrap();
        }
        drop(err);
        String::from_utf8(out).unwrap()
    }

    const LONG: &str = "\x1b[1;31merror\x1b[0m: the kernel says so many things that no line of a terminal has room for them\n  hint: \
                        run `portguard doctor --interface eth0` and read what it says of the driver of this interface\n";

    #[test]
    fn elsewhere_a_record_is_a_line() {
        assert_eq!(written(LONG, None), LONG);
        assert_eq!(written("no newline", None), "no newline");
        assert_eq!(written("", Some(80)), "");
    }

    #[test]
    fn on_a_terminal_lines_wrap_and_are_the_same_text() {
        for width in [24, 40, 60, 80] {
            let text = written(LONG, Some(width));
            for line in text.lines() {
                let longest = line.split(' ').map(visible).max();
                assert!(
                    visible(line) <= width.max(6 + longest.unwrap_or(0)),
                    "{width}: {text}"
                );
                assert!(!line.ends_with(' '), "{width}: {text}");
            }
            let words = |text: &str| {
                text.split_whitespace()
                    .map(str::to_owned)
                    .collect::<Vec<_>>()
            };
            assert_eq!(words(&text), words(LONG), "{width}");
        }
        assert_eq!(
            written(LONG, Some(60)),
            "\x1b[1;31merror\x1b[0m: the kernel says so many things that no line of a\n    \
             terminal has room for them\n  hint: run `portguard doctor --interface eth0` and read\n      \
             what it says of the driver of this interface\n"
        );
    }
}
