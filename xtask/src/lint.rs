//! `cargo xtask lint`: format and lints. Cheapest first.

mod imports;

use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::docs::{DOCUMENTS, LICENCES, copy_tree};
use crate::shell::{capture, say, show};
use crate::workspace::{cargo, root, target};
use crate::{links, setup};

/// Words that the spelling checker takes for others.
const WORDS: &str = "crate,nd,reenable,inforce,gatway";

pub(crate) fn run() -> Result<()> {
    for (component, verb) in [("rustfmt", "fmt"), ("clippy", "clippy")] {
        capture(cargo().args([verb, "--version"])).with_context(|| {
            format!("`cargo {verb}` is missing: `rustup component add {component}`")
        })?;
    }
    say("lint: format");
    show(cargo().args(["fmt", "--all", "--check"]))
        .context("not formatted: `cargo fmt --all` does it")?;

    say("lint: links of the documents");
    links()?;
    say("lint: spelling");
    spelling()?;
    say("lint: imports");
    imports::check()?;

    setup::ensure(&[])?;
    say("lint: host code");
    show(cargo().args([
        "clippy",
        "--workspace",
        "--all-targets",
        "--",
        "-D",
        "warnings",
    ]))?;
    kernel_code()?;

    say("lint: documentation");
    let mut doc = cargo();
    doc.args(["doc", "--workspace", "--no-deps"]);
    show(doc.env("RUSTDOCFLAGS", "-D warnings"))?;

    say("lint: dependencies");
    setup::cargo_deny()?;
    show(cargo().args(["deny", "check", "licenses", "bans", "sources"]))
        .context("a dependency is not as deny.toml wants it")
}

/// What the documents link to must be there, and be in the package with them.
fn links() -> Result<()> {
    let folder = target().join("lint-links");
    let _ = fs::remove_dir_all(&folder);
    copy_tree(&root().join("docs"), &folder.join("docs"))?;
    for name in DOCUMENTS.iter().chain(&LICENCES) {
        fs::copy(root().join(name), folder.join(name))?;
    }
    let dead = links::dead(&folder)?;
    ensure!(dead.is_empty(), "dead links:\n{}", dead.join("\n"));
    Ok(())
}

/// What people read: documents, manual pages, matrices, help texts.
fn spelling() -> Result<()> {
    setup::ensure_tools(&setup::SPELLING)?;
    let mut list = Command::new("git");
    list.current_dir(root()).args(["ls-files", "--"]).args([
        "*.md",
        "packaging",
        "portguard/catalog",
        "portguard/man",
        "portguard/src",
        "xtask/*.toml",
    ]);
    let files = capture(&mut list)?;
    let mut codespell = Command::new("codespell");
    codespell
        .current_dir(root())
        .args(["--ignore-words-list", WORDS]);
    show(codespell.args(files.lines()))
        .context("misspelt, or a word for `WORDS` of xtask/src/lint.rs")
}

/// The eBPF programs are compiled for another target, by another toolchain, with a feature that the host leaves off.
fn kernel_code() -> Result<()> {
    match setup::has_bpf_clippy() {
        Ok(true) => {}
        Ok(false) => {
            say("lint: SKIPPED the eBPF code: its toolchain has no clippy");
            return Ok(());
        }
        Err(error) => {
            say(format_args!("lint: SKIPPED the eBPF code: {error:#}"));
            return Ok(());
        }
    }
    say("lint: eBPF code");
    let endian = if cfg!(target_endian = "big") {
        "bpfeb"
    } else {
        "bpfel"
    };
    let mut command = setup::bpf_cargo();
    command.args(["clippy", "--bins"]);
    for package in ["portguard-ebpf", "portguard-bench-ebpf"] {
        let feature = format!("{package}/bpf");
        command.args(["--package", package, "--features", &feature]);
    }
    command.args(["--release", "--target", &format!("{endian}-unknown-none")]);
    command.arg("--target-dir").arg(target().join("lint-bpf"));
    command.args(["--", "-D", "warnings"]);
    let flags = format!("--cfg=bpf_target_arch=\"{}\"", std::env::consts::ARCH);
    show(command.env("CARGO_ENCODED_RUSTFLAGS", flags))
}
