//! etcd for the fleet's tests and demo: unpacked from Debian's packages, not installed, so that no service starts.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};

use super::apt;
use crate::shell::{Missing, step};
use crate::workspace::target;

const PACKAGES: [&str; 2] = ["etcd-server", "etcd-client"];

/// Where the programs are.
fn directory() -> PathBuf {
    target().join("etcd")
}

/// The server.
pub(crate) fn server() -> PathBuf {
    directory().join("usr/bin/etcd")
}

/// Unpacks what is not there.
pub(super) fn ensure() -> Result<()> {
    if server().exists() && server().with_file_name("etcdctl").exists() {
        return Ok(());
    }
    if !apt::offers(&PACKAGES) {
        return Err(Missing::error(
            "the fleet's tests need etcd, and no package source here has it",
            "put `etcd` and `etcdctl` (3.4 or newer) into target/etcd/usr/bin",
        ));
    }
    let packed = directory().join("packages");
    fs::create_dir_all(&packed).with_context(|| format!("making {}", packed.display()))?;
    let mut fetch = Command::new("apt-get");
    fetch
        .current_dir(&packed)
        .args(["--quiet", "-o", "APT::Sandbox::User=root", "download"])
        .args(PACKAGES);
    step("fetching etcd for the fleet's tests", &mut fetch)?;
    for file in fs::read_dir(&packed)? {
        let file = file?.path();
        if file.extension().is_some_and(|end| end == "deb") {
            let mut unpack = Command::new("dpkg-deb");
            unpack.arg("--extract").arg(&file).arg(directory());
            step(&format!("unpacking {}", file.display()), &mut unpack)?;
        }
    }
    fs::remove_dir_all(&packed).with_context(|| format!("removing {}", packed.display()))
}
