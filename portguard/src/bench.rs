//! What a loaded program costs: nanoseconds a frame above a bare drop, measured by test run on this very host.
//!
//! Each round times the baseline and the program next to each other; the figure is the median of the differences, so that
//! most of what else the machine does cancels out.

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
    let mut raw = Vec::new();
    let mut net = Vec::new();
    run(bare, frame, effort.repeat)?;
    run(measured, frame, effort.repeat)?;
    for _ in 0..effort.rounds {
        let below = run(bare, frame, effort.repeat)?;
        let above = run(measured, frame, effort.repeat)?;
        raw.push(above);
        net.push(above - below);
    }
    raw.sort_by(f64::total_cmp);
    net.sort_by(f64::total_cmp);
    Ok(Cost {
        raw: quantile(&raw, 1, 2),
        net: quantile(&net, 1, 2),
        spread: (quantile(&net, 3, 4) - quantile(&net, 1, 4)) / 2.0,
    })
}

/// Nanoseconds of this thread's CPU time a frame: the kernel's own figure is whole nanoseconds of wall-clock time.
fn run(program: &impl Measured, frame: &[u8], repeat: u32) -> anyhow::Result<f64> {
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

fn thread_time() -> anyhow::Result<Duration> {
    let time = nix::time::clock_gettime(nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID)?;
    Ok(time.into())
}

fn quantile(sorted: &[f64], numerator: usize, denominator: usize) -> f64 {
    let index = sorted.len().saturating_sub(1) * numerator / denominator;
    sorted.get(index).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::quantile;

    #[test]
    fn quantiles_of_what_was_measured() {
        let values = [1.0, 2.0, 3.0, 4.0, 9.0];
        assert!((quantile(&values, 1, 2) - 3.0).abs() < f64::EPSILON);
        assert!((quantile(&values, 1, 4) - 2.0).abs() < f64::EPSILON);
        assert!((quantile(&values, 3, 4) - 4.0).abs() < f64::EPSILON);
        assert!(quantile(&[], 1, 2).is_nan());
    }
}
