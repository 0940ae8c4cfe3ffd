//! What becomes of sessions that are open when a policy takes effect: those that the host began are made known to the
//! flow table, those that a peer began on a port that the policy does not open to it would be cut.

use std::fmt;

use crate::host::arrivals::Arrivals;
use crate::host::sockets::{Began, Session};
use crate::probe::{Probe, is_granted};
use portguard_policy::policy::{Grant, Peers, Policy};

/// Sessions by what becomes of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sorted {
    /// Begun by the host: to be seeded.
    pub seeds: Vec<Session>,
    /// Begun by a peer, and documented.
    pub documented: Vec<Session>,
    /// Begun by a peer on a port that the policy does not open to it.
    pub cut: Vec<Arriving>,
}

/// A session, and the ports for which its packets may arrive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arriving {
    /// As the socket has it.
    pub session: Session,
    /// One where it is known.
    pub ports: Vec<u16>,
}

impl Arriving {
    /// As it arrives at an interface; `None` = not there.
    pub fn at(arrivals: &Arrivals, session: &Session) -> Option<Self> {
        arrivals.is_through(session).then(|| Self {
            session: *session,
            ports: arrivals.ports(session),
        })
    }

    /// Whether a policy admits it, for whichever of the ports it arrives.
    pub fn is_granted(&self, policy: &Policy) -> bool {
        self.ports.iter().all(|port| {
            let probe = Probe {
                transport: self.session.transport(),
                peer: self.session.remote.ip(),
                port: *port,
            };
            is_granted(policy, &probe)
        })
    }
}

impl fmt::Display for Arriving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = self.session.local.port();
        let mut others = self.ports.iter().filter(|port| **port != inner);
        let transport = if self.session.is_tcp { "tcp" } else { "udp" };
        match others.next() {
            None => self.session.fmt(f),
            Some(port) => {
                let maybe = if self.ports.len() > 1 { "maybe " } else { "" };
                write!(
                    f,
                    "{transport} port {port}, {maybe}redirected to {inner}, from {} (session of {})",
                    self.session.remote.ip(),
                    self.session.remote
                )
            }
        }
    }
}

/// Sorts sessions by what a policy makes of them where they arrive.
pub fn sort(sessions: &[Arriving], policy: &Policy) -> Sorted {
    let mut sorted = Sorted::default();
    for arriving in sessions {
        if arriving.is_granted(policy) {
            sorted.documented.push(arriving.session);
        } else if is_ours(&arriving.session, policy) {
            sorted.seeds.push(arriving.session);
        } else if arriving.session.began == Began::Picked {
            // A client goes on with its next question; whatever this is, it is not admitted before it speaks.
            sorted.documented.push(arriving.session);
        } else {
            sorted.cut.push(arriving.clone());
        }
    }
    sorted
}

/// Whether the host began a session. A UDP socket that does not tell is taken for that where the policy documents that the
/// host asks this peer: by name, or, from a port that the kernel picks, as one of all.
pub fn is_ours(session: &Session, policy: &Policy) -> bool {
    let is_peer = |grant: &Grant| match grant.peers {
        Peers::Any => session.began == Began::Picked,
        Peers::Set(index) => usize::try_from(index)
            .ok()
            .and_then(|index| policy.sets.get(index))
            .is_some_and(|set| {
                let peer = session.remote.ip();
                set.prefixes.iter().any(|net| net.contains(&peer))
            }),
    };
    match session.began {
        Began::Host => true,
        Began::Peer => false,
        Began::Unknown | Began::Picked => policy.outbound.iter().any(|grant| {
            grant.transport == session.transport()
                && (grant.first..=grant.last).contains(&session.remote.port())
                && is_peer(grant)
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use portguard_policy::catalog::Transport;
    use portguard_policy::policy::{GrantKind, PeerSet};

    fn session(local: &str, remote: &str, is_accepted: bool) -> Session {
        Session {
            local: local.parse().unwrap(),
            remote: remote.parse().unwrap(),
            is_tcp: true,
            began: if is_accepted {
                Began::Peer
            } else {
                Began::Host
            },
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
                until: None,
            }],
            ..Policy::default()
        };
        let admin = session("10.0.0.1:22", "10.1.2.3:50000", true);
        let stranger = session("10.0.0.1:22", "10.2.2.3:50000", true);
        let other_port = session("10.0.0.1:8080", "10.1.2.3:50001", true);
        let own = session("10.0.0.1:40000", "192.0.2.1:443", false);
        let at = |session: Session, ports: &[u16]| Arriving {
            session,
            ports: ports.to_vec(),
        };
        let all = [
            at(admin, &[22]),
            at(stranger, &[22]),
            at(other_port, &[8080]),
            at(own, &[40_000]),
        ];
        let sorted = sort(&all, &policy);
        assert_eq!(sorted.documented, [admin]);
        assert_eq!(sorted.cut, [all[1].clone(), all[2].clone()]);
        assert_eq!(sorted.seeds, [own]);
        // Handed on from another port, or maybe so: it is the port outside that is judged.
        for ports in [&[2222][..], &[22, 2222]] {
            let redirected = [at(admin, ports)];
            let sorted = sort(&redirected, &policy);
            assert_eq!(sorted.cut, redirected);
            assert!(sorted.cut[0].to_string().contains("redirected to 22"));
        }
    }
}
