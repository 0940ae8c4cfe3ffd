//! The figures of a run, as they are kept: `--json`, `--save`, `--against`.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::budget::{Budgets, Judged, Unit};
use crate::machine::Machine;
use crate::measure::Measured;
use crate::plan::{Group, Plan};

/// A run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Run {
    /// Version of this format.
    pub(crate) schema: u32,
    pub(crate) machine: Machine,
    /// Costs by test run.
    pub(crate) costs: Vec<Figure>,
    /// What grows with the policy: from the smallest to the largest of a series.
    pub(crate) growth: Vec<Growth>,
}

/// What one case cost.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Figure {
    pub(crate) name: String,
    /// `reference`, `class`, `egress` or `growth`.
    pub(crate) group: String,
    /// Ports, prefixes or flows, in `growth`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) size: Option<u32>,
    /// Nanoseconds a packet above the program that does nothing.
    pub(crate) net: f64,
    /// Half of the distance between the quartiles.
    pub(crate) spread: f64,
    /// Nanoseconds with the kernel's test loop.
    pub(crate) raw: f64,
    /// The same of the program that does nothing.
    pub(crate) bare: f64,
    /// What the net may be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) budget: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) met: Option<bool>,
}

/// How a series grew.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Growth {
    pub(crate) name: String,
    pub(crate) from: u32,
    pub(crate) to: u32,
    /// Nanoseconds more.
    pub(crate) more: f64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) budget: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) met: Option<bool>,
}

impl Group {
    const fn name(self) -> &'static str {
        match self {
            Self::Reference => "reference",
            Self::Class => "class",
            Self::Egress => "egress",
            Self::Growth => "growth",
        }
    }
}

impl Run {
    pub(crate) fn new(machine: Machine) -> Self {
        Self {
            schema: 1,
            machine,
            costs: Vec::new(),
            growth: Vec::new(),
        }
    }

    /// Takes in what was measured by test run.
    pub(crate) fn add_costs(&mut self, plan: &Plan, measured: &[Measured], budgets: &Budgets) {
        for one in measured {
            let Some(case) = plan.cases.get(one.case) else {
                continue;
            };
            let judged = budgets.judge(&case.name, Unit::Net, one.cost.net);
            self.costs.push(Figure {
                name: case.name.clone(),
                group: case.group.name().to_owned(),
                size: case.size,
                net: one.cost.net,
                spread: one.cost.spread,
                raw: one.cost.raw,
                bare: one.bare,
                budget: judged.map(|judged| judged.budget),
                met: judged.map(|judged| judged.met),
            });
        }
        self.add_growth(budgets);
    }

    fn add_growth(&mut self, budgets: &Budgets) {
        let mut names: Vec<&str> = Vec::new();
        for figure in self.costs.iter().filter(|figure| figure.size.is_some()) {
            if !names.contains(&figure.name.as_str()) {
                names.push(&figure.name);
            }
        }
        for name in names {
            let series = || self.costs.iter().filter(|figure| figure.name == name);
            let (Some(first), Some(last)) = (
                series().min_by_key(|figure| figure.size),
                series().max_by_key(|figure| figure.size),
            ) else {
                continue;
            };
            let (from, to) = (first.size.unwrap_or(0), last.size.unwrap_or(0));
            let more = last.net - first.net;
            let judged: Option<Judged> = budgets.judge(name, Unit::Growth, more);
            self.growth.push(Growth {
                name: name.to_owned(),
                from,
                to,
                more,
                budget: judged.map(|judged| judged.budget),
                met: judged.map(|judged| judged.met),
            });
        }
    }

    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory)
                .with_context(|| format!("cannot make `{}`", directory.display()))?;
        }
        let text = serde_json::to_string_pretty(self)? + "\n";
        fs::write(path, text).with_context(|| format!("cannot write `{}`", path.display()))
    }

    pub(crate) fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path)
            .with_context(|| format!("cannot read `{}`", path.display()))?;
        let run: Self = serde_json::from_str(&text)
            .with_context(|| format!("`{}` is no run of this version", path.display()))?;
        ensure!(
            run.schema == 1,
            "`{}` has schema {}, not 1",
            path.display(),
            run.schema
        );
        Ok(run)
    }
}
