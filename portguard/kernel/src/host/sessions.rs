//! What becomes of sessions that are open when a policy takes effect: those that the host began are made known to the
//! flow table, those that a peer began on a port that the policy does not open to it would be cut.

use nix::ifaddrs::getifaddrs;
use std::net::IpAddr;

use crate::generation::probe::Probe;
use crate::generation::probe::is_granted;
use crate::host::interface::Interface;
use crate::host::sockets::Session;
use portguard_policy::policy::Policy;

/// Sessions by what becomes of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sorted {
    /// Begun by the host: to be seeded.
    pub seeds: Vec<Session>,
    /// Begun by a peer, and documented.
    pub documented: Vec<Session>,
    /// Begun by a peer on a port that the policy does not open to it.
    pub cut: Vec<Session>,
}

/// Sorts the sessions of an interface: those of its addresses, or all if it has none.
pub fn sort(sessions: &[Session], policy: &Policy, own: &[IpAddr]) -> Sorted {
    let mut sorted = Sorted::default();
    for session in sessions {
        if !own.is_empty() && !own.contains(&session.local.ip()) {
            continue;
        }
        let probe = Probe {
            transport: session.transport(),
            peer: session.remote.ip(),
            port: session.local.port(),
        };
        let list = if is_granted(policy, &probe) {
            &mut sorted.documented
        } else if session.is_accepted {
            &mut sorted.cut
        } else {
            &mut sorted.seeds
        };
        list.push(*session);
    }
    sorted
}

/// The addresses of an interface.
pub fn addresses(interface: &Interface) -> Vec<IpAddr> {
    let Ok(all) = getifaddrs() else {
        return Vec::new();
    };
    all.filter(|one| one.interface_name == interface.name)
        .filter_map(|one| {
            let address = one.address?;
            let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
            v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use portguard_policy::catalog::Transport;
    use portguard_policy::policy::{Grant, GrantKind, PeerSet, Peers};

    fn session(local: &str, remote: &str, is_accepted: bool) -> Session {
        Session {
            local: local.parse().unwrap(),
            remote: remote.parse().unwrap(),
            is_tcp: true,
            is_accepted,
        }
    }

    #[test]
    fn only_what_a_peer_began_on_an_undocumented_port_is_cut() {
        let policy = Policy {
            sets: vec![PeerSet {
                name: "admins".into(),
                prefixes: vec!["10.1.0.0/16".parse().unwrap()],
            }],
            inbound: vec![Grant {
                kind: GrantKind::Management,
                transport: Transport::Tcp,
                first: 22,
                last: 22,
                peers: Peers::Set(0),
                row: "management/tcp-22".into(),
            }],
            ..Policy::default()
        };
        let admin = session("10.0.0.1:22", "10.1.2.3:50000", true);
        let stranger = session("10.0.0.1:22", "10.2.2.3:50000", true);
        let other_port = session("10.0.0.1:8080", "10.1.2.3:50001", true);
        let own = session("10.0.0.1:40000", "192.0.2.1:443", false);
        let elsewhere = session("10.5.0.1:8080", "10.1.2.3:50001", true);
        let all = [admin, stranger, other_port, own, elsewhere];
        let sorted = sort(&all, &policy, &["10.0.0.1".parse().unwrap()]);
        assert_eq!(sorted.documented, [admin]);
        assert_eq!(sorted.cut, [stranger, other_port]);
        assert_eq!(sorted.seeds, [own]);
        assert_eq!(sort(&all, &policy, &[]).cut.len(), 3);
    }
}
