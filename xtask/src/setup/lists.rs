//! Package lists of our own: those of the machine stay as they are.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use super::apt;
use crate::shell::capture;
use crate::workspace::target;

/// Package lists younger than this are not fetched again.
const FRESH: Duration = Duration::from_hours(12);

/// The keys of Debian's archives, from Debian's own package of them.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// apt with lists of its own, for one suite.
#[derive(Debug)]
pub(crate) struct Lists {
    folder: PathBuf,
    /// Of another machine's packages.
    architecture: Option<&'static str>,
}

impl Lists {
    /// Fetches the lists of a suite, of this machine's packages or another architecture's.
    pub(crate) fn fetch(suite: &str, architecture: Option<&'static str>) -> Result<Self> {
        let lists = Self::new(suite, architecture)?;
        lists.update()?;
        Ok(lists)
    }

    fn new(suite: &str, architecture: Option<&'static str>) -> Result<Self> {
        let name = architecture.map_or_else(String::new, |name| format!("-{name}"));
        let folder = target().join("vm/apt").join(format!("{suite}{name}"));
        for name in ["lists/partial", "parts", "cache/archives/partial"] {
            fs::create_dir_all(folder.join(name))?;
        }
        let mirror = apt::mirror(suite.ends_with("-security"))?;
        let line = format!("deb [signed-by={KEYRING}] {mirror} {suite} main\n");
        fs::write(folder.join("sources.list"), line)?;
        Ok(Self {
            folder,
            architecture,
        })
    }

    fn update(&self) -> Result<()> {
        let stamp = self.folder.join("updated");
        let age = stamp.metadata().and_then(|meta| meta.modified()).ok();
        if age.is_some_and(|then| then.elapsed().is_ok_and(|age| age < FRESH)) {
            return Ok(());
        }
        capture(self.get().arg("update"))?;
        Ok(fs::write(&stamp, "")?)
    }

    /// `apt-get`.
    pub(crate) fn get(&self) -> Command {
        self.with_options("apt-get")
    }

    /// `apt-cache`.
    pub(crate) fn cache(&self) -> Command {
        self.with_options("apt-cache")
    }

    fn with_options(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let folder = |name: &str| self.folder.join(name).display().to_string();
        for option in [
            format!("Dir::Etc::sourcelist={}", folder("sources.list")),
            format!("Dir::Etc::sourceparts={}", folder("parts")),
            format!("Dir::State::lists={}", folder("lists")),
            format!("Dir::Cache={}", folder("cache")),
            "Dir::Cache::pkgcache=".to_owned(),
            "Dir::Cache::srcpkgcache=".to_owned(),
            "APT::Sandbox::User=root".to_owned(),
            "Debug::NoLocking=1".to_owned(),
        ] {
            command.args(["-o", &option]);
        }
        if let Some(name) = self.architecture {
            command.args(["-o", &format!("APT::Architecture={name}")]);
            command.args(["-o", &format!("APT::Architectures={name}")]);
        }
        command
    }
}
