//! etcd and nginx for the fleet's tests and demo: unpacked from Debian's packages, not installed, so that no service starts.

use std::path::PathBuf;

use anyhow::Result;

use super::apt;
use crate::shell::Missing;
use crate::workspace::target;

const PACKAGES: [&str; 3] = ["etcd-server", "etcd-client", "nginx"];
const PROGRAMS: [&str; 3] = ["usr/bin/etcd", "usr/bin/etcdctl", "usr/sbin/nginx"];

/// Where the programs are.
fn directory() -> PathBuf {
    target().join("etcd")
}

/// The server.
pub(crate) fn server() -> PathBuf {
    directory().join("usr/bin/etcd")
}

/// Unpacks what is not there.
pub(super) fn ensure() -> Result<()> {
    if PROGRAMS
        .iter()
        .all(|program| directory().join(program).exists())
    {
        return Ok(());
    }
    if !apt::offers(&PACKAGES) {
        return Err(Missing::error(
            "the fleet's tests need etcd and nginx, and no package source here has them",
            "put `etcd` and `etcdctl` (3.4 or newer) into target/etcd/usr/bin, and `nginx` into target/etcd/usr/sbin",
        ));
    }
    apt::unpack(&PACKAGES, &directory(), "the fleet's tests")
}
