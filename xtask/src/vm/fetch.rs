//! Kernels from Debian's archive, by package lists of our own: those of the machine stay as they are.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use super::kernels::Kernel;
use super::version;
use crate::arch::Arch;
use crate::setup::apt;
use crate::setup::lists::Lists;
use crate::shell::{capture, say};
use crate::workspace::target;

/// Packages that make a kernel, and where they are.
#[derive(Debug)]
pub(super) struct Source {
    apt: Lists,
    packages: Vec<String>,
}

/// An unpacked kernel.
#[derive(Debug)]
pub(super) struct Files {
    /// `uname -r`.
    pub(super) release: String,
    /// What qemu boots.
    pub(super) image: PathBuf,
    /// Where its modules are, compressed or not.
    pub(super) modules: PathBuf,
}

/// Finds the newest kernel that an entry of the list means.
pub(super) fn resolve(kernel: &Kernel) -> Result<Source> {
    let other = (kernel.arch != Arch::X86_64).then(|| kernel.arch.debian());
    let apt = Lists::fetch(&kernel.suite, other)?;
    let found = capture(
        apt.cache()
            .args(["search", "--names-only", &kernel.packages]),
    )?;
    let names = found.lines().filter_map(|line| line.split(' ').next());
    let newest = names
        .max_by(|left, right| version::compare(left, right))
        .filter(|name| !name.is_empty())
        .with_context(|| {
            format!(
                "suite {} has no package `{}`",
                kernel.suite, kernel.packages
            )
        })?;
    let mut packages = vec![newest.to_owned()];
    if let Some(version) = newest.strip_prefix("linux-binary-") {
        packages.push(format!("linux-modules-{version}"));
    }
    say(format_args!(
        "kernel {}: {} of {}",
        kernel.id, newest, kernel.suite
    ));
    Ok(Source { apt, packages })
}

/// Downloads and unpacks what is not there yet.
pub(super) fn fetch(source: &Source) -> Result<Files> {
    let Source { apt, packages } = source;
    let name = packages.first().context("no package")?;
    let tree = target().join("vm/kernels").join(name);
    if !tree.is_dir() {
        let packages: Vec<&str> = packages.iter().map(String::as_str).collect();
        apt::unpack_with(apt.get(), &packages, &tree, "a kernel to boot")?;
    }
    files(&tree)
}

/// Finds image and modules, wherever the release of Debian puts them.
fn files(tree: &Path) -> Result<Files> {
    let modules = ["lib/modules", "usr/lib/modules"]
        .iter()
        .filter_map(|folder| fs::read_dir(tree.join(folder)).ok()?.next()?.ok())
        .map(|entry| entry.path())
        .next()
        .with_context(|| format!("no modules in `{}`", tree.display()))?;
    let release = modules
        .file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .context("modules without a release")?;
    let image = [
        tree.join("boot").join(format!("vmlinuz-{release}")),
        modules.join("vmlinuz"),
    ]
    .into_iter()
    .find(|image| image.is_file());
    let Some(image) = image else {
        bail!("no vmlinuz in `{}`", tree.display());
    };
    Ok(Files {
        release,
        image,
        modules,
    })
}
