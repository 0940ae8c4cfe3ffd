//! Reading a TOML table key by key: every wrong type, missing key and unknown key is a finding, and reading goes on.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "a value of any other TOML type is of the wrong type, also of a type that TOML may grow"
)]

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::report::{Report, is_unprintable, quoted, suggestion};
use crate::diagnostic::Diagnostic;

/// A string of the file and where it stands.
#[derive(Debug, Clone)]
pub(super) struct Text {
    pub(super) value: String,
    pub(super) at: usize,
}

/// A table being read. Keys that nobody asked for are unknown; see [`Fields::finish`].
pub(super) struct Fields<'i> {
    /// Where the table begins.
    pub(super) at: usize,
    table: DeTable<'i>,
    asked: Vec<&'static str>,
}

impl<'i> Fields<'i> {
    pub(super) fn new(table: Spanned<DeTable<'i>>) -> Self {
        let at = table.span().start;
        Self {
            at,
            table: table.into_inner(),
            asked: Vec::new(),
        }
    }

    /// A string that must be there.
    pub(super) fn text(&mut self, report: &mut Report<'_>, key: &'static str) -> Option<Text> {
        match self.take(key) {
            Some(value) => text(report, value),
            None => self.missing(report, key),
        }
    }

    /// A string that may be there.
    pub(super) fn optional_text(
        &mut self,
        report: &mut Report<'_>,
        key: &'static str,
    ) -> Option<Text> {
        self.take(key).and_then(|value| text(report, value))
    }

    /// An integer that must be there.
    /// As [`Self::integer`], and may be absent.
    pub(super) fn optional_integer(
        &mut self,
        report: &mut Report<'_>,
        key: &'static str,
    ) -> Option<(i64, usize)> {
        self.table
            .contains_key(key)
            .then(|| self.integer(report, key))?
    }

    pub(super) fn integer(
        &mut self,
        report: &mut Report<'_>,
        key: &'static str,
    ) -> Option<(i64, usize)> {
        let Some(value) = self.take(key) else {
            return self.missing(report, key);
        };
        let at = value.span().start;
        match value.into_inner() {
            DeValue::Integer(integer) => integer.to_string().parse().ok().map(|n| (n, at)),
            other => wrong_type(report, at, "an integer", &other),
        }
    }

    /// A boolean that may be there.
    pub(super) fn flag(&mut self, report: &mut Report<'_>, key: &'static str) -> Option<bool> {
        let value = self.take(key)?;
        let at = value.span().start;
        match value.into_inner() {
            DeValue::Boolean(flag) => Some(flag),
            other => wrong_type(report, at, "`true` or `false`", &other),
        }
    }

    /// A string or a list of strings that may be there; empty where it is not.
    pub(super) fn texts(&mut self, report: &mut Report<'_>, key: &'static str) -> Vec<Text> {
        self.list(key)
            .into_iter()
            .filter_map(|value| text(report, value))
            .collect()
    }

    /// As [`Fields::texts`], where integers are welcome too.
    pub(super) fn cells(&mut self, report: &mut Report<'_>, key: &'static str) -> Vec<Text> {
        let cell = |value: Spanned<DeValue<'_>>| match value.get_ref() {
            DeValue::Integer(integer) => Some(Text {
                value: integer.to_string(),
                at: value.span().start,
            }),
            _ => text(report, value),
        };
        self.list(key).into_iter().filter_map(cell).collect()
    }

    /// Whether the key is there, and not an empty list.
    pub(super) fn has_any(&self, key: &str) -> bool {
        self.table.get(key).is_some_and(
            |value| !matches!(value.get_ref(), DeValue::Array(list) if list.is_empty()),
        )
    }

    /// A table that may be there.
    pub(super) fn table(
        &mut self,
        report: &mut Report<'_>,
        key: &'static str,
    ) -> Option<Fields<'i>> {
        self.take(key).and_then(|value| table(report, value))
    }

    /// A table that must be there.
    pub(super) fn required_table(
        &mut self,
        report: &mut Report<'_>,
        key: &'static str,
    ) -> Option<Fields<'i>> {
        match self.take(key) {
            Some(value) => table(report, value),
            None => self.missing(report, key),
        }
    }

    /// An array of tables that may be there.
    pub(super) fn tables(&mut self, report: &mut Report<'_>, key: &'static str) -> Vec<Fields<'i>> {
        let Some(value) = self.take(key) else {
            return Vec::new();
        };
        let at = value.span().start;
        match value.into_inner() {
            DeValue::Array(items) => items
                .into_iter()
                .filter_map(|item| table(report, item))
                .collect(),
            other => {
                wrong_type::<()>(
                    report,
                    at,
                    &format!("tables, each headed `[[{key}]]`"),
                    &other,
                );
                Vec::new()
            }
        }
    }

    /// All entries of a table whose keys are ids, in the order of the file.
    pub(super) fn entries(self) -> Vec<(Text, Spanned<DeValue<'i>>)> {
        let mut entries: Vec<_> = self
            .table
            .into_iter()
            .map(|(key, value)| {
                let at = key.span().start;
                (
                    Text {
                        value: key.into_inner().into_owned(),
                        at,
                    },
                    value,
                )
            })
            .collect();
        entries.sort_by_key(|(key, _)| key.at);
        entries
    }

    /// Reports the keys that nobody asked for.
    pub(super) fn finish(self, report: &mut Report<'_>) {
        let asked = self.asked.clone();
        for (key, _) in self.entries() {
            let message = format!("unknown key {}", quoted(&key.value));
            let mut finding = Diagnostic::error("unknown-key", message);
            finding.hint = suggestion(&key.value, asked.iter().copied());
            report.add(key.at, finding);
        }
    }

    fn take(&mut self, key: &'static str) -> Option<Spanned<DeValue<'i>>> {
        self.asked.push(key);
        self.table.remove(key)
    }

    fn list(&mut self, key: &'static str) -> Vec<Spanned<DeValue<'i>>> {
        let Some(value) = self.take(key) else {
            return Vec::new();
        };
        let span = value.span();
        match value.into_inner() {
            DeValue::Array(items) => items.into_iter().collect(),
            one => vec![Spanned::new(span, one)],
        }
    }

    fn missing<T>(&self, report: &mut Report<'_>, key: &str) -> Option<T> {
        report.add(
            self.at,
            Diagnostic::error("missing-key", format!("`{key}` is missing")),
        );
        None
    }
}

/// A string of one printable line.
pub(super) fn text(report: &mut Report<'_>, value: Spanned<DeValue<'_>>) -> Option<Text> {
    let at = value.span().start;
    match value.into_inner() {
        DeValue::String(value) if value.trim().is_empty() => {
            report.add(at, Diagnostic::error("empty-text", "this text is empty"));
            None
        }
        DeValue::String(value) if value.chars().any(is_unprintable) => {
            let message = "this text has control characters";
            let hint = "write it as one line of printable text";
            report.add(
                at,
                Diagnostic::error("control-character", message).hint(hint),
            );
            None
        }
        DeValue::String(value) => Some(Text {
            value: value.into_owned(),
            at,
        }),
        other => wrong_type(report, at, "a string", &other),
    }
}

/// The fields of a table.
pub(super) fn table<'i>(
    report: &mut Report<'_>,
    value: Spanned<DeValue<'i>>,
) -> Option<Fields<'i>> {
    let span = value.span();
    match value.into_inner() {
        DeValue::Table(table) => Some(Fields::new(Spanned::new(span, table))),
        other => wrong_type(report, span.start, "a table", &other),
    }
}

fn wrong_type<T>(
    report: &mut Report<'_>,
    at: usize,
    wanted: &str,
    found: &DeValue<'_>,
) -> Option<T> {
    let found = match found {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a float",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    };
    report.add(
        at,
        Diagnostic::error("wrong-type", format!("expected {wanted}, found {found}")),
    );
    None
}
