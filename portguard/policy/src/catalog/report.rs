//! Findings about one file: where they are, in lines and columns, and what a reader may have meant.

use crate::diagnostic::Diagnostic;

/// More findings than this help nobody; the rest are counted.
const MAX_FINDINGS: usize = 100;

/// Characters of a quoted literal before it is cut.
const MAX_QUOTED: usize = 60;

/// Collects what is said about one file.
pub(super) struct Report<'a> {
    file: &'a str,
    text: &'a str,
    line_starts: Vec<usize>,
    found: Vec<(usize, Diagnostic)>,
    omitted: usize,
}

impl<'a> Report<'a> {
    pub(super) fn new(file: &'a str, text: &'a str) -> Self {
        let newlines = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        let line_starts = std::iter::once(0)
            .chain(newlines.map(|(at, _)| at + 1))
            .collect();
        Self {
            file,
            text,
            line_starts,
            found: Vec::new(),
            omitted: 0,
        }
    }

    /// Adds a finding about the byte at `offset`.
    pub(super) fn add(&mut self, offset: usize, finding: Diagnostic) {
        if self.found.len() < MAX_FINDINGS {
            let finding = finding.at(self.place(offset));
            self.found.push((offset, finding));
        } else {
            self.omitted += 1;
        }
    }

    /// `file:line`.
    pub(super) fn line_of(&self, offset: usize) -> String {
        format!("{}:{}", self.file, self.position(offset).0)
    }

    /// `file:line:column`.
    fn place(&self, offset: usize) -> String {
        let (line, column) = self.position(offset);
        format!("{}:{line}:{column}", self.file)
    }

    /// Line and column, counted from 1; columns in characters.
    fn position(&self, offset: usize) -> (usize, usize) {
        let line = self
            .line_starts
            .partition_point(|start| *start <= offset)
            .max(1);
        let start = self.line_starts.get(line - 1).copied().unwrap_or(0);
        let before = self.text.get(start..offset).unwrap_or("");
        (line, before.chars().count() + 1)
    }

    /// All findings, in the order of the file; empty if there is none.
    pub(super) fn finish(mut self) -> Vec<Diagnostic> {
        self.found.sort_by_key(|(offset, _)| *offset);
        let mut found: Vec<_> = self.found.into_iter().map(|(_, finding)| finding).collect();
        if self.omitted > 0 {
            let message = format!("{} more errors are not shown", self.omitted);
            found.push(Diagnostic::error("too-many-errors", message).at(self.file));
        }
        found
    }
}

/// A literal of the input in backticks: control characters made visible, long ones cut.
pub(super) fn quoted(literal: &str) -> String {
    let mut quoted = String::from("`");
    for (i, character) in literal.chars().enumerate() {
        if i == MAX_QUOTED {
            quoted.push('…');
            break;
        }
        if is_unprintable(character) {
            quoted.extend(character.escape_unicode());
        } else {
            quoted.push(character);
        }
    }
    quoted.push('`');
    quoted
}

/// Controls, and the marks that reorder text on a terminal.
pub(super) fn is_unprintable(character: char) -> bool {
    character.is_control() || matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The candidate that is most like `word`, if any is alike enough to be what was meant.
pub(super) fn nearest<'n>(word: &str, names: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    if word.len() > 2 * MAX_QUOTED {
        return None;
    }
    names
        .filter(|name| name.len() <= 2 * MAX_QUOTED)
        .map(|name| (strsim::damerau_levenshtein(word, name), name))
        .filter(|(distance, name)| *distance <= name.len().max(word.len()).div_ceil(3))
        .min()
        .map(|(_, name)| name)
}

/// What to say about a name that is not there: the nearest one, or all of them if they are few.
pub(super) fn suggestion<'n>(
    word: &str,
    names: impl Iterator<Item = &'n str> + Clone,
) -> Option<String> {
    if let Some(name) = nearest(word, names.clone()) {
        return Some(format!("did you mean {}?", quoted(name)));
    }
    let few: Vec<_> = names.take(9).map(quoted).collect();
    match few.len() {
        0 | 9 => None,
        _ => Some(format!("known: {}", few.join(", "))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_count_characters_and_lines_count_from_one() {
        let report = Report::new("f", "é = 1\nab = 2\n");
        assert_eq!(report.place(0), "f:1:1");
        assert_eq!(report.place(3), "f:1:3");
        assert_eq!(report.place(6), "f:1:6");
        assert_eq!(report.place(7), "f:2:1");
        assert_eq!(report.place(999), "f:3:1");
    }

    #[test]
    fn suggests_the_nearest_name_or_lists_a_few() {
        let names = ["management", "gateway", "analytics"];
        let suggest = |word| suggestion(word, names.iter().copied());
        assert_eq!(
            suggest("gatway").as_deref(),
            Some("did you mean `gateway`?")
        );
        assert_eq!(
            suggest("xyz").as_deref(),
            Some("known: `management`, `gateway`, `analytics`")
        );
        assert_eq!(suggestion("xyz", std::iter::empty()), None);
    }

    #[test]
    fn quotes_make_terminal_escapes_visible() {
        assert_eq!(quoted("a\u{1b}[2Jb"), "`a\\u{1b}[2Jb`");
        assert_eq!(quoted(&"x".repeat(99)), format!("`{}…`", "x".repeat(60)));
    }
}
