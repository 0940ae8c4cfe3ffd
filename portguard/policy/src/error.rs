//! Which exit code an error deserves, and what the operator should do about it.

use std::fmt;
use std::process::ExitCode;

/// What a finished command tells the shell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Done, nothing to report.
    Ok = 0,
    /// Done, and there are findings: drift, differences, a packet that would be dropped, a refused promotion.
    Findings = 1,
    /// Usage or policy error.
    Usage = 2,
    /// The kernel or the system refused.
    System = 3,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// An error that knows its exit code and its hint.
#[derive(Debug, Clone)]
pub struct Fault {
    /// [`Exit::Usage`] or [`Exit::System`].
    pub exit: Exit,
    /// Lower case, no final period.
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
}

impl Fault {
    /// The command line or the policy is wrong.
    pub fn usage(message: impl Into<String>) -> Self {
        Self {
            exit: Exit::Usage,
            message: message.into(),
            hint: None,
        }
    }

    /// The kernel or the system refused.
    pub fn system(message: impl Into<String>) -> Self {
        Self {
            exit: Exit::System,
            message: message.into(),
            hint: None,
        }
    }

    /// Says what to do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Fault {}
