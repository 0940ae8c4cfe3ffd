//! The programs that run in an emulated machine, for whatever architecture it has.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::arch::Arch;
use crate::setup;
use crate::shell::{capture, step};
use crate::shipped;
use crate::workspace::{cargo, target};

/// What says to the guest how long a soak is.
pub(super) const SOAK: &str = "PORTGUARD_SOAK_SECONDS";

/// The programs, stripped, and the names of the guest's checks.
#[derive(Debug)]
pub(super) struct Guest {
    pub(super) init: PathBuf,
    pub(super) portguard: PathBuf,
    pub(super) checks: Vec<String>,
    /// Seconds of a soak.
    pub(super) soak: Option<u64>,
}

impl Guest {
    /// For this machine's architecture.
    pub(super) fn here(soak: Option<u64>) -> Result<Self> {
        // With the tests, so that what `cargo xtask test` built is used: cargo unites features by what is asked for.
        let mut build = cargo();
        build.args(["build", "--workspace", "--bins", "--tests"]);
        step("building the programs", &mut build)?;
        let folder = target().join("debug");
        let init = strip(Arch::X86_64, &folder, "portguard-guest")?;
        let portguard = strip(Arch::X86_64, &folder, "portguard")?;
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

    /// The same for another architecture.
    pub(super) fn on(&self, arch: Arch) -> Result<Self> {
        setup::ensure_tools(&setup::VM_AARCH64)?;
        let folder = shipped::for_guest(arch, &["portguard", "portguard-guest"])?;
        Ok(Self {
            init: strip(arch, &folder, "portguard-guest")?,
            portguard: strip(arch, &folder, "portguard")?,
            checks: self.checks.clone(),
            soak: self.soak,
        })
    }
}

/// Without what debuggers read, which is most of a program and would all be unpacked into the guest's memory.
fn strip(arch: Arch, built: &Path, program: &str) -> Result<PathBuf> {
    let folder = target().join("vm").join(arch.name());
    std::fs::create_dir_all(&folder)?;
    let (stripped, built) = (folder.join(program), built.join(program));
    let tool = match arch {
        Arch::X86_64 => "strip",
        Arch::Aarch64 => "aarch64-linux-gnu-strip",
    };
    capture(Command::new(tool).arg("-o").arg(&stripped).arg(&built))
        .with_context(|| format!("stripping `{}`", built.display()))?;
    Ok(stripped)
}
