//! Narration: on standard output, in colour on terminals only.

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _};

use anyhow::Result;

use super::stage::Stage;
use super::traffic::{Act, Outcome};
use crate::shell::result;

/// Columns that tables are made for.
const WIDTH: usize = 100;

const BOLD: &str = "1";
const DIM: &str = "2";
const RED: &str = "31";
const GREEN: &str = "32";
const CYAN: &str = "36";

/// Tells the story.
pub(super) struct Teller {
    colours: bool,
}

impl Teller {
    pub(super) fn new() -> Self {
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self {
            colours: wanted && io::stdout().is_terminal(),
        }
    }

    pub(super) fn title(&self, text: &str) {
        result("");
        result(self.paint(BOLD, text));
    }

    pub(super) fn chapter(&self, text: &str) {
        result("");
        result(self.paint(BOLD, text));
        result("");
    }

    #[expect(clippy::unused_self, reason = "all telling goes through the teller")]
    pub(super) fn text(&self, lines: &[&str]) {
        for line in lines {
            result(line);
        }
    }

    /// Runs a command of the guard before the reader's eyes.
    pub(super) fn portguard(&self, stage: &Stage, words: &[&str]) -> Result<()> {
        result(self.paint(CYAN, &format!("$ portguard {}", words.join(" "))));
        let output = stage.portguard(words, WIDTH)?.success()?;
        for line in output.stdout.lines().chain(output.stderr.lines()) {
            result(self.paint(DIM, &format!("  {}", line.trim_end())));
        }
        Ok(())
    }

    /// What was sent, and what became of it in each mode.
    pub(super) fn outcomes(&self, acts: &[Act], columns: &[(&str, &Vec<Outcome>)]) {
        let mut head = format!("   {:32} {:14}", "sent", "by");
        for (mode, _) in columns {
            // Writing to memory does not fail.
            let _ = write!(head, " {mode:10}");
        }
        result(self.paint(BOLD, head.trim_end()));
        for (index, act) in acts.iter().enumerate() {
            let mut line = format!("   {:32} {:14}", act.what, act.who);
            for (_, outcomes) in columns {
                line.push(' ');
                line.push_str(&match outcomes.get(index) {
                    Some(Outcome::Arrived) => self.paint(GREEN, &format!("{:10}", "arrives")),
                    Some(Outcome::Dropped) => self.paint(RED, &format!("{:10}", "dropped")),
                    None => String::new(),
                });
            }
            result(line.trim_end());
        }
    }

    fn paint(&self, colour: &str, text: &str) -> String {
        if self.colours {
            format!("\x1b[{colour}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}
