//! The figures of a run, as they are kept: `--json`, `--save`, `--against`.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use portguard_kernel::bench::Cost;
use serde::{Deserialize, Serialize};

use crate::budget::{Budgets, Judged, Unit};
use crate::machine::Machine;
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
    /// Denied packets on a veth pair.
    #[serde(default)]
    pub(crate) live: Vec<Live>,
    /// Several CPUs at once.
    #[serde(default)]
    pub(crate) scaling: Vec<Scaling>,
    /// Several receive queues.
    #[serde(default)]
    pub(crate) queues: Vec<Queues>,
    /// Times and sizes of the control path.
    #[serde(default)]
    pub(crate) control: Vec<Quantity>,
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
    /// The share of trials that counted, see [`portguard_kernel::bench::Cost`].
    #[serde(default)]
    pub(crate) undisturbed: f64,
    /// What it is compared with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) against: Option<Against>,
    /// What the net may be: so many times what that cost in the same run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) budget: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) met: Option<bool>,
}

/// A reference, and how many times what that costs a figure may be.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Against {
    pub(crate) reference: String,
    pub(crate) times: f64,
    /// What that costs in the same run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) net: Option<f64>,
}

/// A figure beyond its budget.
#[derive(Debug)]
pub(crate) struct Missed {
    pub(crate) name: String,
    /// In times of what `of` names.
    pub(crate) ratio: f64,
    /// What that may be.
    pub(crate) budget: f64,
    pub(crate) of: String,
}

impl Missed {
    fn new(name: &str, ratio: f64, budget: f64, of: &str) -> Self {
        Self {
            name: name.to_owned(),
            ratio,
            budget,
            of: of.trim_start_matches("reference/").to_owned(),
        }
    }
}

impl Figure {
    /// In times of what it is compared with.
    pub(crate) fn ratio(&self) -> Option<f64> {
        Some(self.net / self.against.as_ref()?.net?)
    }
}

/// How a series grew.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Growth {
    pub(crate) name: String,
    pub(crate) from: u32,
    pub(crate) to: u32,
    /// Nanoseconds more.
    pub(crate) more: f64,
    /// The largest in times of the smallest.
    #[serde(default)]
    pub(crate) times: f64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) budget: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) met: Option<bool>,
}

/// What a denied packet costs its receiver.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Live {
    pub(crate) name: String,
    /// CPU time of the receiver a packet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) nanoseconds: Option<f64>,
    /// Packets a second of CPU time, against a bare drop right before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ratio: Option<f64>,
    /// The same against a drop that has read the packet's Ethernet type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) touching: Option<f64>,
    /// Why it was not measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) absent: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) budget: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) met: Option<bool>,
}

/// A program on one CPU, and on several at the same time: nanoseconds a packet, the test loop included.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Scaling {
    pub(crate) name: String,
    pub(crate) cpus: usize,
    pub(crate) alone: f64,
    pub(crate) together: f64,
}

/// Denied packets from all CPUs to an interface with so many receive queues.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Queues {
    pub(crate) name: String,
    /// Receive queues.
    pub(crate) count: usize,
    /// Millions of packets a second that were received.
    pub(crate) rate: f64,
    /// CPU time of the receiver a packet.
    pub(crate) nanoseconds: f64,
}

/// A time, a size, or a number.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Quantity {
    pub(crate) name: String,
    /// Rows, interfaces or hosts, of what grows with them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) size: Option<u32>,
    /// `ms` or `MiB`; none for a number.
    pub(crate) unit: String,
    pub(crate) value: f64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) budget: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) met: Option<bool>,
}

impl Quantity {
    pub(crate) fn time(name: &str, time: Duration) -> Self {
        Self::new(name, "ms", time.as_secs_f64() * 1e3)
    }

    pub(crate) fn memory(name: &str, bytes: u64) -> Self {
        #[expect(clippy::cast_precision_loss, reason = "sizes of memory")]
        Self::new(name, "MiB", bytes as f64 / f64::from(1 << 20))
    }

    pub(crate) fn count(name: &str, count: u64) -> Self {
        #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^53")]
        Self::new(name, "", count as f64)
    }

    fn new(name: &str, unit: &str, value: f64) -> Self {
        Self {
            name: name.to_owned(),
            size: None,
            unit: unit.to_owned(),
            value,
            budget: None,
            met: None,
        }
    }

    /// Of so many rows, interfaces or hosts.
    pub(crate) fn at(self, size: u32) -> Self {
        Self {
            size: Some(size),
            ..self
        }
    }

    /// The name under which it is shown and judged.
    pub(crate) fn label(&self) -> String {
        labelled(&self.name, self.size)
    }
}

/// `ports/hot @ 256`.
pub(crate) fn labelled(name: &str, size: Option<u32>) -> String {
    size.map_or(name.to_owned(), |size| format!("{name} @ {size}"))
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
            live: Vec::new(),
            scaling: Vec::new(),
            queues: Vec::new(),
            control: Vec::new(),
        }
    }

    /// Takes in what was measured by test run.
    pub(crate) fn add_costs(&mut self, plan: &Plan, costs: &[Cost], budgets: &Budgets) {
        for (case, cost) in plan.cases.iter().zip(costs) {
            let against = budgets.against(&case.name);
            self.costs.push(Figure {
                name: case.name.clone(),
                group: case.group.name().to_owned(),
                size: case.size,
                net: cost.net,
                spread: cost.spread,
                raw: cost.raw,
                bare: cost.bare,
                undisturbed: cost.undisturbed,
                against: against.map(|(reference, times)| Against {
                    reference: reference.to_owned(),
                    times,
                    net: None,
                }),
                budget: None,
                met: None,
            });
        }
        let nets: BTreeMap<String, f64> = self
            .costs
            .iter()
            .map(|figure| (figure.name.clone(), figure.net))
            .collect();
        for figure in &mut self.costs {
            let judged =
                budgets.judge_cost(&figure.name, figure.net, |name| nets.get(name).copied());
            if let Some(against) = &mut figure.against {
                against.net = nets.get(&against.reference).copied();
            }
            figure.budget = judged.map(|judged| judged.budget);
            figure.met = judged.map(|judged| judged.met);
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
            let times = last.net / first.net;
            let judged: Option<Judged> = budgets.judge(name, Unit::Growth, times);
            self.growth.push(Growth {
                name: name.to_owned(),
                from,
                to,
                more,
                times,
                budget: judged.map(|judged| judged.budget),
                met: judged.map(|judged| judged.met),
            });
        }
    }

    /// Judges what was measured otherwise than by test run.
    pub(crate) fn judge(&mut self, budgets: &Budgets) {
        for live in &mut self.live {
            let judged = live
                .ratio
                .and_then(|ratio| budgets.judge(&live.name, Unit::Ratio, ratio));
            live.budget = judged.map(|judged| judged.budget);
            live.met = judged.map(|judged| judged.met);
        }
        for quantity in &mut self.control {
            let unit = if quantity.unit == "ms" {
                Unit::Milliseconds
            } else {
                Unit::Mebibytes
            };
            let judged = budgets.judge(&quantity.label(), unit, quantity.value);
            quantity.budget = judged.map(|judged| judged.budget);
            quantity.met = judged.map(|judged| judged.met);
        }
    }

    /// What is beyond its budget, as ratios: to a reference, to the smallest policy, to a bare drop, to what it may be.
    pub(crate) fn missed(&self) -> Vec<Missed> {
        let costs = self.costs.iter().filter(|one| one.met == Some(false));
        let costs = costs.map(|one| {
            let of = one
                .against
                .as_ref()
                .map_or("", |against| &against.reference);
            let budget = one
                .against
                .as_ref()
                .map_or(f64::NAN, |against| against.times);
            Missed::new(&one.name, one.ratio().unwrap_or(f64::NAN), budget, of)
        });
        let growth = self.growth.iter().filter(|one| one.met == Some(false));
        let growth = growth.map(|one| {
            let of = format!("that of {}", one.from);
            Missed::new(&one.name, one.times, one.budget.unwrap_or(f64::NAN), &of)
        });
        let live = self.live.iter().filter(|one| one.met == Some(false));
        let live = live.map(|one| {
            let (ratio, budget) = (one.ratio.unwrap_or(f64::NAN), one.budget);
            Missed::new(
                &one.name,
                ratio,
                budget.unwrap_or(f64::NAN),
                "a bare drop's rate",
            )
        });
        let control = self.control.iter().filter(|one| one.met == Some(false));
        let control = control.map(|one| {
            let budget = one.budget.unwrap_or(f64::NAN);
            let of = format!("{budget} {}", one.unit);
            Missed::new(&one.label(), one.value / budget, 1.0, &of)
        });
        costs.chain(growth).chain(live).chain(control).collect()
    }

    /// All verdicts: whether each budget that applies was met.
    pub(crate) fn verdicts(&self) -> Vec<bool> {
        let costs = self.costs.iter().map(|one| one.met);
        let growth = self.growth.iter().map(|one| one.met);
        let live = self.live.iter().map(|one| one.met);
        let control = self.control.iter().map(|one| one.met);
        costs
            .chain(growth)
            .chain(live)
            .chain(control)
            .flatten()
            .collect()
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
