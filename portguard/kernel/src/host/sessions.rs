//! What becomes of sessions that are open when a policy takes effect: those that the host began are made known to the
//! table of conversations, those that a peer began on a port that the policy does not open to it would be cut. Where there is
//! such a table already, it tells which is which: it is what packets are judged by.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use portguard_common::question;
use portguard_common::reason::Direction;

use crate::host::arrivals::{Arrivals, Through};
use crate::host::outer::Outer;
use crate::host::sockets::{Began, Session};
use crate::probe::{Probe, is_granted};
use portguard_policy::catalog::Transport;
use portguard_policy::policy::{Grant, Peers, Policy};

/// Sessions by what becomes of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sorted {
    /// Begun by the host: to be seeded.
    pub seeds: Vec<Session>,
    /// Begun by a peer, and documented, or not dropped all the same.
    pub documented: Vec<Session>,
    /// UDP clients of the host, which are answered once they ask again.
    pub clients: Vec<Session>,
    /// Begun by a peer on a port that the policy does not open to it.
    pub cut: Vec<Arriving>,
    /// The same, if they arrive here: nothing tells.
    pub doubtful: Vec<Arriving>,
}

/// What the table of conversations, as it is now, has of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// The host began it.
    Ours,
    /// The other end did.
    Theirs,
    /// Nothing.
    Not,
}

/// A session, and the ports for which its packets may arrive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arriving {
    /// As the socket has it.
    pub session: Session,
    /// One where it is known.
    pub ports: Vec<u16>,
    /// What carries it, where it comes through a tunnel that ends on this host.
    pub inside: Option<Outer>,
    /// Whether nothing tells by which interface it comes.
    pub is_doubtful: bool,
}

impl Arriving {
    /// As it arrives at an interface; `None` = not there.
    pub fn at(arrivals: &Arrivals<'_>, session: &Session) -> Option<Self> {
        let (inside, is_doubtful) = match arrivals.through(session) {
            Through::Elsewhere => return None,
            Through::Here => (None, false),
            Through::Maybe => (None, true),
            Through::Inside(outer) => {
                let is_doubtful = !outer.is_known();
                (Some(outer), is_doubtful)
            }
        };
        Some(Self {
            ports: arrivals.ports(session),
            inside,
            is_doubtful,
            ..Self::from(*session)
        })
    }

    /// Whether a policy admits it, for whichever of the ports it arrives.
    pub fn is_granted(&self, policy: &Policy) -> bool {
        if let Some(outer) = &self.inside {
            return outer.lives(policy);
        }
        self.ports.iter().all(|port| {
            let probe = Probe {
                transport: self.session.transport(),
                peer: self.session.remote.ip(),
                port: *port,
            };
            is_granted(policy, &probe)
        })
    }

    /// Whether nothing of it that arrives is dropped, since all, these ports, or all their rows stay in audit.
    fn is_let_in(&self, policy: &Policy) -> bool {
        if !policy.settings.drops(Direction::Ingress) {
            return true;
        }
        let transport = self.session.transport();
        self.ports.iter().all(|port| {
            let mut ranges = policy.settings.audit_ports.iter();
            ranges.any(|(of, first, last)| *of == transport && (*first..=*last).contains(port))
                || are_audited(policy, &policy.inbound, transport, *port)
        })
    }
}

impl From<Session> for Arriving {
    /// As its socket has it.
    fn from(session: Session) -> Self {
        Self {
            ports: vec![session.local.port()],
            session,
            inside: None,
            is_doubtful: false,
        }
    }
}

impl fmt::Display for Arriving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(outer) = &self.inside {
            return write!(f, "{}, inside {outer}", self.session);
        }
        let inner = self.session.local.port();
        let mut others = self.ports.iter().filter(|port| **port != inner);
        let transport = if self.session.is_tcp { "tcp" } else { "udp" };
        match others.next() {
            None => self.session.fmt(f),
            Some(port) => {
                let maybe = if self.ports.len() > 1 { "maybe " } else { "" };
                write!(
                    f,
                    "{transport} port {port}, {maybe}redirected to {inner}, from {} (session of {}{})",
                    self.session.remote.ip(),
                    self.session.remote,
                    self.session.began.remark()
                )
            }
        }
    }
}

/// Sorts sessions by what a policy makes of them where they arrive. `known` says what the table of conversations has of one;
/// `None` where it is yet to be made, with what is open then.
pub fn sort(
    sessions: &[Arriving],
    policy: &Policy,
    known: impl Fn(&Session) -> Option<Known>,
) -> Sorted {
    let mut sorted = Sorted::default();
    for arriving in sessions {
        let session = &arriving.session;
        match fate(arriving, policy, || known(session)) {
            Fate::Admitted => sorted.documented.push(*session),
            Fate::AsksAgain => sorted.clients.push(*session),
            Fate::Seeded => sorted.seeds.push(*session),
            Fate::Cut if arriving.is_doubtful => sorted.doubtful.push(arriving.clone()),
            Fate::Cut => sorted.cut.push(arriving.clone()),
        }
    }
    sorted
}

/// What becomes of a session.
enum Fate {
    Admitted,
    AsksAgain,
    Seeded,
    Cut,
}

fn fate(arriving: &Arriving, policy: &Policy, known: impl FnOnce() -> Option<Known>) -> Fate {
    let session = &arriving.session;
    if arriving.is_granted(policy) {
        return Fate::Admitted;
    }
    // Who began it says nothing of what carries it.
    if arriving.inside.is_some() {
        return Fate::Cut;
    }
    // What is sent there, and what comes from there as an answer.
    if !may_ask(policy, session.transport(), session.remote) {
        return Fate::Cut;
    }
    let is_ours = is_ours(session, policy);
    // A client goes on with its next question; whatever this is, it is not admitted before it speaks.
    let is_client = session.began == Began::Picked || asks_by_protocol(session, policy);
    match known() {
        None if is_ours => Fate::Seeded,
        Some(Known::Ours) => Fate::Seeded,
        _ if arriving.is_let_in(policy) => Fate::Admitted,
        None if is_client => Fate::AsksAgain,
        Some(Known::Not) if is_client || is_ours && !session.is_tcp => Fate::AsksAgain,
        None | Some(Known::Theirs | Known::Not) => Fate::Cut,
    }
}

/// Whether the outbound policy lets the host send there, and in what answers from there: what it may not ask any more is over.
pub fn may_ask(policy: &Policy, transport: Transport, remote: SocketAddr) -> bool {
    let port = remote.port();
    !policy.settings.drops(Direction::Egress)
        || are_audited(policy, &policy.outbound, transport, port)
        || on(&policy.outbound, transport, port)
            .any(|grant| covers(policy, grant.peers, remote.ip()))
}

/// The grants of a port.
fn on(grants: &[Grant], transport: Transport, port: u16) -> impl Iterator<Item = &Grant> {
    grants.iter().filter(move |grant| {
        grant.transport == transport && (grant.first..=grant.last).contains(&port)
    })
}

/// Whether all rows of a port stay in audit, and there is one.
fn are_audited(policy: &Policy, grants: &[Grant], transport: Transport, port: u16) -> bool {
    let is_audited = |grant: &Grant| {
        let mut rows = policy.rows.iter();
        rows.any(|facts| facts.audit && facts.id == grant.row)
    };
    let mut grants = on(grants, transport, port).peekable();
    grants.peek().is_some() && grants.all(is_audited)
}

fn covers(policy: &Policy, peers: Peers, peer: IpAddr) -> bool {
    let Peers::Set(index) = peers else {
        return true;
    };
    let set = usize::try_from(index)
        .ok()
        .and_then(|index| policy.sets.get(index));
    set.is_some_and(|set| set.prefixes.iter().any(|net| net.contains(&peer)))
}

/// Whether a connected UDP socket on a port that its program chose may ask its peer as the protocol marks it: then nobody has to
/// know who began.
pub(crate) fn asks_by_protocol(session: &Session, policy: &Policy) -> bool {
    let port = session.remote.port();
    !session.is_tcp
        && matches!(session.began, Began::Unknown | Began::Peer)
        && question::is_marked(port)
        && on(&policy.outbound, session.transport(), port)
            .any(|grant| covers(policy, grant.peers, session.remote.ip()))
}

/// Whether the host began a session. A UDP socket that does not tell is taken for that where the policy documents that the
/// host asks this peer: by name, or, from a port that the kernel picks, as one of all.
pub fn is_ours(session: &Session, policy: &Policy) -> bool {
    let is_asked = |grant: &Grant| match grant.peers {
        Peers::Any => session.began == Began::Picked,
        Peers::Set(_) => covers(policy, grant.peers, session.remote.ip()),
    };
    match session.began {
        Began::Host => true,
        Began::Peer | Began::Unclear => false,
        Began::Unknown | Began::Picked => {
            on(&policy.outbound, session.transport(), session.remote.port()).any(is_asked)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use portguard_policy::policy::{GrantKind, Outbound, PeerSet, Settings};

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
            cookie: 0,
            interface: 0,
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
            settings: Settings {
                enforce: true,
                ..Settings::default()
            },
            ..Policy::default()
        };
        let admin = session("10.0.0.1:22", "10.1.2.3:50000", true);
        let stranger = session("10.0.0.1:22", "10.2.2.3:50000", true);
        let other_port = session("10.0.0.1:8080", "10.1.2.3:50001", true);
        let own = session("10.0.0.1:40000", "192.0.2.1:443", false);
        let at = |session: Session, ports: &[u16]| Arriving {
            ports: ports.to_vec(),
            ..Arriving::from(session)
        };
        let all = [
            at(admin, &[22]),
            at(stranger, &[22]),
            at(other_port, &[8080]),
            at(own, &[40_000]),
        ];
        let sorted = sort(&all, &policy, |_| None);
        assert_eq!(sorted.documented, [admin]);
        assert_eq!(sorted.cut, [all[1].clone(), all[2].clone()]);
        assert_eq!(sorted.seeds, [own]);
        // Handed on from another port, or maybe so: it is the port outside that is judged.
        for ports in [&[2222][..], &[22, 2222]] {
            let redirected = [at(admin, ports)];
            let sorted = sort(&redirected, &policy, |_| None);
            assert_eq!(sorted.cut, redirected);
            assert!(sorted.cut[0].to_string().contains("redirected to 22"));
        }
    }

    /// A table that exists decides, whatever the ports say; and a narrower outbound policy cuts what the host began.
    #[test]
    fn what_the_table_has_is_what_becomes_of_a_session() {
        const ADMITTED: [usize; 4] = [1, 0, 0, 0];
        const SEEDED: [usize; 4] = [0, 1, 0, 0];
        const CUT: [usize; 4] = [0, 0, 1, 0];
        const ASKS: [usize; 4] = [0, 0, 0, 1];
        let udp = |local: &str, began| Session {
            is_tcp: false,
            began,
            ..session(local, "192.0.2.1:53", false)
        };
        let tcp = session("10.0.0.1:40000", "192.0.2.1:443", false);
        let asks = |outbound, port, peers| Policy {
            sets: vec![PeerSet {
                name: "servers".into(),
                prefixes: vec!["192.0.2.0/24".parse().unwrap()],
            }],
            outbound: vec![Grant {
                kind: GrantKind::Site,
                transport: Transport::Tcp,
                first: port,
                last: port,
                peers,
                row: "site/ask".into(),
                until: None,
            }],
            settings: Settings {
                enforce: true,
                outbound,
                ..Settings::default()
            },
            ..Policy::default()
        };
        let all = |policy: &Policy, session: Session, known| {
            let sorted = sort(&[session.into()], policy, |_| known);
            [
                sorted.documented.len(),
                sorted.seeds.len(),
                sorted.cut.len(),
                sorted.clients.len(),
            ]
        };
        let audit = asks(Outbound::Audit, 443, Peers::Any);
        let unclear = Session {
            began: Began::Unclear,
            ..tcp
        };
        let picked = udp("10.0.0.1:40000", Began::Picked);
        let chosen = udp("10.0.0.1:9999", Began::Unknown);
        for (session, known, wanted) in [
            (tcp, None, SEEDED),
            (tcp, Some(Known::Ours), SEEDED),
            (tcp, Some(Known::Not), CUT),
            (unclear, None, CUT),
            (unclear, Some(Known::Ours), SEEDED),
            (picked, None, ASKS),
            (picked, Some(Known::Not), ASKS),
            (picked, Some(Known::Ours), SEEDED),
            (picked, Some(Known::Theirs), CUT),
            (chosen, None, CUT),
            (chosen, Some(Known::Not), CUT),
            (chosen, Some(Known::Ours), SEEDED),
        ] {
            assert_eq!(all(&audit, session, known), wanted, "{session} {known:?}");
        }
        for (port, peers, wanted) in [
            (443, Peers::Set(0), SEEDED),
            (443, Peers::Any, SEEDED),
            (444, Peers::Set(0), CUT),
        ] {
            let enforce = asks(Outbound::Enforce, port, peers);
            assert_eq!(all(&enforce, tcp, Some(Known::Ours)), wanted, "{port}");
        }
        // Nothing is dropped on ports that stay in audit.
        let mut spared = asks(Outbound::Audit, 443, Peers::Any);
        spared.settings.audit_ports = vec![(Transport::Udp, 9000, 9999)];
        assert_eq!(all(&spared, chosen, Some(Known::Theirs)), ADMITTED);
        // What is let in in audit is not answered where that is not let out.
        for (port, theirs, ours) in [(443, ADMITTED, SEEDED), (444, CUT, CUT)] {
            for audits in [true, false] {
                let mut policy = asks(Outbound::Enforce, port, Peers::Any);
                policy.settings.enforce = !audits;
                policy.settings.audit_ports = vec![(Transport::Tcp, 0, u16::MAX)];
                assert_eq!(all(&policy, tcp, Some(Known::Theirs)), theirs, "{port}");
                assert_eq!(all(&policy, tcp, Some(Known::Ours)), ours, "{port}");
            }
        }
    }
}
