//! On what it was measured, and what else the machine was doing.

use std::fs;

use serde::{Deserialize, Serialize};

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
            cpus: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            is_virtual: field("flags").is_some_and(|flags| flags.contains("hypervisor")),
            mitigations: mitigations.collect(),
            load: [load(), 0.0],
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }

    /// Takes note of the load in the end.
    pub(crate) fn done(&mut self) {
        self.load = [self.load[0], load()];
    }
}

fn read(path: &str) -> String {
    fs::read_to_string(path).map_or_else(|_| "unknown".to_owned(), |text| text.trim().to_owned())
}

fn load() -> f64 {
    let text = read("/proc/loadavg");
    let first = text.split_whitespace().next();
    first.and_then(|text| text.parse().ok()).unwrap_or(f64::NAN)
}
