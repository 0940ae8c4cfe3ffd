//! The sockets of this network namespace that talk to somebody, as the kernel's socket tables have them.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use netlink_packet_core::NLM_F_DUMP;
use netlink_packet_sock_diag::SockDiagMessage;
use netlink_packet_sock_diag::constants::{AF_INET, AF_INET6, IPPROTO_TCP, IPPROTO_UDP};
use netlink_packet_sock_diag::inet::{ExtensionFlags, InetRequest, SocketId, StateFlags};
use netlink_sys::protocols::NETLINK_SOCK_DIAG;

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
    /// Whether the host listens on the local port, so that the peer began it.
    pub is_accepted: bool,
}

impl Session {
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

/// States in which a TCP peer still may say something. Half open (`SYN_RECV`) is no session: anybody can forge it.
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
    for family in [AF_INET, AF_INET6] {
        for (local, _) in dump(family, IPPROTO_TCP, StateFlags::LISTEN)? {
            listening.insert(local.port());
        }
        for (local, remote) in dump(family, IPPROTO_TCP, open_states())? {
            found.push((local, remote, true));
        }
        // Connected ones only; others have no peer to be known by.
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
            is_accepted: is_tcp && listening.contains(&local.port()),
        })
        .collect();
    sessions.sort();
    sessions.dedup();
    Ok(sessions)
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
