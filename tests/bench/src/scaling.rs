//! Several CPUs at once, all with packets for one port: what they have to share costs them. By test run, and live with
//! several receive queues.

mod queues;

pub(crate) use queues::run as queues;

use std::sync::Barrier;
use std::thread;

use anyhow::{Result, anyhow};
use portguard_kernel::bench::{Stand, nanoseconds, quantile};
use portguard_policy::policy::Outbound;

use crate::measure::stay_on;
use crate::plan::{denied, load, plain};
use crate::programs::{Hook, Program, reference};
use crate::results::Scaling;

/// Frames a measurement.
const REPEAT: u32 = 200_000;

/// Each program on one CPU alone, and on all at the same time.
pub(crate) fn run(rounds: u32) -> Result<Vec<Scaling>> {
    let cpus = thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let guard = load(&plain(Outbound::Audit))?;
    let mut programs = [
        ("bare drop", reference("bare_drop")?),
        ("naive", reference("naive")?),
        ("portguard", Program::Guard(Box::new(guard), Hook::Ingress)),
    ];
    let mut results = Vec::new();
    for (name, program) in &mut programs {
        let alone = median(together(program, 1, rounds)?);
        let all = median(together(program, cpus, rounds)?);
        results.push(Scaling {
            name: (*name).to_owned(),
            cpus,
            alone,
            together: all,
        });
    }
    Ok(results)
}

/// Nanoseconds a packet on each of so many CPUs, which begin each round at the same moment.
fn together(program: &mut Program, cpus: usize, rounds: u32) -> Result<Vec<f64>> {
    let frame = denied();
    let program = program.xdp()?;
    let _attached = Stand::open()?.attach(program)?;
    let program = &*program;
    let barrier = &Barrier::new(cpus);
    let frame = &frame;
    thread::scope(|scope| {
        let threads: Vec<_> = (0..cpus)
            .map(|cpu| {
                scope.spawn(move || -> Result<Vec<f64>> {
                    let ready = stay_on(cpu);
                    let mut times = Vec::new();
                    for _ in 0..rounds {
                        barrier.wait();
                        times.push(nanoseconds(program, frame, REPEAT));
                    }
                    ready?;
                    Ok(times.into_iter().collect::<Result<_, _>>()?)
                })
            })
            .collect();
        let mut all = Vec::new();
        for thread in threads {
            all.extend(
                thread
                    .join()
                    .map_err(|_panic| anyhow!("a thread failed"))??,
            );
        }
        Ok(all)
    })
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    quantile(&figures, 1, 2)
}
