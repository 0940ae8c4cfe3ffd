//! `cargo xtask package`: a Debian package, the same bytes each time.

mod tree;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

use crate::setup;
use crate::shell::{Missing, capture, result, say, show, step};
use crate::workspace::{cargo, is_root, root, target, which};

use tree::Tree;

/// Builds a Debian package, and checks it.
#[derive(Debug, clap::Args)]
pub(crate) struct PackageArgs {
    /// The `portguard` to pack, built already
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
    /// Where the package goes [default: the build's folder]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Also install, upgrade, remove and purge it in a root of its own (root)
    #[arg(long)]
    try_it: bool,
}

pub(crate) fn run(args: &PackageArgs) -> Result<()> {
    for (tool, package) in [
        ("dpkg-deb", "dpkg"),
        ("gzip", "gzip"),
        ("strip", "binutils"),
    ] {
        if which(tool).is_none() {
            return Err(Missing::error(
                format!("`{tool}` is missing, which makes Debian packages"),
                format!("apt-get install {package}"),
            ));
        }
    }
    let program = match &args.program {
        Some(program) => program.clone(),
        None => build()?,
    };
    let out = args.out.clone().unwrap_or_else(target);
    let tree = Tree::new(&program, epoch()?)?;
    let package = pack(&tree, &out)?;
    // The same again, by another way through the file system: nothing of this run may be in there.
    let again = pack(&tree.copy()?, &out.join("again"))?;
    ensure!(
        fs::read(&package)? == fs::read(&again)?,
        "two runs gave different packages"
    );
    fs::remove_dir_all(out.join("again"))?;
    lint(&package)?;
    if args.try_it {
        try_it(&package)?;
    }
    result(package.display());
    Ok(())
}

fn build() -> Result<PathBuf> {
    setup::ensure(&[])?;
    step(
        "building portguard",
        cargo().args(["build", "--release", "--locked", "-p", "portguard"]),
    )?;
    Ok(target().join("release/portguard"))
}

/// The time that everything in the package has: what `SOURCE_DATE_EPOCH` says, else that of the last commit.
fn epoch() -> Result<u64> {
    if let Ok(said) = std::env::var("SOURCE_DATE_EPOCH") {
        return said
            .parse()
            .context("SOURCE_DATE_EPOCH is no number of seconds");
    }
    let mut git = Command::new("git");
    git.current_dir(root()).args(["log", "-1", "--format=%ct"]);
    let text = capture(&mut git).context("no SOURCE_DATE_EPOCH, and git does not tell a time")?;
    text.trim().parse().context("git told no time")
}

fn pack(tree: &Tree, out: &Path) -> Result<PathBuf> {
    fs::create_dir_all(out)?;
    let package = out.join(tree.file_name());
    let mut dpkg = Command::new("dpkg-deb");
    dpkg.env("SOURCE_DATE_EPOCH", tree.epoch.to_string())
        .args(["--root-owner-group", "-Zxz", "--threads-max=1", "--build"])
        .arg(&tree.root)
        .arg(&package);
    capture(&mut dpkg)?;
    Ok(package)
}

/// Has Debian's own tool look at it, where it is installed.
fn lint(package: &Path) -> Result<()> {
    if which("lintian").is_none() {
        say(
            "lintian is not installed, so that Debian's rules were not checked: apt-get install lintian",
        );
        return Ok(());
    }
    let mut lintian = Command::new("lintian");
    lintian
        .args(["--fail-on", "error,warning", "--allow-root"])
        .arg(package);
    show(&mut lintian)
}

/// Installs, upgrades, removes and purges the package in a root of its own, with a database of its own.
fn try_it(package: &Path) -> Result<()> {
    if !is_root() {
        bail!("installing in a root of its own takes root");
    }
    let scratch = target().join("package-root");
    let _ = fs::remove_dir_all(&scratch);
    for directory in [
        "var/lib/dpkg/info",
        "var/lib/dpkg/updates",
        "var/lib/portguard",
    ] {
        fs::create_dir_all(scratch.join(directory))?;
    }
    fs::write(scratch.join("var/lib/dpkg/status"), "")?;
    fs::write(scratch.join("var/lib/dpkg/available"), "")?;
    let dpkg = |words: &[&str]| -> Result<String> {
        let mut dpkg = Command::new("dpkg");
        // The maintainer's scripts find no systemd in there, and do nothing; dependencies are this machine's.
        dpkg.arg("--root")
            .arg(&scratch)
            .args([
                "--force-not-root",
                "--force-depends",
                "--force-script-chrootless",
            ])
            .args(words);
        capture(&mut dpkg)
    };
    let file = package.to_string_lossy();
    let program = scratch.join("usr/bin/portguard");
    dpkg(&["--install", &file])?;
    let version = capture(Command::new(&program).arg("--version"))?;
    ensure!(version.starts_with("portguard "), "{version}");
    let site = scratch.join("etc/portguard/site.toml");
    ensure!(!site.exists(), "the package brings no site of its own");
    fs::create_dir_all(scratch.join("etc/portguard"))?;
    fs::write(&site, "# the administrator's\n")?;
    dpkg(&["--install", &file]).context("the upgrade")?;
    ensure!(program.exists(), "the upgrade left no program");
    dpkg(&["--remove", "portguard"])?;
    ensure!(!program.exists(), "the removal left the program");
    ensure!(
        fs::read_to_string(&site)? == "# the administrator's\n",
        "the removal touched the administrator's site"
    );
    dpkg(&["--purge", "portguard"])?;
    let known = fs::read_to_string(scratch.join("var/lib/dpkg/status"))?;
    ensure!(!known.contains("Status: install"), "{known}");
    fs::remove_dir_all(&scratch)?;
    say("installed, upgraded, removed and purged in a root of its own");
    Ok(())
}
