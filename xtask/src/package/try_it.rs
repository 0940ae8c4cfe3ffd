//! Installs, upgrades, removes and purges packages in roots of their own, with databases of their own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

use crate::shell::{capture, say};
use crate::workspace::{is_root, root, target};

const SITE: &str = "etc/portguard/site.toml";
const PROGRAM: &str = "usr/bin/portguard";
/// An administrator's own words in the configuration.
const CHANGED: &str = "schema = 1\nmode = \"audit\"\n# ours\n";

/// Tries a package and a newer one of the same kind.
pub(super) fn package(package: &Path, newer: &Path) -> Result<()> {
    if !is_root() {
        bail!("installing in a root of its own takes root");
    }
    let is_deb = package.extension().is_some_and(|end| end == "deb");
    let scratch = Scratch::new(if is_deb { "deb" } else { "rpm" })?;
    if is_deb {
        deb(&scratch, package, newer)?;
    } else {
        rpm(&scratch, package, newer)?;
    }
    say(format_args!(
        "installed, upgraded and removed {} in a root of its own",
        package.display()
    ));
    Ok(())
}

fn deb(scratch: &Scratch, package: &Path, newer: &Path) -> Result<()> {
    for directory in ["var/lib/dpkg/info", "var/lib/dpkg/updates"] {
        fs::create_dir_all(scratch.path(directory))?;
    }
    fs::write(scratch.path("var/lib/dpkg/status"), "")?;
    fs::write(scratch.path("var/lib/dpkg/available"), "")?;
    let dpkg = |words: &[&str], file: Option<&Path>| -> Result<String> {
        let mut dpkg = Command::new("dpkg");
        // The maintainer's scripts find no systemd in there, and do nothing; dependencies are this machine's.
        dpkg.arg("--root").arg(&scratch.0).args([
            "--force-not-root",
            "--force-depends",
            "--force-script-chrootless",
            "--force-confold",
        ]);
        capture(dpkg.args(words).args(file))
    };
    dpkg(&["--install"], Some(package))?;
    scratch.is_installed()?;
    scratch.write_state()?;
    dpkg(&["--install"], Some(newer)).context("the upgrade")?;
    scratch.is_upgraded()?;
    dpkg(&["--remove", "portguard"], None)?;
    scratch.is_removed()?;
    ensure!(
        scratch.path("var/lib/portguard/eth0.policy.json").exists(),
        "removing took the stored policy, which only a purge may"
    );
    dpkg(&["--purge", "portguard"], None)?;
    let known = fs::read_to_string(scratch.path("var/lib/dpkg/status"))?;
    ensure!(!known.contains("Status: install"), "{known}");
    ensure!(!scratch.path(SITE).exists(), "the purge left the site file");
    Ok(())
}

fn rpm(scratch: &Scratch, package: &Path, newer: &Path) -> Result<()> {
    let rpm = |words: &[&str], file: Option<&Path>| -> Result<String> {
        let mut rpm = Command::new("rpm");
        rpm.arg("--root")
            .arg(&scratch.0)
            .arg("--dbpath")
            .arg("/var/lib/rpm");
        capture(rpm.args(words).args(file))
    };
    rpm(&["--initdb"], None)?;
    // There is no shell in this root to run scripts in: that of the package is tried below.
    rpm(&["--install", "--noscripts"], Some(package))?;
    scratch.is_installed()?;
    scratch.write_state()?;
    rpm(&["--upgrade", "--noscripts"], Some(newer)).context("the upgrade")?;
    scratch.is_upgraded()?;
    rpm(&["--erase", "--noscripts", "portguard"], None)?;
    scratch.is_removed()?;
    for versions_left in ["0", "1"] {
        let mut script = Command::new("sh");
        script.arg("-eu").arg(root().join("packaging/rpm/preun"));
        if !Path::new("/run/systemd/system").exists() {
            capture(script.arg(versions_left))?;
        }
    }
    Ok(())
}

/// A root, removed when done with.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Result<Self> {
        let folder = target().join(format!("package-root-{name}"));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder)?;
        Ok(Self(std::path::absolute(folder)?))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn is_installed(&self) -> Result<()> {
        let program = self.path(PROGRAM);
        let version = capture(Command::new(&program).arg("--version"))?;
        ensure!(version.starts_with("portguard "), "{version}");
        // The configuration that comes with the package is a site file that can be read; it has no host yet.
        let mut check = Command::new(&program);
        let output = check
            .args(["check", "--role", "thoughtspot/node", "--config"])
            .arg(self.path(SITE))
            .args(["--unprinted-peers", "any", "--unresolved-peers", "any"])
            .output()?;
        ensure!(
            output.status.success(),
            "the site file of the package: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        for file in [
            "usr/share/man/man8/portguard.8.gz",
            "usr/share/man/man8/portguard-load.8.gz",
            "usr/share/man/man5/portguard-site.5.gz",
            "usr/share/man/man8/portguard-fail-closed.8.gz",
            "usr/share/portguard/site.schema.json",
            "usr/share/doc/portguard/packaging/kubernetes/daemonset.yaml",
            "usr/share/bash-completion/completions/portguard",
            "usr/share/fish/vendor_completions.d/portguard.fish",
            "usr/lib/systemd/system/portguard@.service",
            "usr/lib/systemd/system/portguard-agent.service",
            "usr/lib/udev/rules.d/81-portguard.rules",
            "usr/sbin/portguard-fail-closed",
            "usr/share/doc/portguard/docs/monitoring/alerts.yml",
            "usr/share/doc/portguard/docs/monitoring/grafana-dashboard.json",
        ] {
            ensure!(self.path(file).exists(), "the package has no {file}");
        }
        Ok(())
    }

    /// What an administrator and a running guard leave behind.
    fn write_state(&self) -> Result<()> {
        fs::write(self.path(SITE), CHANGED)?;
        fs::create_dir_all(self.path("var/lib/portguard"))?;
        fs::write(self.path("var/lib/portguard/eth0.policy.json"), "{}")?;
        Ok(())
    }

    fn is_upgraded(&self) -> Result<()> {
        ensure!(self.path(PROGRAM).exists(), "the upgrade left no program");
        let site = fs::read_to_string(self.path(SITE))?;
        ensure!(site == CHANGED, "the upgrade changed the site file: {site}");
        Ok(())
    }

    fn is_removed(&self) -> Result<()> {
        ensure!(!self.path(PROGRAM).exists(), "the removal left the program");
        // rpm keeps a changed configuration under another name.
        let kept = [SITE.to_owned(), format!("{SITE}.rpmsave")]
            .iter()
            .any(|name| fs::read_to_string(self.path(name)).is_ok_and(|text| text == CHANGED));
        ensure!(kept, "the removal took the administrator's site file");
        Ok(())
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
