//! What this host is: name, addresses, uplinks, and how it is administered.

use std::collections::BTreeSet;
use std::fs;
use std::net::IpAddr;
use std::process::{Command, Stdio};

use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;

use crate::command::draft::HostSpec;
use portguard_kernel::host::listeners::Listener;
use portguard_policy::catalog::Transport;

/// This machine, by its name and the addresses that others reach it at.
pub(in crate::command) fn this_host() -> HostSpec {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name: String = name
        .trim()
        .chars()
        .filter(|letter| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '.' | '_'))
        .collect();
    let mut addresses: Vec<IpAddr> = Vec::new();
    for one in getifaddrs().into_iter().flatten() {
        if one.flags.contains(InterfaceFlags::IFF_LOOPBACK) {
            continue;
        }
        let address = one.address.and_then(|address| {
            let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
            v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
        });
        let is_global = |address: &IpAddr| match address {
            IpAddr::V4(v4) => !v4.is_link_local(),
            IpAddr::V6(v6) => !v6.is_unicast_link_local(),
        };
        if let Some(address) = address.filter(is_global)
            && !addresses.contains(&address)
        {
            addresses.push(address);
        }
    }
    HostSpec {
        name: if name.is_empty() {
            "this-host".to_owned()
        } else {
            name
        },
        addresses,
        roles: Vec::new(),
        interfaces: Vec::new(),
    }
}

/// Interfaces with a default route; where there is none, those with an address of their own.
pub(super) fn uplinks() -> Vec<String> {
    let v4 = fs::read_to_string("/proc/thread-self/net/route").unwrap_or_default();
    let v6 = fs::read_to_string("/proc/thread-self/net/ipv6_route").unwrap_or_default();
    let mut found = BTreeSet::new();
    for line in v4.lines().skip(1) {
        let words: Vec<&str> = line.split_whitespace().collect();
        if let [name, "00000000", _, _, _, _, _, "00000000", ..] = words.as_slice() {
            found.insert((*name).to_owned());
        }
    }
    for line in v6.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        if let ([destination, "00", ..], Some(name)) = (words.as_slice(), words.last())
            && destination.bytes().all(|digit| digit == b'0')
            && *name != "lo"
        {
            found.insert((*name).to_owned());
        }
    }
    if found.is_empty() {
        for one in getifaddrs().into_iter().flatten() {
            let is_own = one
                .address
                .is_some_and(|address| address.as_sockaddr_in().is_some());
            if is_own && !one.flags.contains(InterfaceFlags::IFF_LOOPBACK) {
                found.insert(one.interface_name);
            }
        }
    }
    found.into_iter().collect()
}

/// Names of the packages that are installed, by dpkg and rpm; none where neither can be asked.
pub(super) fn packages() -> BTreeSet<String> {
    let dpkg = listed(
        "dpkg-query",
        &["--show", "--showformat", "${db:Status-Status} ${Package}\n"],
    );
    let rpm = listed("rpm", &["-qa", "--qf", "%{NAME}\n"]);
    installed(&dpkg)
        .chain(rpm.lines())
        .map(str::to_owned)
        .collect()
}

/// Of lines `STATUS PACKAGE`, the packages that are installed.
fn installed(listed: &str) -> impl Iterator<Item = &str> {
    listed
        .lines()
        .filter_map(|line| line.strip_prefix("installed "))
}

/// What a program lists, in lower case; nothing where it is not there.
fn listed(program: &str, arguments: &[&str]) -> String {
    let mut command = Command::new(program);
    command
        .args(arguments)
        .stdin(Stdio::null())
        .stderr(Stdio::null());
    let answer = command
        .output()
        .map(|answer| answer.stdout)
        .unwrap_or_default();
    String::from_utf8_lossy(&answer).to_lowercase()
}

/// Ports that SSH listens on; 22 where nobody says.
pub(super) fn management(listeners: &[Listener]) -> Vec<u16> {
    let is_ssh = |listener: &&Listener| {
        listener.transport == Transport::Tcp
            && !listener.is_loopback()
            && (listener.port == 22
                || listener
                    .processes
                    .iter()
                    .any(|one| one.name.starts_with("sshd")))
    };
    let found: BTreeSet<u16> = listeners
        .iter()
        .filter(is_ssh)
        .map(|one| one.port)
        .collect();
    if found.is_empty() {
        vec![22]
    } else {
        found.into_iter().collect()
    }
}

/// Who is connected to these ports now, and who this session belongs to.
pub(super) fn admins(ports: &[u16]) -> Vec<String> {
    let mut found: BTreeSet<IpAddr> = BTreeSet::new();
    for table in ["tcp", "tcp6"] {
        let text = fs::read_to_string(format!("/proc/thread-self/net/{table}")).unwrap_or_default();
        found.extend(text.lines().skip(1).filter_map(|line| peer(line, ports)));
    }
    let session = std::env::var("SSH_CONNECTION").unwrap_or_default();
    found.extend::<Option<IpAddr>>(session.split(' ').next().and_then(|word| word.parse().ok()));
    found.retain(|address: &IpAddr| !address.is_loopback());
    found.iter().map(ToString::to_string).collect()
}

/// The other end of an established connection: `sl local_address rem_address st ...`, in hexadecimal words of the machine.
fn peer(line: &str, ports: &[u16]) -> Option<IpAddr> {
    let mut words = line.split_whitespace().skip(1);
    let (local, remote, state) = (words.next()?, words.next()?, words.next()?);
    let port = u16::from_str_radix(local.split_once(':')?.1, 16).ok()?;
    if state != "01" || !ports.contains(&port) {
        return None;
    }
    let digits = remote.split_once(':')?.0;
    let word = |index: usize| {
        let text = digits.get(8 * index..8 * index + 8)?;
        Some(u32::from_str_radix(text, 16).ok()?.to_le_bytes())
    };
    if digits.len() == 8 {
        return Some(IpAddr::from(word(0)?));
    }
    let mut octets = [0; 16];
    for (index, part) in octets.chunks_mut(4).enumerate() {
        part.copy_from_slice(&word(index)?);
    }
    let address = std::net::Ipv6Addr::from(octets);
    Some(
        address
            .to_ipv4_mapped()
            .map_or(IpAddr::V6(address), IpAddr::V4),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_that_are_installed_are_those() {
        let listed = "installed acme-portal\nconfig-files gone\nhalf-installed broken\n";
        assert!(installed(listed).eq(["acme-portal"]));
    }

    #[test]
    fn whoever_is_connected_administers() {
        let line = "   1: 0100000A:0016 0700000A:C350 01 00000000:00000000";
        assert_eq!(peer(line, &[22]), Some([10, 0, 0, 7].into()));
        assert_eq!(peer(line, &[23]), None);
        let mapped = "   1: 0000000000000000FFFF00000100000A:0016 0000000000000000FFFF00000700000A:C350 01 0:0";
        assert_eq!(peer(mapped, &[22]), Some([10, 0, 0, 7].into()));
        assert_eq!(
            peer("   1: 0100000A:0016 0700000A:C350 06 0:0", &[22]),
            None
        );
    }
}
