//! Rounds of visits: each case, between timings of the program that does nothing with the same frames.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use fastrand::Rng;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use portguard_kernel::bench::{Attached, Campaign, Cost, Effort, Stand};

use crate::cli::say;
use crate::plan::{ANY, Case, Plan};
use crate::programs::{Hook, Program, reference, varied};

/// Frames of a case whose verdict is looked at before it is measured.
const CHECKED: usize = 64;

/// One case, ready: the baseline and the program, both behind the rewriting program where frames vary.
struct Cell {
    bare: Runs,
    program: Runs,
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

/// Measures all cases of a plan, each once at least, and more often `until` then. `progress` hears of each round, and how many cases
/// it has.
pub(crate) fn all(
    plan: &mut Plan,
    effort: Effort,
    until: Instant,
    mut progress: impl FnMut(u32, usize),
) -> Result<Vec<Cost>> {
    let mut bare: BTreeMap<Hook, usize> = BTreeMap::new();
    for (hook, name) in [(Hook::Ingress, "bare_drop"), (Hook::Egress, "bare_tc")] {
        plan.programs.push(reference(name)?);
        bare.insert(hook, plan.programs.len() - 1);
    }
    let mut cells = Vec::new();
    for case in &plan.cases {
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
            bare: ready(below)?,
            program: ready(case.program)?,
        });
    }
    // Programs are attached while they are measured: see `Stand`.
    let (lower, upper) = (Stand::open()?, Stand::open()?);
    // The baseline of cases whose frames do not vary is the same program; elsewhere it is the case's own.
    let mut campaign =
        Campaign::new(
            cells
                .iter()
                .zip(plan.programs.len()..)
                .map(|(cell, own)| match cell.bare {
                    Runs::Shared(below) => below,
                    Runs::Own(_) => own,
                }),
        );
    let mut rng = Rng::new();
    let is_over = |round: u32| round > 0 && Instant::now() >= until;
    for round in 0..effort.rounds {
        if is_over(round) {
            break;
        }
        let mut cases = campaign.unsettled();
        progress(round, cases.len());
        rng.shuffle(&mut cases);
        for index in cases {
            if is_over(round) {
                break;
            }
            let (Some(cell), Some(case)) = (cells.get_mut(index), plan.cases.get(index)) else {
                continue;
            };
            let _attached = (
                attach(&lower, &mut plan.programs, &mut cell.bare)?,
                attach(&upper, &mut plan.programs, &mut cell.program)?,
            );
            campaign.visit(index, effort.trials, |program| {
                let runs = if program {
                    &mut cell.program
                } else {
                    &mut cell.bare
                };
                runs.program(&mut plan.programs)?
                    .time(&case.frame, effort.repeat)
            })?;
        }
    }
    let left = campaign.unsettled().len();
    if left > 0 {
        say(&format!(
            "{left} cases were disturbed too often: they count with what there is"
        ));
    }
    Ok(campaign.costs())
}

fn attach(stand: &Stand, programs: &mut [Program], runs: &mut Runs) -> Result<Option<Attached>> {
    let program = runs.program(programs)?;
    match program.hook() {
        Hook::Ingress => Ok(Some(stand.attach(program.xdp()?)?)),
        Hook::Egress => Ok(None),
    }
}

impl Runs {
    fn program<'a>(&'a mut self, programs: &'a mut [Program]) -> Result<&'a mut Program> {
        match self {
            Self::Own(program) => Ok(program),
            Self::Shared(index) => programs.get_mut(*index).context("no such program"),
        }
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
