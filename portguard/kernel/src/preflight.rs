//! What an operator should know about a kernel and an interface before the guard enforces there.

use std::fs;
use std::thread;

use aya::util::KernelVersion;
use serde::Serialize;

use crate::error::{Error, Kind};
use crate::host::privileges::missing_capabilities;
use crate::machine::{self, Feature};
use crate::pins::bpffs;

mod device;
mod features;

pub use device::check_interface;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Grade {
    /// As it should be.
    Ok,
    /// Worth knowing, or not to be found out.
    Note,
    /// Works, but worse than it could.
    Warning,
    /// Enforcing should not be tried.
    Error,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// Stable kebab-case name.
    pub name: &'static str,
    /// How bad.
    pub grade: Grade,
    /// What is.
    pub found: String,
    /// Why it matters.
    pub why: &'static str,
    /// What to do; nothing where all is well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub todo: Option<String>,
}

impl Check {
    fn new(name: &'static str, why: &'static str, grade: Grade, found: impl Into<String>) -> Self {
        Self {
            name,
            grade,
            found: found.into(),
            why,
            todo: None,
        }
    }

    fn todo(mut self, todo: impl Into<String>) -> Self {
        self.todo = Some(todo.into());
        self
    }
}

/// Oldest kernel that is tested.
const OLDEST: KernelVersion = KernelVersion::new(5, 10, 0);
/// First kernel with TCX.
const TCX: KernelVersion = KernelVersion::new(6, 6, 0);

/// Refuses a kernel on which no guard can be loaded, before anything is.
///
/// # Errors
/// What the kernel has not. That it does not say is no reason: loading will tell.
pub fn check_kernel() -> crate::Result<()> {
    let missing = features::missing().unwrap_or_default();
    if missing.is_empty() {
        return Ok(());
    }
    let release = machine::release().unwrap_or_default();
    let lacking = features::listed(&missing);
    let what = format!("this kernel, Linux {release}, is too old for a guard: it has {lacking}");
    Err(Error::new(Kind::KernelTooOld, what).hint(format!(
        "{}; `portguard doctor` shows what else there is to know",
        features::NEWER
    )))
}

/// What does not depend on an interface.
pub fn check_host() -> Vec<Check> {
    vec![
        privileges(),
        kernel(),
        programs(),
        features::needed(),
        features::sockets(),
        features::ports(),
        features::multi_buffer(),
        tcx(),
        jit(),
        file_system(),
        memory(),
    ]
}

/// Bits of the capabilities, see capabilities(7).
fn privileges() -> Check {
    let why = "loading programs takes CAP_BPF and CAP_PERFMON, attaching them CAP_NET_ADMIN";
    let check = |grade, found: String| Check::new("privileges", why, grade, found);
    let Some(missing) = missing_capabilities() else {
        return check(Grade::Note, "unknown".to_owned());
    };
    if missing.is_empty() {
        check(
            Grade::Ok,
            "CAP_NET_ADMIN, CAP_BPF and CAP_PERFMON".to_owned(),
        )
    } else {
        check(Grade::Error, format!("{} missing", missing.join(", ")))
            .todo("run as root: `sudo portguard ...`")
    }
}

fn kernel() -> Check {
    let why =
        "5.9 brought links, which keep the guard when the tool ends, and replace it without a gap";
    let Some(version) = machine::version() else {
        return Check::new("kernel", why, Grade::Note, "unknown");
    };
    let found = machine::release().unwrap_or_else(|| "unknown".to_owned());
    if version < OLDEST {
        Check::new("kernel", why, Grade::Error, found).todo(features::NEWER)
    } else {
        Check::new("kernel", why, Grade::Ok, found)
    }
}

fn programs() -> Check {
    let why = "the guard is an XDP program";
    match machine::has(Feature::Xdp) {
        Ok(true) => Check::new("xdp", why, Grade::Ok, "the kernel loads XDP programs"),
        Ok(false) => Check::new("xdp", why, Grade::Error, "the kernel has no XDP")
            .todo("a kernel with CONFIG_BPF_SYSCALL"),
        Err(error) => Check::new(
            "xdp",
            why,
            Grade::Error,
            format!("the kernel does not say: {error}"),
        )
        .todo("run as root: `sudo portguard doctor`"),
    }
}

fn tcx() -> Check {
    let why = "the outbound side uses TCX (Linux 6.6 and newer), or the clsact qdisc";
    let found = match machine::version() {
        Some(version) if version >= TCX => "TCX",
        _ => "no TCX: clsact is used",
    };
    Check::new("egress-hook", why, Grade::Ok, found)
}

fn jit() -> Check {
    let why = "without the compiler a packet costs many times as much";
    match fs::read_to_string("/proc/sys/net/core/bpf_jit_enable") {
        Ok(text) if text.trim() == "0" => {
            Check::new("jit", why, Grade::Warning, "off").todo("`sysctl net.core.bpf_jit_enable=1`")
        }
        Ok(_) => Check::new("jit", why, Grade::Ok, "on"),
        // Only the first namespace shows it; kernels that always compile need no switch.
        Err(_) => Check::new("jit", why, Grade::Note, "unknown here"),
    }
}

fn file_system() -> Check {
    let why = "pins there keep the guard when the tool has ended";
    if bpffs::is_mounted() {
        Check::new("bpffs", why, Grade::Ok, "mounted")
    } else {
        Check::new("bpffs", why, Grade::Note, "not mounted")
            .todo("`load` mounts it; at boot systemd does")
    }
}

/// Kilobytes that a guard takes: shared, and for each CPU; see the budgets.
const SHARED_KB: u64 = 4 << 10;
const PER_CPU_KB: u64 = 2 << 10;

fn memory() -> Check {
    let why = "tables and counters are kernel memory, and during a load there are two more sets of tables";
    let cpus = thread::available_parallelism().map_or(1, |count| count.get() as u64);
    let needed = 3 * SHARED_KB + 2 * PER_CPU_KB * cpus;
    let available = fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("MemAvailable:"))?;
        line.trim()
            .trim_end_matches("kB")
            .trim()
            .parse::<u64>()
            .ok()
    });
    match available {
        None => Check::new("memory", why, Grade::Note, "unknown"),
        Some(there) => {
            let found = format!(
                "{} MiB available, a role with few peers needs about {} MiB on {cpus} CPUs",
                there >> 10,
                needed >> 10
            );
            if there < needed {
                Check::new("memory", why, Grade::Error, found).todo("free memory first")
            } else {
                Check::new("memory", why, Grade::Ok, found)
            }
        }
    }
}
