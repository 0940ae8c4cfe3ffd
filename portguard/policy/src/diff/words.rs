//! Differences in words.

use std::fmt;

use super::{Change, Difference, RowChange, SettingChange};
use crate::human::some;

/// Prefixes that are printed; JSON has all.
const SHOWN: usize = 6;

/// Several lines, each with its end.
impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.same {
            return writeln!(f, "no difference");
        }
        if !self.settings.is_empty() {
            writeln!(f, "settings")?;
            for SettingChange {
                setting,
                before,
                after,
            } in &self.settings
            {
                writeln!(f, "  {setting}: {before} -> {after}")?;
            }
        }
        if !self.opened.is_empty() || !self.closed.is_empty() {
            writeln!(f, "effect")?;
            for change in &self.opened {
                writeln!(f, "  + {}", change.words("now open"))?;
            }
            for change in &self.closed {
                writeln!(f, "  - {}", change.words("now closed"))?;
            }
        }
        if !self.rows.is_empty() {
            writeln!(f, "rows")?;
            for RowChange {
                change,
                direction,
                row,
                before,
                after,
            } in &self.rows
            {
                writeln!(f, "  {change} {row} ({direction})")?;
                for words in before.iter().filter(|words| !after.contains(words)) {
                    writeln!(f, "    - {words}")?;
                }
                for words in after.iter().filter(|words| !before.contains(words)) {
                    writeln!(f, "    + {words}")?;
                }
            }
        }
        let number = |count: usize, what| crate::human::count(count as u64, what);
        writeln!(
            f,
            "in all: {} now open, {} now closed; {} and {} differ",
            self.opened.len(),
            self.closed.len(),
            number(self.rows.len(), "row"),
            number(self.settings.len(), "setting")
        )
    }
}

impl Change {
    /// `in tcp/443 now open to 10.0.0.0/8 (row thoughtspot/web)`.
    fn words(&self, verb: &str) -> String {
        let rows = if self.rows.len() == 1 { "row" } else { "rows" };
        let except = if self.except.is_empty() {
            String::new()
        } else {
            format!(" but {}", some(&self.except, SHOWN, ", "))
        };
        let preposition = match (self.direction, verb) {
            ("out", _) => "towards",
            _ => "to",
        };
        format!(
            "{} {} {verb} {preposition} {}{except} ({rows} {})",
            self.direction,
            self.what,
            some(&self.peers, SHOWN, ", "),
            self.rows.join(", ")
        )
    }
}
