//! The sockets of this network namespace that talk to somebody, as the kernel's socket tables have them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use netlink_packet_core::NLM_F_DUMP;
use netlink_packet_sock_diag::SockDiagMessage;
use netlink_packet_sock_diag::constants::{AF_INET, AF_INET6, IPPROTO_TCP, IPPROTO_UDP};
use netlink_packet_sock_diag::inet::nlas::Nla;
use netlink_packet_sock_diag::inet::{
    ExtensionFlags, InetRequest, InetResponse, InetResponseHeader, SocketId, StateFlags,
};
use netlink_sys::protocols::NETLINK_SOCK_DIAG;

use crate::error::{Error, Kind};
use crate::host::netlink::request;
use crate::host::owners::{Owner, Owners, ephemeral};
use crate::host::tracked;
use portguard_policy::catalog::Transport;

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
    /// What the kernel knows its socket by; 0 = there is none here, or which is not known.
    pub cookie: u64,
    /// The interface that its socket is bound to, as every one with a link-local address is; 0 = any.
    pub interface: u32,
}

/// Which end began a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Began {
    /// The host.
    Host,
    /// The peer.
    Peer,
    /// Neither is known: a connected UDP socket on a port that its program chose.
    Unknown,
    /// Neither is known: a connected UDP socket on a port that the kernel picked.
    Picked,
    /// Neither is known: TCP of which neither its counts, nor connection tracking, nor a listener tell.
    Unclear,
}

impl Began {
    /// What a list of sessions says of it.
    pub(crate) const fn remark(self) -> &'static str {
        match self {
            Self::Unclear => "; who began it is not known",
            Self::Host | Self::Peer | Self::Unknown | Self::Picked => "",
        }
    }
}

impl Session {
    /// Whether the peer began it, or may have.
    pub fn is_accepted(&self) -> bool {
        self.began != Began::Host
    }

    /// What tells it from all others.
    pub const fn ends(&self) -> (bool, SocketAddr, SocketAddr) {
        (self.is_tcp, self.local, self.remote)
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
            "{transport} port {} from {} (session of {}{})",
            self.local.port(),
            self.remote.ip(),
            self.remote,
            self.began.remark()
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

/// Whether an address is that of many: packets go there, and none come from there.
fn is_group(address: IpAddr) -> bool {
    address.is_multicast() || address == IpAddr::V4(Ipv4Addr::BROADCAST)
}

/// All sessions but those within the host, sorted.
///
/// # Errors
/// If the kernel does not show its socket tables.
pub fn sessions() -> crate::Result<Vec<Session>> {
    let mut listening = BTreeSet::new();
    let mut found = Vec::new();
    let ephemeral = ephemeral();
    for family in [AF_INET, AF_INET6] {
        for listener in dump(family, IPPROTO_TCP, StateFlags::LISTEN)? {
            listening.insert((true, listener.local.port()));
        }
        for socket in dump_tcp(family)? {
            found.push((socket, true));
        }
        // What is not connected has no peer to be known by, and hears whoever comes.
        for listener in dump(family, IPPROTO_UDP, StateFlags::CLOSE)? {
            listening.insert((false, listener.local.port()));
        }
        for socket in dump(family, IPPROTO_UDP, StateFlags::ESTABLISHED)? {
            found.push((socket, false));
        }
    }
    let mut sessions: Vec<Session> = found
        .into_iter()
        .filter(|(Dumped { local, remote, .. }, _)| {
            remote.port() != 0
                && !remote.ip().is_unspecified()
                // Nobody answers from the address of a group.
                && !is_group(remote.ip())
                && !remote.ip().is_loopback()
                && !local.ip().is_loopback()
        })
        .map(|(socket, is_tcp)| {
            let (local, remote) = (socket.local, socket.remote);
            let is_listening = listening.contains(&(is_tcp, local.port()));
            let began = if is_tcp {
                began_tcp(&socket, is_listening)
            } else {
                began_udp(local.port(), is_listening, ephemeral)
            };
            Session {
                local,
                remote,
                is_tcp,
                began,
                cookie: socket.cookie,
                interface: socket.interface,
            }
        })
        .collect();
    sessions.sort();
    sessions.dedup();
    let mut picked = sessions
        .iter_mut()
        .filter(|session| session.began == Began::Picked)
        .peekable();
    if picked.peek().is_some() {
        let mut owners = Owners::new();
        for session in picked {
            let owner = match &mut owners {
                Ok(owners) => owners.of(session.local, session.remote)?,
                Err(error) => {
                    tracing::info!("the kernel does not say which ports it picked: {error:#}");
                    Owner::Unknown
                }
            };
            if matches!(owner, Owner::Asked | Owner::Hidden) {
                session.began = Began::Unknown;
            }
        }
    }
    Ok(sessions)
}

/// The TCP sockets that are open, by both ends: what the kernel knows each by.
///
/// # Errors
/// If the kernel does not show its socket tables.
pub(crate) fn streams() -> crate::Result<BTreeMap<(SocketAddr, SocketAddr), u64>> {
    let mut found = BTreeMap::new();
    for family in [AF_INET, AF_INET6] {
        let all = dump(family, IPPROTO_TCP, open_states())?;
        found.extend(
            all.into_iter()
                .map(|socket| ((socket.local, socket.remote), socket.cookie)),
        );
    }
    Ok(found)
}

/// A UDP socket that may be a service: it is connected to nobody, or to a peer of which is not known who began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Service {
    /// What the kernel knows it by.
    pub(crate) cookie: u64,
    /// Its port.
    pub(crate) port: u16,
    /// What it is bound to: an address, or all.
    pub(crate) address: IpAddr,
    /// And an interface; 0 = any.
    pub(crate) interface: u32,
    /// What it is connected to.
    pub(crate) session: Option<Session>,
}

/// All UDP sockets that have a port.
///
/// # Errors
/// If the kernel does not show its socket tables.
pub(crate) fn services() -> crate::Result<Vec<Service>> {
    let mut found = Vec::new();
    for family in [AF_INET, AF_INET6] {
        let all = dump(
            family,
            IPPROTO_UDP,
            StateFlags::CLOSE | StateFlags::ESTABLISHED,
        )?;
        found.extend(all.into_iter().map(|socket| {
            let session = (socket.remote.port() != 0).then_some(Session {
                local: socket.local,
                remote: socket.remote,
                is_tcp: false,
                began: Began::Unknown,
                cookie: socket.cookie,
                interface: socket.interface,
            });
            Service {
                cookie: socket.cookie,
                port: socket.local.port(),
                address: socket.local.ip(),
                interface: socket.interface,
                session,
            }
        }));
    }
    Ok(found)
}

/// Who began a TCP session. Ports tell nothing: whoever listened may have stopped.
fn began_tcp(socket: &Dumped, is_listening: bool) -> Began {
    if socket.is_opener {
        return Began::Host;
    }
    match tracked::is_begun_here(Transport::Tcp, socket.local, socket.remote) {
        Some(true) => Began::Host,
        Some(false) => Began::Peer,
        None if is_listening => Began::Peer,
        None => Began::Unclear,
    }
}

/// Who began a session of a connected UDP socket, by its port.
fn began_udp(local: u16, is_listening: bool, (first, last): (u16, u16)) -> Began {
    if is_listening {
        Began::Peer
    } else if (first..=last).contains(&local) {
        Began::Picked
    } else {
        Began::Unknown
    }
}

/// A socket as the kernel lists it.
struct Dumped {
    local: SocketAddr,
    remote: SocketAddr,
    cookie: u64,
    /// What it is bound to; 0 = any.
    interface: u32,
    /// Whether its counts prove that this end opened the connection.
    is_opener: bool,
}

/// The TCP sockets that are open. Who talks while the kernel lists them may be counted half before and half after: where that
/// matters, the counts have to say the same twice.
fn dump_tcp(family: u8) -> crate::Result<Vec<Dumped>> {
    let mut found = dump(family, IPPROTO_TCP, open_states())?;
    if found.iter().any(|socket| socket.is_opener) {
        let again = dump(family, IPPROTO_TCP, open_states())?;
        let openers: BTreeSet<u64> = again
            .iter()
            .filter(|socket| socket.is_opener)
            .map(|socket| socket.cookie)
            .collect();
        let there: BTreeSet<u64> = again.iter().map(|socket| socket.cookie).collect();
        for socket in &mut found {
            // One that has closed meanwhile is nobody's any more.
            socket.is_opener &= openers.contains(&socket.cookie) || !there.contains(&socket.cookie);
        }
    }
    Ok(found)
}

/// What this end has sent and what of it has arrived, as TCP counts it.
struct Counts {
    state: u8,
    /// Octets of data, and those of them that were sent again.
    sent: u64,
    again: u64,
    /// Sequence numbers that the other end has acknowledged since the connection was made.
    acknowledged: u64,
    /// Sequence numbers that are not acknowledged, and those of them that were not even sent.
    queued: u64,
    unsent: u64,
}

/// States of TCP, as the kernel numbers them.
mod state {
    pub(super) const SYN_SENT: u8 = 2;
    pub(super) const FIN_WAIT1: u8 = 4;
    pub(super) const FIN_WAIT2: u8 = 5;
    pub(super) const LAST_ACK: u8 = 9;
    pub(super) const CLOSING: u8 = 11;
}

/// Where the kernel's `struct tcp_info` has its counts.
mod field {
    pub(super) const BYTES_ACKED: usize = 120;
    pub(super) const NOTSENT_BYTES: usize = 144;
    pub(super) const BYTES_SENT: usize = 200;
    pub(super) const BYTES_RETRANS: usize = 208;
}

impl Counts {
    /// From what the kernel says of a socket; kernels before 4.19 say less.
    fn read(header: &InetResponseHeader, info: &[u8]) -> Option<Self> {
        let long = |at: usize| -> Option<u64> {
            let bytes = info.get(at..at + 8)?.try_into().ok()?;
            Some(u64::from_ne_bytes(bytes))
        };
        let unsent = info.get(field::NOTSENT_BYTES..field::NOTSENT_BYTES + 4)?;
        Some(Self {
            state: header.state,
            sent: long(field::BYTES_SENT)?,
            again: long(field::BYTES_RETRANS)?,
            acknowledged: long(field::BYTES_ACKED)?,
            queued: header.send_queue.into(),
            unsent: u32::from_ne_bytes(unsent.try_into().ok()?).into(),
        })
    }

    /// Whether this end opened the connection: who did has had one number acknowledged that is no data, that of its opening,
    /// since the kernel makes the socket of the other end after its own opening was acknowledged.
    ///
    /// What the host's own packet filter, or a full queue, refuses counts as sent, although it is sent again: that can hide an
    /// opener, never make one. So what does not fit proves nothing, nor that it would fit for the other end.
    fn is_opener(&self) -> bool {
        if self.state == state::SYN_SENT {
            return true;
        }
        // That of the end of the data counts, too, once it is sent: among what is queued, or what was acknowledged.
        let is_closed = self.unsent == 0
            && matches!(
                self.state,
                state::FIN_WAIT1 | state::FIN_WAIT2 | state::LAST_ACK | state::CLOSING
            );
        // Acknowledged, and one less: what was sent, less what was sent again, less what is in flight.
        let gone = u128::from(self.sent) + u128::from(is_closed) + u128::from(self.unsent) + 1;
        let left = u128::from(self.again) + u128::from(self.queued) + u128::from(self.acknowledged);
        gone == left
    }
}

/// What others may reach: TCP sockets that listen, and those of UDP that are connected to nobody, with their inodes.
///
/// # Errors
/// If the kernel does not show its socket tables.
pub(super) fn bound() -> crate::Result<Vec<(Transport, SocketAddr, u64)>> {
    let mut found = Vec::new();
    for (transport, protocol, states) in [
        (Transport::Tcp, IPPROTO_TCP, StateFlags::LISTEN),
        (Transport::Udp, IPPROTO_UDP, StateFlags::CLOSE),
    ] {
        for family in [AF_INET, AF_INET6] {
            let all = ask(family, protocol, states.clone(), ExtensionFlags::empty())?;
            found.extend(all.into_iter().map(|response| {
                let id = &response.header.socket_id;
                let local = SocketAddr::new(id.source_address, id.source_port);
                (transport, local, response.header.inode.into())
            }));
        }
    }
    Ok(found)
}

fn ask(
    family: u8,
    protocol: u8,
    states: StateFlags,
    extensions: ExtensionFlags,
) -> crate::Result<Vec<InetResponse>> {
    let question = SockDiagMessage::InetRequest(InetRequest {
        family,
        protocol,
        extensions,
        states,
        socket_id: if family == AF_INET {
            SocketId::new_v4()
        } else {
            SocketId::new_v6()
        },
    });
    let answers = request(NETLINK_SOCK_DIAG, question, NLM_F_DUMP).map_err(|error| {
        Error::new(
            Kind::Unanswered,
            "the kernel does not list its sockets: open sessions are unknown",
        )
        .hint("load its modules: `modprobe -a inet_diag tcp_diag udp_diag`")
        .caused_by(error)
    })?;
    let responses = answers.into_iter().filter_map(|answer| {
        let SockDiagMessage::InetResponse(response) = answer else {
            return None;
        };
        Some(*response)
    });
    Ok(responses.collect())
}

fn dump(family: u8, protocol: u8, states: StateFlags) -> crate::Result<Vec<Dumped>> {
    let all = ask(family, protocol, states, ExtensionFlags::INFO)?;
    Ok(all
        .into_iter()
        .map(|response| {
            let id = &response.header.socket_id;
            let counts = response.nlas.iter().find_map(|attribute| {
                let Nla::TcpInfo(info) = attribute else {
                    return None;
                };
                Counts::read(&response.header, info)
            });
            Dumped {
                local: SocketAddr::new(plain(id.source_address), id.source_port),
                remote: SocketAddr::new(plain(id.destination_address), id.destination_port),
                cookie: u64::from_ne_bytes(id.cookie),
                interface: id.interface_id,
                is_opener: counts.is_some_and(|counts| counts.is_opener()),
            }
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
    fn who_began_udp_is_told_by_the_port() {
        for (port, is_listening, wanted) in [
            (9999, true, Began::Peer),
            (50_000, true, Began::Peer),
            (50_001, false, Began::Picked),
            (9998, false, Began::Unknown),
        ] {
            let began = began_udp(port, is_listening, (32_768, 60_999));
            assert_eq!(began, wanted, "{port}");
        }
    }

    #[test]
    fn the_opening_is_acknowledged_to_who_sent_it() {
        const ESTABLISHED: u8 = 1;
        const CLOSE_WAIT: u8 = 8;
        let count = |state, [sent, again, acknowledged, queued, unsent]: [u64; 5]| Counts {
            state,
            sent,
            again,
            acknowledged,
            queued,
            unsent,
        };
        for (state, counts, wanted) in [
            (state::SYN_SENT, [0, 0, 0, 1, 0], true),
            (ESTABLISHED, [0, 0, 1, 0, 0], true),
            (ESTABLISHED, [0, 0, 0, 0, 0], false),
            (ESTABLISHED, [70, 0, 71, 0, 0], true),
            (ESTABLISHED, [70, 20, 50, 0, 0], false),
            // Some in flight, and some that the window has no room for.
            (ESTABLISHED, [70, 0, 41, 130, 100], true),
            (CLOSE_WAIT, [70, 0, 40, 130, 100], false),
            (state::FIN_WAIT1, [70, 0, 70, 1, 0], false),
            (state::FIN_WAIT1, [70, 0, 61, 41, 31], true),
            (state::FIN_WAIT2, [70, 0, 72, 0, 0], true),
            (state::LAST_ACK, [0, 0, 1, 1, 0], true),
            // Refused once and sent again without being counted as that: one octet, and more, of an opener and of the other.
            (ESTABLISHED, [71, 0, 71, 0, 0], false),
            (ESTABLISHED, [140, 0, 71, 0, 0], false),
            (ESTABLISHED, [140, 0, 70, 0, 0], false),
            (ESTABLISHED, [858_928, 444_536, 300_000, 0, 0], false),
            // Counts of another kernel, or of a connection that was moved here.
            (ESTABLISHED, [70, 0, 90, 0, 0], false),
            (ESTABLISHED, [70, 90, 70, 0, 0], false),
        ] {
            let is_opener = count(state, counts).is_opener();
            assert_eq!(is_opener, wanted, "{state} {counts:?}");
        }
    }
}
