//! What is said about input: what, where (`file:line:column`), why, and what to do.

use std::fmt;

use serde::Serialize;

/// How bad it is.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, strum::IntoStaticStr,
)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum Level {
    /// Worth knowing.
    Note,
    /// Worth correcting; nothing is refused.
    Warning,
    /// Refused.
    Error,
}

impl Level {
    /// `note`, `warning` or `error`.
    pub fn name(self) -> &'static str {
        self.into()
    }
}

/// One finding about a catalog, a site or a policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// How bad.
    pub level: Level,
    /// Stable kebab-case name, for scripts and documentation: `unresolved-peer`.
    pub code: &'static str,
    /// Lower case, no final period, literals in backticks.
    pub message: String,
    /// `file:line:column`, or a row id, where there is one.
    #[serde(rename = "where", skip_serializing_if = "Option::is_none")]
    pub location: Option<String>,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl Diagnostic {
    /// A finding without place or hint; add them with [`Self::at`] and [`Self::hint`].
    pub fn new(level: Level, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            level,
            code,
            message: message.into(),
            location: None,
            hint: None,
        }
    }

    /// Shorthand for an error.
    pub fn error(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(Level::Error, code, message)
    }

    /// Shorthand for a warning.
    pub fn warning(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(Level::Warning, code, message)
    }

    /// Says where, if that is known.
    #[must_use]
    pub fn at_known(self, location: Option<String>) -> Self {
        match location {
            Some(location) => self.at(location),
            None => self,
        }
    }

    /// Says where.
    #[must_use]
    pub fn at(mut self, location: impl Into<String>) -> Self {
        self.location = Some(location.into());
        self
    }

    /// Says what to do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(location) = &self.location {
            write!(f, "{location}: ")?;
        }
        let level = self.level.name();
        write!(f, "{level}[{}]: {}", self.code, self.message)?;
        if let Some(hint) = &self.hint {
            write!(f, "\n  hint: {hint}")?;
        }
        Ok(())
    }
}

/// Refused input: at least one of these is an error.
#[derive(Debug, Clone)]
pub struct Rejected(pub Vec<Diagnostic>);

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, diagnostic) in self.0.iter().enumerate() {
            if i > 0 {
                writeln!(f)?;
            }
            write!(f, "{diagnostic}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Rejected {}

impl Rejected {
    /// What is no error; else all that is.
    ///
    /// # Errors
    /// If there is an error among them.
    pub fn unless_fine(all: Vec<Diagnostic>) -> Result<Vec<Diagnostic>, Self> {
        let (errors, others): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|one| one.level == Level::Error);
        if errors.is_empty() {
            Ok(others)
        } else {
            Err(Self(errors))
        }
    }
}
