//! What figures may be: `budgets.toml`.

use anyhow::{Context as _, Result};
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
    net: Option<f64>,
    growth: Option<f64>,
    ratio: Option<f64>,
    milliseconds: Option<f64>,
    mebibytes: Option<f64>,
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
    Net,
    Growth,
    Ratio,
    Milliseconds,
    Mebibytes,
}

impl Budgets {
    pub(crate) fn read() -> Result<Self> {
        toml::from_str(include_str!("../budgets.toml")).context("budgets.toml")
    }

    /// Judges a figure; `None` if there is no budget for it.
    pub(crate) fn judge(&self, case: &str, unit: Unit, figure: f64) -> Option<Judged> {
        let line = self
            .line
            .iter()
            .find(|line| line.cases.iter().any(|pattern| fits(pattern, case)))?;
        let budget = match unit {
            Unit::Net => line.net,
            Unit::Growth => line.growth,
            Unit::Ratio => line.ratio,
            Unit::Milliseconds => line.milliseconds,
            Unit::Mebibytes => line.mebibytes,
        }?;
        let met = match unit {
            Unit::Ratio => figure >= budget,
            Unit::Net | Unit::Growth | Unit::Milliseconds | Unit::Mebibytes => figure <= budget,
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

    #[test]
    fn figures_are_judged_by_their_unit() {
        let budgets = Budgets::read().unwrap();
        let met = |case, unit, figure| budgets.judge(case, unit, figure).map(|judged| judged.met);
        assert_eq!(met("port/v4-tcp-deny", Unit::Net, 6.9), Some(true));
        assert_eq!(met("port/v4-tcp-deny", Unit::Net, 7.1), Some(false));
        assert_eq!(met("port/v4-tcp-deny", Unit::Net, f64::NAN), Some(false));
        assert_eq!(met("port/v4-tcp-deny", Unit::Milliseconds, 1.0), None);
        assert_eq!(met("live/portguard", Unit::Ratio, 0.9), Some(true));
        assert_eq!(met("live/portguard", Unit::Ratio, 0.8), Some(false));
        assert_eq!(met("nothing", Unit::Net, 1.0), None);
    }
}
