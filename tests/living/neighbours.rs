//! ARP and neighbour discovery, from nothing and again when what was known grows old.

use std::net::{IpAddr, SocketAddr};
use std::process::Command;

use anyhow::{Result, ensure};
use portguard_harness::net::Interface;
use portguard_harness::traffic::{UdpEcho, exchange_udp};

use super::OUTBOUND;
use super::town::{self, Town};
use crate::guard::{LONG, SOON, eventually};

#[test]
fn neighbours_are_found_and_asked_again() -> Result<()> {
    for outbound in OUTBOUND {
        let town = Town::new()?;
        town.load(outbound)?;
        let (ours, theirs) = (&town.guarded.link.left, &town.guarded.link.right);
        for (from, to) in [(ours, theirs), (theirs, ours)] {
            for family in ["ipv4", "ipv6"] {
                // Soon stale, and asked after at once.
                let key = format!("net/{family}/neigh/{}", from.name);
                from.host
                    .sysctl(&format!("{key}/base_reachable_time_ms"), "300")?;
                from.host
                    .sysctl(&format!("{key}/delay_first_probe_time"), "0")?;
            }
            for address in to.both() {
                let port = if to.name == ours.name {
                    town::UDP
                } else {
                    8001
                };
                let _echo = UdpEcho::start(&to.host, SocketAddr::new(address, port))?;
                let say = || -> Result<bool> {
                    let target = SocketAddr::new(address, port);
                    from.host.run(|| exchange_udp(target, b"neighbour", SOON))
                };
                flush(from)?;
                flush(to)?;
                ensure!(say()?, "{address} is not found from nothing");
                eventually("a stale neighbour", || Ok(state(from, address)? == "STALE"))?;
                ensure!(say()?, "{address} is not found when stale");
                // UDP confirms nothing: only an answer to a question makes it reachable.
                eventually("a neighbour that answers", || {
                    if state(from, address)? == "STALE" {
                        say()?;
                    }
                    Ok(state(from, address)? == "REACHABLE")
                })?;
            }
        }
    }
    Ok(())
}

fn ip(interface: &Interface, args: &[&str]) -> Result<String> {
    let mut command = Command::new("ip");
    let output = interface
        .host
        .output(command.args(args).args(["dev", &interface.name]), LONG)?;
    Ok(output.success()?.stdout)
}

fn flush(interface: &Interface) -> Result<()> {
    ip(interface, &["neighbour", "flush"]).map(drop)
}

fn state(interface: &Interface, address: IpAddr) -> Result<String> {
    let told = ip(interface, &["neighbour", "show", &address.to_string()])?;
    Ok(told
        .split_whitespace()
        .last()
        .unwrap_or_default()
        .to_owned())
}
