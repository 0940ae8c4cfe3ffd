//! `cargo xtask setup`: finds or installs what builds the eBPF programs and what the tests run.
//!
//! Each part looks first, and looking is cheap: with all in place this takes milliseconds, so that every verb can begin
//! with it. Nothing is installed without saying so.

pub(crate) mod apt;
pub(crate) mod cross;
mod linker;
pub(crate) mod lists;
mod servers;
mod toolchain;
mod tools;
mod udev;
pub(crate) mod wheels;

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use crate::shell::{capture, say, step};
use crate::workspace::{cargo, root, target, which};

pub(crate) use tools::{
    BENCH, DEBIAN, FLEET, MANIFESTS, PACKAGE, RELEASE, SCREENS, SPELLING, TEST, Tool, VM,
    VM_AARCH64,
};

/// The name under which `portguard/build.rs` asks rustup for the toolchain that builds for BPF.
const TOOLCHAIN: &str = "portguard-bpf";

#[derive(Debug, clap::Args)]
pub(crate) struct SetupArgs {
    /// Also what `lint` and `vm-test` would install when they are first called
    #[arg(long)]
    all: bool,
}

pub(crate) fn run(args: &SetupArgs) -> Result<()> {
    ensure(&TEST)?;
    servers::ensure()?;
    udev::ensure()?;
    if args.all {
        toolchain::has_clippy()?;
        ensure(&VM)?;
        ensure_tools(&SPELLING)?;
    }
    say("ready:");
    say(format_args!("  toolchain  {}", toolchain::describe()));
    say(format_args!("  linker     {}", linker::describe()));
    for tool in TEST
        .iter()
        .chain(args.all.then_some(&VM).into_iter().flatten())
    {
        say(format_args!("  {:9}  {}", tool.program, tool.purpose));
    }
    Ok(())
}

/// Makes sure that `cargo build` works, and that these tools are there.
pub(crate) fn ensure(tools: &[Tool]) -> Result<()> {
    toolchain::ensure()?;
    linker::ensure()?;
    tools::ensure(tools)
}

/// Makes sure that udev is there, which only the test that boots systemd needs.
pub(crate) fn udev() -> Result<()> {
    udev::ensure()
}

/// Makes sure that etcd and nginx are there, which only the fleet needs, and says where etcd is.
pub(crate) fn servers() -> Result<PathBuf> {
    servers::ensure()?;
    Ok(servers::server())
}

/// Makes sure that these tools are there.
pub(crate) fn ensure_tools(tools: &[Tool]) -> Result<()> {
    tools::ensure(tools)
}

/// The `cargo deny` that `lint` was written for.
const DENY: &str = "0.20.2";

/// Makes sure that `cargo deny` is there, which only `lint` needs.
pub(crate) fn cargo_deny() -> Result<()> {
    let installed = capture(cargo().args(["deny", "--version"]));
    if installed.is_ok_and(|said| said.starts_with("cargo-deny ")) {
        return Ok(());
    }
    let mut install = cargo();
    install.args(["install", "cargo-deny", "--locked", "--version", DENY]);
    step(
        &format!("building cargo-deny {DENY} (some minutes, once)"),
        &mut install,
    )
}

/// Builds the `portguard` command, and says where it is.
pub(crate) fn build_portguard() -> Result<PathBuf> {
    step(
        "building portguard",
        cargo().args(["build", "--package", "portguard"]),
    )?;
    Ok(target().join("debug/portguard"))
}

/// Whether the toolchain for BPF can lint; on Debian, installs what it takes.
pub(crate) fn has_bpf_clippy() -> Result<bool> {
    toolchain::has_clippy()
}

/// The compiler of that toolchain.
pub(crate) fn bpf_rustc() -> Result<PathBuf> {
    if which("rustup").is_none() {
        return Ok(PathBuf::from("rustc"));
    }
    let mut rustup = Command::new("rustup");
    rustup.args(["which", "--toolchain", TOOLCHAIN, "rustc"]);
    Ok(PathBuf::from(capture(&mut rustup)?.trim()))
}

/// A command of that toolchain.
pub(crate) fn bpf_cargo() -> Command {
    let mut command = if which("rustup").is_some() {
        let mut rustup = Command::new("rustup");
        rustup.args(["run", TOOLCHAIN, "cargo"]);
        rustup
    } else {
        cargo()
    };
    command
        .current_dir(root())
        .env_remove("RUSTUP_TOOLCHAIN")
        .env_remove("RUSTC");
    command
}
