//! Packets at full rate over a veth pair: portguard, a bare drop and other firewalls, each in turn.
//!
//! A generator on one CPU, the receiver's polling thread on another. What counts is the CPU time of the receiver a
//! packet; a bare drop runs right before every case, so that what slows the machine down cancels out. A bare drop reads
//! nothing of the packet, so that its figure lacks the wait for memory that every filter has; a second baseline reads the
//! Ethernet type before it drops.

mod peers;
mod stage;
mod traffic;

pub(crate) use stage::{Stage, cpus};
pub(crate) use traffic::Traffic;

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use fastrand::Rng;
use portguard_kernel::bench::quantile;
use portguard_policy::policy::Outbound;

use crate::cli::say;
use crate::plan::{load, plain};
use crate::programs::{Hook, Program, reference};
use crate::results::Live;
use peers::Peer;

/// How long each measurement takes.
const RUN: Duration = Duration::from_millis(300);
/// Rounds that there are however long they take.
const LEAST: u32 = 3;
/// A measurement may fail because something else had the CPU; so many at once, and a case is given up.
const FAILURES: u32 = 3;

/// The programs, by name; cases refer to them by index.
struct Programs(Vec<(&'static str, Program)>);

impl Programs {
    fn load() -> Result<Self> {
        let guard = load(&plain(Outbound::Audit))?;
        let mut programs = vec![("portguard", Program::Guard(Box::new(guard), Hook::Ingress))];
        for (title, name) in [
            ("naive", "naive"),
            ("lean", "lean"),
            ("bare drop", "bare_drop"),
            ("touching drop", "touching_drop"),
            ("bare pass", "bare_pass"),
        ] {
            programs.push((title, reference(name)?));
        }
        Ok(Self(programs))
    }

    fn get(&mut self, title: &str) -> Result<&mut Program> {
        self.0
            .iter_mut()
            .find_map(|(own, program)| (*own == title).then_some(program))
            .with_context(|| format!("no program `{title}`"))
    }
}

/// What is in force on the receiving interface during a measurement.
#[derive(Debug, Clone, Copy)]
enum Guard {
    /// A program on the XDP hook, by name.
    Xdp(&'static str),
    /// Another firewall.
    Peer(Peer),
}

/// Something in force, and what it gets.
#[derive(Debug, Clone, Copy)]
struct Case {
    guard: Guard,
    traffic: Traffic,
}

impl Case {
    fn name(&self) -> String {
        let guard = match self.guard {
            Guard::Xdp(name) => name,
            Guard::Peer(peer) => peer.name(),
        };
        match self.traffic {
            Traffic::Denied => guard.to_owned(),
            Traffic::RandomPorts => format!("{guard}, random ports"),
            Traffic::Allowed => format!("{guard}, allowed"),
        }
    }
}

/// What needs no other software.
const CASES: [Case; 8] = {
    const fn case(name: &'static str, traffic: Traffic) -> Case {
        Case {
            guard: Guard::Xdp(name),
            traffic,
        }
    }
    [
        case("portguard", Traffic::Denied),
        case("naive", Traffic::Denied),
        case("lean", Traffic::Denied),
        case("touching drop", Traffic::Denied),
        case("portguard", Traffic::RandomPorts),
        case("naive", Traffic::RandomPorts),
        case("portguard", Traffic::Allowed),
        case("naive", Traffic::Allowed),
    ]
};

/// A case, and what came of it.
struct Measured {
    case: Case,
    samples: Vec<Sample>,
    /// The last failures, with none that succeeded since.
    failures: u32,
    why: String,
}

impl Measured {
    const fn new(case: Case) -> Self {
        Self {
            case,
            samples: Vec::new(),
            failures: 0,
            why: String::new(),
        }
    }

    fn is_given_up(&self) -> bool {
        self.failures >= FAILURES
    }

    fn add(&mut self, sample: Result<Sample>) {
        match sample {
            Ok(sample) => {
                self.samples.push(sample);
                self.failures = 0;
            }
            Err(error) => {
                self.failures += 1;
                self.why = format!("{error:#}");
            }
        }
    }
}

/// Measures all, for as many rounds as there is time; those that are absent are named with the reason.
pub(crate) fn run(rounds: u32, until: Instant) -> Result<Vec<Live>> {
    let stage = Stage::new()?;
    let mut programs = Programs::load()?;
    let mut cases = CASES.to_vec();
    let mut results: Vec<Live> = Vec::new();
    for peer in Peer::ALL {
        match peer.absent() {
            Some(why) => results.push(Live::absent(peer.name(), &why)),
            None => cases.push(Case {
                guard: Guard::Peer(peer),
                traffic: Traffic::Denied,
            }),
        }
    }
    let mut measured: Vec<Measured> = cases.into_iter().map(Measured::new).collect();
    let mut rng = Rng::new();
    for round in 0..rounds {
        if round >= LEAST && Instant::now() >= until {
            say(&format!("live: {round} rounds, the time for it is over"));
            break;
        }
        say(&format!("live, round {} of {rounds}", round + 1));
        rng.shuffle(&mut measured);
        for one in measured.iter_mut().filter(|one| !one.is_given_up()) {
            one.add(sample(&stage, &mut programs, one.case));
        }
    }
    measured.retain(|one| {
        let is_measured = !one.samples.is_empty();
        if !is_measured {
            results.push(Live::absent(&one.case.name(), &one.why));
        }
        is_measured
    });
    for (title, traffic) in [
        ("bare drop", Traffic::Denied),
        ("bare pass, allowed", Traffic::Allowed),
    ] {
        let of = measured.iter().filter(|one| one.case.traffic == traffic);
        let bares = sorted(of.flat_map(|one| one.samples.iter().map(|one| one.bare)));
        if !bares.is_empty() {
            results.push(Live::of(title, &bares, &[1.0], &[]));
        }
    }
    for Measured { case, samples, .. } in &measured {
        let ratios = sorted(samples.iter().map(|one| one.bare / one.guarded));
        let touching = samples.iter();
        let touching = touching.filter_map(|one| Some(one.touching? / one.guarded));
        results.push(Live::of(
            &case.name(),
            &sorted(samples.iter().map(|one| one.guarded)),
            &ratios,
            &sorted(touching),
        ));
    }
    results.sort_by(|a, b| b.ratio.unwrap_or(0.0).total_cmp(&a.ratio.unwrap_or(0.0)));
    Ok(results)
}

fn sorted(figures: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut figures: Vec<f64> = figures.collect();
    figures.sort_by(f64::total_cmp);
    figures
}

/// Nanoseconds of the receiver a packet: under the baselines, and right after them under the guard.
struct Sample {
    bare: f64,
    /// For packets that are dropped.
    touching: Option<f64>,
    guarded: f64,
}

fn sample(stage: &Stage, programs: &mut Programs, case: Case) -> Result<Sample> {
    let traffic = case.traffic;
    let (bare, touching) = if traffic == Traffic::Allowed {
        (under(stage, programs.get("bare pass")?, traffic)?, None)
    } else {
        let touching = under(stage, programs.get("touching drop")?, traffic)?;
        (
            under(stage, programs.get("bare drop")?, traffic)?,
            Some(touching),
        )
    };
    let guarded = match case.guard {
        Guard::Xdp(name) => under(stage, programs.get(name)?, traffic)?,
        Guard::Peer(peer) => {
            peer.put(stage)?;
            let cost = stage.flood(RUN, traffic);
            peer.clear(stage);
            cost?
        }
    };
    Ok(Sample {
        bare,
        touching,
        guarded,
    })
}

fn under(stage: &Stage, program: &mut Program, traffic: Traffic) -> Result<f64> {
    let attached = stage.attach(program)?;
    let cost = stage.flood(RUN, traffic);
    drop(attached);
    cost
}

impl Live {
    fn of(name: &str, sorted: &[f64], ratios: &[f64], touching: &[f64]) -> Self {
        Self {
            name: format!("live/{name}"),
            nanoseconds: Some(quantile(sorted, 1, 2)),
            ratio: Some(quantile(ratios, 1, 2)),
            touching: (!touching.is_empty()).then(|| quantile(touching, 1, 2)),
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
            touching: None,
            absent: Some(why.to_owned()),
            budget: None,
            met: None,
        }
    }
}
