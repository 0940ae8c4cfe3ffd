//! `cargo xtask release`: everything that is published of a version, in one folder.

mod apt;
mod bill;
mod image;
mod reproduce;

use std::env::consts::ARCH;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};

use crate::package;
use crate::setup;
use crate::shell::{capture, result, say};
use crate::shipped;

/// Builds what is published: packages, container image, checksums, bill of materials, apt repository.
#[derive(Debug, clap::Args)]
pub(crate) struct ReleaseArgs {
    /// Where it goes; made anew
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Sign checksums and apt repository with this key, as `gpg` knows it
    #[arg(long, value_name = "KEY")]
    sign_with: Option<String>,
    /// Build a second time, from a clone in another folder, and compare every byte
    #[arg(long)]
    reproduce: bool,
    /// The static `portguard`, built already
    #[arg(long, value_name = "FILE", conflicts_with = "reproduce")]
    program: Option<PathBuf>,
}

pub(crate) fn run(args: &ReleaseArgs) -> Result<()> {
    let begun = Instant::now();
    setup::ensure_tools(&setup::RELEASE)?;
    let clone = args.reproduce.then(reproduce::clone).transpose()?;
    let program = match &args.program {
        Some(program) => program.clone(),
        None => shipped::build()?,
    };
    let out = std::path::absolute(&args.out)?;
    make(&program, &out)?;
    if let Some(clone) = clone {
        reproduce::compare(&out, clone)?;
    }
    // Signatures have a time and a random part: they come after what is compared.
    if let Some(key) = &args.sign_with {
        apt::sign(&out.join("apt"), key)?;
        apt::signature(&out.join(SUMS), key, "--detach-sign", "asc")?;
    }
    for file in crate::links::all(&out)?
        .iter()
        .filter(|file| file.is_file())
    {
        let size = fs::metadata(file)?.len();
        say(format_args!(
            "  {:>11}  {}",
            size,
            file.strip_prefix(&out)?.display()
        ));
    }
    say(format_args!(
        "release made in {:.0} s",
        begun.elapsed().as_secs_f64()
    ));
    result(out.display());
    Ok(())
}

/// Checksums of all files at the top.
const SUMS: &str = "SHA256SUMS";

/// Everything but signatures.
fn make(program: &Path, out: &Path) -> Result<()> {
    if out.exists() {
        // What is deleted must be an older release, not somebody's home.
        ensure!(
            out.join(SUMS).exists() || fs::read_dir(out)?.next().is_none(),
            "{} is neither empty nor an older release",
            out.display()
        );
        fs::remove_dir_all(out)?;
    }
    fs::create_dir_all(out)?;
    let version = shipped::version(program)?;
    let epoch = shipped::epoch()?;
    let packages = package::build(program, out, "1")?;
    fs::copy(program, out.join(format!("portguard-{version}-{ARCH}")))?;
    image::write(program, out, &version, epoch)?;
    bill::write(&out.join(format!("portguard-{version}.cdx.json")), epoch)?;
    apt::lay_out(&packages, &out.join("apt"), epoch)?;
    sums(out)
}

fn sums(out: &Path) -> Result<()> {
    let mut files: Vec<_> = fs::read_dir(out)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()?;
    files.retain(|file| file.is_file());
    files.sort();
    let mut command = Command::new("sha256sum");
    command.current_dir(out).arg("--");
    for file in &files {
        command.arg(file.file_name().context("a file's name")?);
    }
    fs::write(out.join(SUMS), capture(&mut command)?)?;
    Ok(())
}
