//! Two hosts on one link, the guard of one of them, and frames from the other.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use portguard_harness::frames::{Frame, Ipv4, Udp};
use portguard_harness::net::{Lab, Link};
use portguard_harness::traffic::{PacketSocket, contains};
use serde_json::Value;

/// Longer than anything here takes, under emulation too.
pub(crate) const PATIENCE: Duration = Duration::from_mins(4);

/// How long a frame is waited for that must not come.
pub(crate) const SILENCE: Duration = Duration::from_millis(300);

/// The matrix that the checks know every number of.
const MATRIX: &str = include_str!("matrix.toml");

/// Ports by what the matrix says of them.
pub(crate) const OPEN: u16 = 5300;
pub(crate) const RESTRICTED: u16 = 5301;
pub(crate) const UNDOCUMENTED: u16 = 5302;

/// What the checks share.
pub(crate) struct World {
    /// Guarded host on the left, its peer on the right.
    pub(crate) link: Link,
    /// Learnt by the check that runs, to be written down.
    pub(crate) facts: Vec<(&'static str, String)>,
    portguard: PathBuf,
    catalog: PathBuf,
}

impl World {
    pub(crate) fn new(portguard: &Path) -> Result<Self> {
        let link = Lab::new()?.pair()?;
        let catalog = std::env::temp_dir().join(format!("portguard-guest-{}", std::process::id()));
        std::fs::create_dir_all(&catalog)?;
        std::fs::write(catalog.join("guest.toml"), MATRIX)?;
        Ok(Self {
            link,
            facts: Vec::new(),
            portguard: portguard.to_owned(),
            catalog,
        })
    }

    /// The guard's program.
    pub(crate) fn program(&self) -> &Path {
        &self.portguard
    }

    /// Runs the guard's command line on the guarded host.
    pub(crate) fn portguard(&self, words: &[&str]) -> Result<String> {
        let mut command = Command::new(&self.portguard);
        command.args(words);
        let output = self.link.left.host.output(&mut command, PATIENCE)?;
        Ok(output.success()?.stdout)
    }

    /// Loads the matrix on the link; the clients are this network.
    pub(crate) fn load(&self, mode: &str, clients: &str) -> Result<()> {
        self.load_on(&self.link.left.name, clients, &[mode])
    }

    /// As [`Self::load`] on any interface of the guarded host; the last words say how.
    pub(crate) fn load_on(&self, interface: &str, clients: &str, how: &[&str]) -> Result<()> {
        let peers = format!("clients={clients}");
        let catalog = self.catalog.display().to_string();
        let mut words = vec!["load", "--interface", interface, "--catalog", &catalog];
        words.extend(["--role", "guest/server", "--unprinted-peers", "any"]);
        words.extend(["--peer", &peers, "--management", "tcp/22"]);
        words.extend(how);
        self.portguard(&words).map(drop)
    }

    /// What a verb says of the link.
    pub(crate) fn interface(&self, verb: &str) -> Result<Value> {
        self.of(&self.link.left.name, verb)
    }

    /// What a verb says of an interface of the guarded host.
    pub(crate) fn of(&self, name: &str, verb: &str) -> Result<Value> {
        let answer: Value = serde_json::from_str(&self.portguard(&[verb, "--json"])?)?;
        let interfaces = answer["interfaces"].as_array().context("no `interfaces`")?;
        let ours = interfaces
            .iter()
            .find(|interface| interface["name"] == name);
        ours.cloned()
            .with_context(|| format!("`{verb}` does not name `{name}`"))
    }

    /// A datagram from the peer to a port of the guarded host, without Ethernet padding.
    pub(crate) fn datagram(&self, port: u16, marker: &str) -> Frame {
        let (left, right) = (&self.link.left, &self.link.right);
        Frame::between(right, left)
            .ipv4(Ipv4::new(right.v4(), left.v4()))
            .udp(Udp::new(40_000, port))
            .payload(marker.as_bytes())
    }

    /// Sends frames and says how many with this marker reach the guarded host's stack.
    pub(crate) fn arrivals(
        &self,
        frames: &[Vec<u8>],
        marker: &str,
        expected: usize,
    ) -> Result<usize> {
        let (left, right) = (&self.link.left, &self.link.right);
        let mut ears = left.host.run(|| PacketSocket::open(&left.name))?;
        right.host.run(|| {
            let mouth = PacketSocket::open(&right.name)?;
            frames.iter().try_for_each(|frame| mouth.send(frame))
        })?;
        let patience = if expected == 0 { SILENCE } else { PATIENCE };
        let wanted = |frame: &[u8]| contains(frame, marker.as_bytes());
        let arrived = ears.count(Instant::now() + patience, expected.max(1), wanted)?;
        // One too many must be noticed, too.
        Ok(arrived
            + ears.count(
                Instant::now() + Duration::from_millis(50),
                frames.len(),
                wanted,
            )?)
    }

    /// As [`Self::arrivals`], and fails if another number came.
    pub(crate) fn expect(&self, frames: &[Vec<u8>], marker: &str, expected: usize) -> Result<()> {
        let arrived = self.arrivals(frames, marker, expected)?;
        ensure!(
            arrived == expected,
            "of {} frames `{marker}`, {arrived} arrived, not {expected}",
            frames.len()
        );
        Ok(())
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // On somebody's own machine nothing may stay behind, whatever failed.
        let _ = self.portguard(&["unload", "--interface", &self.link.left.name]);
        let _ = std::fs::remove_dir_all(&self.catalog);
    }
}
