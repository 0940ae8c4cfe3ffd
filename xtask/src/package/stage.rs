//! What a package holds beside files of the repository: made by the program itself, or put together from several places.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};

use crate::docs::{self, DOCUMENTS, copy_tree};
use crate::links;
use crate::package::{Format, maintainer};
use crate::shell::capture;
use crate::shipped::{self, Shipped};
use crate::workspace::root;

/// A folder that `packaging/nfpm.yaml` takes files from.
#[derive(Debug)]
pub(crate) struct Stage {
    /// The folder.
    pub(crate) folder: PathBuf,
    /// Seconds since the Unix epoch: the time of all files.
    pub(crate) epoch: u64,
    /// The program's version.
    pub(crate) version: String,
}

impl Stage {
    /// Fills `folder` anew.
    pub(crate) fn new(shipped: &Shipped, folder: &Path) -> Result<Self> {
        let program = &shipped.runs;
        let stage = Self {
            folder: std::path::absolute(folder)?,
            epoch: shipped::epoch()?,
            version: shipped::version(program)?,
        };
        let _ = fs::remove_dir_all(folder);
        stage.put("portguard", &fs::read(&shipped.program)?)?;
        for shell in ["bash", "zsh", "fish"] {
            let script = capture(Command::new(program).args(["completions", shell]))?;
            stage.put(&format!("portguard.{shell}"), script.as_bytes())?;
        }
        let schema = capture(Command::new(program).arg("schema"))?;
        stage.put("site.schema.json", schema.as_bytes())?;
        stage.manual(program)?;
        copy_tree(
            &root().join("packaging/systemd"),
            &stage.folder.join("systemd"),
        )?;
        stage.documents(program)?;
        stage.debian()?;
        stage.settle()?;
        Ok(stage)
    }

    fn manual(&self, program: &Path) -> Result<()> {
        let pages = self.folder.join("plain");
        capture(Command::new(program).args(["man", "--out"]).arg(&pages))?;
        for page in fs::read_dir(&pages)? {
            let page = page?;
            let name = page.file_name().to_string_lossy().into_owned();
            let text = fs::read(page.path())?;
            self.put(&format!("man/{name}.gz"), &compressed(&text)?)?;
        }
        fs::remove_dir_all(pages)?;
        Ok(())
    }

    /// In the folders that they are in here, so that what they link to is found.
    fn documents(&self, program: &Path) -> Result<()> {
        for name in DOCUMENTS {
            let text = fs::read_to_string(root().join(name))?;
            self.put(&format!("doc/{name}"), for_users(&text).as_bytes())?;
        }
        let documents = self.folder.join("doc");
        copy_tree(&root().join("docs"), &documents.join("docs"))?;
        docs::fill_commands(&documents, program)?;
        let install = fs::read_to_string(root().join("docs/guide/install.md"))?;
        let install = without(
            &install,
            "\n## Build the packages yourself\n",
            "\n## What the package does",
        );
        self.put("doc/docs/guide/install.md", install.as_bytes())?;
        // Only for the site.
        for name in ["book.toml", "SUMMARY.md"] {
            fs::remove_file(documents.join("docs").join(name))?;
        }
        // What pages tell to use.
        for name in ["packaging/kubernetes", "packaging/ansible"] {
            copy_tree(&root().join(name), &documents.join(name))?;
        }
        let site = capture(Command::new(program).args(["init", "--role", "thoughtspot/node"]))?;
        self.put("doc/examples/site.toml", site.as_bytes())?;
        let dead = links::dead(&self.folder.join("doc"))?;
        ensure!(
            dead.is_empty(),
            "documents of the package link to what is not in it:\n{}",
            dead.join("\n")
        );
        Ok(())
    }

    /// What only Debian wants.
    fn debian(&self) -> Result<()> {
        self.put(
            "deb/copyright",
            &fs::read(root().join("packaging/deb/copyright"))?,
        )?;
        let changes = fs::read(root().join("CHANGELOG.md"))?;
        self.put("deb/changelog.gz", &compressed(&changes)?)?;
        let mut date = Command::new("date");
        date.args(["--utc", "--rfc-email"])
            .arg(format!("--date=@{}", self.epoch));
        let entry = format!(
            "portguard ({}-1) unstable; urgency=medium\n\n  * See changelog.gz for what changes for operators.\n\n -- {}  {}",
            self.version,
            signed(&maintainer()),
            capture(&mut date)?
        );
        self.put("deb/changelog.Debian.gz", &compressed(entry.as_bytes())?)
    }

    /// `packaging/nfpm.yaml`, and the entries of manual pages and documents.
    pub(crate) fn with_documents(&self, format: Format) -> Result<PathBuf> {
        let mut text = fs::read_to_string(root().join("packaging/nfpm.yaml"))?;
        let kind = match format {
            Format::Deb => "file",
            Format::Rpm => "doc",
        };
        for folder in ["man", "doc"] {
            let folder = self.folder.join(folder);
            for path in links::all(&folder)? {
                let name = path.strip_prefix(&folder)?.display().to_string();
                let to = if let Some(section) = name
                    .strip_suffix(".gz")
                    .and_then(|page| page.rsplit('.').next())
                {
                    format!("/usr/share/man/man{section}/{name}")
                } else {
                    format!("/usr/share/doc/portguard/{name}")
                };
                if path.is_dir() && !folder.ends_with("man") {
                    let to = to.trim_end_matches('/');
                    writeln!(
                        text,
                        "  - {{dst: {to}, type: dir, file_info: {{mode: 0755}}}}"
                    )?;
                } else if path.is_file() {
                    let from = path.display();
                    writeln!(
                        text,
                        "  - {{src: {from}, dst: {to}, type: {kind}, file_info: {{mode: 0644}}}}"
                    )?;
                }
            }
        }
        let file = self.folder.join("nfpm.yaml");
        fs::write(&file, text)?;
        Ok(file)
    }

    fn put(&self, path: &str, bytes: &[u8]) -> Result<()> {
        let path = self.folder.join(path);
        fs::create_dir_all(path.parent().context("a folder")?)?;
        fs::write(&path, bytes).with_context(|| format!("cannot write {}", path.display()))
    }

    /// The same rights and the same time for everything, whoever builds it when.
    fn settle(&self) -> Result<()> {
        let time = UNIX_EPOCH + Duration::from_secs(self.epoch);
        for path in links::all(&self.folder)? {
            let mode = if path.is_dir() { 0o755 } else { 0o644 };
            fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
            File::open(&path)?.set_modified(time)?;
        }
        Ok(())
    }
}

/// The README without what takes the repository.
fn for_users(text: &str) -> String {
    let text = without(text, "\n## Try it\n", "\n## Use it\n");
    let text = without(&text, "\nAll pages, with every verb", "\n## Licence\n");
    text.replace(" (`cargo xtask package` builds the package)", "")
}

/// A document without what is between two places, if it has both.
fn without(text: &str, from: &str, to: &str) -> String {
    match (text.find(from), text.find(to)) {
        (Some(from), Some(to)) if from < to => {
            let (before, _) = text.split_at(from);
            let (_, after) = text.split_at(to);
            format!("{before}{after}")
        }
        _ => text.to_owned(),
    }
}

/// As a changelog is signed, which has a place for an address even where there is none.
fn signed(maintainer: &str) -> String {
    if maintainer.ends_with('>') {
        maintainer.to_owned()
    } else {
        format!("{maintainer} <>")
    }
}

/// `2026-01-31T12:00:00Z`.
pub(crate) fn rfc3339(epoch: u64) -> Result<String> {
    let mut date = Command::new("date");
    date.args(["--utc", "+%Y-%m-%dT%H:%M:%SZ"])
        .arg(format!("--date=@{epoch}"));
    Ok(capture(&mut date)?.trim().to_owned())
}

/// As Debian wants it: the best compression, without name and time.
fn compressed(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut gzip = Command::new("gzip")
        .args(["-9", "-n", "-c"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start gzip")?;
    let mut input = gzip.stdin.take().context("no input of gzip")?;
    // The output of documents fits a pipe many times over only if it is read meanwhile.
    let output = std::thread::scope(|scope| {
        scope.spawn(move || input.write_all(bytes));
        gzip.wait_with_output()
    })?;
    ensure!(output.status.success(), "gzip failed");
    Ok(output.stdout)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_of_a_package_take_no_repository() -> Result<()> {
        let read = |name: &str| fs::read_to_string(root().join(name));
        let readme = for_users(&read("README.md")?);
        assert!(!readme.contains("cargo"), "{readme}");
        assert!(
            readme.contains("## Use it") && readme.contains("## Licence"),
            "{readme}"
        );
        Ok(())
    }
}
