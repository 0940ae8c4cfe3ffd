//! `cargo xtask vm-test`: boots other kernels under software emulation and checks the guard there.
//!
//! Fetches Debian's kernels, packs each with the guard and an init process that checks it, boots two at a time, and judges by
//! what that program wrote to a serial port of its own: qemu's exit code tells nothing.

mod boot;
mod fetch;
mod judge;
mod kernels;
mod pack;
mod version;

use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};

use crate::setup;
use crate::shell::{Missing, capture, result, say, step};
use crate::tally::Tally;
use crate::workspace::{cargo, target};
use judge::Report;
use kernels::Kernel;

/// Machines at a time: emulation takes a core each.
const TOGETHER: usize = 2;

#[derive(Debug, clap::Args)]
pub(crate) struct VmArgs {
    /// Only this kernel; again for more
    #[arg(long, value_name = "ID")]
    kernel: Vec<String>,
    /// Only the kernels without which CI fails
    #[arg(long, conflicts_with = "kernel")]
    required: bool,
    /// Run the same checks on the kernel of this machine instead (root)
    #[arg(long, conflicts_with_all = ["kernel", "required"])]
    here: bool,
}

pub(crate) fn run(args: &VmArgs) -> Result<()> {
    if args.here {
        return here();
    }
    let all = kernels::read()?;
    if let Some(unknown) = args
        .kernel
        .iter()
        .find(|id| all.iter().all(|kernel| kernel.id != **id))
    {
        let ids: Vec<&str> = all.iter().map(|kernel| kernel.id.as_str()).collect();
        bail!("no kernel `{unknown}`: there are {}", ids.join(", "));
    }
    let chosen = |kernel: &Kernel| {
        (!args.required || kernel.required)
            && (args.kernel.is_empty() || args.kernel.contains(&kernel.id))
    };
    let tally = check(&all.into_iter().filter(chosen).collect::<Vec<_>>(), None)?;
    result(tally);
    if !tally.is_good() {
        bail!("not every kernel passed");
    }
    Ok(())
}

/// All kernels, for `nightly`.
pub(crate) fn everything() -> Result<Tally> {
    check(&kernels::read()?, None)
}

/// One guard for so many seconds on every kernel that is supported, for `soak`.
pub(crate) fn soak(seconds: u64) -> Result<Tally> {
    let mut all = kernels::read()?;
    all.retain(|kernel| kernel.supported);
    check(&all, Some(seconds))
}

/// The required kernels, for `ci`.
pub(crate) fn required() -> Result<Tally> {
    let all = kernels::read()?;
    check(
        &all.into_iter()
            .filter(|kernel| kernel.required)
            .collect::<Vec<_>>(),
        None,
    )
}

/// Boots and judges; after the other checks with a soak of so many seconds, if it is wanted.
fn check(kernels: &[Kernel], soak: Option<u64>) -> Result<Tally> {
    if !cfg!(target_arch = "x86_64") {
        return Err(Missing::error(
            "the kernels of `vm-test` are for x86_64",
            "run it there; `cargo xtask vm-test --here` checks the kernel of this machine",
        ));
    }
    let begun = Instant::now();
    setup::ensure(&setup::VM)?;
    let guest = Guest::build(soak)?;
    say(format_args!(
        "guest built, {:.1} s",
        begun.elapsed().as_secs_f64()
    ));

    // Lists are shared and fetched one by one; the rest goes in parallel.
    let resolved: Vec<_> = kernels
        .iter()
        .map(|kernel| (kernel, fetch::resolve(kernel)))
        .collect();
    let next = AtomicUsize::new(0);
    let tally = Mutex::new(Tally::default());
    thread::scope(|scope| {
        for _ in 0..TOGETHER.min(resolved.len()) {
            scope.spawn(|| {
                while let Some((kernel, source)) =
                    resolved.get(next.fetch_add(1, Ordering::Relaxed))
                {
                    let begun = Instant::now();
                    let report = match source {
                        Ok(source) => fetch::fetch(source)
                            .and_then(|files| boot::boot(kernel, &files, &guest))
                            .map(|booted| judge::judge(kernel, &booted, &guest.checks)),
                        Err(error) => Err(anyhow::anyhow!("{error:#}")),
                    };
                    let report = report.unwrap_or_else(|error| Report::absent(kernel, &error));
                    if let Ok(mut tally) = tally.lock() {
                        // While the lock is held, so that reports do not mix.
                        report.show(begun.elapsed());
                        *tally += report.tally();
                    }
                }
            });
        }
    });
    let tally = tally.into_inner().unwrap_or_else(PoisonError::into_inner);
    say(format_args!(
        "{} kernels, {:.1} s",
        resolved.len(),
        begun.elapsed().as_secs_f64()
    ));
    Ok(tally)
}

fn here() -> Result<()> {
    setup::ensure(&[])?;
    let mut build = cargo();
    build.args([
        "build",
        "--quiet",
        "--package",
        "portguard",
        "--package",
        "portguard-guest",
    ]);
    crate::shell::show(&mut build)?;
    let folder = target().join("debug");
    let mut guest = Command::new(folder.join("portguard-guest"));
    crate::shell::show(guest.arg("--here").arg(folder.join("portguard")))
}

/// The programs that run in the guest, stripped, and the names of its checks.
#[derive(Debug)]
struct Guest {
    init: PathBuf,
    portguard: PathBuf,
    checks: Vec<String>,
    /// Seconds of a soak.
    soak: Option<u64>,
}

/// What says to the guest how long a soak is.
const SOAK: &str = "PORTGUARD_SOAK_SECONDS";

impl Guest {
    fn build(soak: Option<u64>) -> Result<Self> {
        // With the tests, so that what `cargo xtask test` built is used: cargo unites features by what is asked for.
        let mut build = cargo();
        build.args(["build", "--workspace", "--bins", "--tests"]);
        step("building the programs", &mut build)?;
        let init = Self::strip("portguard-guest")?;
        let portguard = Self::strip("portguard")?;
        let mut list = Command::new(&init);
        list.arg("--list");
        list.envs(soak.map(|seconds| (SOAK, seconds.to_string())));
        let listed = capture(&mut list)?;
        Ok(Self {
            init,
            portguard,
            checks: listed.lines().map(str::to_owned).collect(),
            soak,
        })
    }

    /// Without what debuggers read, which is most of a program and would all be unpacked into the guest's memory.
    fn strip(program: &str) -> Result<PathBuf> {
        let folder = target().join("vm");
        std::fs::create_dir_all(&folder)?;
        let stripped = folder.join(program);
        let built = target().join("debug").join(program);
        capture(Command::new("strip").arg("-o").arg(&stripped).arg(&built))
            .with_context(|| format!("stripping `{}`", built.display()))?;
        Ok(stripped)
    }
}
