//! An apt repository: the packages, and what apt reads about them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::arch::Arch;
use crate::shell::capture;

const SUITE: &str = "stable";
const POOL: &str = "pool/main/p/portguard";

/// Lays it out, unsigned.
pub(super) fn lay_out(
    packages: &[PathBuf],
    architectures: &[Arch],
    folder: &Path,
    epoch: u64,
) -> Result<()> {
    fs::create_dir_all(folder.join(POOL))?;
    for package in packages {
        if package.extension().is_some_and(|end| end == "deb") {
            let name = package.file_name().context("a package's name")?;
            fs::copy(package, folder.join(POOL).join(name))?;
        }
    }
    let suite = folder.join("dists").join(SUITE);
    for arch in architectures.iter().map(|arch| arch.debian()) {
        let binary = suite.join(format!("main/binary-{arch}"));
        fs::create_dir_all(&binary)?;
        let list = archive(folder, &["--arch", arch, "packages", "pool"])?;
        fs::write(binary.join("Packages"), list)?;
        capture(
            Command::new("gzip")
                .args(["-9", "-n", "--keep"])
                .arg(binary.join("Packages")),
        )?;
    }
    let names: Vec<&str> = architectures.iter().map(|arch| arch.debian()).collect();
    let names = names.join(" ");
    let mut date = Command::new("date");
    date.args(["--utc", "+%a, %d %b %Y %H:%M:%S +0000"])
        .arg(format!("--date=@{epoch}"))
        .env("LC_ALL", "C");
    let time = capture(&mut date)?;
    let mut words = Vec::new();
    for (name, value) in [
        ("Origin", "portguard"),
        ("Label", "portguard"),
        ("Suite", SUITE),
        ("Codename", SUITE),
        ("Components", "main"),
        ("Architectures", names.as_str()),
        ("Date", time.trim()),
    ] {
        words.push("-o".to_owned());
        words.push(format!("APT::FTPArchive::Release::{name}={value}"));
    }
    words.extend(["release".to_owned(), format!("dists/{SUITE}")]);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let release = archive(folder, &words)?;
    fs::write(suite.join("Release"), release)?;
    Ok(())
}

fn archive(folder: &Path, words: &[&str]) -> Result<String> {
    let mut command = Command::new("apt-ftparchive");
    command.current_dir(folder).args(words);
    capture(&mut command)
}

/// Signs it: both forms that apt knows, and the public key beside them.
pub(super) fn sign(folder: &Path, key: &str) -> Result<()> {
    let release = folder.join("dists").join(SUITE).join("Release");
    signature(&release, key, "--detach-sign", "gpg")?;
    let inline = release.with_file_name("InRelease");
    fs::rename(signature(&release, key, "--clear-sign", "inline")?, inline)?;
    let public = folder.join("portguard.asc");
    capture(
        Command::new("gpg")
            .args(["--batch", "--yes", "--armor", "--output"])
            .arg(&public)
            .args(["--export", key]),
    )?;
    Ok(())
}

/// Writes `FILE.ending`.
pub(super) fn signature(file: &Path, key: &str, how: &str, ending: &str) -> Result<PathBuf> {
    let name = file.file_name().context("a file's name")?;
    let to = file.with_file_name(format!("{}.{ending}", name.to_string_lossy()));
    capture(
        Command::new("gpg")
            .args(["--batch", "--yes", "--armor", "--local-user", key])
            .arg("--output")
            .arg(&to)
            .arg(how)
            .arg(file),
    )
    .with_context(|| format!("cannot sign with the key `{key}`"))?;
    Ok(to)
}
