//! Who the peers of a host are, by who is connected to it and whom it is connected to. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde::Serialize;

use portguard_kernel::host::sockets::{Began, Session};
use portguard_policy::catalog::{Catalog, Direction, Peer, PortSpec, Row, System, Transport};

/// More addresses than this are no list that somebody would want: they are asked for as prefixes.
const MOST: usize = 16;

/// A peer that documents name, and who is connected as such now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Seen {
    /// `SYSTEM/KEY`, as `--peer` takes it.
    pub(super) peer: String,
    pub(super) addresses: Vec<IpAddr>,
    /// Ports that tell it.
    pub(super) ports: Vec<String>,
}

/// Peers of roles and groups that the documents leave to the site. A connection counts only where its port is documented for one
/// peer: where several may use it, or the document prints none, nobody is guessed. Nor is who administers this host by SSH.
pub(super) fn seen(
    catalog: &Catalog,
    roles: &[String],
    own: &[IpAddr],
    management: &[u16],
    sessions: &[Session],
) -> Vec<Seen> {
    let mut found: BTreeMap<String, (BTreeSet<IpAddr>, BTreeSet<String>)> = BTreeMap::new();
    for session in sessions {
        let remote = session.remote.ip().to_canonical();
        let (direction, port) = match session.began {
            Began::Peer => (Direction::In, session.local.port()),
            Began::Host => (Direction::Out, session.remote.port()),
            Began::Unknown | Began::Picked | Began::Unclear => continue,
        };
        let administers =
            direction == Direction::In && session.is_tcp && management.contains(&port);
        if own.contains(&remote) || is_link_local(remote) || administers {
            continue;
        }
        let end = (direction, session.transport(), port);
        if let Some(peer) = only_peer(catalog, roles, end) {
            let (addresses, ports) = found.entry(peer).or_default();
            addresses.insert(remote);
            ports.insert(format!("{}/{port}", session.transport()));
        }
    }
    found
        .into_iter()
        .filter(|(_, (addresses, _))| addresses.len() <= MOST)
        .map(|(peer, (addresses, ports))| Seen {
            peer,
            addresses: addresses.into_iter().collect(),
            ports: ports.into_iter().collect(),
        })
        .collect()
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}

/// The peer of a port, if all rows of these roles that have it name the same one, and the site says who that is.
fn only_peer(
    catalog: &Catalog,
    roles: &[String],
    end: (Direction, Transport, u16),
) -> Option<String> {
    let mut only = None;
    for name in roles {
        let (system, role) = catalog.role(name).ok()?;
        for row in system.rows_of(&role.id).filter(|row| is_about(row, end)) {
            for peer in &row.peers {
                let key = key(system, row, peer)?;
                if only.get_or_insert_with(|| key.clone()) != &key {
                    return None;
                }
            }
        }
    }
    only
}

fn is_about(row: &Row, (direction, transport, port): (Direction, Transport, u16)) -> bool {
    row.inert.is_none()
        && (row.direction == direction || row.direction == Direction::Both)
        && row.transports.contains(&transport)
        && row.ports.iter().any(
            |spec| matches!(spec, PortSpec::Range(first, last) if (*first..=*last).contains(&port)),
        )
}

/// As the site names a peer; `None` = it has nothing to say of this one.
fn key(system: &System, row: &Row, peer: &Peer) -> Option<String> {
    match peer {
        Peer::Group(id) | Peer::Role(id) => Some(format!("{}/{id}", system.id)),
        Peer::SameRole => Some(format!("{}/{}", system.id, row.role)),
        Peer::Prefix(_)
        | Peer::Asn(_)
        | Peer::Domain(_)
        | Peer::Itself
        | Peer::Multicast
        | Peer::Unprinted => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(began: Began, local: u16, remote: &str) -> Session {
        Session {
            local: ([10, 0, 0, 1], local).into(),
            remote: remote.parse().unwrap(),
            is_tcp: true,
            cookie: 0,
            interface: 0,
            began,
        }
    }

    #[test]
    fn whoever_is_connected_to_a_port_of_one_peer_is_that_peer() {
        let catalog = Catalog::embedded().unwrap();
        let roles = ["thoughtspot/node".to_owned()];
        let own = [IpAddr::from([10, 0, 0, 1])];
        let sessions = [
            // Zookeeper and the cluster manager are for other nodes, PostgreSQL is asked of one.
            session(Began::Peer, 2_181, "10.0.0.2:40000"),
            session(Began::Peer, 2_200, "[::ffff:10.0.0.3]:40000"),
            session(Began::Host, 40_000, "10.0.0.4:5432"),
            // For nodes and administrators; for nobody; by the host itself; who began it is not known.
            session(Began::Peer, 2_101, "10.0.0.9:40000"),
            session(Began::Peer, 9, "10.0.0.9:40000"),
            session(Began::Peer, 2_181, "10.0.0.1:40000"),
            session(Began::Unclear, 2_181, "10.0.0.9:40000"),
        ];
        let found = seen(&catalog, &roles, &own, &[22], &sessions);
        let [nodes] = found.as_slice() else {
            panic!("{found:#?}")
        };
        assert_eq!(nodes.peer, "thoughtspot/node");
        assert_eq!(
            nodes.addresses,
            [2, 3, 4].map(|last| IpAddr::from([10, 0, 0, last]))
        );
        assert_eq!(nodes.ports, ["tcp/2181", "tcp/2200", "tcp/5432"]);
    }

    #[test]
    fn who_administers_this_host_is_nobody_else_for_that() {
        let catalog = Catalog::embedded().unwrap();
        let roles = ["thoughtspot/node".to_owned()];
        let sessions = [session(Began::Peer, 22, "10.0.0.50:40000")];
        assert!(seen(&catalog, &roles, &[], &[22], &sessions).is_empty());
        let found = seen(&catalog, &roles, &[], &[2222], &sessions);
        assert!(!found.is_empty(), "SSH is documented for one peer");
    }

    #[test]
    fn a_crowd_is_no_list_and_roles_of_no_catalog_have_no_peers() {
        let catalog = Catalog::embedded().unwrap();
        let roles = ["thoughtspot/node".to_owned()];
        let sessions: Vec<Session> = (0..=MOST)
            .map(|last| session(Began::Peer, 2_181, &format!("10.1.0.{last}:40000")))
            .collect();
        assert!(seen(&catalog, &roles, &[], &[], &sessions).is_empty());
        assert_eq!(seen(&catalog, &roles, &[], &[], &sessions[1..]).len(), 1);
        let roles = ["nobody/knows".to_owned()];
        assert!(seen(&catalog, &roles, &[], &[], &sessions[1..]).is_empty());
    }
}
