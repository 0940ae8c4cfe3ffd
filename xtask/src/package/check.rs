//! What the distributions' own tools say of a package.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail, ensure};

use crate::links;
use crate::shell::{capture, line_of, say};
use crate::workspace::{root, target};

/// Lets mandoc look at every manual page of a program.
pub(super) fn pages(program: &Path) -> Result<()> {
    let folder = target().join("package-pages");
    capture(Command::new(program).args(["man", "--out"]).arg(&folder))?;
    let mut command = Command::new("mandoc");
    command.args(["-T", "lint"]);
    command.args(links::all(&folder)?.iter().filter(|path| path.is_file()));
    let output = command.output()?;
    fs::remove_dir_all(&folder)?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    ensure!(said.is_empty(), "manual pages:\n{said}");
    Ok(())
}

/// Lets lintian or rpmlint look at it.
pub(super) fn package(package: &Path) -> Result<()> {
    let is_deb = package.extension().is_some_and(|end| end == "deb");
    let mut command;
    if is_deb {
        command = Command::new("lintian");
        command.args(["--fail-on", "error,warning", "--allow-root"]);
    } else {
        capture(
            Command::new("rpm")
                .args(["--query", "--package", "--list"])
                .arg(package),
        )?;
        command = Command::new("rpmlint");
        command
            .arg("--strict")
            .arg("--config")
            .arg(root().join("packaging/rpm/rpmlint.toml"));
    }
    command.arg(package);
    let output = command.output()?;
    if !output.status.success() {
        say(String::from_utf8_lossy(&output.stdout));
        bail!("{} failed ({})", line_of(&command), output.status);
    }
    Ok(())
}
