//! udev, for the test that boots systemd: beside the build, not installed, and taken from the package sources that this machine
//! has.

use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result};

use super::apt;
use crate::shell::{Missing, capture};
use crate::workspace::target;

/// What has it.
const PACKAGES: [&str; 1] = ["udev"];

/// Unpacks it, with `usr` as its root, unless it is there.
pub(super) fn ensure() -> Result<()> {
    let directory = target().join("udev");
    if directory.join("lib/systemd/systemd-udevd").exists() {
        return Ok(());
    }
    if !apt::offers(&PACKAGES) {
        return Err(Missing::error(
            "the test that boots systemd needs udev, and no package source here has it",
            "put Debian's package `udev` into target/udev, its files below /usr at the top",
        ));
    }
    let unpacked = target().join("udev-unpacked");
    apt::unpack(&PACKAGES, &unpacked, "the test that boots systemd")?;
    fs::create_dir_all(&directory).with_context(|| format!("making {}", directory.display()))?;
    // Debian 12 has some of it beside /usr.
    for part in ["usr/.", "lib", "bin", "sbin"] {
        let part = unpacked.join(part);
        if part.exists() {
            capture(Command::new("cp").arg("-a").arg(&part).arg(&directory))?;
        }
    }
    fs::remove_dir_all(&unpacked).with_context(|| format!("removing {}", unpacked.display()))
}
