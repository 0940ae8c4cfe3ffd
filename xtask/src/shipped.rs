//! The `portguard` that is shipped: one static program, the same bytes in whatever folder it is built.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::arch::Arch;
use crate::setup;
use crate::shell::{capture, step};
use crate::workspace::{cargo, home, root, target};

/// A program to ship.
#[derive(Debug)]
pub(crate) struct Shipped {
    pub(crate) arch: Arch,
    pub(crate) program: PathBuf,
    /// The same for this machine, to ask it for its pages and its version.
    pub(crate) runs: PathBuf,
}

impl Shipped {
    /// One that was built already, for this machine.
    pub(crate) fn given(program: &Path) -> Result<Self> {
        Ok(Self {
            arch: Arch::here()?,
            program: program.to_owned(),
            runs: program.to_owned(),
        })
    }

    /// Builds it for this machine.
    pub(crate) fn build() -> Result<Self> {
        Self::given(&build(Arch::here()?)?)
    }

    /// Builds the same for aarch64, by Debian's cross compiler.
    pub(crate) fn for_aarch64(&self) -> Result<Self> {
        Ok(Self {
            arch: Arch::Aarch64,
            program: build(Arch::Aarch64)?,
            runs: self.runs.clone(),
        })
    }
}

/// Builds it. Static, so that it runs on any distribution and in an empty container: what it asks of name services it
/// asks itself.
fn build(arch: Arch) -> Result<PathBuf> {
    setup::ensure(&[])?;
    let triple = arch.triple();
    let mut command = cargo();
    if arch != Arch::here()? {
        let sysroot = setup::cross::ensure()?;
        command = setup::bpf_cargo();
        let gcc = format!("{}-linux-gnu-gcc", arch.name());
        command
            .env("RUSTC", setup::bpf_rustc()?)
            .env("PORTGUARD_CROSS", &triple)
            .env("PORTGUARD_SYSROOT", sysroot)
            .env(format!("CC_{}", triple.replace('-', "_")), &gcc)
            .arg("--config")
            .arg(format!("target.{triple}.linker=\"{gcc}\""));
    }
    command
        .args(["build", "--release", "--locked", "--package", "portguard"])
        .args(["--target", &triple])
        .args(["--config", "profile.release.strip=\"symbols\""])
        .arg("--config")
        .arg(format!(
            "target.{triple}.rustflags=[\"-Ctarget-feature=+crt-static\"]"
        ))
        .env("RUSTC_WRAPPER", root().join("xtask/rustc-remap.sh"))
        .env("PORTGUARD_ROOT", root())
        .env("PORTGUARD_CARGO_HOME", home("CARGO_HOME", ".cargo"))
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS");
    step(
        &format!("building the static portguard for {}", arch.name()),
        &mut command,
    )?;
    Ok(target().join(triple).join("release/portguard"))
}

/// What a program calls itself.
pub(crate) fn version(program: &Path) -> Result<String> {
    let text = capture(Command::new(program).arg("--version"))?;
    let version = text.split_whitespace().nth(1);
    version
        .map(str::to_owned)
        .with_context(|| format!("`{}` prints no version: {text}", program.display()))
}

/// Seconds since the Unix epoch that everything built has as its time: `SOURCE_DATE_EPOCH`, else the last commit's.
pub(crate) fn epoch() -> Result<u64> {
    if let Ok(given) = std::env::var("SOURCE_DATE_EPOCH") {
        return given
            .parse()
            .with_context(|| format!("SOURCE_DATE_EPOCH is `{given}`, not a number of seconds"));
    }
    let mut git = Command::new("git");
    git.current_dir(root()).args(["log", "-1", "--format=%ct"]);
    let text = capture(&mut git)
        .context("neither SOURCE_DATE_EPOCH nor a git commit to take the time from")?;
    ensure!(!text.trim().is_empty(), "this repository has no commit");
    Ok(text.trim().parse()?)
}
