//! `cargo xtask vm-test`: boots other kernels under software emulation and checks the guard there.
//!
//! Fetches Debian's kernels, packs each with the guard and an init process that checks it, boots two at a time, and judges by
//! what that program wrote to a serial port of its own: qemu's exit code tells nothing.

mod boot;
mod fetch;
mod guest;
mod judge;
mod kernels;
mod pack;
mod version;

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use anyhow::{Context as _, Result, anyhow, bail};

use crate::arch::Arch;
use crate::setup;
use crate::shell::{Missing, result, say};
use crate::tally::Tally;
use crate::workspace::{cargo, target};
use guest::Guest;
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
    let host = Guest::here(soak)?;
    // Each architecture once: its programs are built for it.
    let archs: BTreeSet<Arch> = kernels.iter().map(|kernel| kernel.arch).collect();
    let others = archs.into_iter().filter(|arch| *arch != Arch::X86_64);
    let mut guests: BTreeMap<Arch, Result<Guest>> =
        others.map(|arch| (arch, host.on(arch))).collect();
    guests.insert(Arch::X86_64, Ok(host));
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
                    let guest = guests.get(&kernel.arch).context("a guest");
                    let report = guest.and_then(|guest| {
                        let source = source.as_ref().map_err(|error| anyhow!("{error:#}"))?;
                        let guest = guest.as_ref().map_err(|error| anyhow!("{error:#}"))?;
                        let booted = boot::boot(kernel, &fetch::fetch(source)?, guest)?;
                        Ok(judge::judge(kernel, &booted, &guest.checks))
                    });
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
