//! A Rust toolchain with `core` for the BPF target, under the rustup name that the build script asks for.
//!
//! Two ways. Debian's packages bring a compiler and a prebuilt `core`. Elsewhere rustup's nightly brings the source of
//! `core`, and the build script, which sees a nightly, has cargo build it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::{TOOLCHAIN, apt};
use crate::shell::{Missing, capture, say, step};
use crate::workspace::{home, which};

/// Debian's compiler for its browsers, which is newer than the distribution's, and `core` built for BPF.
const PACKAGES: [&str; 3] = ["rustc-web", "cargo-web", "libstd-rust-web-dev-bpf"];

/// Where Debian puts it.
const DEBIAN: &str = "/usr";

/// A nightly of the LLVM that [`super::linker`] can be built with. By date, so that a new one surprises nobody.
const NIGHTLY: &str = "nightly-2026-05-20";

/// Makes sure that the build script will find a toolchain that can build for BPF.
pub(super) fn ensure() -> Result<()> {
    if sysroot().is_some_and(|sysroot| can_build(&sysroot)) {
        return Ok(());
    }
    say("no Rust toolchain here builds for BPF yet");
    if can_build(Path::new(DEBIAN)) {
        return link(Path::new(DEBIAN));
    }
    if apt::is_here() && apt::offers(&PACKAGES) {
        apt::install(&PACKAGES, "building for BPF")?;
        return link(Path::new(DEBIAN));
    }
    nightly()
}

/// The folder of the toolchain that the build script will use.
pub(super) fn sysroot() -> Option<PathBuf> {
    if which("rustup").is_some() {
        let linked = home("RUSTUP_HOME", ".rustup")
            .join("toolchains")
            .join(TOOLCHAIN);
        return linked.canonicalize().ok();
    }
    // Without rustup the build script takes whatever cargo is on PATH.
    let said = capture(Command::new("rustc").args(["--print", "sysroot"])).ok()?;
    Some(PathBuf::from(said.trim()))
}

/// The major version of the LLVM in the toolchain.
pub(super) fn llvm() -> Result<u32> {
    let sysroot = sysroot().context("no toolchain for BPF")?;
    let said = capture(Command::new(sysroot.join("bin/rustc")).arg("-vV"))?;
    said.lines()
        .find_map(|line| line.strip_prefix("LLVM version: "))
        .and_then(|version| version.split('.').next()?.parse().ok())
        .with_context(|| format!("`rustc -vV` of {} names no LLVM version", sysroot.display()))
}

/// Whether the toolchain can lint; on Debian, installs what it takes.
pub(super) fn has_clippy() -> Result<bool> {
    let sysroot = sysroot().context("no toolchain for BPF")?;
    let is_here = || sysroot.join("bin/cargo-clippy").exists();
    if !is_here() && sysroot == Path::new(DEBIAN) && apt::is_here() {
        apt::install(&["rust-web-clippy"], "linting the eBPF code")?;
    }
    Ok(is_here())
}

/// For people.
pub(super) fn describe() -> String {
    let Some(sysroot) = sysroot() else {
        return "none".to_owned();
    };
    let version = capture(Command::new(sysroot.join("bin/rustc")).arg("-V")).unwrap_or_default();
    let core = if has_built_core(&sysroot) {
        "prebuilt `core`"
    } else {
        "builds `core` from source"
    };
    format!("{} in {}, {core}", version.trim(), sysroot.display())
}

fn can_build(sysroot: &Path) -> bool {
    sysroot.join("bin/rustc").exists()
        && sysroot.join("bin/cargo").exists()
        && (has_built_core(sysroot)
            || sysroot
                .join("lib/rustlib/src/rust/library/core/Cargo.toml")
                .exists())
}

fn has_built_core(sysroot: &Path) -> bool {
    let target = if cfg!(target_endian = "big") {
        "bpfeb-unknown-none"
    } else {
        "bpfel-unknown-none"
    };
    let Ok(files) = fs::read_dir(sysroot.join("lib/rustlib").join(target).join("lib")) else {
        return false;
    };
    files.filter_map(Result::ok).any(|file| {
        let name = file.file_name();
        let name = name.to_string_lossy();
        name.starts_with("libcore-") && name.ends_with(".rlib")
    })
}

/// Gives a toolchain the name.
fn link(sysroot: &Path) -> Result<()> {
    if which("rustup").is_none() {
        if self::sysroot().is_some_and(|sysroot| can_build(&sysroot)) {
            return Ok(());
        }
        return Err(Missing::error(
            format!(
                "the compiler that builds for BPF is in {}/bin, but another one comes first on PATH, and there is no rustup to choose between them",
                sysroot.display()
            ),
            format!(
                "put {}/bin first on PATH, or install rustup",
                sysroot.display()
            ),
        ));
    }
    let mut command = Command::new("rustup");
    command.args(["toolchain", "link", TOOLCHAIN]).arg(sysroot);
    step(
        &format!(
            "naming the toolchain in {} `{TOOLCHAIN}` for rustup",
            sysroot.display()
        ),
        &mut command,
    )?;
    if !self::sysroot().is_some_and(|sysroot| can_build(&sysroot)) {
        bail!("{} was linked, but cannot build for BPF", sysroot.display());
    }
    Ok(())
}

fn nightly() -> Result<()> {
    let wanted = format!(
        "on Debian 12, as root: apt-get install --no-install-recommends {}\n      \
         elsewhere: install rustup, then: rustup toolchain install {NIGHTLY} --profile minimal --component rust-src",
        PACKAGES.join(" ")
    );
    if which("rustup").is_none() {
        return Err(Missing::error(
            "no Rust toolchain that builds for BPF, no such packages here, and no rustup to fetch one",
            wanted,
        ));
    }
    let mut install = Command::new("rustup");
    install.args(["toolchain", "install", NIGHTLY, "--no-self-update"]);
    install.args(["--profile", "minimal", "--component", "rust-src"]);
    step(
        &format!("fetching Rust {NIGHTLY} with the source of `core`"),
        &mut install,
    )
    .map_err(|error| {
        Missing::error(
            format!(
                "no Rust toolchain that builds for BPF, and rustup cannot fetch one: {error:#}"
            ),
            wanted,
        )
    })?;
    let sysroot =
        capture(Command::new("rustup").args(["run", NIGHTLY, "rustc", "--print", "sysroot"]))?;
    link(Path::new(sysroot.trim()))
}
