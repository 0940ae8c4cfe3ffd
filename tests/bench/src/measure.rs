//! Rounds of visits: each case, between timings of the program that does nothing with the same frames.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use fastrand::Rng;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use portguard::bench::{Cost, Effort, Trial, fastest, visit};

use crate::plan::{ANY, Case, Plan};
use crate::programs::{Hook, Program, reference, varied};

/// What a case cost.
#[derive(Debug, Clone)]
pub(crate) struct Measured {
    pub(crate) case: usize,
    pub(crate) cost: Cost,
}

/// Frames of a case whose verdict is looked at before it is measured.
const CHECKED: usize = 64;

/// One case, ready: the baseline and the program, both behind the rewriting program where frames vary.
struct Cell {
    case: usize,
    bare: Runs,
    program: Runs,
    trials: Vec<Trial>,
}

/// A program of the plan's, or one of this cell's own.
enum Runs {
    Shared(usize),
    Own(Box<Program>),
}

/// Keeps this thread on one CPU, so that its counters stay in that CPU's caches.
pub(crate) fn stay_on(cpu: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu)?;
    sched_setaffinity(Pid::from_raw(0), &set).context("cannot stay on one CPU")
}

/// Measures all cases of a plan.
pub(crate) fn all(
    plan: &mut Plan,
    effort: Effort,
    mut progress: impl FnMut(u32),
) -> Result<Vec<Measured>> {
    let mut bare: BTreeMap<Hook, usize> = BTreeMap::new();
    for (hook, name) in [(Hook::Ingress, "bare_drop"), (Hook::Egress, "bare_tc")] {
        plan.programs.push(reference(name)?);
        bare.insert(hook, plan.programs.len() - 1);
    }
    let mut cells = Vec::new();
    for (case, index) in plan.cases.iter().zip(0..) {
        check(&mut plan.programs, case).with_context(|| format!("case `{}`", case.name))?;
        let hook = plan
            .programs
            .get(case.program)
            .map_or(Hook::Ingress, Program::hook);
        let below = bare.get(&hook).copied().unwrap_or(0);
        let mut ready = |program: usize| -> Result<Runs> {
            if case.ways.is_empty() {
                return Ok(Runs::Shared(program));
            }
            let target = plan.programs.get_mut(program).context("no such program")?;
            Ok(Runs::Own(Box::new(varied(
                target,
                &case.ways,
                case.places,
            )?)))
        };
        cells.push(Cell {
            case: index,
            bare: ready(below)?,
            program: ready(case.program)?,
            trials: Vec::new(),
        });
    }
    let mut rng = Rng::new();
    // The first round warms up.
    for round in 0..=effort.rounds {
        progress(round);
        rng.shuffle(&mut cells);
        for cell in &mut cells {
            let frame = plan
                .cases
                .get(cell.case)
                .map_or(&[][..], |case| &case.frame);
            let mut trials = Vec::new();
            visit(&mut trials, |program| {
                let runs = if program {
                    &mut cell.program
                } else {
                    &mut cell.bare
                };
                time(&mut plan.programs, runs, frame, effort.repeat)
            })?;
            if round > 0 {
                cell.trials.extend(trials);
            }
        }
    }
    cells.sort_by_key(|cell| cell.case);
    // The baseline is the same program for all cases of a hook whose frames do not vary.
    let shared: BTreeMap<usize, f64> = bare
        .values()
        .map(|below| {
            let same = cells.iter().filter(|cell| cell.bare.is_shared(*below));
            (*below, fastest(same.flat_map(|cell| &cell.trials)))
        })
        .collect();
    Ok(cells
        .iter()
        .map(|cell| {
            let fastest = match &cell.bare {
                Runs::Shared(below) => shared.get(below).copied().unwrap_or(f64::NAN),
                Runs::Own(_) => fastest(&cell.trials),
            };
            Measured {
                case: cell.case,
                cost: Cost::of(&cell.trials, fastest),
            }
        })
        .collect())
}

impl Runs {
    fn is_shared(&self, index: usize) -> bool {
        matches!(self, Self::Shared(shared) if *shared == index)
    }
}

fn time(programs: &mut [Program], runs: &mut Runs, frame: &[u8], repeat: u32) -> Result<f64> {
    match runs {
        Runs::Own(program) => program.time(frame, repeat),
        Runs::Shared(index) => programs
            .get_mut(*index)
            .context("no such program")?
            .time(frame, repeat),
    }
}

/// Whether a program answers what the case says: else something else would be measured.
fn check(programs: &mut [Program], case: &Case) -> Result<()> {
    let program = programs.get_mut(case.program).context("no such program")?;
    let step = (case.ways.len() / CHECKED).max(1);
    let mut frames = vec![case.frame.clone()];
    for way in case.ways.iter().step_by(step) {
        let mut frame = case.frame.clone();
        way.apply(&mut frame, case.places);
        frames.push(frame);
    }
    if !case.ways.is_empty() {
        // The frame itself is never given to the program then.
        frames.remove(0);
    }
    for frame in frames {
        let answer = program.answer(&frame)?;
        ensure!(
            answer == case.answer || case.answer == ANY,
            "the program answers {answer} where {} is right: {frame:02x?}",
            case.answer
        );
    }
    Ok(())
}
