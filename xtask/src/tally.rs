//! How many passed, failed and were skipped: every verb that checks something ends in this line.

use std::fmt;
use std::ops::AddAssign;

/// A count of checks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) skipped: u64,
}

impl Tally {
    /// Whether something was checked and nothing failed.
    pub(crate) fn is_good(self) -> bool {
        self.failed == 0 && self.passed > 0
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        let Self {
            passed,
            failed,
            skipped,
        } = other;
        self.passed += passed;
        self.failed += failed;
        self.skipped += skipped;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            passed,
            failed,
            skipped,
        } = self;
        write!(f, "{passed} passed, {failed} failed")?;
        if *skipped > 0 {
            write!(f, ", {skipped} skipped")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Tally;

    #[test]
    fn nothing_checked_is_not_good() {
        assert!(!Tally::default().is_good());
        let skipped = Tally {
            skipped: 3,
            ..Tally::default()
        };
        assert!(!skipped.is_good());
    }

    #[test]
    fn the_closing_line_names_what_was_skipped() {
        let mut tally = Tally {
            passed: 3,
            ..Tally::default()
        };
        assert_eq!(tally.to_string(), "3 passed, 0 failed");
        tally += Tally {
            failed: 1,
            skipped: 2,
            ..Tally::default()
        };
        assert_eq!(tally.to_string(), "3 passed, 1 failed, 2 skipped");
    }
}
