//! A Debian 12 of its own, booted in namespaces.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use portguard_harness::net::{Host, Output, Process, unique_name};

use crate::setup::{self, apt};
use crate::shell::step;
use crate::workspace::{root, target};

/// The longest that a command in there, or its boot, may take.
const PATIENCE: Duration = Duration::from_mins(2);

/// What it has beside the least that Debian can be; `rpm`, so that both kinds of package can be tried, and what runs the role.
const PACKAGES: [&str; 9] = [
    "systemd",
    "systemd-sysv",
    "udev",
    "iproute2",
    "man-db",
    "bash-completion",
    "rpm",
    "ansible-core",
    "python3-apt",
];

/// A running Debian. Ended, and forgotten, when dropped.
pub(super) struct Debian {
    host: Host,
    /// `/mnt` inside.
    pub(super) directory: PathBuf,
    process: Option<Process>,
    first: u32,
}

impl Debian {
    /// Boots it in the network of a host.
    pub(super) fn boot(host: &Host) -> Result<Self> {
        let base = base()?;
        let directory = std::env::temp_dir().join(unique_name("pgd"));
        fs::create_dir_all(directory.join("written"))?;
        let mut script = Command::new(root().join("xtask/src/package/boot.sh"));
        let process = host.start(script.arg(base).arg(&directory))?;
        let mut debian = Self {
            host: host.clone(),
            directory,
            first: 0,
            process: Some(process),
        };
        debian.wait()?;
        Ok(debian)
    }

    /// Waits for process 1 to have started what belongs to a boot.
    fn wait(&mut self) -> Result<()> {
        let process = self.process.as_ref().context("it runs")?;
        let children = format!("/proc/{0}/task/{0}/children", process.id());
        let begun = Instant::now();
        loop {
            let found = fs::read_to_string(&children).unwrap_or_default();
            if let Some(first) = found.split_whitespace().next() {
                self.first = first.parse()?;
                let name = fs::read_to_string(format!("/proc/{first}/comm")).unwrap_or_default();
                if name.trim() == "systemd" {
                    // Until its bus is there this fails; `degraded` is fine, since not all of a machine is there.
                    let state = self.output("systemctl is-system-running --wait", PATIENCE)?;
                    if ["running", "degraded"].contains(&state.stdout.trim()) {
                        return Ok(());
                    }
                }
            }
            if begun.elapsed() > PATIENCE {
                let process = self.process.as_ref().context("it runs")?;
                bail!("no systemd was started: {}", process.stderr());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Runs a line of shell inside, as root.
    pub(super) fn output(&self, line: &str, limit: Duration) -> Result<Output> {
        let mut command = Command::new("nsenter");
        command
            .arg("--target")
            .arg(self.first.to_string())
            .args(["--mount", "--uts", "--ipc", "--pid", "--cgroup"])
            .args(["--root", "--wdns=/root", "env", "-i", "HOME=/root"])
            .args(["PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8"])
            .args(["DEBIAN_FRONTEND=noninteractive", "sh", "-c", line]);
        self.host.output(&mut command, limit)
    }

    /// The same, and it must succeed. Gives its standard output.
    pub(super) fn sh(&self, line: &str) -> Result<String> {
        let output = self.output(line, PATIENCE)?;
        Ok(output.success().with_context(|| line.to_owned())?.stdout)
    }

    /// Whether a path is there.
    pub(super) fn has(&self, path: &str) -> Result<bool> {
        let output = self.output(&format!("test -e {path} || test -L {path}"), PATIENCE)?;
        Ok(output.status.success())
    }
}

impl Drop for Debian {
    fn drop(&mut self) {
        // Ends process 1 inside, and with it everything.
        drop(self.process.take());
        let _ = fs::remove_dir_all(&self.directory);
        if let Some(name) = self.directory.file_name() {
            for groups in ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"] {
                remove_groups(&Path::new(groups).join(name));
            }
        }
    }
}

/// Removes a cgroup and those below it, which are folders without files of their own.
fn remove_groups(group: &Path) {
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_groups(&entry.path());
        }
    }
    let _ = fs::remove_dir(group);
}

/// The Debian that is booted; made once.
fn base() -> Result<PathBuf> {
    let folder = std::path::absolute(target())?.join("debian-12");
    if folder.is_dir() {
        return Ok(folder);
    }
    setup::ensure_tools(&setup::DEBIAN)?;
    let raw = folder.with_extension("new");
    let _ = fs::remove_dir_all(&raw);
    let mut command = Command::new("debootstrap");
    command
        .args(["--variant=minbase", "bookworm"])
        .arg(&raw)
        .arg(apt::mirror(false)?);
    step("making a Debian 12", &mut command)?;
    let mut install = Command::new("chroot");
    install
        .arg(&raw)
        .args([
            "env",
            "DEBIAN_FRONTEND=noninteractive",
            "apt-get",
            "install",
        ])
        .args(["--yes", "--no-install-recommends"])
        .args(PACKAGES);
    step("installing what it has more than the least", &mut install)?;
    fs::rename(&raw, &folder)?;
    Ok(folder)
}
