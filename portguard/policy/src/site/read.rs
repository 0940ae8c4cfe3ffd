//! Walking a parsed TOML document: types, unknown keys and places, every fault collected and none fatal.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::Place;
use crate::diagnostic::{Diagnostic, Level};

/// A value and where it stands.
pub(super) type Value<'i> = Spanned<DeValue<'i>>;

/// More messages than this help nobody.
const MAX_MESSAGES: usize = 100;

/// Collects messages about one document.
pub(super) struct Reader<'i> {
    file: &'i str,
    text: &'i str,
    /// Byte offset of each line's first byte.
    lines: Vec<usize>,
    pub(super) messages: Vec<Diagnostic>,
}

/// A table whose keys are taken one by one; what is left at the end is unknown.
pub(super) struct Fields<'i> {
    table: DeTable<'i>,
    known: Vec<&'static str>,
    pub(super) place: Place,
}

impl<'i> Reader<'i> {
    pub(super) fn new(file: &'i str, text: &'i str) -> Self {
        let lines = std::iter::once(0)
            .chain(
                text.bytes()
                    .enumerate()
                    .filter(|(_, byte)| *byte == b'\n')
                    .map(|(at, _)| at + 1),
            )
            .collect();
        Self {
            file,
            text,
            lines,
            messages: Vec::new(),
        }
    }

    /// The place of a byte offset.
    pub(super) fn place(&self, offset: usize) -> Place {
        let line = self.lines.partition_point(|start| *start <= offset).max(1);
        let start = self.lines.get(line - 1).copied().unwrap_or(0);
        let column = self
            .text
            .get(start..offset)
            .map_or(0, |text| text.chars().count());
        Place {
            line: clamp(line),
            column: clamp(column + 1),
        }
    }

    pub(super) fn place_of<T>(&self, value: &Spanned<T>) -> Place {
        self.place(value.span().start)
    }

    /// Adds a message.
    pub(super) fn report(&mut self, place: Place, diagnostic: Diagnostic) {
        if self.messages.len() < MAX_MESSAGES {
            let at = format!("{}:{}:{}", self.file, place.line, place.column);
            self.messages.push(diagnostic.at(at));
        }
    }

    /// Adds an error with a hint (which may be empty).
    pub(super) fn error(&mut self, place: Place, code: &'static str, message: String, hint: &str) {
        let diagnostic = Diagnostic::new(Level::Error, code, message);
        let diagnostic = if hint.is_empty() {
            diagnostic
        } else {
            diagnostic.hint(hint)
        };
        self.report(place, diagnostic);
    }

    fn wrong_type(&mut self, value: &Value<'_>, what: &str, wanted: &str) {
        let place = self.place_of(value);
        let found = kind(value.get_ref());
        self.error(
            place,
            "wrong-type",
            format!("`{what}` must be {wanted}, not {found}"),
            "",
        );
    }

    pub(super) fn string(&mut self, value: &Value<'_>, what: &str) -> Option<String> {
        if let DeValue::String(text) = value.get_ref() {
            Some(text.to_string())
        } else {
            self.wrong_type(value, what, "a string");
            None
        }
    }

    pub(super) fn boolean(&mut self, value: &Value<'_>, what: &str) -> Option<bool> {
        if let DeValue::Boolean(flag) = value.get_ref() {
            Some(*flag)
        } else {
            self.wrong_type(value, what, "true or false");
            None
        }
    }

    /// A whole number within bounds.
    pub(super) fn number(
        &mut self,
        value: &Value<'_>,
        what: &str,
        least: u32,
        most: u32,
    ) -> Option<u32> {
        let DeValue::Integer(digits) = value.get_ref() else {
            self.wrong_type(value, what, "a whole number");
            return None;
        };
        match i64::from_str_radix(digits.as_str(), digits.radix()) {
            Ok(number) if (i64::from(least)..=i64::from(most)).contains(&number) => {
                u32::try_from(number).ok()
            }
            _ => {
                let place = self.place_of(value);
                let range = if least == most {
                    least.to_string()
                } else {
                    format!("between {least} and {most}")
                };
                let message = format!("`{what}` must be {range}, not {digits}");
                self.error(place, "out-of-range", message, "");
                None
            }
        }
    }

    /// A list of at least one, of something that is chosen or narrowed: an empty one could mean nothing, or everything.
    pub(super) fn list<'v>(&mut self, value: Value<'v>, what: &str) -> Vec<Value<'v>> {
        if matches!(value.get_ref(), DeValue::Array(items) if items.is_empty()) {
            let place = self.place_of(&value);
            let message = format!("`{what}` is an empty list");
            self.error(
                place,
                "empty-list",
                message,
                "write what you mean, or remove the key",
            );
        }
        self.list_or_none(value, what)
    }

    /// A list of what is added to something: an empty one adds nothing.
    pub(super) fn list_or_none<'v>(&mut self, value: Value<'v>, what: &str) -> Vec<Value<'v>> {
        if matches!(value.get_ref(), DeValue::Array(_)) {
            if let DeValue::Array(items) = value.into_inner() {
                return items.into_iter().collect();
            }
        } else {
            self.wrong_type(&value, what, "a list");
        }
        Vec::new()
    }

    /// A list of strings, each with its place.
    pub(super) fn strings(&mut self, value: Value<'_>, what: &str) -> Vec<(String, Place)> {
        let items = self.list(value, what);
        self.texts(items, what)
    }

    /// As [`Self::strings`], of what is added to something.
    pub(super) fn strings_or_none(&mut self, value: Value<'_>, what: &str) -> Vec<(String, Place)> {
        let items = self.list_or_none(value, what);
        self.texts(items, what)
    }

    fn texts(&mut self, items: Vec<Value<'_>>, what: &str) -> Vec<(String, Place)> {
        items
            .into_iter()
            .filter_map(|item| {
                let place = self.place_of(&item);
                self.string(&item, what).map(|text| (text, place))
            })
            .collect()
    }

    pub(super) fn table<'v>(&mut self, value: Value<'v>, what: &str) -> Option<Fields<'v>> {
        let place = self.place_of(&value);
        if matches!(value.get_ref(), DeValue::Table(_)) {
            if let DeValue::Table(table) = value.into_inner() {
                return Some(Fields::new(table, place));
            }
        } else {
            self.wrong_type(&value, what, "a table");
        }
        None
    }

    /// A last day as `YYYY-MM-DD`, or a moment with its offset.
    pub(super) fn date(&mut self, value: &Value<'_>, what: &str) -> Option<String> {
        if let DeValue::Datetime(when) = value.get_ref()
            && when.date.is_some()
            && when.time.is_some() == when.offset.is_some()
        {
            return Some(when.to_string());
        }
        self.wrong_type(
            value,
            what,
            "a last day such as 2027-01-31, or a moment such as 2027-01-31T18:00:00Z (without quotes)",
        );
        None
    }
}

impl<'i> Fields<'i> {
    pub(super) fn new(table: DeTable<'i>, place: Place) -> Self {
        Self {
            table,
            known: Vec::new(),
            place,
        }
    }

    /// Takes a key; it counts as known from now on.
    pub(super) fn take(&mut self, key: &'static str) -> Option<Value<'i>> {
        self.known.push(key);
        self.table.remove(key)
    }

    /// Where the value of a key stands, if the key is there.
    pub(super) fn place_of(&self, key: &str, reader: &Reader<'_>) -> Option<Place> {
        self.table.get(key).map(|value| reader.place_of(value))
    }

    /// All pairs of a table whose keys are the operator's own.
    pub(super) fn pairs(self, reader: &Reader<'_>) -> Vec<(String, Place, Value<'i>)> {
        self.table
            .into_iter()
            .map(|(key, value)| (key.get_ref().to_string(), reader.place_of(&key), value))
            .collect()
    }

    /// Whatever was not taken is unknown.
    pub(super) fn finish(self, reader: &mut Reader<'_>, what: &str) {
        for (key, _) in self.table {
            let place = reader.place_of(&key);
            let hint = match nearest(key.get_ref(), self.known.iter().copied()) {
                Some(known) => format!("did you mean `{known}`?"),
                None => format!("known here: {}", self.known.join(", ")),
            };
            let message = format!("unknown key `{}` in {what}", key.get_ref().escape_debug());
            reader.error(place, "unknown-key", message, &hint);
        }
    }
}

/// The candidate most like `word`, if any is like it at all.
pub fn nearest<'c>(word: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    let limit = 1 + word.chars().count() / 4;
    candidates
        .into_iter()
        .map(|candidate| {
            // Who types a letter too few or too many rarely does so at the beginning.
            let is_other = candidate.chars().next() != word.chars().next();
            (distance(word, candidate), is_other, candidate)
        })
        .filter(|(distance, ..)| *distance <= limit)
        .min()
        .map(|(.., candidate)| candidate)
}

/// Edits (insert, remove, replace) from one word to another.
fn distance(from: &str, to: &str) -> usize {
    // Long words are not typing slips, and the table is quadratic.
    if from.len() > 64 || to.len() > 64 {
        return usize::MAX;
    }
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.chars().enumerate() {
        let mut left = i + 1;
        let mut next = vec![left];
        for (b, pair) in to.iter().zip(row.windows(2)) {
            let (diagonal, above) = match pair {
                [diagonal, above] => (*diagonal, *above),
                _ => continue,
            };
            left = (diagonal + usize::from(a != *b))
                .min(above + 1)
                .min(left + 1);
            next.push(left);
        }
        row = next;
    }
    row.last().copied().unwrap_or(usize::MAX)
}

fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

fn clamp(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_count_lines_and_characters_from_one() {
        let reader = Reader::new("f", "aé\nxyz\n");
        assert_eq!(reader.place(0), Place { line: 1, column: 1 });
        assert_eq!(reader.place(3), Place { line: 1, column: 3 });
        assert_eq!(reader.place(4), Place { line: 2, column: 1 });
        assert_eq!(reader.place(8), Place { line: 3, column: 1 });
    }

    #[test]
    fn nearest_finds_slips_and_nothing_else() {
        assert_eq!(nearest("mod", ["mode", "outbound"]), Some("mode"));
        assert_eq!(
            nearest("strict_fragment", ["strict_fragments", "scope"]),
            Some("strict_fragments")
        );
        assert_eq!(nearest("htps", ["ftps", "https"]), Some("https"));
        assert_eq!(nearest("elephant", ["mode", "outbound"]), None);
    }
}
