//! Violations that somebody has looked at and said may be dropped: what, from whom, by whom, when and why.

use std::path::{Path, PathBuf};
use std::{env, fmt, fs, io};

use ipnet::IpNet;
use nix::unistd::{User, getuid};
use portguard_common::reason::{Direction, Reason};
use portguard_kernel::error::{Context as _, Error, Kind};
use serde::{Deserialize, Serialize};

use super::Cause;
use super::fold::SCAN;
use portguard_kernel::pins::bpffs::Layout;
use portguard_kernel::store;

/// What causes without a place in the list are accepted as.
pub const UNLISTED: &str = "unlisted";

/// Said once, and held against every later look.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    /// What.
    #[serde(flatten)]
    pub flow: Flow,
    /// Who said so.
    pub by: String,
    /// When: seconds since the Unix epoch.
    #[serde(with = "portguard_policy::human::seconds")]
    pub at: u64,
    /// Why.
    pub why: String,
}

/// Which violations: `tcp/8080`, `tcp/8000-8100`, `out:udp/53=192.0.2.0/24`, `udp/from-161`, `scan`, `malformed`, `unlisted`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flow {
    /// `in` or `out`.
    pub direction: String,
    /// `TRANSPORT/PORT`, or the stable name of a reason.
    pub what: String,
    /// Only of this peer; `None` = of anybody.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<IpNet>,
}

impl fmt::Display for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.direction == "out" {
            f.write_str("out:")?;
        }
        f.write_str(&self.what)?;
        match &self.peer {
            Some(peer) => write!(f, "={peer}"),
            None => Ok(()),
        }
    }
}

impl Flow {
    /// Reads what `--accept` is given.
    ///
    /// # Errors
    /// What is wrong with it, in a sentence.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (direction, rest) = match text.split_once(':') {
            Some(("out", rest)) => ("out", rest),
            Some(("in", rest)) => ("in", rest),
            _ => ("in", text),
        };
        let (what, peer) = match rest.split_once('=') {
            Some((what, peer)) => (what, Some(peer)),
            None => (rest, None),
        };
        let is_port = what.split_once('/').is_some_and(|(transport, port)| {
            let has_ports = matches!(transport, "tcp" | "udp" | "sctp");
            let is_number = matches!(transport, "ip" | "icmp" | "icmpv6");
            (has_ports && numbers(port).is_some())
                || (is_number && port.parse::<u16>().is_ok())
                || (has_ports && port == "to-clients")
                || (has_ports
                    && port
                        .strip_prefix("from-")
                        .is_some_and(|port| port.parse::<u16>().is_ok()))
        });
        let is_name = what == UNLISTED
            || what == SCAN
            || Reason::ALL.iter().any(|reason| {
                let is_meant = |way| reason.name(way) == what;
                reason.is_violation()
                    && (is_meant(Direction::Ingress) || is_meant(Direction::Egress))
            });
        if !is_port && !is_name {
            return Err(format!(
                "`{what}` is neither `PROTO/PORT`, `PROTO/FIRST-LAST`, `PROTO/from-PORT`, `scan` nor the name of a reason: write it like \
                 `tcp/8080=192.0.2.7`"
            ));
        }
        let peer = peer
            .map(|peer| {
                let address = peer.parse().map(|address: std::net::IpAddr| address.into());
                let peer = peer
                    .parse::<IpNet>()
                    .or(address)
                    .map_err(|_error| format!("`{peer}` is neither an address nor a prefix"))?;
                if peer != peer.trunc() {
                    return Err(format!(
                        "`{peer}` has host bits set: did you mean `{}`?",
                        peer.trunc()
                    ));
                }
                Ok(peer)
            })
            .transpose()?;
        Ok(Self {
            direction: direction.to_owned(),
            what: what.to_owned(),
            peer,
        })
    }

    /// Whether all of these ports are meant, of whoever.
    pub fn covers_ports(&self, transport: &str, (first, last): (u16, u16)) -> bool {
        let Some((own, ports)) = self.what.split_once('/') else {
            return false;
        };
        let is_within = |(from, to)| from <= first && last <= to;
        own == transport && numbers(ports).is_some_and(is_within)
    }

    /// Whether a cause is meant, where clients have these ports: what comes to them may come to any of them next time.
    pub fn covers(&self, cause: &Cause, client_ports: (u16, u16)) -> bool {
        let what = cause.what();
        let (transport, port) = what.split_once('/').unwrap_or_default();
        let ports = match (cause.to_client, port.parse()) {
            (true, _) => Some(client_ports),
            (false, Ok(port)) => Some((port, port)),
            (false, Err(_)) => None,
        };
        self.direction == cause.direction
            && (self.what == what
                || self.what == cause.reason
                || ports.is_some_and(|ports| self.covers_ports(transport, ports)))
            && self.peer.is_none_or(|peer| peer.contains(&cause.whom()))
    }
}

/// `8080`, or `8000-8100`.
fn numbers(text: &str) -> Option<(u16, u16)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (first.parse().ok()?, last.parse().ok()?);
    (first <= last).then_some((first, last))
}

fn path(directory: &Path, interface: &str) -> PathBuf {
    directory.join(format!("{interface}.accepted.json"))
}

/// What was accepted on an interface before.
///
/// # Errors
/// If the file cannot be read.
pub fn read(layout: &Layout) -> portguard_kernel::Result<Vec<Accepted>> {
    let Some(directory) = store::directory(layout) else {
        return Ok(Vec::new());
    };
    let path = path(&directory, &layout.interface().0);
    let bytes = match fs::read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        bytes => bytes.with_context(|| format!("cannot read `{}`", path.display()))?,
    };
    serde_json::from_slice(&bytes).map_err(|error| {
        Error::new(
            Kind::Damaged,
            format!("`{}` is damaged: {error}", path.display()),
        )
        .hint("repair or remove it")
    })
}

/// Keeps all that is accepted on an interface.
///
/// # Errors
/// If there is no place to keep it, or the disk refuses.
pub fn keep(layout: &Layout, all: &[Accepted]) -> portguard_kernel::Result<()> {
    let directory = store::directory(layout).ok_or_else(|| {
        Error::new(
            Kind::System,
            "no directory to keep accepted flows in for this network namespace",
        )
        .hint("set STATE_DIRECTORY to a directory")
    })?;
    let path = path(&directory, &layout.interface().0);
    store::write(&directory, &path, &serde_json::to_vec_pretty(all)?)
        .with_context(|| format!("cannot keep what is accepted in `{}`", path.display()))
}

/// Who runs this: the user before `sudo`, else this one.
pub fn who() -> String {
    ["SUDO_USER", "USER", "LOGNAME"]
        .iter()
        .find_map(|name| env::var(name).ok())
        .or_else(|| Some(User::from_uid(getuid()).ok()??.name))
        .unwrap_or_else(|| format!("user {}", getuid()))
}
