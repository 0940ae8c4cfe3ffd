//! A scan from outside finds what the matrix documents, and nothing else.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use portguard_harness::net::Lab;
use portguard_harness::traffic::{Listeners, UdpEcho, scan_tcp, scan_udp};

use super::town::{Site, TCP, UDP};
use crate::guard::{Guarded, LONG};

/// What listens beside the documented ports: first and last, well known, ephemeral.
const ROGUE: [u16; 6] = [1, 22, 1024, 32_768, 49_152, 65_535];

#[test]
fn of_all_ports_finds_the_documented_two() -> Result<()> {
    let guarded = Guarded {
        link: Lab::new()?.pair()?,
    };
    let (host, peer) = (&guarded.link.left, &guarded.link.right);
    let mut listeners = Vec::new();
    let mut echoes = Vec::new();
    for address in host.both() {
        listeners.push(Listeners::start(
            &host.host,
            address,
            ROGUE.into_iter().chain([TCP]),
        )?);
        for port in ROGUE.into_iter().chain([UDP]) {
            echoes.push(UdpEcho::start(&host.host, SocketAddr::new(address, port))?);
        }
    }
    // Without a guard the scan finds all that listen, so that what it does not find later is hidden by the guard.
    let all = |documented: u16| {
        let mut all: Vec<u16> = ROGUE.into_iter().chain([documented]).collect();
        all.sort_unstable();
        all
    };
    for address in host.both() {
        let few = || ROGUE.into_iter().chain([TCP, UDP, 9]);
        let scan = scan_tcp(peer, host, address, few(), LONG)?;
        ensure!(scan.open() == all(TCP), "unguarded: {:?}", scan.open());
        ensure!(scan.closed().contains(&9));
        let scan = scan_udp(peer, host, address, few(), LONG)?;
        ensure!(scan.open() == all(UDP), "unguarded: {:?}", scan.open());
        ensure!(scan.closed().contains(&9), "unguarded: {:?}", scan.closed());
    }
    Site::new("enforce")?.load(&guarded, &[])?;
    for address in host.both() {
        let unmet = strangers(&guarded, address)?;
        let scan = scan_tcp(peer, host, address, 0..=u16::MAX, LONG)?;
        ensure!(scan.open() == [TCP], "open: {:?}", scan.open());
        ensure!(
            scan.closed().is_empty(),
            "met the stack: {:?}",
            scan.closed()
        );
        let scan = scan_udp(peer, host, address, 0..=u16::MAX, Duration::from_secs(30))?;
        ensure!(scan.open() == [UDP], "open: {:?}", scan.open());
        ensure!(
            scan.closed().is_empty(),
            "met the stack: {:?}",
            scan.closed()
        );
        // What the stack itself says: no datagram came for a port without a listener, though it would not have told us.
        ensure!(strangers(&guarded, address)? == unmet, "met the stack");
    }
    Ok(())
}

/// Datagrams that the host's stack received for ports on which nobody listens.
fn strangers(guarded: &Guarded, family: IpAddr) -> Result<u64> {
    let link = &guarded.link.left;
    let (file, name) = if family.is_ipv4() {
        ("/proc/thread-self/net/snmp", "Udp:")
    } else {
        ("/proc/thread-self/net/snmp6", "Udp6NoPorts")
    };
    let text = link.host.run(|| Ok(fs::read_to_string(file)?))?;
    let mut lines = text.lines().filter(|line| line.starts_with(name));
    let count = if family.is_ipv4() {
        let (names, values) = (lines.next(), lines.next());
        let at = names
            .and_then(|names| names.split_whitespace().position(|name| name == "NoPorts"))
            .context("no `NoPorts`")?;
        values.and_then(|values| values.split_whitespace().nth(at))
    } else {
        lines.next().and_then(|line| line.split_whitespace().nth(1))
    };
    Ok(count.context("no count")?.parse()?)
}
