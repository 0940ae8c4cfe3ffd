//! `bpf-linker`, built with the LLVM of the toolchain.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::{apt, toolchain};
use crate::shell::{Missing, capture, step};
use crate::workspace::{cargo, home, is_root, which};

const VERSION: &str = "0.13.0";

/// The LLVMs that this version can be built with.
const LLVMS: [u32; 3] = [21, 22, 23];

/// Makes sure that there is a linker that starts, of the version that the programs were written for.
pub(super) fn ensure() -> Result<()> {
    if found().is_some() {
        return Ok(());
    }
    let llvm = toolchain::llvm()?;
    if !LLVMS.contains(&llvm) {
        return Err(Missing::error(
            format!(
                "the toolchain for BPF has LLVM {llvm}, and bpf-linker {VERSION} none of that version"
            ),
            format!(
                "link a toolchain of LLVM {} to {} as rustup's `{}`",
                LLVMS[0],
                LLVMS[2],
                super::TOOLCHAIN
            ),
        ));
    }
    let mut bin = llvm_bin(llvm);
    let package = format!("llvm-{llvm}-dev");
    if bin.is_none() && apt::is_here() && apt::offers(&[&package]) {
        apt::install(&[&package, "g++"], "building bpf-linker")?;
        bin = llvm_bin(llvm);
    }
    match bin {
        Some(bin) => build(llvm, &bin)?,
        None if which("cargo-binstall").is_some() => fetch()?,
        None => {
            return Err(Missing::error(
                format!(
                    "bpf-linker {VERSION} is missing, and so is LLVM {llvm} (its `llvm-config` and headers) to build it with"
                ),
                format!(
                    "install LLVM {llvm} with its development files, or: cargo install cargo-binstall && cargo binstall bpf-linker@{VERSION}"
                ),
            ));
        }
    }
    found().map(drop).with_context(|| {
        format!(
            "bpf-linker was installed to {}, which is not on PATH",
            bin_of_cargo().display()
        )
    })
}

/// For people.
pub(super) fn describe() -> String {
    found().unwrap_or_else(|| "none".to_owned())
}

/// Its version, if it is the right one and starts (it does not when the LLVM it was built with is gone).
fn found() -> Option<String> {
    // rustup puts cargo's own folder first on PATH of whatever it starts, so look there, too.
    let program = which("bpf-linker").or_else(|| {
        let file = bin_of_cargo().join("bpf-linker");
        (which("rustup").is_some() && file.exists()).then_some(file)
    })?;
    let said = capture(Command::new(&program).arg("--version")).ok()?;
    (said.trim() == format!("bpf-linker {VERSION}"))
        .then(|| format!("{} in {}", said.trim(), program.display()))
}

fn bin_of_cargo() -> PathBuf {
    home("CARGO_HOME", ".cargo").join("bin")
}

/// The folder of the `llvm-config` of this version.
fn llvm_bin(llvm: u32) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    [
        format!("/usr/lib/llvm-{llvm}/bin"),
        format!("/usr/lib64/llvm{llvm}/bin"),
        format!("/usr/lib/llvm{llvm}/bin"),
    ]
    .map(PathBuf::from)
    .into_iter()
    .chain(env::split_paths(&path))
    .find(|dir| {
        // The headers come with `llvm-config`'s package on Debian, and are what the build needs.
        capture(Command::new(dir.join("llvm-config")).arg("--version"))
            .is_ok_and(|version| version.starts_with(&format!("{llvm}.")))
    })
}

fn build(llvm: u32, bin: &Path) -> Result<()> {
    let mut command = cargo();
    command.args([
        "install",
        "bpf-linker",
        "--version",
        VERSION,
        "--locked",
        "--force",
    ]);
    command.args([
        "--no-default-features",
        "--features",
        &format!("llvm-{llvm}"),
    ]);
    let path = env::var_os("PATH").unwrap_or_default();
    let on_path = env::split_paths(&path).any(|dir| dir == bin_of_cargo());
    if !on_path && which("rustup").is_none() && is_root() {
        command.args(["--root", "/usr/local"]);
    }
    let path: OsString =
        env::join_paths([bin.to_owned()].into_iter().chain(env::split_paths(&path)))?;
    // Elsewhere than in the repository: its cargo settings and target folder are for its own code.
    command
        .current_dir("/")
        .env("PATH", path)
        .env_remove("RUSTC_BOOTSTRAP")
        .env_remove("CARGO_TARGET_DIR");
    step(
        &format!("building bpf-linker {VERSION} with LLVM {llvm} (about a minute)"),
        &mut command,
    )
}

fn fetch() -> Result<()> {
    let mut command = cargo();
    command.args(["binstall", "--no-confirm", &format!("bpf-linker@{VERSION}")]);
    step(&format!("fetching bpf-linker {VERSION}"), &mut command)
}
