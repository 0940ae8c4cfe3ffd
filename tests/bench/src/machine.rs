//! On what it was measured, and what else the machine was doing.

use std::fs;
use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};

use serde::{Deserialize, Serialize};

use crate::cli::say;

/// The machine.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Machine {
    /// Kernel release.
    pub(crate) kernel: String,
    /// Name of the processor.
    pub(crate) processor: String,
    pub(crate) cpus: usize,
    /// Whether there is a machine around this one.
    pub(crate) is_virtual: bool,
    /// Guards against speculation that make calls and returns dear.
    pub(crate) mitigations: Vec<String>,
    /// The share of its CPU time that went to other work before anything was measured, or to other machines.
    #[serde(default)]
    pub(crate) busy: f64,
    /// Load average over a minute, before and after.
    pub(crate) load: [f64; 2],
    /// Version of the tool.
    pub(crate) version: String,
}

impl Machine {
    pub(crate) fn look() -> Self {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let field = |name: &str| {
            let line = cpuinfo.lines().find(|line| line.starts_with(name))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        };
        let vulnerabilities = ["spectre_v2", "retbleed", "spec_rstack_overflow"];
        let mitigations = vulnerabilities.iter().filter_map(|name| {
            let path = format!("/sys/devices/system/cpu/vulnerabilities/{name}");
            let text = fs::read_to_string(path).ok()?;
            let is_on = !text.starts_with("Not affected");
            is_on.then(|| format!("{name}: {}", text.trim()))
        });
        Self {
            kernel: read("/proc/sys/kernel/osrelease"),
            processor: field("model name").unwrap_or_else(|| "unknown".to_owned()),
            cpus: thread::available_parallelism().map_or(1, std::num::NonZero::get),
            is_virtual: field("flags").is_some_and(|flags| flags.contains("hypervisor")),
            mitigations: mitigations.collect(),
            busy: busy(LOOK),
            load: [load(), 0.0],
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }

    /// Whether nothing else was going on.
    pub(crate) fn is_quiet(&self) -> bool {
        self.busy <= QUIET
    }

    /// Waits until nothing else is going on: figures of a busy core are no figures.
    ///
    /// # Errors
    /// If the machine does not become quiet.
    pub(crate) fn wait_until_quiet(&mut self) -> Result<()> {
        for _ in 0..LOOKS {
            if self.is_quiet() {
                return Ok(());
            }
            say(&format!(
                "waiting: {:.0} % of the CPU time goes to other work",
                self.busy * 100.0
            ));
            self.busy = busy(LOOK);
        }
        ensure!(
            self.is_quiet(),
            "{:.0} % of the CPU time goes to other work, and the page is for figures of a quiet machine: end that first",
            self.busy * 100.0
        );
        Ok(())
    }

    /// Takes note of the load in the end.
    pub(crate) fn done(&mut self) {
        self.load = [self.load[0], load()];
    }
}

/// How long a look at what else is going on takes.
const LOOK: Duration = Duration::from_secs(2);
/// Looks until it is given up.
const LOOKS: u32 = 60;
/// A quiet machine gives no more of its CPU time to other work.
const QUIET: f64 = 0.05;

/// The share of CPU time that is not idle while this process sleeps, that of other machines on the same cores included.
fn busy(look: Duration) -> f64 {
    let before = times();
    thread::sleep(look);
    let spent: Vec<u64> = times()
        .iter()
        .zip(&before)
        .map(|(now, then)| now.saturating_sub(*then))
        .collect();
    let all: u64 = spent.iter().sum();
    // Idle, and waiting for a disk.
    let idle: u64 = spent.iter().skip(3).take(2).sum();
    #[expect(clippy::cast_precision_loss, reason = "ticks of seconds")]
    let share = 1.0 - idle as f64 / all.max(1) as f64;
    share
}

/// What all CPUs have spent their time on: user, nice, system, idle, waiting, interrupts twice, stolen.
fn times() -> Vec<u64> {
    let stat = read("/proc/stat");
    let line = stat.lines().next().unwrap_or_default();
    let fields = line.split_whitespace().skip(1).take(8);
    fields.filter_map(|field| field.parse().ok()).collect()
}

fn read(path: &str) -> String {
    fs::read_to_string(path).map_or_else(|_| "unknown".to_owned(), |text| text.trim().to_owned())
}

fn load() -> f64 {
    let text = read("/proc/loadavg");
    let first = text.split_whitespace().next();
    first.and_then(|text| text.parse().ok()).unwrap_or(f64::NAN)
}
