//! The sockets of this network namespace that talk to somebody, as the kernel's socket tables have them.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use netlink_packet_core::NLM_F_DUMP;
use netlink_packet_sock_diag::SockDiagMessage;
use netlink_packet_sock_diag::constants::{AF_INET, AF_INET6, IPPROTO_TCP, IPPROTO_UDP};
use netlink_packet_sock_diag::inet::{ExtensionFlags, InetRequest, SocketId, StateFlags};
use netlink_sys::protocols::NETLINK_SOCK_DIAG;

use crate::host::listeners::ephemeral;
use crate::host::netlink::request;
use portguard_policy::catalog::Transport;
use portguard_policy::error::Fault;

/// A socket with a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Session {
    /// Its own end.
    pub local: SocketAddr,
    /// The peer's end.
    pub remote: SocketAddr,
    /// Whether it is TCP; UDP otherwise.
    pub is_tcp: bool,
    /// Which end began it.
    pub began: Began,
}

/// Which end began a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Began {
    /// The host: from a port that the kernel picked, or one that nothing listens on.
    Host,
    /// The peer: something listens on the local port.
    Peer,
    /// Neither is known: a connected UDP socket on a port that its program chose.
    Unknown,
}

impl Session {
    /// Whether the peer began it, or may have.
    pub fn is_accepted(&self) -> bool {
        self.began != Began::Host
    }

    /// As the policy calls it.
    pub fn transport(&self) -> Transport {
        if self.is_tcp {
            Transport::Tcp
        } else {
            Transport::Udp
        }
    }
}

impl fmt::Display for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let transport = if self.is_tcp { "tcp" } else { "udp" };
        write!(
            f,
            "{transport} port {} from {} (session of {})",
            self.local.port(),
            self.remote.ip(),
            self.remote
        )
    }
}

/// States in which a TCP peer still may say something. A connection that is half open is none: anybody can make those.
fn open_states() -> StateFlags {
    StateFlags::ESTABLISHED
        | StateFlags::SYN_SENT
        | StateFlags::FIN_WAIT1
        | StateFlags::FIN_WAIT2
        | StateFlags::CLOSE_WAIT
        | StateFlags::CLOSING
        | StateFlags::LAST_ACK
}

/// All sessions but those within the host, sorted.
///
/// # Errors
/// If the kernel does not show its socket tables.
pub fn sessions() -> anyhow::Result<Vec<Session>> {
    let mut listening = BTreeSet::new();
    let mut found = Vec::new();
    let ephemeral = ephemeral();
    for family in [AF_INET, AF_INET6] {
        for (local, _) in dump(family, IPPROTO_TCP, StateFlags::LISTEN)? {
            listening.insert((true, local.port()));
        }
        for (local, remote) in dump(family, IPPROTO_TCP, open_states())? {
            found.push((local, remote, true));
        }
        // What is not connected has no peer to be known by, and hears whoever comes.
        for (local, _) in dump(family, IPPROTO_UDP, StateFlags::CLOSE)? {
            listening.insert((false, local.port()));
        }
        for (local, remote) in dump(family, IPPROTO_UDP, StateFlags::ESTABLISHED)? {
            found.push((local, remote, false));
        }
    }
    let mut sessions: Vec<Session> = found
        .into_iter()
        .filter(|(local, remote, _)| {
            remote.port() != 0
                && !remote.ip().is_unspecified()
                && !remote.ip().is_loopback()
                && !local.ip().is_loopback()
        })
        .map(|(local, remote, is_tcp)| Session {
            local,
            remote,
            is_tcp,
            began: began(is_tcp, (local.port(), remote.port()), &listening, ephemeral),
        })
        .collect();
    sessions.sort();
    sessions.dedup();
    Ok(sessions)
}

/// Tells by its ports who began a session.
fn began(
    is_tcp: bool,
    (local, remote): (u16, u16),
    listening: &BTreeSet<(bool, u16)>,
    (first, last): (u16, u16),
) -> Began {
    let is_picked = |port: u16| (first..=last).contains(&port);
    if listening.contains(&(is_tcp, local)) {
        Began::Peer
    } else if is_picked(local) {
        Began::Host
    } else if !is_tcp {
        Began::Unknown
    } else if is_picked(remote) {
        // Whoever listened has stopped, and its sessions go on.
        Began::Peer
    } else {
        // From a port of the program's choice, as file systems and remote shells do.
        Began::Host
    }
}

fn dump(
    family: u8,
    protocol: u8,
    states: StateFlags,
) -> anyhow::Result<Vec<(SocketAddr, SocketAddr)>> {
    let question = SockDiagMessage::InetRequest(InetRequest {
        family,
        protocol,
        extensions: ExtensionFlags::empty(),
        states,
        socket_id: if family == AF_INET {
            SocketId::new_v4()
        } else {
            SocketId::new_v6()
        },
    });
    let answers = request(NETLINK_SOCK_DIAG, question, NLM_F_DUMP).map_err(|error| {
        error.context(
            Fault::system("the kernel does not list its sockets: open sessions are unknown")
                .hint("load its modules: `modprobe -a inet_diag tcp_diag udp_diag`"),
        )
    })?;
    Ok(answers
        .into_iter()
        .filter_map(|answer| {
            let SockDiagMessage::InetResponse(response) = answer else {
                return None;
            };
            let id = response.header.socket_id;
            Some((
                SocketAddr::new(plain(id.source_address), id.source_port),
                SocketAddr::new(plain(id.destination_address), id.destination_port),
            ))
        })
        .collect())
}

/// IPv4 as such, also where a socket of the other family carries it.
fn plain(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_began_is_told_by_the_ports() {
        let listening =
            BTreeSet::from([(true, 22), (true, 40_000), (false, 9999), (false, 50_000)]);
        let tell = |is_tcp, ports| began(is_tcp, ports, &listening, (32_768, 60_999));
        for (is_tcp, ports, wanted) in [
            (true, (22, 50_000), Began::Peer),
            (true, (40_000, 50_000), Began::Peer),
            (true, (40_001, 443), Began::Host),
            (true, (8080, 50_000), Began::Peer),
            (true, (800, 2049), Began::Host),
            (false, (9999, 50_000), Began::Peer),
            (false, (50_000, 443), Began::Peer),
            (false, (50_001, 443), Began::Host),
            (false, (9998, 50_000), Began::Unknown),
            (false, (123, 123), Began::Unknown),
        ] {
            assert_eq!(tell(is_tcp, ports), wanted, "{is_tcp} {ports:?}");
        }
    }
}
