//! What a generation is made of, kept beside it in the kernel: who asks later needs neither the site file nor the tool
//! that loaded it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::error::Context as _;
pub use crate::hook::XdpModeName;
use crate::hook::egress::EgressHook;
use crate::pins::pages;
use portguard_policy::cells::Directory;
use portguard_policy::policy::Policy;

/// Facts about a loaded generation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    /// Version of portguard that loaded it.
    pub version: String,
    /// Number of the generation; they count up from 1 on each interface.
    pub number: u64,
    /// The generation to go back to, whose pins are kept.
    #[serde(default)]
    pub previous: Option<u64>,
    /// Interface index at load.
    pub ifindex: u32,
    /// `native` or `generic`.
    pub xdp_mode: XdpModeName,
    /// Digest of the policy.
    pub digest: String,
    /// Seconds since the Unix epoch.
    pub loaded_at: u64,
    /// Boot-time clock, nanoseconds, at which the generation gives way unless confirmed; 0 = never.
    pub deadline: u64,
    /// Where the egress program hangs; `None` = there is none.
    #[serde(default)]
    pub egress_hook: Option<EgressHook>,
    /// Secret of the flow table, which outlives generations.
    pub flow_key: [u64; 2],
    /// Units of flow time, see [`portguard_common::config::Config::tick_shift`].
    pub tick_shift: u32,
    /// How many sets the flow table has.
    pub flow_sets: u32,
    /// What it was compiled from.
    #[serde(flatten)]
    pub sources: Sources,
    /// See [`crate::host::local`].
    #[serde(default)]
    pub local: Vec<IpNet>,
    /// The policy.
    pub policy: Policy,
    /// What the counter cells mean.
    pub directory: Directory,
}

/// What a policy was compiled from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sources {
    /// The site file, if there was one.
    pub site: Option<String>,
    /// Directories of catalogs beside the embedded ones, to be read again by what explains.
    #[serde(default)]
    pub catalogs: Vec<PathBuf>,
    /// Digests of what the site said at that time for each interface of the host that it names.
    #[serde(default)]
    pub digests: BTreeMap<String, String>,
}

impl Meta {
    /// Writes it into a map of its own, pinned at `path`.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub fn pin(&self, path: &Path) -> crate::Result<()> {
        pages::pin(path, &serde_json::to_vec(self)?)
    }

    /// Reads what [`Self::pin`] wrote.
    ///
    /// # Errors
    /// If there is none, or it is of another version.
    pub fn read(path: &Path) -> crate::Result<Self> {
        let text = pages::read(path)?;
        serde_json::from_slice(&text).with_context(|| {
            format!(
                "`{}` was written by another version of portguard",
                path.display()
            )
        })
    }
}
