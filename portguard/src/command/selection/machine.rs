//! This machine's name, addresses and day: the edge that the compiler itself may not touch.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{SystemTime, UNIX_EPOCH};

use portguard_policy::human::rfc3339;

/// The kernel's host name.
pub(in crate::command) fn hostname() -> Option<String> {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    let name = name.trim();
    (!name.is_empty() && name != "(none)").then(|| name.to_owned())
}

/// Addresses of all interfaces in this network namespace, loopback and link-local ones left out.
pub(super) fn addresses() -> Vec<IpAddr> {
    let v4 = fs::read_to_string("/proc/net/fib_trie").unwrap_or_default();
    let v6 = fs::read_to_string("/proc/net/if_inet6").unwrap_or_default();
    let mut found: Vec<IpAddr> = local_v4(&v4).into_iter().map(IpAddr::V4).collect();
    found.extend(local_v6(&v6).into_iter().map(IpAddr::V6));
    found.sort_unstable();
    found.dedup();
    found
}

/// An address line is followed by `/32 host LOCAL` for the machine's own, and by `/32 link BROADCAST` for those of its
/// networks that reach it, too: what is for these is for this host.
fn local_v4(trie: &str) -> Vec<Ipv4Addr> {
    let mut found = Vec::new();
    let mut last: Option<Ipv4Addr> = None;
    for line in trie.lines() {
        let line = line.trim();
        if let Some(address) = line.strip_prefix("|-- ") {
            last = address.parse().ok();
        } else if line == "/32 host LOCAL" || line == "/32 link BROADCAST" {
            found.extend(last.filter(|address| !address.is_loopback()));
        }
    }
    found
}

/// The first column is the address, 32 hex digits.
fn local_v6(table: &str) -> Vec<Ipv6Addr> {
    let first = table
        .lines()
        .filter_map(|line| line.split_whitespace().next());
    let parsed = first
        .filter(|word| word.len() == 32)
        .filter_map(|word| u128::from_str_radix(word, 16).ok());
    parsed
        .map(Ipv6Addr::from)
        .filter(|address| !address.is_loopback() && !address.is_unicast_link_local())
        .collect()
}

/// Now, as RFC 3339 has it, in whole seconds.
pub(super) fn now() -> Option<String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
    Some(rfc3339(now.as_secs().saturating_mul(1_000_000_000)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_addresses_are_found_in_the_kernels_tables() {
        let trie = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 10.0.0.0\n        /24 link UNICAST\n     |-- 10.0.0.5\n        /32 host LOCAL\n     |-- 10.0.0.255\n        /32 link BROADCAST\n     |-- 127.0.0.1\n        /32 host LOCAL\n";
        let wanted = [Ipv4Addr::new(10, 0, 0, 5), Ipv4Addr::new(10, 0, 0, 255)];
        assert_eq!(local_v4(trie), wanted);
        let table = "fd000000000000000000000000000005 02 40 00 80     eth0\nfe800000000000000000000000000001 02 40 20 80 eth0\n00000000000000000000000000000001 01 80 10 80       lo\n";
        assert_eq!(local_v6(table), ["fd00::5".parse::<Ipv6Addr>().unwrap()]);
    }
}
