//! What figures may be: `budgets.toml`. What a packet costs is compared with what a reference costs in the same run, never with a
//! time: machines differ, and so do hours of one machine.

use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Serialize};

/// One budget.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Line {
    /// In words, for readers of the file.
    #[serde(rename = "what")]
    _what: String,
    /// Names of figures; `*` stands for anything, `?` for one character.
    cases: Vec<String>,
    /// The reference that `times` is of.
    against: Option<String>,
    times: Option<f64>,
    growth: Option<f64>,
    ratio: Option<f64>,
    milliseconds: Option<f64>,
    mebibytes: Option<f64>,
    /// Where it stands what was tried to keep it: a file, `#`, and the section.
    tried: Option<String>,
}

/// All of them.
#[derive(Debug, Deserialize)]
pub(crate) struct Budgets {
    line: Vec<Line>,
}

/// What was made of a figure.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Judged {
    /// The budget, in the figure's unit.
    pub(crate) budget: f64,
    /// Whether it was kept.
    pub(crate) met: bool,
}

/// What a figure is.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Unit {
    /// The largest policy of a series, in times of the smallest.
    Growth,
    Ratio,
    Milliseconds,
    Mebibytes,
}

impl Budgets {
    pub(crate) fn read() -> Result<Self> {
        let budgets: Self =
            toml::from_str(include_str!("../budgets.toml")).context("budgets.toml")?;
        for line in &budgets.line {
            ensure!(
                line.against.is_some() == line.times.is_some(),
                "budgets.toml: `against` and `times` go together: {:?}",
                line.cases
            );
        }
        Ok(budgets)
    }

    /// Where it stands what was tried to keep a budget.
    pub(crate) fn tried(&self, case: &str) -> Option<&str> {
        self.line(case)?.tried.as_deref()
    }

    fn line(&self, case: &str) -> Option<&Line> {
        let is_of = |line: &&Line| line.cases.iter().any(|pattern| fits(pattern, case));
        self.line.iter().find(is_of)
    }

    /// Judges what a packet costs, in nanoseconds, by what its reference costs in the same run; `None` if there is no budget
    /// for it, or its reference was not measured.
    pub(crate) fn judge_cost(
        &self,
        case: &str,
        net: f64,
        reference: impl FnOnce(&str) -> Option<f64>,
    ) -> Option<Judged> {
        let line = self.line(case)?;
        let budget = line.times? * reference(line.against.as_deref()?)?;
        Some(Judged {
            budget,
            met: net <= budget,
        })
    }

    /// What a cost is compared with, and how many times that it may be.
    pub(crate) fn against(&self, case: &str) -> Option<(&str, f64)> {
        let line = self.line(case)?;
        Some((line.against.as_deref()?, line.times?))
    }

    /// Judges any other figure; `None` if there is no budget for it.
    pub(crate) fn judge(&self, case: &str, unit: Unit, figure: f64) -> Option<Judged> {
        let line = self.line(case)?;
        let budget = match unit {
            Unit::Growth => line.growth,
            Unit::Ratio => line.ratio,
            Unit::Milliseconds => line.milliseconds,
            Unit::Mebibytes => line.mebibytes,
        }?;
        let met = match unit {
            Unit::Ratio => figure >= budget,
            Unit::Growth | Unit::Milliseconds | Unit::Mebibytes => figure <= budget,
        };
        Some(Judged { budget, met })
    }
}

fn fits(pattern: &str, name: &str) -> bool {
    match pattern.split_at_checked(1) {
        None => name.is_empty(),
        Some(("*", rest)) => name
            .char_indices()
            .map(|(at, _)| at)
            .chain([name.len()])
            .any(|at| name.get(at..).is_some_and(|name| fits(rest, name))),
        Some((first, rest)) => name
            .split_at_checked(1)
            .is_some_and(|(head, tail)| (first == "?" || first == head) && fits(rest, tail)),
    }
}

#[cfg(test)]
mod tests {
    use super::{Budgets, Unit, fits};

    #[test]
    fn names_fit_patterns() {
        assert!(fits("port/v?-tcp-deny", "port/v4-tcp-deny"));
        assert!(!fits("port/v?-tcp-deny", "port/v4-tcp-deny-x"));
        assert!(fits(
            "port/v?-random-ports*",
            "port/v6-random-ports-and-sources"
        ));
        assert!(fits("*", ""));
        assert!(!fits("flow/v?-tcp-no-flow", "flow/v4-tcp-no-flow-syn"));
    }

    /// As the sites that show Markdown make it.
    fn anchor(title: &str) -> String {
        let kept = title
            .chars()
            .filter(|one| one.is_alphanumeric() || " -_".contains(*one));
        kept.collect::<String>().to_lowercase().replace(' ', "-")
    }

    #[test]
    fn what_was_tried_can_be_read() {
        for line in Budgets::read().unwrap().line {
            let Some(tried) = line.tried else { continue };
            let (file, section) = tried.split_once('#').unwrap();
            let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
                .join("../..")
                .join(file);
            let text = std::fs::read_to_string(&path).unwrap();
            let titles = text.lines().filter(|line| line.starts_with('#'));
            let found = titles.map(|line| anchor(line.trim_start_matches('#').trim()));
            assert!(found.into_iter().any(|title| title == section), "{tried}");
        }
    }

    #[test]
    fn costs_are_judged_by_their_reference_and_the_rest_by_its_unit() {
        let budgets = Budgets::read().unwrap();
        let (against, times) = budgets.against("port/v4-tcp-deny").unwrap();
        assert_eq!(against, "reference/lean");
        let cost = |net, reference: Option<f64>| {
            let judged = budgets.judge_cost("port/v4-tcp-deny", net, |_| reference);
            judged.map(|judged| judged.met)
        };
        assert_eq!(cost(times * 3.0 - 0.1, Some(3.0)), Some(true));
        assert_eq!(cost(times * 3.0 + 0.1, Some(3.0)), Some(false));
        assert_eq!(cost(f64::NAN, Some(3.0)), Some(false));
        assert_eq!(cost(1.0, None), None);
        let met = |case, unit, figure| budgets.judge(case, unit, figure).map(|judged| judged.met);
        assert_eq!(met("port/v4-tcp-deny", Unit::Milliseconds, 1.0), None);
        assert_eq!(met("live/portguard", Unit::Ratio, 0.95), Some(true));
        assert_eq!(met("live/portguard", Unit::Ratio, 0.8), Some(false));
        assert_eq!(met("nothing", Unit::Ratio, 1.0), None);
    }
}
