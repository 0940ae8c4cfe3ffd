//! Debian's package manager, as root or through sudo.

use std::fs;
use std::io::{self, IsTerminal as _};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, Result};

use crate::shell::{Missing, capture, say, show, step};
use crate::workspace::{is_ci, is_root, which};

/// Whether the package lists were fetched by this process.
static FRESH: AtomicBool = AtomicBool::new(false);

/// Whether this machine has apt at all.
pub(crate) fn is_here() -> bool {
    which("apt-get").is_some()
}

/// Whether apt offers all these packages; fetches its lists if it may and they do not say so.
pub(crate) fn offers(packages: &[&str]) -> bool {
    let all = || {
        packages.iter().all(|package| {
            capture(Command::new("apt-cache").args(["policy", package])).is_ok_and(|said| {
                said.lines()
                    .find_map(|line| line.trim().strip_prefix("Candidate: "))
                    .is_some_and(|version| version != "(none)")
            })
        })
    };
    if all() {
        return true;
    }
    if is_here() && may_install() {
        refresh();
    }
    all()
}

/// Installs packages, saying so; refuses with the command to type if it may not.
pub(crate) fn install(packages: &[&str], purpose: &str) -> Result<()> {
    let typed = format!(
        "apt-get update && apt-get install --no-install-recommends {}",
        packages.join(" ")
    );
    let refuse = |why: &str| {
        Missing::error(
            format!(
                "{purpose} needs the packages `{}`, and {why}",
                packages.join(" ")
            ),
            format!("as root: {typed}"),
        )
    };
    if !is_here() {
        return Err(Missing::error(
            format!(
                "{purpose} needs what Debian packages as `{}`, and this machine has no apt",
                packages.join(" ")
            ),
            "install them by your distribution's names and call this again",
        ));
    }
    if !may_install() {
        return Err(refuse("only root can install them"));
    }
    if !is_root() {
        say(format_args!(
            "installing packages takes root: calling sudo for `{typed}`"
        ));
        // Asks for the password before the progress line begins.
        show(Command::new("sudo").arg("--validate"))?;
    }
    refresh();
    let mut command = apt();
    command.args(["install", "--yes", "--no-install-recommends"]);
    if !is_ci() {
        // A machine that somebody works on loses nothing behind their back.
        command.arg("--no-remove");
    }
    command.args(packages);
    step(
        &format!("installing {} ({purpose})", packages.join(" ")),
        &mut command,
    )
    .map_err(|error| refuse(&format!("installing them failed: {error:#}")))
}

/// Unpacks packages into a folder without installing them, so that nothing of them is run or started.
pub(crate) fn unpack(packages: &[&str], folder: &Path, purpose: &str) -> Result<()> {
    let mut get = Command::new("apt-get");
    get.args(["--quiet", "-o", "APT::Sandbox::User=root"]);
    unpack_with(get, packages, folder, purpose)
}

/// The same by an `apt-get` that has options of its own. The folder is there when it is whole, or not at all.
pub(crate) fn unpack_with(
    mut get: Command,
    packages: &[&str],
    folder: &Path,
    purpose: &str,
) -> Result<()> {
    let raw = folder.with_extension("new");
    let _ = fs::remove_dir_all(&raw);
    let packed = raw.join("packages");
    fs::create_dir_all(&packed).with_context(|| format!("making {}", packed.display()))?;
    get.current_dir(&packed).arg("download").args(packages);
    let names = packages.join(" ");
    step(&format!("fetching {names} ({purpose})"), &mut get)?;
    for file in fs::read_dir(&packed)?.collect::<io::Result<Vec<_>>>()? {
        let mut extract = Command::new("dpkg-deb");
        extract.arg("--extract").arg(file.path()).arg(&raw);
        capture(&mut extract)?;
    }
    fs::remove_dir_all(&packed)?;
    let _ = fs::remove_dir_all(folder);
    fs::rename(&raw, folder).with_context(|| format!("cannot put {} in place", folder.display()))
}

/// The mirror of Debian's archive, or of its security updates, that this machine is configured with.
pub(crate) fn mirror(security: bool) -> Result<String> {
    let format = "$(REPO_URI) $(CODENAME) $(ORIGIN)";
    let targets = capture(Command::new("apt-get").args([
        "indextargets",
        "--format",
        format,
        "Created-By: Packages",
    ]))?;
    let found = targets.lines().find_map(|line| {
        let mut words = line.split(' ');
        let (uri, suite, origin) = (words.next()?, words.next()?, words.next()?);
        (origin == "Debian" && suite.ends_with("-security") == security).then(|| uri.to_owned())
    });
    found.with_context(|| {
        let what = if security {
            "Debian's security updates"
        } else {
            "Debian's archive"
        };
        format!("apt is configured with no mirror of {what} (`apt-get update` may be due)")
    })
}

/// Whether packages can be installed: by root, or by a person who can type a password for sudo.
fn may_install() -> bool {
    is_root()
        || (which("sudo").is_some() && io::stdin().is_terminal() && io::stderr().is_terminal())
}

/// Fetches the package lists, once.
fn refresh() {
    if FRESH.swap(true, Ordering::Relaxed) {
        return;
    }
    let mut command = apt();
    command.arg("update");
    if let Err(error) = step("fetching the package lists", &mut command) {
        // One source of several that does not answer must not stop us: what counts is whether the packages are there.
        say(format_args!("warning: {error:#}"));
    }
}

fn apt() -> Command {
    let mut command = if is_root() {
        Command::new("apt-get")
    } else {
        let mut sudo = Command::new("sudo");
        sudo.args(["env", "DEBIAN_FRONTEND=noninteractive", "apt-get"]);
        sudo
    };
    command
        .env("DEBIAN_FRONTEND", "noninteractive")
        .arg("--quiet");
    command
}
