//! Programs that the tests, the linter and the emulated kernels need, by Debian's package names.

use anyhow::Result;

use super::apt;
use crate::workspace::which;

/// A program and where it comes from.
#[derive(Debug)]
pub(crate) struct Tool {
    /// Looked for on PATH.
    pub(crate) program: &'static str,
    /// Debian's name.
    package: &'static str,
    /// What for.
    pub(crate) purpose: &'static str,
}

pub(super) const fn tool(
    program: &'static str,
    package: &'static str,
    purpose: &'static str,
) -> Tool {
    Tool {
        program,
        package,
        purpose,
    }
}

/// What the tests call.
pub(crate) const TEST: [Tool; 8] = [
    tool("ip", "iproute2", "foreign neighbours on the hook"),
    tool(
        "iptables-nft",
        "iptables",
        "rules as container engines write them",
    ),
    tool("nft", "nftables", "the second opinion on exported policies"),
    tool("busybox", "busybox", "clients and servers of DHCP and HTTP"),
    tool(
        "prometheus",
        "prometheus",
        "scrapes and alert rules as users have them",
    ),
    tool("chromium", "chromium", "reports as users see them"),
    tool("socat", "socat", "the far end of a tun interface"),
    tool("minisign", "minisign", "signed releases"),
];

/// What `bench` calls, and what it compares with.
pub(crate) const BENCH: [Tool; 5] = [
    tool(
        "ethtool",
        "ethtool",
        "queues and offloads of the live stage",
    ),
    tool("nft", "nftables", "a firewall to compare with"),
    tool("iptables", "iptables", "another one"),
    tool("ipset", "ipset", "its sets of ports"),
    tool("xdp-filter", "xdp-tools", "a filter on the same hook"),
];

/// What `demo --fleet` calls.
pub(crate) const FLEET: [Tool; 2] = [
    tool("minisign", "minisign", "signed releases"),
    tool("openssl", "openssl", "certificates for etcd"),
];

/// What `vm-test` calls; `apt-get` and `dpkg-deb`, by which it gets its kernels, are Debian's own.
pub(crate) const VM: [Tool; 2] = [
    tool("qemu-system-x86_64", "qemu-system-x86", "other kernels"),
    tool("xz", "xz-utils", "their modules"),
];

/// What it calls for kernels of aarch64.
pub(crate) const VM_AARCH64: [Tool; 2] = [
    tool(
        "qemu-system-aarch64",
        "qemu-system-arm",
        "kernels of aarch64",
    ),
    tool(
        "aarch64-linux-gnu-strip",
        "binutils-aarch64-linux-gnu",
        "programs of aarch64",
    ),
];

/// What `release` calls.
pub(crate) const RELEASE: [Tool; 3] = [
    tool("gzip", "gzip", "manual pages"),
    tool("apt-ftparchive", "apt-utils", "the apt repository"),
    tool("gpg", "gpg", "signatures"),
];

/// What `package` calls.
pub(crate) const PACKAGE: [Tool; 5] = [
    tool("lintian", "lintian", "checks of Debian packages"),
    tool("mandoc", "mandoc", "checks of manual pages"),
    tool("rpm", "rpm", "RPM packages"),
    tool("rpmlint", "rpmlint", "checks of RPM packages"),
    tool("gzip", "gzip", "manual pages"),
];

/// What pictures of screens take.
pub(crate) const SCREENS: [Tool; 2] = [
    tool("chromium", "chromium", "the report as users see it"),
    tool("script", "bsdutils", "a terminal"),
];

/// What checks spelling.
pub(crate) const SPELLING: [Tool; 1] = [tool("codespell", "codespell", "spelling of documents")];

/// What checks the manifests.
pub(crate) const MANIFESTS: [Tool; 2] = [
    tool("ansible-lint", "ansible-lint", "checks of the Ansible role"),
    tool(
        "jsonschema",
        "python3-jsonschema",
        "checks of the Kubernetes manifest",
    ),
];

/// What makes a Debian to try packages in.
pub(crate) const DEBIAN: [Tool; 1] = [tool(
    "debootstrap",
    "debootstrap",
    "a Debian to try packages in",
)];

/// Installs what is not there.
pub(super) fn ensure(tools: &[Tool]) -> Result<()> {
    let missing: Vec<&Tool> = tools
        .iter()
        .filter(|tool| which(tool.program).is_none())
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let packages: Vec<&str> = missing.iter().map(|tool| tool.package).collect();
    let purposes: Vec<&str> = missing.iter().map(|tool| tool.purpose).collect();
    apt::install(&packages, &purposes.join(", "))?;
    services::stop(&packages);
    Ok(())
}

/// Debian starts what its packages bring; nobody asked for more than the programs.
mod services {
    use std::process::Command;

    use crate::shell::{capture, say};
    use crate::workspace::{is_root, which};

    /// Stops the services of packages that were not there before.
    pub(super) fn stop(packages: &[&str]) {
        if which("systemctl").is_none() {
            return;
        }
        for service in packages.iter().filter(|package| **package == "prometheus") {
            let mut command = if is_root() {
                Command::new("systemctl")
            } else {
                let mut sudo = Command::new("sudo");
                sudo.arg("systemctl");
                sudo
            };
            // Where no service manager runs there is nothing to stop.
            if capture(command.args(["disable", "--now", service])).is_ok() {
                say(format_args!(
                    "stopped the service `{service}` that its package started"
                ));
            }
        }
    }
}
