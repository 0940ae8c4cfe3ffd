//! What is in the package, as it will lie on the disk.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};

use crate::shell::capture;
use crate::workspace::{root, target};

const MAINTAINER: &str = "portguard <maintainers@portguard.invalid>";
const DOC: &str = "usr/share/doc/portguard";

/// A folder with all files of the package, and `DEBIAN` beside them.
#[derive(Debug)]
pub(super) struct Tree {
    /// The folder.
    pub(super) root: PathBuf,
    /// Seconds since the Unix epoch: the time of all files.
    pub(super) epoch: u64,
    version: String,
    architecture: String,
}

impl Tree {
    /// Lays it out anew.
    pub(super) fn new(program: &Path, epoch: u64) -> Result<Self> {
        let tree = Self {
            root: target().join("package"),
            epoch,
            version: version(program)?,
            architecture: capture(Command::new("dpkg").arg("--print-architecture"))?
                .trim()
                .to_owned(),
        };
        let _ = fs::remove_dir_all(&tree.root);
        tree.fill(program)?;
        tree.settle()?;
        Ok(tree)
    }

    /// The same tree at another place.
    pub(super) fn copy(&self) -> Result<Self> {
        let to = target().join("package-again");
        let _ = fs::remove_dir_all(&to);
        capture(Command::new("cp").arg("-r").arg(&self.root).arg(&to))?;
        let copy = Self {
            root: to,
            epoch: self.epoch,
            version: self.version.clone(),
            architecture: self.architecture.clone(),
        };
        copy.settle()?;
        Ok(copy)
    }

    /// `portguard_0.1.0-1_amd64.deb`.
    pub(super) fn file_name(&self) -> String {
        format!("portguard_{}_{}.deb", self.version, self.architecture)
    }

    fn fill(&self, program: &Path) -> Result<()> {
        let installed = self.put("usr/bin/portguard", &fs::read(program)?)?;
        fs::set_permissions(&installed, fs::Permissions::from_mode(0o755))?;
        capture(
            Command::new("strip")
                .arg("--strip-unneeded")
                .arg(&installed),
        )?;
        for unit in ["portguard@.service", "portguard-agent.service"] {
            let text = fs::read(root().join("packaging/systemd").join(unit))?;
            self.put(&format!("usr/lib/systemd/system/{unit}"), &text)?;
        }
        self.completions(program)?;
        self.manual(program)?;
        self.documents(program)?;
        self.control()
    }

    fn completions(&self, program: &Path) -> Result<()> {
        for (shell, path) in [
            ("bash", "usr/share/bash-completion/completions/portguard"),
            ("zsh", "usr/share/zsh/vendor-completions/_portguard"),
            ("fish", "usr/share/fish/vendor_completions.d/portguard.fish"),
        ] {
            let script = capture(Command::new(program).args(["completions", shell]))?;
            self.put(path, script.as_bytes())?;
        }
        Ok(())
    }

    fn manual(&self, program: &Path) -> Result<()> {
        let pages = target().join("package-man");
        let _ = fs::remove_dir_all(&pages);
        capture(Command::new(program).args(["man", "--out"]).arg(&pages))?;
        for page in fs::read_dir(&pages)? {
            let page = page?;
            let name = page.file_name().to_string_lossy().into_owned();
            let text = fs::read(page.path())?;
            self.put_compressed(&format!("usr/share/man/man1/{name}.gz"), &text)?;
        }
        Ok(())
    }

    fn documents(&self, program: &Path) -> Result<()> {
        for name in [
            "README.md",
            "SECURITY.md",
            "SPECIFICATION.md",
            "GLOSSARY.md",
        ] {
            self.put(&format!("{DOC}/{name}"), &fs::read(root().join(name))?)?;
        }
        for name in [
            "site.md",
            "nftables.md",
            "write-your-own-matrix.md",
            "example-matrix.toml",
        ] {
            let text = fs::read(root().join("docs").join(name))?;
            self.put(&format!("{DOC}/{name}"), &text)?;
        }
        let changes = fs::read(root().join("CHANGELOG.md"))?;
        self.put_compressed(&format!("{DOC}/changelog.gz"), &changes)?;
        self.put_compressed(
            &format!("{DOC}/changelog.Debian.gz"),
            self.debian_changes()?.as_bytes(),
        )?;
        let site = capture(Command::new(program).args(["init", "--role", "thoughtspot/node"]))?;
        self.put(&format!("{DOC}/examples/site.toml"), site.as_bytes())?;
        let mit = fs::read_to_string(root().join("LICENSE-MIT"))?;
        self.put(&format!("{DOC}/copyright"), copyright(&mit).as_bytes())?;
        let overrides = fs::read(root().join("packaging/debian/lintian-overrides"))?;
        self.put("usr/share/lintian/overrides/portguard", &overrides)?;
        Ok(())
    }

    fn debian_changes(&self) -> Result<String> {
        let mut date = Command::new("date");
        date.args(["--utc", "--rfc-email"])
            .arg(format!("--date=@{}", self.epoch));
        Ok(format!(
            "portguard ({}) unstable; urgency=medium\n\n  * See changelog.gz for what changes for operators.\n\n -- {MAINTAINER}  {}",
            self.version,
            capture(&mut date)?
        ))
    }

    fn control(&self) -> Result<()> {
        let mut kilobytes = 0;
        for file in files(&self.root)? {
            kilobytes += fs::metadata(file)?.len().div_ceil(1024);
        }
        let control = format!(
            "Package: portguard\nVersion: {}\nArchitecture: {}\nMaintainer: {MAINTAINER}\n\
             Section: net\nPriority: optional\nInstalled-Size: {kilobytes}\nDepends: libc6 (>= 2.34), libgcc-s1\n\
             Homepage: https://github.com/portguard/portguard\nDescription: makes a vendor's port matrix the firewall of this host\n \
             Judges every packet that a network interface receives by the rows of the\n vendor's document, in the driver (XDP), and counts \
             it under the row that\n allows it or the reason that nothing does. In audit it only counts; in\n enforce it drops what is not \
             documented.\n",
            self.version, self.architecture
        );
        self.put("DEBIAN/control", control.as_bytes())?;
        for script in ["postinst", "prerm", "postrm"] {
            let text = fs::read(root().join("packaging/debian").join(script))?;
            let path = self.put(&format!("DEBIAN/{script}"), &text)?;
            fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
        }
        let mut sums = String::new();
        for file in files(&self.root)? {
            let name = file.strip_prefix(&self.root)?.display().to_string();
            if !name.starts_with("DEBIAN") {
                let line = capture(Command::new("md5sum").arg(&file))?;
                let sum = line.split_whitespace().next().context("no sum")?;
                writeln!(sums, "{sum}  {name}")?;
            }
        }
        self.put("DEBIAN/md5sums", sums.as_bytes()).map(drop)
    }

    fn put(&self, path: &str, bytes: &[u8]) -> Result<PathBuf> {
        let path = self.root.join(path);
        let folder = path.parent().context("a folder")?;
        fs::create_dir_all(folder)?;
        fs::write(&path, bytes).with_context(|| format!("cannot write {}", path.display()))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644))?;
        Ok(path)
    }

    /// As Debian wants it: the best compression, without name and time.
    fn put_compressed(&self, path: &str, bytes: &[u8]) -> Result<()> {
        let plain = self.put("plain", bytes)?;
        let output = Command::new("gzip")
            .args(["-9", "-n", "-c"])
            .arg(&plain)
            .stderr(Stdio::inherit())
            .output()?;
        ensure!(output.status.success(), "gzip failed");
        fs::remove_file(plain)?;
        self.put(path, &output.stdout).map(drop)
    }

    /// The same owner's rights and the same time for everything, whoever builds it when.
    fn settle(&self) -> Result<()> {
        let time = UNIX_EPOCH + Duration::from_secs(self.epoch);
        for path in all(&self.root)? {
            if path.is_dir() {
                fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
            }
            File::open(&path)?.set_modified(time)?;
        }
        Ok(())
    }
}

/// What the program calls itself.
fn version(program: &Path) -> Result<String> {
    let text = capture(Command::new(program).arg("--version"))?;
    let version = text.split_whitespace().nth(1);
    let version = version.context("the program tells no version")?;
    // The first package of that version.
    Ok(format!("{version}-1"))
}

fn copyright(mit: &str) -> String {
    let words: String = mit
        .lines()
        .skip_while(|line| !line.starts_with("Permission"))
        .map(|line| {
            if line.is_empty() {
                " .\n".to_owned()
            } else {
                format!(" {line}\n")
            }
        })
        .collect();
    let holder = mit
        .lines()
        .find_map(|line| line.trim().strip_prefix("Copyright (c) "))
        .unwrap_or("the portguard authors");
    format!(
        "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\nUpstream-Name: portguard\n\
         Source: https://github.com/portguard/portguard\n\nFiles: *\nCopyright: {holder}\nLicense: MIT or Apache-2.0\n\n\
         License: MIT\n{words}\nLicense: Apache-2.0\n On Debian systems, the full text of the Apache License, version 2.0,\n is in \
         /usr/share/common-licenses/Apache-2.0.\n"
    )
}

/// All files below a folder, sorted.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    Ok(all(folder)?
        .into_iter()
        .filter(|path| path.is_file())
        .collect())
}

/// All files and folders below a folder, and itself, sorted.
fn all(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = vec![folder.to_path_buf()];
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(all(&path)?);
        } else {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::copyright;

    #[test]
    fn the_copyright_file_names_the_holder_and_both_licences() {
        let text = copyright("MIT\n\nCopyright (c) 2026 somebody\n\nPermission is\n\nhereby\n");
        assert!(text.contains("Copyright: 2026 somebody\n"), "{text}");
        assert!(
            text.contains("License: MIT\n Permission is\n .\n hereby\n"),
            "{text}"
        );
        assert!(text.contains("common-licenses/Apache-2.0"), "{text}");
    }
}
