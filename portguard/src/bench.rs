//! What a loaded program costs: nanoseconds a frame above a bare drop, measured by test run on this very host.
//!
//! Each round times the baseline and the program next to each other; the figure is the median of the differences, so that
//! most of what else the machine does cancels out.

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
    /// Pairs of measurements.
    pub rounds: u32,
    /// Frames a measurement.
    pub repeat: u32,
}

impl Default for Effort {
    fn default() -> Self {
        Self {
            rounds: 21,
            repeat: 200_000,
        }
    }
}

/// What a frame costs, nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cost {
    /// Median of the program alone, the kernel's test loop included.
    pub raw: f64,
    /// Median of what it takes above the baseline.
    pub net: f64,
    /// Half of the distance between the quartiles of that.
    pub spread: f64,
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
    let mut pairs = Vec::new();
    nanoseconds(bare, frame, effort.repeat)?;
    nanoseconds(measured, frame, effort.repeat)?;
    for _ in 0..effort.rounds {
        let below = nanoseconds(bare, frame, effort.repeat)?;
        pairs.push((below, nanoseconds(measured, frame, effort.repeat)?));
    }
    Ok(Cost::of(&pairs))
}

impl Cost {
    /// From pairs of measurements that were made next to each other: the baseline, and the program. Not a number
    /// without any.
    pub fn of(pairs: &[(f64, f64)]) -> Self {
        let sorted = |figure: fn(&(f64, f64)) -> f64| {
            let mut figures: Vec<f64> = pairs.iter().map(figure).collect();
            figures.sort_by(f64::total_cmp);
            figures
        };
        let net = sorted(|(below, above)| above - below);
        Self {
            raw: quantile(&sorted(|(_, above)| *above), 1, 2),
            net: quantile(&net, 1, 2),
            spread: (quantile(&net, 3, 4) - quantile(&net, 1, 4)) / 2.0,
        }
    }
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
    use super::{Cost, quantile};

    #[test]
    fn what_slows_both_of_a_pair_cancels() {
        let cost = Cost::of(&[(20.0, 26.0), (40.0, 46.0), (21.0, 27.0), (20.0, 25.0)]);
        assert!((cost.net - 6.0).abs() < 1e-9);
        assert!((cost.raw - 26.0).abs() < 1e-9);
        assert!(Cost::of(&[]).net.is_nan());
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
