//! What a loaded program costs: nanoseconds a frame above a bare drop, measured by test run on this very host.
//!
//! Each trial times the program between two timings of the baseline. Cores change their speed, often within a millisecond:
//! a virtual machine's neighbour on the other thread of a core takes half of it. So timings are short, and only trials
//! count in which the baseline was about as fast as it ever was, before and after; the figure is the median of their
//! differences.

pub mod classes;
mod cost;
mod stand;

use std::time::Duration;

use aya::programs::Xdp;
use aya::{Ebpf, EbpfLoader, TestRun, TestRunOptions, TestRunResult};

use crate::error::Context as _;

pub use cost::{Campaign, Cost, quantile};
pub use stand::{Attached, Stand};

/// The object with the baseline program.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/portguard-baseline"));

/// Programs that a test run gives frames to: ingress and egress.
pub trait Measured: for<'a> TestRun<Opts<'a> = TestRunOptions<'a>, Result = TestRunResult> {}

impl<P: for<'a> TestRun<Opts<'a> = TestRunOptions<'a>, Result = TestRunResult>> Measured for P {}

/// A program that does nothing.
#[derive(Debug)]
pub struct Baseline {
    // Dropped first, so that the program is detached before it is unloaded.
    _attached: Attached,
    ebpf: Ebpf,
    /// For what is measured against it.
    stand: Stand,
}

/// How long to measure.
#[derive(Debug, Clone, Copy)]
pub struct Effort {
    /// Visits at most, some time apart; as soon as enough trials count, there are no more of them.
    pub rounds: u32,
    /// Trials of a visit.
    pub trials: u32,
    /// Frames a timing: for some ten microseconds, less than the while that a core keeps its speed.
    pub repeat: u32,
}

impl Default for Effort {
    fn default() -> Self {
        Self {
            rounds: 12,
            trials: 500,
            repeat: 2_000,
        }
    }
}

impl Baseline {
    /// Loads it.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn load() -> crate::Result<Self> {
        let mut ebpf = EbpfLoader::new().load(OBJECT)?;
        let program = bare(&mut ebpf)?;
        program.load()?;
        let attached = Stand::open()?.attach(program)?;
        Ok(Self {
            _attached: attached,
            ebpf,
            stand: Stand::open()?,
        })
    }

    /// Measures what a program takes for each of several frames above what the baseline takes.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn measure(
        &mut self,
        measured: &mut Xdp,
        frames: &[&[u8]],
        effort: Effort,
    ) -> crate::Result<Vec<Cost>> {
        let bare = &*bare(&mut self.ebpf)?;
        let _attached = self.stand.attach(measured)?;
        let mut campaign = Campaign::new(frames.iter().map(|_| 0));
        for _ in 0..effort.rounds {
            for case in campaign.unsettled() {
                let frame = frames.get(case).copied().unwrap_or_default();
                campaign.visit(case, effort.trials, |program| {
                    let runs = if program { &*measured } else { bare };
                    nanoseconds(runs, frame, effort.repeat)
                })?;
            }
        }
        Ok(campaign.costs())
    }
}

fn bare(ebpf: &mut Ebpf) -> crate::Result<&mut Xdp> {
    let program = ebpf.program_mut("baseline_drop");
    let program = program.context("the baseline object has no program")?;
    Ok(program.try_into()?)
}

/// Nanoseconds of this thread's CPU time a frame: the kernel's own figure is whole nanoseconds of wall-clock time.
///
/// # Errors
/// What the kernel refused.
pub fn nanoseconds(program: &impl Measured, frame: &[u8], repeat: u32) -> crate::Result<f64> {
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
pub fn answer(program: &impl Measured, frame: &[u8]) -> crate::Result<u32> {
    let options = TestRunOptions {
        data_in: Some(frame),
        ..TestRunOptions::default()
    };
    let done = program.test_run(options);
    Ok(done.context("the kernel refused a test run")?.return_value)
}

/// The CPU time of this thread: what else the machine does is not in it.
pub(crate) fn thread_time() -> crate::Result<Duration> {
    let time = nix::time::clock_gettime(nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID)?;
    Ok(time.into())
}
