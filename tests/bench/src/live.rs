//! Denied packets at full rate over a veth pair: portguard, a bare drop and other firewalls, each in turn.
//!
//! A generator on one CPU, the receiver's polling thread on another. What counts is the CPU time of the receiver a
//! packet; a bare drop runs right before every case, so that what slows the machine down cancels out.

mod peers;
mod stage;

use std::time::Duration;

use anyhow::Result;
use fastrand::Rng;
use portguard::bench::quantile;
use portguard::policy::Outbound;

use crate::cli::say;
use crate::plan::{load, plain};
use crate::programs::{Hook, Program, reference};
use crate::results::Live;
use peers::Peer;
use stage::Stage;

/// How long each measurement takes.
const RUN: Duration = Duration::from_millis(300);

/// What is in force on the receiving interface during a measurement.
enum Guard {
    /// A program on the XDP hook.
    Xdp(&'static str, Box<Program>),
    /// Another firewall.
    Peer(Peer),
}

impl Guard {
    fn name(&self) -> String {
        match self {
            Self::Xdp(name, _) => (*name).to_owned(),
            Self::Peer(peer) => peer.name().to_owned(),
        }
    }
}

/// Measures all; those that are absent are named with the reason.
pub(crate) fn run(rounds: u32) -> Result<Vec<Live>> {
    let stage = Stage::new()?;
    let mut bare = reference("bare_drop")?;
    let guard = load(&plain(Outbound::Audit))?;
    let mut guards = vec![
        Guard::Xdp(
            "portguard",
            Box::new(Program::Guard(Box::new(guard), Hook::Ingress)),
        ),
        Guard::Xdp("naive", Box::new(reference("naive")?)),
    ];
    let mut results: Vec<Live> = Vec::new();
    for peer in Peer::ALL {
        match peer.absent() {
            Some(why) => results.push(Live::absent(peer.name(), &why)),
            None => guards.push(Guard::Peer(peer)),
        }
    }
    let mut measured: Vec<(Guard, Vec<Sample>)> = guards
        .into_iter()
        .map(|guard| (guard, Vec::new()))
        .collect();
    let mut rng = Rng::new();
    let mut bares = Vec::new();
    for round in 0..rounds {
        say(&format!("live, round {} of {rounds}", round + 1));
        rng.shuffle(&mut measured);
        measured.retain_mut(|(guard, samples)| match pair(&stage, &mut bare, guard) {
            Ok(sample) => {
                bares.push(sample.bare);
                samples.push(sample);
                true
            }
            Err(error) => {
                results.push(Live::absent(&guard.name(), &format!("{error:#}")));
                false
            }
        });
    }
    bares.sort_by(f64::total_cmp);
    results.push(Live::of("bare drop", &bares, &[1.0]));
    for (guard, samples) in &measured {
        let sorted = |figure: fn(&Sample) -> f64| {
            let mut figures: Vec<f64> = samples.iter().map(figure).collect();
            figures.sort_by(f64::total_cmp);
            figures
        };
        let ratios = sorted(|sample| sample.bare / sample.guarded);
        results.push(Live::of(
            &guard.name(),
            &sorted(|sample| sample.guarded),
            &ratios,
        ));
    }
    results.sort_by(|a, b| b.ratio.unwrap_or(0.0).total_cmp(&a.ratio.unwrap_or(0.0)));
    Ok(results)
}

/// Nanoseconds of the receiver a packet: under the bare drop, and right after it under the guard.
struct Sample {
    bare: f64,
    guarded: f64,
}

fn pair(stage: &Stage, bare: &mut Program, guard: &mut Guard) -> Result<Sample> {
    let below = under(stage, bare)?;
    let guarded = match guard {
        Guard::Xdp(_, program) => under(stage, program)?,
        Guard::Peer(peer) => {
            peer.put(stage)?;
            let cost = stage.flood(RUN);
            peer.clear(stage);
            cost?
        }
    };
    Ok(Sample {
        bare: below,
        guarded,
    })
}

fn under(stage: &Stage, program: &mut Program) -> Result<f64> {
    let attached = stage.attach(program)?;
    let cost = stage.flood(RUN);
    drop(attached);
    cost
}

impl Live {
    fn of(name: &str, sorted: &[f64], ratios: &[f64]) -> Self {
        Self {
            name: format!("live/{name}"),
            nanoseconds: Some(quantile(sorted, 1, 2)),
            ratio: Some(quantile(ratios, 1, 2)),
            absent: None,
            budget: None,
            met: None,
        }
    }

    fn absent(name: &str, why: &str) -> Self {
        Self {
            name: format!("live/{name}"),
            nanoseconds: None,
            ratio: None,
            absent: Some(why.to_owned()),
            budget: None,
            met: None,
        }
    }
}
