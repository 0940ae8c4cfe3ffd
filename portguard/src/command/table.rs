//! The tables that people read. On a terminal a table fits: what a reader searches for (ports, ids, addresses) is never
//! broken, prose wraps between words, and what still has no room is left out. Elsewhere each record is one line.

use std::fmt::{self, Write as _};
use std::io;

use crate::fold::{visible, width};

/// Between two columns.
const GAP: usize = 2;

/// Before what stands below a record.
const INDENT: usize = 4;

/// As wide as a column gets where nobody looks at the lines.
const PIPED: usize = 60;

/// Prose that has fewer columns than this is left out where it may be.
const PROSE: usize = 16;

/// How a column behaves where room is short.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Column {
    /// In one piece.
    Whole,
    /// In one piece, and one number below the other.
    Number,
    /// Wraps between words.
    Prose,
    /// Wraps between words; left out where there is no room.
    Spare,
    /// In one piece; left out where there is no room, before prose is.
    SpareWhole,
    /// Wraps between words; below the record, over the whole width, where there is no room beside the others.
    Below,
    /// Not shown.
    Hidden,
}

use Column::{Below, Hidden, Number, Prose, Spare, SpareWhole, Whole};

/// Rows below a header.
#[derive(Debug)]
pub(crate) struct Grid {
    columns: Vec<(&'static str, Column)>,
    rows: Vec<Vec<String>>,
    /// Columns of the terminal; `None` = each record is one line.
    width: Option<usize>,
}

impl Grid {
    /// For standard output.
    pub(crate) fn new(columns: &[(&'static str, Column)]) -> Self {
        Self {
            columns: columns.to_vec(),
            rows: Vec::new(),
            width: width(),
        }
    }

    /// For a screen of this width.
    #[cfg(test)]
    pub(crate) fn at(mut self, width: Option<usize>) -> Self {
        self.width = width;
        self
    }

    /// Adds a record. Cells that are missing are empty.
    pub(crate) fn row<C: Into<String>>(&mut self, cells: impl IntoIterator<Item = C>) {
        let cells = cells.into_iter().map(|cell| cell.into().replace('\n', " "));
        self.rows.push(cells.collect());
    }

    fn cell(row: &[String], column: usize) -> &str {
        row.get(column).map_or("", String::as_str)
    }

    /// Widths of the columns that are shown.
    fn layout(&self) -> Vec<(usize, Column, usize)> {
        let longest = |column: usize, length: fn(&str) -> usize| {
            let title = self
                .columns
                .get(column)
                .map_or(0, |(title, _)| length(title));
            let cells = self.rows.iter().map(|row| length(Self::cell(row, column)));
            cells.max().unwrap_or(0).max(title)
        };
        let is_empty = |column: usize| {
            self.rows
                .iter()
                .all(|row| Self::cell(row, column).is_empty())
        };
        let mut shown: Vec<(usize, Column, usize)> = self
            .columns
            .iter()
            .enumerate()
            // A column that says nothing takes no room.
            .filter(|(index, (_, kind))| {
                *kind != Hidden && (self.rows.is_empty() || !is_empty(*index))
            })
            .map(|(index, (_, kind))| (index, *kind, longest(index, chars)))
            .collect();
        let Some(width) = self.width else {
            // Nobody is served by a line that is mostly blanks: what is longer sticks out of its own line.
            for (_, _, size) in &mut shown {
                *size = (*size).min(PIPED);
            }
            return shown;
        };
        loop {
            let least = |(index, kind, whole): &(usize, Column, usize)| match kind {
                Whole | Number | SpareWhole | Hidden => *whole,
                Prose | Spare | Below => longest(*index, longest_word).max(PROSE).min(*whole),
            };
            let taken = GAP * shown.len().saturating_sub(1);
            let needed: usize = shown.iter().map(least).sum::<usize>() + taken;
            if needed > width {
                let spare = [SpareWhole, Spare, Below]
                    .into_iter()
                    .find_map(|kind| shown.iter().rposition(|(_, other, _)| *other == kind));
                if let Some(spare) = spare {
                    shown.remove(spare);
                    continue;
                }
            }
            // A word that is longer than its column sticks out of its own line, and leaves the others be.
            if needed > width {
                let mut over = needed - width;
                for (index, kind, size) in &mut shown {
                    let least = longest(*index, longest_word).max(PROSE).min(*size);
                    if matches!(kind, Prose | Spare) {
                        let cut = over.min(least.saturating_sub(PROSE));
                        *size = least - cut;
                        over -= cut;
                    }
                }
                return shown;
            }
            // What is left goes to prose, to that which needs it most.
            let mut left = width.saturating_sub(needed);
            let mut widths: Vec<usize> = shown.iter().map(least).collect();
            while left > 0 {
                let short = shown
                    .iter()
                    .zip(&widths)
                    .enumerate()
                    .map(|(at, ((_, _, whole), now))| (whole.saturating_sub(*now), at))
                    .max();
                match short {
                    Some((lacking, at)) if lacking > 0 => {
                        if let Some(width) = widths.get_mut(at) {
                            *width += 1;
                        }
                        left -= 1;
                    }
                    _ => break,
                }
            }
            for ((_, _, whole), width) in shown.iter_mut().zip(widths) {
                *whole = width;
            }
            return shown;
        }
    }

    fn line(f: &mut fmt::Formatter<'_>, cells: &[(Vec<String>, Column, usize)]) -> fmt::Result {
        let height = cells
            .iter()
            .map(|(lines, ..)| lines.len())
            .max()
            .unwrap_or(0);
        for index in 0..height {
            let mut text = String::new();
            for (at, (lines, kind, width)) in cells.iter().enumerate() {
                if at > 0 {
                    text.push_str("  ");
                }
                let part = lines.get(index).map_or("", String::as_str);
                let pad = " ".repeat(width.saturating_sub(chars(part)));
                if *kind == Number {
                    let _ = write!(text, "{pad}{part}");
                } else {
                    let _ = write!(text, "{part}{pad}");
                }
            }
            writeln!(f, "{}", text.trim_end())?;
        }
        Ok(())
    }
}

impl fmt::Display for Grid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.layout();
        let head: Vec<_> = shown
            .iter()
            .map(|(index, kind, width)| {
                let title = self.columns.get(*index).map_or("", |(title, _)| *title);
                (vec![title.to_owned()], *kind, *width)
            })
            .collect();
        Self::line(f, &head)?;
        for row in &self.rows {
            let cells: Vec<_> = shown
                .iter()
                .map(|(index, kind, width)| {
                    let text = Self::cell(row, *index);
                    let lines = match (kind, self.width) {
                        (Prose | Spare | Below, Some(_)) => wrapped(text, *width),
                        _ => vec![text.to_owned()],
                    };
                    (lines, *kind, *width)
                })
                .collect();
            Self::line(f, &cells)?;
            let columns = self.columns.iter().enumerate();
            let below = columns.filter(|(index, (_, kind))| {
                *kind == Below && shown.iter().all(|(other, ..)| other != index)
            });
            for (index, (title, _)) in below {
                let text = Self::cell(row, index);
                if text.is_empty() {
                    continue;
                }
                let room = self.width.unwrap_or(usize::MAX);
                let room = room.saturating_sub(INDENT).max(PROSE);
                for line in wrapped(&format!("{title}: {text}"), room) {
                    writeln!(f, "{:INDENT$}{line}", "")?;
                }
            }
        }
        Ok(())
    }
}

fn chars(text: &str) -> usize {
    text.chars().count()
}

fn longest_word(text: &str) -> usize {
    text.split_whitespace().map(chars).max().unwrap_or(0)
}

/// Lines that break between words only.
pub(crate) fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if chars(line) + 1 + chars(word) <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    if lines.is_empty() {
        lines.push(String::new());
    }
    lines
}

/// A label and a text behind it, which wraps on a terminal; its later lines stand below the first one's text.
///
/// # Errors
/// Those of the writer.
pub(crate) fn hanging(out: &mut dyn io::Write, label: &str, text: &str) -> io::Result<()> {
    let indent = visible(label);
    let room = width().map_or(usize::MAX, |width| width.saturating_sub(indent).max(PROSE));
    for (index, line) in wrapped(text, room).iter().enumerate() {
        if index == 0 {
            writeln!(out, "{label}{line}")?;
        } else {
            writeln!(out, "{:indent$}{line}", "")?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grid() -> Grid {
        let mut grid = Grid::new(&[
            ("port", Whole),
            ("packets", Number),
            ("row", Whole),
            ("purpose", Prose),
            ("document", Spare),
        ]);
        grid.row([
            "tcp/443",
            "1,200",
            "acme/a-rather-long-row",
            "Users and administrators of the web interface",
            "Acme ports, table 3",
        ]);
        grid.row([
            "udp/5000-5010",
            "7",
            "acme/b",
            "Media",
            "Acme ports, table 4",
        ]);
        grid
    }

    #[test]
    fn elsewhere_a_record_is_a_line() {
        let text = grid().at(None).to_string();
        assert_eq!(text.lines().count(), 3);
        assert!(
            text.contains("Users and administrators of the web interface  Acme ports, table 3")
        );
    }

    #[test]
    fn on_a_screen_it_fits_and_nothing_is_broken() {
        for width in [40, 60, 80, 120] {
            let text = grid().at(Some(width)).to_string();
            let needed = 13 + 2 + 7 + 2 + 22 + 2 + 16;
            for line in text.lines() {
                assert!(line.chars().count() <= width.max(needed), "{width}: {text}");
            }
            for whole in ["acme/a-rather-long-row", "udp/5000-5010", "administrators"] {
                assert!(text.contains(whole), "{width}: {text}");
            }
        }
        assert!(!grid().at(Some(70)).to_string().contains("table 3"));
        assert_eq!(grid().at(Some(200)).to_string().lines().count(), 3);
    }

    #[test]
    fn what_has_no_room_beside_the_others_stands_below() {
        let columns = [
            ("port", Whole),
            ("from", Prose),
            ("row", Whole),
            ("document", Below),
        ];
        let mut grid = Grid::new(&columns);
        let document = "Acme ports, version 7, table 3, administration of the appliance over SSH";
        grid.row([
            "tcp/22",
            "group admins",
            "acme/a-rather-long-row-of-a-matrix",
            document,
        ]);
        grid.row(["tcp/23", "any", "acme/b", ""]);
        let text = grid.at(Some(70)).to_string();
        assert!(
            text.lines().all(|line| line.chars().count() <= 70),
            "{text}"
        );
        assert!(text.contains("\n    document: Acme ports"), "{text}");
        let words: Vec<&str> = text.split_whitespace().collect();
        for word in document.split_whitespace() {
            assert!(words.contains(&word), "{word}: {text}");
        }
        // Beside the others where there is room, and where it is piped.
        let mut grid = Grid::new(&columns);
        grid.row(["tcp/22", "any", "acme/a", document]);
        assert_eq!(grid.at(Some(160)).to_string().lines().count(), 2);
    }

    #[test]
    fn numbers_stand_one_below_the_other() {
        let text = grid().at(None).to_string();
        let ends: Vec<usize> = text
            .lines()
            .map(|line| line.find("acme").unwrap_or(24))
            .collect();
        assert!(
            ends.windows(2).skip(1).all(|pair| pair[0] == pair[1]),
            "{text}"
        );
    }
}
