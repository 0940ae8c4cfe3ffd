//! The connection by which the operator is here, if it is one over SSH.

use std::env;
use std::fs;
use std::net::{IpAddr, SocketAddr};

use nix::net::if_::if_nametoindex;

use crate::host::sockets::{Began, Session};

/// What sshd tells a session: `CLIENT-ADDRESS CLIENT-PORT SERVER-ADDRESS SERVER-PORT`.
const VARIABLE: &str = "SSH_CONNECTION";
/// Ancestors that are asked.
const GENERATIONS: usize = 32;

/// The operator's SSH connection. `sudo` takes the variable away, so that the processes above this one are asked, too.
pub fn connection() -> Option<Session> {
    env::var(VARIABLE)
        .ok()
        .as_deref()
        .and_then(parse)
        .or_else(|| ancestors().find_map(|process| parse(&inherited(process)?)))
}

fn parse(text: &str) -> Option<Session> {
    let mut words = text.split_whitespace();
    let mut interface = 0;
    let mut end = || -> Option<SocketAddr> {
        let word = words.next()?;
        let (address, zone) = word.split_once('%').unwrap_or((word, ""));
        if let Some(index) = zone_of(zone) {
            interface = index;
        }
        let address: IpAddr = address.parse().ok()?;
        Some(SocketAddr::new(
            address.to_canonical(),
            words.next()?.parse().ok()?,
        ))
    };
    let (remote, local) = (end()?, end()?);
    Some(Session {
        local,
        remote,
        is_tcp: true,
        began: Began::Peer,
        cookie: 0,
        interface,
    })
}

/// The interface that a link-local address is of: by its name, or its index.
fn zone_of(zone: &str) -> Option<u32> {
    zone.parse().ok().or_else(|| if_nametoindex(zone).ok())
}

fn ancestors() -> impl Iterator<Item = u32> {
    std::iter::successors(Some(std::process::id()), |process| parent(*process))
        .skip(1)
        .take(GENERATIONS)
}

fn parent(process: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("PPid:"))?;
    line.trim().parse().ok().filter(|parent| *parent > 1)
}

fn inherited(process: u32) -> Option<String> {
    let environment = fs::read(format!("/proc/{process}/environ")).ok()?;
    environment
        .split(|byte| *byte == 0)
        .find_map(|entry| entry.strip_prefix(b"SSH_CONNECTION="))
        .map(|value| String::from_utf8_lossy(value).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_sshd_says() {
        let session = parse("10.1.2.3 50000 10.9.9.9 22").unwrap();
        assert_eq!(session.remote, "10.1.2.3:50000".parse().unwrap());
        assert_eq!(session.local, "10.9.9.9:22".parse().unwrap());
        let session = parse("fe80::1%eth0 50000 fe80::2%eth0 2222").unwrap();
        assert_eq!(session.local, "[fe80::2]:2222".parse().unwrap());
        for zone in ["lo", "1"] {
            let text = format!("fe80::1%{zone} 50000 fe80::2%{zone} 22");
            assert_eq!(parse(&text).unwrap().interface, 1);
        }
        let session = parse("::ffff:10.1.2.3 1 ::ffff:10.9.9.9 22").unwrap();
        assert_eq!(session.remote.ip(), IpAddr::from([10, 1, 2, 3]));
        for text in [
            "",
            "10.1.2.3",
            "10.1.2.3 x 10.9.9.9 22",
            "10.1.2.3 1 10.9.9.9",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
