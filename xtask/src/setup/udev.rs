//! udev, for the test that boots systemd: beside the build, not installed, and taken from the package sources that this machine
//! has.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};

use super::apt;
use crate::shell::{Missing, step};
use crate::workspace::target;

/// What has it.
const PACKAGES: [&str; 1] = ["udev"];

fn directory() -> PathBuf {
    target().join("udev")
}

/// Unpacks it, with `usr` as its root, unless it is there.
pub(super) fn ensure() -> Result<()> {
    let there = directory().join("lib/systemd/systemd-udevd");
    if there.exists() {
        return Ok(());
    }
    if !apt::offers(&PACKAGES) {
        return Err(Missing::error(
            "the test that boots systemd needs udev, and no package source here has it",
            "put Debian's package `udev` into target/udev, its files below /usr at the top",
        ));
    }
    let packed = directory().join("packages");
    fs::create_dir_all(&packed).with_context(|| format!("making {}", packed.display()))?;
    let mut fetch = Command::new("apt-get");
    fetch
        .current_dir(&packed)
        .args(["--quiet", "-o", "APT::Sandbox::User=root", "download"])
        .args(PACKAGES);
    step("fetching udev for the test that boots systemd", &mut fetch)?;
    for file in fs::read_dir(&packed)? {
        let file = file?.path();
        let unpacked = packed.join("unpacked");
        let mut unpack = Command::new("dpkg-deb");
        unpack.arg("--extract").arg(&file).arg(&unpacked);
        step(&format!("unpacking {}", file.display()), &mut unpack)?;
        for part in ["usr/.", "lib", "bin", "sbin"] {
            let part = unpacked.join(part);
            if part.exists() {
                let mut copy = Command::new("cp");
                copy.arg("-a").arg(&part).arg(directory());
                step("laying out udev", &mut copy)?;
            }
        }
    }
    fs::remove_dir_all(&packed).with_context(|| format!("removing {}", packed.display()))
}
