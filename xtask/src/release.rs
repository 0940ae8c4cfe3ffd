//! `cargo xtask release`: everything that is published of a version, in one folder.

mod apt;
mod bill;
mod image;
mod reproduce;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};

use crate::arch::Arch;
use crate::package;
use crate::setup;
use crate::shell::{capture, result, say};
use crate::shipped::{self, Shipped};

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
    /// Only for this machine's architecture, though the compiler for the other can be had
    #[arg(long)]
    only_here: bool,
    /// The static `portguard`, built already, for this machine's architecture only
    #[arg(long, value_name = "FILE", conflicts_with = "reproduce")]
    program: Option<PathBuf>,
}

pub(crate) fn run(args: &ReleaseArgs) -> Result<()> {
    let begun = Instant::now();
    setup::ensure_tools(&setup::RELEASE)?;
    let clone = args.reproduce.then(reproduce::clone).transpose()?;
    let mut shipped = Vec::new();
    match &args.program {
        Some(program) => shipped.push(Shipped::given(program)?),
        None => shipped.push(Shipped::build()?),
    }
    if args.program.is_none() && !args.only_here {
        if setup::cross::is_to_be_had() {
            shipped.extend(shipped.first().map(Shipped::for_aarch64).transpose()?);
        } else {
            say(
                "release: for this machine's architecture only: no compiler for the other can be had",
            );
        }
    }
    let out = std::path::absolute(&args.out)?;
    make(&shipped, &out)?;
    if let Some(clone) = clone {
        reproduce::compare(&out, clone, args.only_here)?;
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
fn make(shipped: &[Shipped], out: &Path) -> Result<()> {
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
    let first = shipped.first().context("nothing to ship")?;
    let version = shipped::version(&first.runs)?;
    let epoch = shipped::epoch()?;
    let mut packages = Vec::new();
    for one in shipped {
        packages.extend(package::build(one, out, "1")?);
        let name = format!("portguard-{version}-{}", one.arch.name());
        fs::copy(&one.program, out.join(name))?;
        image::write(one, out, &version, epoch)?;
    }
    bill::write(&out.join(format!("portguard-{version}.cdx.json")), epoch)?;
    let architectures: Vec<Arch> = shipped.iter().map(|one| one.arch).collect();
    apt::lay_out(&packages, &architectures, &out.join("apt"), epoch)?;
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
