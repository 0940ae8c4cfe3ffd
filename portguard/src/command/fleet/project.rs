//! The publisher's directory: `fleet.toml`, the site, the hosts' public keys, and the release that is being made.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use portguard_fleet::layout::is_name;
use portguard_fleet::release::{Gate, KeySet, Plan, Trust, Wave};
use portguard_fleet::store::{Address, AnyStore, Files};
use portguard_observe::evidence::accept::Flow;
use portguard_policy::error::Fault;
use portguard_policy::site::Site;
use serde::Deserialize;

use super::store_fault;
use crate::stderr::say;

/// The file that makes a directory a fleet's.
pub(super) const FILE: &str = "fleet.toml";
/// Larger ones are refused.
const LARGEST: u64 = 4 << 20;
/// The longest that a kernel may wait for the word that a release is good.
const LONGEST_CONFIRM: u64 = 86_400;

/// Which fleet.
#[derive(Debug, Clone, Args)]
pub(super) struct ProjectArgs {
    /// Directory with fleet.toml
    #[arg(
        short = 'C',
        long = "directory",
        value_name = "DIR",
        default_value = ".",
        env = "PORTGUARD_FLEET"
    )]
    pub(super) directory: PathBuf,
}

/// `fleet.toml`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    /// The fleet's name: a release of another one is refused by its hosts.
    pub(super) fleet: String,
    /// Where releases go.
    pub(super) store: String,
    /// The site file, in this directory.
    #[serde(default = "site")]
    pub(super) site: String,
    /// Guarded where the site names no interface of a host.
    #[serde(default)]
    pub(super) interface: Option<String>,
    /// For how long a release is valid.
    #[serde(default = "valid")]
    pub(super) valid: String,
    /// For how long a host that enforces a release obeys a rollback that nobody signed.
    #[serde(default = "rollback_within")]
    pub(super) rollback_within: String,
    pub(super) keys: Keys,
    #[serde(default)]
    tls: Tls,
    #[serde(default)]
    pub(super) hosts: BTreeMap<String, HostConfig>,
    #[serde(default)]
    wave: Vec<Wave>,
    #[serde(default)]
    gate: Gate,
}

/// `[keys]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Keys {
    /// How many must sign.
    threshold: usize,
    /// Public keys of minisign.
    public: BTreeSet<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Tls {
    ca: Option<PathBuf>,
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
}

/// `[hosts.NAME]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HostConfig {
    /// Failure domain.
    #[serde(default)]
    pub(super) zone: String,
    /// Further labels.
    #[serde(default)]
    pub(super) labels: BTreeMap<String, String>,
}

pub(super) fn site() -> String {
    "site.toml".to_owned()
}

fn valid() -> String {
    "90d".to_owned()
}

fn rollback_within() -> String {
    "0".to_owned()
}

/// A fleet's directory.
#[derive(Debug)]
pub(super) struct Project {
    pub(super) directory: PathBuf,
    pub(super) config: Config,
}

impl ProjectArgs {
    pub(super) fn open(&self) -> anyhow::Result<Project> {
        let path = self.directory.join(FILE);
        let shown = path.display();
        let size = fs::metadata(&path)
            .map(|meta| meta.len())
            .map_err(|error| {
                Fault::usage(format!("cannot read {shown}: {error}"))
                    .hint("`portguard fleet init` makes one; `--directory` says where it is")
            })?;
        if size > LARGEST {
            return Err(
                Fault::usage(format!("{shown}: {size} bytes are more than {LARGEST}")).into(),
            );
        }
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {shown}"))?;
        let config: Config =
            toml::from_str(&text).map_err(|error| Fault::usage(format!("{shown}: {error}")))?;
        let project = Project {
            directory: self.directory.clone(),
            config,
        };
        project
            .check()
            .map_err(|why| Fault::usage(format!("{shown}: {why}")))?;
        Ok(project)
    }
}

impl Project {
    fn check(&self) -> Result<(), String> {
        if self.config.keys.public.is_empty() {
            return Err("keys: no `public` key is there yet: `minisign -G` makes one, paste its second line".to_owned());
        }
        self.check_new()
    }

    /// A new fleet may have no key yet.
    pub(super) fn check_new(&self) -> Result<(), String> {
        let config = &self.config;
        if !is_name(&config.fleet) {
            return Err(format!("fleet: `{}` is no name", config.fleet));
        }
        if !config.keys.public.is_empty() || config.keys.threshold == 0 {
            self.keys(1)
                .check()
                .map_err(|error| format!("keys: {error}"))?;
        }
        self.plan().check().map_err(|error| error.to_string())?;
        if config.gate.confirm > LONGEST_CONFIRM {
            return Err(
                "gate: `confirm` must be at most 1d: a host may be cut off for that long"
                    .to_owned(),
            );
        }
        for flow in &config.gate.accept {
            Flow::parse(flow).map_err(|why| format!("gate: `accept`: {why}"))?;
        }
        for text in [&config.valid, &config.rollback_within] {
            seconds(text)?;
        }
        config.store.parse::<Address>().map(|_| ())
    }

    /// The keys that sign.
    pub(super) fn keys(&self, version: u64) -> KeySet {
        KeySet {
            version,
            threshold: self.config.keys.threshold,
            keys: self.config.keys.public.clone(),
        }
    }

    /// Waves and gate.
    pub(super) fn plan(&self) -> Plan {
        Plan {
            wave: self.config.wave.clone(),
            gate: self.config.gate.clone(),
        }
    }

    /// Where the store is.
    pub(super) fn address(&self) -> anyhow::Result<Address> {
        let address: Address = self.config.store.parse().map_err(Fault::usage)?;
        Ok(match address {
            Address::Directory(path) => Address::Directory(self.directory.join(path)),
            other @ (Address::Etcd(_) | Address::Https(_)) => other,
        })
    }

    /// The store.
    pub(super) fn store(&self) -> anyhow::Result<AnyStore> {
        let at = |path: &Option<PathBuf>| path.as_ref().map(|path| self.directory.join(path));
        let tls = &self.config.tls;
        let files = Files {
            ca: at(&tls.ca),
            cert: at(&tls.cert),
            key: at(&tls.key),
        };
        AnyStore::open(&self.address()?, &files).map_err(|error| store_fault(&error).into())
    }

    /// Whom this directory trusts: it learns with every release that it sees, as hosts do.
    pub(super) fn trust(&self) -> anyhow::Result<Trust> {
        let path = self.directory.join("trust.json");
        match fs::read(&path) {
            Ok(bytes) => {
                let trust: Trust = serde_json::from_slice(&bytes).map_err(|error| {
                    Fault::usage(format!("{}: {error}", path.display())).hint(
                        "restore it, or take it away: then any release counts that the keys of fleet.toml signed",
                    )
                })?;
                if trust.fleet != self.config.fleet {
                    return Err(Fault::usage(format!(
                        "{} is of fleet `{}`",
                        path.display(),
                        trust.fleet
                    ))
                    .into());
                }
                Ok(trust)
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                Ok(Trust::new(&self.config.fleet, self.keys(1)))
            }
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    /// Never sets back what another verb has seen meanwhile. Whoever may only read here is told what that means, and goes on.
    pub(super) fn keep_trust(&self, trust: &Trust) {
        let path = self.directory.join("trust.json");
        if self.trust().is_ok_and(|there| there.covers(trust)) {
            return;
        }
        let keep = || {
            let lock = fs::File::create(path.with_extension("lock"))?;
            lock.lock()?;
            if self.trust().is_ok_and(|there| there.covers(trust)) {
                return Ok(());
            }
            replace(&path, &serde_json::to_vec_pretty(trust)?)
        };
        if let Err(error) = keep() {
            say(&format!(
                "warning: cannot write {}: {error}: an older release may count as the newest here",
                path.display()
            ));
        }
    }

    /// The release that is being made.
    pub(super) fn next(&self) -> PathBuf {
        self.directory.join("next")
    }

    /// The same while it is being planned: signatures of what was planned before stay until it is whole.
    pub(super) fn draft(&self) -> PathBuf {
        self.directory.join("next.draft")
    }

    /// The draft is what is signed now.
    pub(super) fn take_draft(&self) -> anyhow::Result<()> {
        let (draft, next) = (self.draft(), self.next());
        if next.exists() {
            fs::remove_dir_all(&next)
                .with_context(|| format!("cannot remove {}", next.display()))?;
        }
        fs::rename(&draft, &next).with_context(|| format!("cannot make {}", next.display()))
    }

    /// Whether anybody signed what was planned last.
    pub(super) fn is_signed(&self) -> bool {
        let entries = fs::read_dir(self.next());
        let mut entries = entries.into_iter().flatten().flatten();
        entries.any(|entry| entry.path().extension().is_some_and(|end| end == "minisig"))
    }

    /// Hosts that have a key.
    pub(super) fn enrolled(&self) -> BTreeSet<String> {
        let entries = fs::read_dir(self.directory.join("hosts"));
        let names = entries.into_iter().flatten().flatten().filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            Some(name.strip_suffix(".pub")?.to_owned())
        });
        names.collect()
    }

    /// The rollback that is being signed.
    pub(super) fn back(&self) -> PathBuf {
        self.directory.join("back")
    }

    /// Whether the site file has such a host, where there is one that can be read.
    pub(super) fn names(&self, host: &str) -> Option<bool> {
        let path = self.directory.join(&self.config.site);
        let text = fs::read(&path).ok()?;
        let site = Site::parse(&path.display().to_string(), &text).ok()?;
        Some(site.host(host).is_some())
    }

    /// A host's public key, if it is enrolled.
    pub(super) fn host_key(&self, host: &str) -> Option<String> {
        let path = self.directory.join("hosts").join(format!("{host}.pub"));
        Some(fs::read_to_string(path).ok()?.trim().to_owned())
    }
}

/// `3d` in seconds.
pub(super) fn seconds(text: &str) -> Result<u64, String> {
    if text == "0" {
        return Ok(0);
    }
    let span = humantime::parse_duration(text)
        .map_err(|error| format!("`{text}`: {error}: write it like `90d`"))?;
    Ok(span.as_secs())
}

/// Writes a file whole or not at all.
fn replace(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    use std::io::Write as _;
    let next = path.with_extension("next");
    let mut file = fs::File::create(&next)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&next, path)
}

/// Writes a file and the directories above it.
pub(super) fn write(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let shown = path.display();
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
    }
    fs::write(path, bytes).with_context(|| format!("cannot write {shown}"))
}

pub(super) fn name(text: &str) -> Result<String, String> {
    if is_name(text) {
        Ok(text.to_owned())
    } else {
        Err("expected letters, digits, `.`, `-`, `_`".to_owned())
    }
}
