//! What a loaded program costs: nanoseconds a frame above a bare drop, measured by test run on this very host.
//!
//! Each trial times the program between two timings of the baseline. Cores change their speed within milliseconds: a
//! virtual machine's neighbour on the other thread of a core takes half of it. So only trials count in which the baseline
//! was about as fast as it ever was, before and after; the figure is the median of their differences.

pub mod classes;

use std::time::Duration;

use anyhow::Context as _;
use aya::programs::{Program, Xdp};
use aya::{Ebpf, EbpfLoader, TestRun, TestRunOptions, TestRunResult};

/// The object with the baseline programs.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/portguard-baseline"));

/// Programs that a test run gives frames to: ingress and egress.
pub trait Measured: for<'a> TestRun<Opts<'a> = TestRunOptions<'a>, Result = TestRunResult> {}

impl<P: for<'a> TestRun<Opts<'a> = TestRunOptions<'a>, Result = TestRunResult>> Measured for P {}

/// Programs that do next to nothing.
#[derive(Debug)]
pub struct Baseline {
    ebpf: Ebpf,
}

/// How long to measure.
#[derive(Debug, Clone, Copy)]
pub struct Effort {
    /// Visits of [`VISIT`] trials each. The kernel waits for all of its CPUs before and after every timing of an XDP program,
    /// some milliseconds: that, and not the frames, is what many rounds take.
    pub rounds: u32,
    /// Frames a timing: for about half a millisecond, less than the while that a core keeps its speed.
    pub repeat: u32,
}

impl Default for Effort {
    fn default() -> Self {
        Self {
            rounds: 5,
            repeat: 25_000,
        }
    }
}

/// Trials of a visit.
pub const VISIT: usize = 8;

/// How much slower than at its fastest the baseline may be in a trial that counts. What makes cores slower makes them
/// slower by more.
const DISTURBED: f64 = 1.15;

/// Trials that have to count; with fewer, all do.
const ENOUGH: usize = 8;

/// One timing of a program between two of the baseline, nanoseconds a frame.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Trial {
    /// The baseline right before.
    pub before: f64,
    /// The program.
    pub program: f64,
    /// The baseline right after.
    pub after: f64,
}

/// What a frame costs, nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cost {
    /// Median of the program alone, the kernel's test loop included.
    pub raw: f64,
    /// Median of the baseline.
    pub bare: f64,
    /// Median of what it takes above the baseline.
    pub net: f64,
    /// Half of the distance between the quartiles of that.
    pub spread: f64,
    /// The share of trials that counted; 0 if too few would have, so that all did.
    pub undisturbed: f64,
}

impl Baseline {
    /// Loads them.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn load() -> anyhow::Result<Self> {
        let mut ebpf = EbpfLoader::new().load(OBJECT)?;
        for name in ["baseline_drop", "baseline_count"] {
            program(&mut ebpf, name)?.load()?;
        }
        Ok(Self { ebpf })
    }

    /// Measures a program against the bare drop.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn measure(
        &mut self,
        measured: &impl Measured,
        frame: &[u8],
        effort: Effort,
    ) -> anyhow::Result<Cost> {
        let bare = &*program(&mut self.ebpf, "baseline_drop")?;
        paired(bare, measured, frame, effort)
    }

    /// Measures one per-CPU counter against the bare drop.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn counter(&mut self, frame: &[u8], effort: Effort) -> anyhow::Result<Cost> {
        // Loaded twice rather than borrowed twice.
        let mut other = Self::load()?;
        let count = &*program(&mut other.ebpf, "baseline_count")?;
        self.measure(count, frame, effort)
    }
}

fn program<'a>(ebpf: &'a mut Ebpf, name: &str) -> anyhow::Result<&'a mut Xdp> {
    let program: &mut Program = ebpf
        .program_mut(name)
        .with_context(|| format!("the baseline object has no program `{name}`"))?;
    Ok(program.try_into()?)
}

fn paired(
    bare: &impl Measured,
    measured: &impl Measured,
    frame: &[u8],
    effort: Effort,
) -> anyhow::Result<Cost> {
    let mut trials = Vec::new();
    for _ in 0..effort.rounds {
        let time = |program: bool| {
            if program {
                nanoseconds(measured, frame, effort.repeat)
            } else {
                nanoseconds(bare, frame, effort.repeat)
            }
        };
        visit(&mut trials, time)?;
    }
    Ok(Cost::of(&trials, fastest(&trials)))
}

/// Makes [`VISIT`] trials; `time` times the program, or else the baseline. A timing in front that does not count brings
/// back to the caches what others threw out.
///
/// # Errors
/// Those of `time`.
pub fn visit(
    trials: &mut Vec<Trial>,
    mut time: impl FnMut(bool) -> anyhow::Result<f64>,
) -> anyhow::Result<()> {
    time(true)?;
    let mut before = time(false)?;
    for _ in 0..VISIT {
        let program = time(true)?;
        let after = time(false)?;
        trials.push(Trial {
            before,
            program,
            after,
        });
        before = after;
    }
    Ok(())
}

/// How fast the baseline is when nothing disturbs it: the twentieth part of its timings that were fastest were no slower.
pub fn fastest<'a>(trials: impl IntoIterator<Item = &'a Trial>) -> f64 {
    let figures = trials.into_iter().map(|trial| trial.before).collect();
    quantile(&sorted(figures), 1, 20)
}

impl Trial {
    fn net(&self) -> f64 {
        self.program - self.bare()
    }

    const fn bare(&self) -> f64 {
        f64::midpoint(self.before, self.after)
    }
}

impl Cost {
    /// From trials, and how fast the baseline is when nothing disturbs it. Not a number without any.
    pub fn of(trials: &[Trial], fastest: f64) -> Self {
        let all = trials.len();
        let counts = |trial: &&Trial| trial.before.max(trial.after) <= fastest * DISTURBED;
        let mut counted: Vec<&Trial> = trials.iter().filter(counts).collect();
        #[expect(clippy::cast_precision_loss, reason = "numbers of trials")]
        let mut undisturbed = counted.len() as f64 / all.max(1) as f64;
        if counted.len() < ENOUGH {
            counted = trials.iter().collect();
            undisturbed = 0.0;
        }
        let figures =
            |figure: fn(&Trial) -> f64| sorted(counted.iter().map(|trial| figure(trial)).collect());
        let net = figures(Trial::net);
        Self {
            raw: quantile(&figures(|trial| trial.program), 1, 2),
            bare: quantile(&figures(Trial::bare), 1, 2),
            net: quantile(&net, 1, 2),
            spread: (quantile(&net, 3, 4) - quantile(&net, 1, 4)) / 2.0,
            undisturbed,
        }
    }
}

fn sorted(mut figures: Vec<f64>) -> Vec<f64> {
    figures.sort_by(f64::total_cmp);
    figures
}

/// Nanoseconds of this thread's CPU time a frame: the kernel's own figure is whole nanoseconds of wall-clock time.
///
/// # Errors
/// What the kernel refused.
pub fn nanoseconds(program: &impl Measured, frame: &[u8], repeat: u32) -> anyhow::Result<f64> {
    let before = thread_time()?;
    program
        .test_run(TestRunOptions {
            data_in: Some(frame),
            repeat,
            ..TestRunOptions::default()
        })
        .context("the kernel refused a test run")?;
    let spent = thread_time()?.saturating_sub(before);
    Ok(spent.as_secs_f64() * 1e9 / f64::from(repeat.max(1)))
}

/// What a program answers to a frame.
///
/// # Errors
/// What the kernel refused.
pub fn answer(program: &impl Measured, frame: &[u8]) -> anyhow::Result<u32> {
    let options = TestRunOptions {
        data_in: Some(frame),
        ..TestRunOptions::default()
    };
    let done = program.test_run(options);
    Ok(done.context("the kernel refused a test run")?.return_value)
}

/// The CPU time of this thread: what else the machine does is not in it.
pub(crate) fn thread_time() -> anyhow::Result<Duration> {
    let time = nix::time::clock_gettime(nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID)?;
    Ok(time.into())
}

/// A quantile of sorted figures; not a number without any.
pub fn quantile(sorted: &[f64], numerator: usize, denominator: usize) -> f64 {
    let index = sorted.len().saturating_sub(1) * numerator / denominator;
    sorted.get(index).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::{Cost, ENOUGH, Trial, VISIT, fastest, quantile, visit};

    fn trial(before: f64, program: f64, after: f64) -> Trial {
        Trial {
            before,
            program,
            after,
        }
    }

    #[test]
    fn what_slows_both_cancels_and_what_slows_one_does_not_count() {
        let mut trials = vec![trial(10.0, 16.0, 10.0); ENOUGH];
        trials.extend(vec![trial(13.0, 29.0, 13.0); 30]);
        trials.extend([trial(10.0, 25.0, 13.0), trial(13.0, 16.0, 10.0)]);
        assert!((fastest(&trials) - 10.0).abs() < 1e-9);
        let cost = Cost::of(&trials, fastest(&trials));
        assert!((cost.net - 6.0).abs() < 1e-9, "{cost:?}");
        assert!((cost.raw - 16.0).abs() < 1e-9);
        assert!((cost.bare - 10.0).abs() < 1e-9);
        assert!((cost.undisturbed - 0.2).abs() < 1e-9);
        assert!(Cost::of(&[], fastest(&[])).net.is_nan());
    }

    #[test]
    fn all_count_where_too_few_would() {
        let mut trials = vec![trial(13.0, 29.0, 13.0); 30];
        trials.push(trial(10.0, 16.0, 10.0));
        let cost = Cost::of(&trials, 10.0);
        assert!((cost.net - 16.0).abs() < 1e-9);
        assert!(cost.undisturbed.abs() < 1e-9);
    }

    #[test]
    fn a_visit_lays_each_timing_between_two() {
        let mut trials = Vec::new();
        let mut clock = 0.0;
        visit(&mut trials, |program| {
            clock += 1.0;
            Ok(if program { 100.0 + clock } else { clock })
        })
        .unwrap();
        assert_eq!(trials.len(), VISIT);
        assert_eq!(trials[0], trial(2.0, 103.0, 4.0));
        assert_eq!(trials[1], trial(4.0, 105.0, 6.0));
    }

    #[test]
    fn quantiles_of_what_was_measured() {
        let values = [1.0, 2.0, 3.0, 4.0, 9.0];
        assert!((quantile(&values, 1, 2) - 3.0).abs() < f64::EPSILON);
        assert!((quantile(&values, 1, 4) - 2.0).abs() < f64::EPSILON);
        assert!((quantile(&values, 3, 4) - 4.0).abs() < f64::EPSILON);
        assert!(quantile(&[], 1, 2).is_nan());
    }
}
