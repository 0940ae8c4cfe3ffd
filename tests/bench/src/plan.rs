//! What is measured: policies, frames, and what of it the budget is for.

mod cases;
mod flood;
mod frames;
mod growth;
mod policies;

use anyhow::{Context as _, Result};

pub(crate) use growth::ROWS;
pub(crate) use policies::{load, plain, ports, rows, sources};

use crate::programs::{Hook, Places, Program, Variation};

/// What a figure belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Group {
    /// Programs that portguard is compared with.
    Reference,
    /// Packets that arrive, by kind.
    Class,
    /// Packets that leave, by kind.
    Egress,
    /// The same packet against policies of growing size.
    Growth,
}

/// For [`Case::answer`]: both verdicts will do.
pub(crate) const ANY: u32 = 0x7fff_ffff;

/// One figure to be.
#[derive(Debug)]
pub(crate) struct Case {
    pub(crate) group: Group,
    /// `policy/what`; budgets go by it.
    pub(crate) name: String,
    /// For [`Group::Growth`]: how many ports, prefixes or flows.
    pub(crate) size: Option<u32>,
    /// Index into [`Plan::programs`].
    pub(crate) program: usize,
    pub(crate) frame: Vec<u8>,
    /// Different frames, rather than one and the same.
    pub(crate) ways: Vec<Variation>,
    pub(crate) places: Places,
    /// What the program must answer; else this measures something else than it says.
    pub(crate) answer: u32,
}

/// Everything to be measured by test run.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub(crate) programs: Vec<Program>,
    pub(crate) cases: Vec<Case>,
}

/// How much.
#[derive(Debug, Clone)]
pub(crate) struct Extent {
    /// Part of the names of the cases that are wanted; empty = all.
    pub(crate) only: String,
    /// Leave out the largest policies.
    pub(crate) quick: bool,
}

impl Extent {
    /// Whether any figure of a family is wanted, whose names begin like this.
    pub(crate) fn wants(&self, names: &[&str]) -> bool {
        let is_part = |name: &str| {
            let mut parts = self.only.split(',');
            parts
                .any(|part| name.starts_with(part) || part.starts_with(name) || !part.contains('/'))
        };
        self.only.is_empty() || names.iter().any(|name| is_part(name))
    }

    fn has(&self, name: &str) -> bool {
        self.only.split(',').any(|part| name.contains(part))
    }
}

/// A packet that every policy here denies: an opening one, to a port that nobody is granted.
pub(crate) fn denied() -> Vec<u8> {
    frames::tcp(frames::ends(false), (40_000, cases::CLOSED), frames::SYN).build()
}

impl Plan {
    /// Loads all programs that the wanted cases need.
    pub(crate) fn new(extent: &Extent) -> Result<Self> {
        let mut plan = Self::default();
        cases::add(&mut plan, extent).context("cannot prepare the packet classes")?;
        flood::add(&mut plan, extent).context("cannot prepare the flood")?;
        growth::add(&mut plan, extent).context("cannot prepare the growing policies")?;
        // What they are compared with is measured beside them.
        let is_compared = plan.cases.iter().any(|case| {
            matches!(case.group, Group::Class | Group::Growth) && extent.has(&case.name)
        });
        plan.cases.retain(|case| {
            extent.only.is_empty()
                || extent.has(&case.name)
                || is_compared && matches!(case.group, Group::Reference)
        });
        Ok(plan)
    }

    fn program(&mut self, program: Program) -> usize {
        self.programs.push(program);
        self.programs.len() - 1
    }

    fn push(&mut self, case: Case) {
        self.cases.push(case);
    }
}
