//! What other ends began with UDP sockets that are connected to nobody, on ports that the kernel picked: media streams and the
//! like, whose programs tell the other end the port. The kernel does not list whom such a socket talks with. The table of
//! conversations knows, but not by name: so who was let in though nothing documents it is looked up there.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;

use nix::ifaddrs::getifaddrs;
use portguard_common::talkers::CLIENT_PORTS;

use super::Table;
use crate::host::owners::{Owner, Owners, ephemeral};
use crate::host::sockets::{Began, Service, Session, services};

/// Somebody who was let in over UDP by audit, and the one port that is known of that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Heard {
    /// From a service's port, to whichever of the host's that are clients'.
    From(SocketAddr),
    /// To this port of the host's, from one that is a client's.
    To(IpAddr, u16),
}

impl Heard {
    const fn peer(self) -> IpAddr {
        match self {
            Self::From(peer) => peer.ip(),
            Self::To(peer, _) => peer,
        }
    }

    /// The ports that it may have sent from.
    const fn ports(self) -> RangeInclusive<u16> {
        match self {
            Self::From(peer) => peer.port()..=peer.port(),
            Self::To(..) => CLIENT_PORTS..=u16::MAX,
        }
    }

    fn is_at(self, port: u16) -> bool {
        match self {
            Self::From(_) => true,
            Self::To(_, at) => at == port,
        }
    }
}

/// The sessions of those that are heard, by the table of conversations.
///
/// # Errors
/// If the kernel does not list its sockets, or the table cannot be read.
pub fn streams(heard: &BTreeSet<Heard>, table: &Table) -> crate::Result<Vec<Session>> {
    if heard.is_empty() {
        return Ok(Vec::new());
    }
    let mut owners = Owners::new()?;
    let theirs = table.theirs()?;
    let here = addresses();
    let (first, last) = ephemeral();
    let clients = first..=last;
    let mut found = Vec::new();
    for socket in services()? {
        let mut heard = heard.iter().filter(|one| one.is_at(socket.port)).peekable();
        if socket.session.is_some() || heard.peek().is_none() {
            continue;
        }
        let is_picked = match owners.of_bound(socket.address, socket.port, socket.interface)? {
            Owner::Picked => true,
            Owner::Unknown => clients.contains(&socket.port),
            Owner::Asked | Owner::Hidden => false,
        };
        if !is_picked {
            continue;
        }
        for one in heard {
            let peer = one.peer();
            let own = here.iter().filter(|own| hears(&socket, **own, peer));
            for (own, port) in own.flat_map(|own| one.ports().map(move |port| (own, port))) {
                let session = Session {
                    local: SocketAddr::new(*own, socket.port),
                    remote: SocketAddr::new(peer, port),
                    is_tcp: false,
                    began: Began::Peer,
                    cookie: socket.cookie,
                    interface: socket.interface,
                };
                if theirs.has(&session) {
                    found.push(session);
                }
            }
        }
    }
    found.sort();
    found.dedup();
    Ok(found)
}

/// Whether what a peer sends to an address of the host may come to a socket.
fn hears(socket: &Service, own: IpAddr, peer: IpAddr) -> bool {
    let bound = socket.address.to_canonical();
    own.is_ipv4() == peer.is_ipv4()
        && (bound == own || bound.is_unspecified() && (bound.is_ipv6() || own.is_ipv4()))
}

/// The host's own addresses, but those within it.
fn addresses() -> BTreeSet<IpAddr> {
    let all = getifaddrs().into_iter().flatten().filter_map(|one| {
        let address = one.address?;
        let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
        let v6 = || address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip()));
        v4.or_else(v6)
    });
    all.filter(|address| !address.is_loopback()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_hears_what_it_is_bound_to() {
        for (bound, own, peer, wanted) in [
            ("10.0.0.1", "10.0.0.1", "10.0.0.9", true),
            ("10.0.0.2", "10.0.0.1", "10.0.0.9", false),
            ("0.0.0.0", "10.0.0.1", "10.0.0.9", true),
            ("::", "10.0.0.1", "10.0.0.9", true),
            ("::", "fd77::1", "10.0.0.9", false),
            ("0.0.0.0", "fd77::1", "fd77::9", false),
            ("::ffff:10.0.0.1", "10.0.0.1", "10.0.0.9", true),
        ] {
            let socket = Service {
                cookie: 1,
                port: 40_000,
                address: bound.parse().unwrap(),
                interface: 0,
                session: None,
            };
            let heard = hears(&socket, own.parse().unwrap(), peer.parse().unwrap());
            assert_eq!(heard, wanted, "{bound} {own} {peer}");
        }
    }
}
