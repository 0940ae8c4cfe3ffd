//! A veth pair with one receive queue and with one a CPU, all CPUs sending denied packets to one port.
//!
//! The senders need the same CPUs as the receivers, so that the rates are what is left of them, and only the comparison
//! says something. What a packet costs its receiver is the CPU time of the polling threads.

use std::time::Duration;

use anyhow::Result;
use portguard_kernel::bench::quantile;
use portguard_policy::policy::Outbound;

use crate::cli::say;
use crate::live::{Stage, Traffic, cpus};
use crate::plan::{load, plain};
use crate::programs::{Hook, Program, reference};
use crate::results::Queues;

/// A measurement is tried again if something else had the CPU.
const TRIES: usize = 3;
/// How long each measurement takes.
const RUN: Duration = Duration::from_millis(300);

/// Each program with one queue and with all; nothing where there is one CPU.
pub(crate) fn run(rounds: u32) -> Result<Vec<Queues>> {
    let all: Vec<usize> = (0..cpus()).collect();
    let Some((last, [_, ..])) = all.split_last() else {
        return Ok(Vec::new());
    };
    let guard = load(&plain(Outbound::Audit))?;
    let mut programs = [
        ("bare drop", reference("bare_drop")?),
        ("touching drop", reference("touching_drop")?),
        ("portguard", Program::Guard(Box::new(guard), Hook::Ingress)),
    ];
    let mut results = Vec::new();
    // A queue gets what the CPUs send whose number is the queue's, and is polled on that CPU.
    for polled in [std::slice::from_ref(last), &all] {
        let stage = Stage::with_queues(polled)?;
        let mut figures = vec![(Vec::new(), Vec::new()); programs.len()];
        for _ in 0..rounds {
            for ((_, program), (rates, costs)) in programs.iter_mut().zip(&mut figures) {
                let attached = stage.attach(program)?;
                let mut tries = (0..TRIES).map(|_| stage.flood_from(&all, RUN, Traffic::Denied));
                let flood = tries.find_map(Result::ok);
                drop(tries);
                drop(attached);
                let Some(flood) = flood else { continue };
                #[expect(clippy::cast_precision_loss, reason = "figures of a second")]
                let (packets, spent) = (flood.packets as f64, flood.spent as f64);
                rates.push(packets / flood.took.as_secs_f64() / 1e6);
                costs.push(spent / packets);
            }
        }
        for ((name, _), (mut rates, mut costs)) in programs.iter().zip(figures) {
            if rates.is_empty() {
                say(&format!(
                    "{name} with {} receive queues: too little arrived",
                    polled.len()
                ));
                continue;
            }
            rates.sort_by(f64::total_cmp);
            costs.sort_by(f64::total_cmp);
            results.push(Queues {
                name: (*name).to_owned(),
                count: polled.len(),
                rate: quantile(&rates, 1, 2),
                nanoseconds: quantile(&costs, 1, 2),
            });
        }
    }
    Ok(results)
}
