//! Lines that fit the terminal.

use std::io::{self, IsTerminal as _};

/// What goes on stands so much further in than its line: deeper than a hint, which is a line of its own.
const HANG: usize = 4;

/// A terminal that is narrower gets lines of so many columns all the same.
const NARROWEST: usize = 20;

/// Columns of the terminal that standard output is; see [`columns`].
pub(crate) fn width() -> Option<usize> {
    columns(io::stdout().is_terminal())
}

/// Columns of the terminal; of what is none, those that `COLUMNS` says, if it says any.
pub(crate) fn columns(is_terminal: bool) -> Option<usize> {
    if is_terminal
        && let Ok((columns, _)) = ratatui::crossterm::terminal::size()
        && columns > 0
    {
        return Some(columns.into());
    }
    let said = std::env::var("COLUMNS").ok()?;
    said.parse().ok().filter(|columns| *columns > 0)
}

/// Columns that a text takes, without its colours.
pub(crate) fn visible(text: &str) -> usize {
    anstream::adapter::strip_str(text)
        .map(|part| part.chars().count())
        .sum()
}

/// A line in lines of so many columns, those after the first set in. Words are never cut, and neither is what stands in
/// backquotes, to be typed as it is, where it fits a line.
pub(crate) fn folded(line: &str, width: Option<usize>) -> String {
    let width = width.unwrap_or(usize::MAX).max(NARROWEST);
    if visible(line) <= width {
        return line.to_owned();
    }
    let indent = line.len() - line.trim_start_matches(' ').len();
    let hang = indent + HANG;
    let mut out = " ".repeat(indent);
    let mut column = indent;
    let mut is_first = true;
    for word in words(line.trim_start_matches(' '), width.saturating_sub(hang)) {
        let length = visible(&word);
        if is_first {
            is_first = false;
        } else if column + 1 + length > width {
            out.truncate(out.trim_end_matches(' ').len());
            out.push('\n');
            out.push_str(&" ".repeat(hang));
            column = hang;
        } else {
            out.push(' ');
            column += 1;
        }
        out.push_str(&word);
        column += length;
    }
    out
}

/// Words, and what is quoted as one where it takes no more than the `room`.
fn words(line: &str, room: usize) -> Vec<String> {
    let is_open = |text: &str| text.matches('`').count() % 2 == 1;
    let mut words: Vec<String> = Vec::new();
    let mut rest = line.split(' ').peekable();
    while let Some(word) = rest.next() {
        let mut whole = word.to_owned();
        if is_open(word) {
            let mut ahead = rest.clone();
            while is_open(&whole) && visible(&whole) <= room {
                let Some(next) = ahead.next() else { break };
                whole.push(' ');
                whole.push_str(next);
            }
            if is_open(&whole) || visible(&whole) > room {
                word.clone_into(&mut whole);
            } else {
                rest = ahead;
            }
        }
        words.push(whole);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_to_be_typed_stays_whole_where_it_fits() {
        let line = "say this: `portguard load --interface eth0`, then look";
        assert_eq!(
            folded(line, Some(43)),
            "say this:\n    `portguard load --interface eth0`, then\n    look"
        );
        // No room: between its words.
        assert_eq!(
            folded(line, Some(20)),
            "say this: `portguard\n    load --interface\n    eth0`, then look"
        );
        // A quote that never ends is a word like others.
        let open = "a ` that nobody closed in all of this line, however long it is";
        assert_eq!(
            folded(open, Some(30)),
            "a ` that nobody closed in all\n    of this line, however long\n    it is"
        );
    }

    #[test]
    fn addresses_stay_in_one_piece() {
        let line = "eth0 in would drop undocumented-port udp 198.18.255.1:40000 -> 10.77.0.1:61000 62 bytes";
        assert_eq!(folded(line, None), line);
        assert_eq!(folded(line, Some(200)), line);
        for width in [30, 40, 80] {
            let text = folded(line, Some(width));
            let fits = |line: &str| line.chars().count() <= width;
            assert!(text.lines().all(fits), "{text}");
            assert!(text.lines().skip(1).all(|line| line.starts_with("    ")));
            let words: Vec<&str> = text.split_whitespace().collect();
            assert_eq!(words, line.split(' ').collect::<Vec<_>>());
        }
        // What is longer than the terminal is not cut.
        let long = "a".repeat(30);
        assert_eq!(
            folded(&format!("{long} bb"), Some(20)),
            format!("{long}\n    bb")
        );
    }
}
