//! Numbers that the site puts in place of printed ones.

use crate::catalog::{Direction, Peer, PortSpec, Row, System, Transport};
use crate::site::{ChangedPorts, Place, Ports, SystemSite, names_row};

/// Sorted ranges that neither overlap nor touch.
pub(super) type Ranges = Vec<(u16, u16)>;

/// Numbers that the site puts in place of a printed one.
#[derive(Debug, Clone)]
pub(super) struct Change {
    /// The site's key, and where.
    pub(super) key: String,
    pub(super) place: Place,
    pub(super) listener: Option<String>,
    pub(super) transports: Vec<Transport>,
    pub(super) spec: PortSpec,
    pub(super) new: Ranges,
    /// Roles that listen, and peers that do and are no role.
    pub(super) roles: Vec<String>,
    pub(super) peers: Vec<Peer>,
}

impl Change {
    /// All changes that the site's words make; `holds` says which rows do.
    pub(super) fn all(
        system: &System,
        site: &SystemSite,
        holds: impl Fn(&Row) -> bool,
    ) -> Vec<Self> {
        let mut all = Vec::new();
        for (key, (change, place)) in &site.ports {
            let named = |row: &&Row| names_row(key, &system.id, &row.id) && row.inert.is_none();
            for row in system.rows.iter().filter(named).filter(|row| holds(row)) {
                for (spec, new) in changed(row, change) {
                    if !row.customisable && !spec.is_open() {
                        continue;
                    }
                    let (roles, peers) = listening(row);
                    all.push(Self {
                        key: key.clone(),
                        place: *place,
                        listener: row.listener.clone(),
                        transports: row.transports.clone(),
                        spec: spec.clone(),
                        new: merged(new.iter().map(|p| (p.first, p.last)).collect()),
                        roles,
                        peers,
                    });
                }
            }
        }
        all
    }

    /// Whether both are about one listener and differ.
    pub(super) fn contradicts(&self, other: &Self) -> bool {
        self.key != other.key
            && self.spec == other.spec
            && (!self.spec.is_open() || self.listener.is_some())
            && self.listener == other.listener
            && self.new != other.new
            && self.transports.iter().any(|t| other.transports.contains(t))
            && (self.listener.is_some()
                || self.roles.iter().any(|role| other.roles.contains(role))
                || self.peers.iter().any(|peer| other.peers.contains(peer)))
    }
}

/// Printed numbers of a row with the new ones.
pub(super) fn changed<'r>(
    row: &'r Row,
    change: &'r ChangedPorts,
) -> Vec<(&'r PortSpec, &'r [Ports])> {
    match change {
        ChangedPorts::All(new) => match row.ports.as_slice() {
            [spec] => vec![(spec, new.as_slice())],
            several if several.len() == new.len() => several.iter().zip(new.chunks(1)).collect(),
            _ => Vec::new(),
        },
        ChangedPorts::Each(each) => {
            let pairs = row.ports.iter();
            pairs
                .filter_map(|spec| Some((spec, each.get(&spec.to_string())?.as_slice())))
                .collect()
        }
    }
}

/// Who listens on a row's ports: roles, and peers that are none.
fn listening(row: &Row) -> (Vec<String>, Vec<Peer>) {
    let (mut roles, mut peers) = (Vec::new(), Vec::new());
    if row.direction != Direction::Out {
        roles.push(row.role.clone());
    }
    if row.direction != Direction::In {
        for peer in &row.peers {
            match peer {
                Peer::Role(role) => roles.push(role.clone()),
                Peer::SameRole => roles.push(row.role.clone()),
                Peer::Group(_) | Peer::Prefix(_) | Peer::Asn(_) | Peer::Domain(_) => {
                    peers.push(peer.clone());
                }
                Peer::Itself | Peer::Multicast | Peer::Unprinted => {}
            }
        }
    }
    (roles, peers)
}

/// Sorted, overlapping and adjacent ranges joined.
pub(super) fn merged(mut ranges: Ranges) -> Ranges {
    ranges.sort_unstable();
    let mut joined: Ranges = Vec::with_capacity(ranges.len());
    for (first, last) in ranges {
        match joined.last_mut() {
            Some((_, end)) if first <= end.saturating_add(1) => *end = (*end).max(last),
            _ => joined.push((first, last)),
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::merged;

    #[test]
    fn ranges_join_where_they_touch() {
        assert_eq!(
            merged(vec![(5, 6), (1, 2), (3, 3), (65_535, 65_535), (5, 9)]),
            [(1, 3), (5, 9), (65_535, 65_535)]
        );
    }
}
