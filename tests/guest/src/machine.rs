//! What an init process owes its machine: file systems, modules, a place for the result, and an end.

use std::fs::{File, OpenOptions, create_dir_all, read_to_string};
use std::io::Write;
use std::path::Path;

use anyhow::{Context as _, Result};
use nix::kmod::{ModuleInitFlags, finit_module};
use nix::mount::{MsFlags, mount};
use nix::sys::reboot::{RebootMode, reboot};
use nix::sys::termios::tcdrain;

/// By this the kernel's command line names a serial port: nothing but us writes there.
const RESULT: &str = "PORTGUARD_RESULT";

/// Where the judge packed modules, and the order to load them in.
const MODULES: &str = "/m";

/// Runs the job with a place for its result, then powers the machine off. Never comes back if all goes well.
pub(crate) fn run(job: impl FnOnce(&mut dyn Write) -> Result<bool>) -> Result<bool> {
    mount_all()?;
    let port = std::env::var(RESULT).with_context(|| format!("no {RESULT}"))?;
    let mut out: File = OpenOptions::new()
        .write(true)
        .open(&port)
        .with_context(|| format!("opening `{port}`"))?;
    let done = load_modules().and_then(|()| job(&mut out));
    if let Err(error) = &done {
        writeln!(out, "FAIL machine: {error:#}")?;
    }
    tcdrain(&out)?;
    reboot(RebootMode::RB_POWER_OFF)?;
    done
}

fn mount_all() -> Result<()> {
    for (kind, at) in [
        ("proc", "/proc"),
        ("sysfs", "/sys"),
        ("devtmpfs", "/dev"),
        ("cgroup2", "/sys/fs/cgroup"),
        ("tmpfs", "/tmp"),
        ("bpf", "/sys/fs/bpf"),
    ] {
        create_dir_all(at).with_context(|| format!("making `{at}`"))?;
        mount(Some(kind), at, Some(kind), MsFlags::empty(), None::<&str>)
            .with_context(|| format!("mounting {kind} on `{at}`"))?;
    }
    Ok(())
}

fn load_modules() -> Result<()> {
    let order = Path::new(MODULES).join("order");
    for name in read_to_string(&order)
        .context("reading the order of modules")?
        .lines()
    {
        let path = Path::new(MODULES).join(name);
        let file = File::open(&path).with_context(|| format!("opening `{}`", path.display()))?;
        finit_module(&file, c"", ModuleInitFlags::empty())
            .with_context(|| format!("loading module `{name}`"))?;
    }
    Ok(())
}
