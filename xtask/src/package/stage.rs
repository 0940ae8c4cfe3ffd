//! What a package holds beside files of the repository: made by the program itself, or put together from several places.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};

use crate::docs::{self, copy_tree};
use crate::links;
use crate::package::{Format, documents, maintainer};
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

    fn documents(&self, program: &Path) -> Result<()> {
        let folder = self.folder.join("doc");
        fs::create_dir_all(&folder)?;
        documents::lay_out(&folder)?;
        docs::fill_commands(&folder, program)?;
        let site = capture(Command::new(program).args(["init", "--role", "thoughtspot/node"]))?;
        self.put("doc/examples/site.toml", site.as_bytes())?;
        let faults = documents::faults(&folder)?;
        ensure!(
            faults.is_empty(),
            "documents of the package that cannot be followed where it is installed:\n{}",
            faults.join("\n")
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
