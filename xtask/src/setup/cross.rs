//! What builds for aarch64 on another Debian machine: Debian's cross compiler, and the standard library of Debian's own package for
//! that architecture, which fits its Rust to the letter.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::lists::Lists;
use super::tools::{self, Tool};
use super::{TOOLCHAIN, apt};
use crate::arch::Arch;
use crate::shell::{Missing, capture};
use crate::workspace::target;

/// The compiler that links; its C library is a package of its own.
const TOOLS: [Tool; 1] = [tools::tool(
    "aarch64-linux-gnu-gcc",
    "gcc-aarch64-linux-gnu",
    "linking for aarch64",
)];
const C_LIBRARY: &str = "/usr/aarch64-linux-gnu/lib/libc.a";
const SUITES: [&str; 2] = ["bookworm-security", "bookworm"];

/// Whether this machine can get it: an `x86_64` Debian whose Rust for BPF is Debian's.
pub(crate) fn is_to_be_had() -> bool {
    Arch::here().is_ok_and(|arch| arch == Arch::X86_64) && apt::is_here() && compiler().is_ok()
}

/// Makes sure of it, and says where the standard library is, in the layout of a sysroot.
pub(crate) fn ensure() -> Result<PathBuf> {
    tools::ensure(&TOOLS)?;
    if !Path::new(C_LIBRARY).exists() {
        apt::install(&["libc6-dev-arm64-cross"], "linking for aarch64")?;
    }
    let version = compiler()?;
    let folder = std::path::absolute(target())?.join("cross/aarch64");
    let packages = folder.join(&version);
    if !packages.is_dir() {
        let package = format!("libstd-rust-web-dev={version}");
        let fetch = |suite: &str| {
            let lists = Lists::fetch(suite, Some(Arch::Aarch64.debian()))?;
            apt::unpack_with(lists.get(), &[&package], &packages, "building for aarch64")
        };
        let [security, archive] = SUITES;
        // What the archive says is what is shown if neither has it.
        fetch(security)
            .or_else(|_error| fetch(archive))
            .with_context(|| format!("{package} for arm64 cannot be had"))?;
    }
    let sysroot = folder.join("sysroot");
    let libraries = sysroot.join("lib/rustlib");
    fs::create_dir_all(&libraries)?;
    let triple = Arch::Aarch64.triple();
    let link = libraries.join(&triple);
    let _ = fs::remove_file(&link);
    symlink(packages.join("usr/lib/rustlib").join(&triple), &link)
        .with_context(|| format!("making {}", link.display()))?;
    Ok(sysroot)
}

/// The version of Debian's package of the compiler for BPF, which is the one that also builds for aarch64.
fn compiler() -> Result<String> {
    let mut query = Command::new("dpkg-query");
    query.args(["--show", "--showformat=${Version}", "rustc-web"]);
    capture(&mut query).map_err(|_error| {
        Missing::error(
            "building for aarch64 needs Debian's `rustc-web`",
            format!("`cargo xtask setup` installs it where rustup's servers cannot be reached, and names it {TOOLCHAIN}"),
        )
    })
}
