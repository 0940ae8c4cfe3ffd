//! Which network namespace this process is in: by the cookie that the kernel gives to no other, since it gives the inode of a
//! namespace that ended to the next one at once.

use std::fmt;
use std::fs;
use std::net::UdpSocket;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::str::FromStr;

use nix::sys::socket::getsockopt;
use nix::{getsockopt_impl, sockopt_impl};

sockopt_impl!(
    /// The cookie of the network namespace that a socket is of.
    NetnsCookie,
    GetOnly,
    libc::SOL_SOCKET,
    libc::SO_NETNS_COOKIE,
    u64
);

/// Sysctls that only the machine's first network namespace has.
const FIRST_ONLY: [&str; 2] = [
    "/proc/sys/net/core/bpf_jit_enable",
    "/proc/sys/net/core/netdev_max_backlog",
];

/// A network namespace that is not the machine's first, as pins are called after it: `COOKIE-INODE`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Namespace {
    /// Unique while the machine runs; 0 before Linux 5.14, which has none.
    pub cookie: u64,
    /// Tells whether somebody is still in it.
    pub inode: u64,
}

impl Namespace {
    /// That of this process; `None` = the machine's first.
    pub fn own() -> Option<Self> {
        if FIRST_ONLY.iter().any(|key| Path::new(key).exists()) {
            return None;
        }
        let inode = fs::metadata("/proc/thread-self/ns/net").ok()?.ino();
        Some(Self {
            cookie: cookie().unwrap_or(0),
            inode,
        })
    }

    /// Whether both are the same one.
    pub fn is(self, other: Self) -> bool {
        if self.cookie == 0 || other.cookie == 0 {
            self.cookie == other.cookie && self.inode == other.inode
        } else {
            self.cookie == other.cookie
        }
    }
}

/// The cookie of this process's network namespace; `None` before Linux 5.14.
pub fn cookie() -> Option<u64> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    getsockopt(&socket, NetnsCookie).ok()
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.cookie, self.inode)
    }
}

impl FromStr for Namespace {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (cookie, inode) = text.split_once('-').ok_or(())?;
        Ok(Self {
            cookie: cookie.parse().map_err(drop)?,
            inode: inode.parse().map_err(drop)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_with_the_inode_of_another_is_another() {
        let [one, other] = ["7-4026532177", "9-4026532177"].map(str::parse::<Namespace>);
        let (one, other) = (one.unwrap(), other.unwrap());
        assert!(one.is(one) && !one.is(other));
        assert_eq!(one.to_string(), "7-4026532177");
        for text in ["", "4026532177", "-", "7-", "x-1"] {
            assert!(text.parse::<Namespace>().is_err(), "{text}");
        }
    }
}
