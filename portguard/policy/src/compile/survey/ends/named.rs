//! Whether the site or a document names a host as the far end of a grant, not only a network that it is in.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;

use super::Seen;
use crate::catalog::{Direction, Peer, Row, System};
use crate::compile::answers;
use crate::compile::inventory::{addresses_of, roles_of};
use crate::policy::{Grant, GrantKind, Peers};
use crate::site::{Host, Place, Term, Who};

impl<'a> Seen<'a> {
    /// Whether the host at `index` is at the far end of what is open here, or shares an address with one that is.
    pub(super) fn is_far_end(&self, grant: &Grant, index: usize, has_row: bool) -> bool {
        self.is_named(grant, index, has_row)
            || self
                .sharing(index)
                .any(|other| self.is_named(grant, other, false))
    }

    /// The other hosts that share an address with the one at `index`.
    fn sharing(&self, index: usize) -> impl Iterator<Item = usize> {
        let hosts = &self.inputs.site.hosts;
        let shared = |host: &Host| {
            let all = host.shared_addresses.iter();
            all.map(|(address, _)| *address).collect::<BTreeSet<_>>()
        };
        let own = hosts.get(index).map(shared).unwrap_or_default();
        let all = hosts.iter().enumerate();
        all.filter(move |(other, host)| *other != index && !own.is_disjoint(&shared(host)))
            .map(|(other, _)| other)
    }

    fn is_named(&self, grant: &Grant, index: usize, has_row: bool) -> bool {
        let Some(host) = self.inputs.site.hosts.get(index) else {
            return false;
        };
        // Nothing but a document's own end is guarded where there is nothing to serve.
        if self.is_bare(index) && grant.kind != GrantKind::Documented {
            return false;
        }
        if let Some((system, row)) = super::row(self.inputs.catalog, &grant.row) {
            let is_same = row.direction == Direction::Both && has_row;
            if is_same || self.is_printed(system, row, grant, index, host) {
                return true;
            }
        }
        let all = self.whos(grant).into_iter();
        all.into_iter()
            .any(|who| self.names(who.terms(), index, host, &mut BTreeSet::new()))
    }

    /// Whether a host has no role at all.
    pub(super) fn is_bare(&self, index: usize) -> bool {
        let host = self.inputs.site.hosts.get(index);
        host.is_some_and(|host| roles_of(host).next().is_none())
    }

    /// Whether this host has a role that a row, seen from its other end, is for.
    pub(super) fn is_peer_of(&self, row: &Row) -> bool {
        let id = row.id.split('/').next().unwrap_or_default();
        let has = |role: &str| !self.inventory.roles_at(id, role, self.host).is_empty();
        row.peers.iter().any(|peer| match peer {
            Peer::Role(role) => has(role),
            Peer::SameRole | Peer::Unprinted => has(&row.role),
            Peer::Group(_)
            | Peer::Prefix(_)
            | Peer::Asn(_)
            | Peer::Domain(_)
            | Peer::Itself
            | Peer::Multicast => false,
        })
    }

    /// Whether a document has a role at the far end.
    pub(super) fn is_for_roles(&self, grant: &Grant) -> bool {
        super::row(self.inputs.catalog, &grant.row).is_some_and(|(_, row)| {
            let mut peers = row.peers.iter();
            peers.any(|peer| matches!(peer, Peer::Role(_) | Peer::SameRole))
        })
    }

    /// Whether the document itself means the host: by its role, or by an address.
    fn is_printed(
        &self,
        system: &System,
        row: &Row,
        grant: &Grant,
        index: usize,
        host: &Host,
    ) -> bool {
        let has = |role: &str| {
            let roles = self.inventory.roles_at(&system.id, role, index);
            !roles.is_empty() && grant.peers != Peers::Any
        };
        let resolved = |name: &String| self.inputs.resolved.get(&name.to_ascii_lowercase());
        row.peers.iter().any(|peer| match peer {
            Peer::Role(role) => has(role),
            Peer::SameRole => has(&row.role),
            Peer::Prefix(net) => is_one_of(host, [*net]),
            Peer::Domain(name) => resolved(name).is_some_and(|all| has_any(host, all)),
            Peer::Unprinted | Peer::Group(_) | Peer::Asn(_) | Peer::Itself | Peer::Multicast => {
                false
            }
        })
    }

    /// All words of the site on who a grant is for.
    fn whos(&self, grant: &Grant) -> Vec<&'a Who> {
        let site = self.inputs.site;
        let name = grant.row.split_once('/').map_or("", |(_, name)| name);
        match grant.kind {
            GrantKind::Documented => {
                let Some((system, row)) = super::row(self.inputs.catalog, &grant.row) else {
                    return Vec::new();
                };
                let view = &self.views.at(&system.id, Some(self.host)).site;
                answers::of(site, view, system, row)
            }
            GrantKind::Site => {
                let rows = site.rows.iter().filter(|row| row.name == name);
                rows.map(|row| &row.peers).collect()
            }
            GrantKind::Management => {
                let all = site.management.iter().flat_map(|one| &one.allow);
                let same = all.filter(|access| {
                    (access.transport, access.ports) == (grant.transport, (grant.first, grant.last))
                });
                same.map(|access| &access.peers).collect()
            }
            GrantKind::Baseline => {
                let baseline = &site.baseline;
                vec![match name {
                    "dns" => &baseline.dns,
                    "ntp" => &baseline.ntp,
                    _ => &baseline.dhcp,
                }]
            }
        }
    }

    fn names(
        &self,
        terms: &'a [(Term, Place)],
        index: usize,
        host: &Host,
        above: &mut BTreeSet<&'a str>,
    ) -> bool {
        terms.iter().any(|(term, _)| match term {
            Term::Host(name) => *name == host.name,
            Term::Role(id) => self.inventory.named(id).contains(&index),
            Term::Prefix(net) => is_one_of(host, [*net]),
            Term::File(path) => {
                let nets = self.inputs.files.get(path).into_iter().flatten();
                is_one_of(host, nets.copied())
            }
            Term::Domain(name) => {
                let all = self.inputs.resolved.get(name);
                all.is_some_and(|all| has_any(host, all))
            }
            Term::Group(name) => {
                let group = self.inputs.site.groups.get(name);
                above.insert(name)
                    && group.is_some_and(|group| self.names(&group.members.0, index, host, above))
            }
        })
    }
}

/// Whether one of some prefixes is an address of the host, and no more.
fn is_one_of(host: &Host, nets: impl IntoIterator<Item = IpNet>) -> bool {
    let mut whole = nets
        .into_iter()
        .filter(|net| net.prefix_len() == net.max_prefix_len());
    whole.any(|net| addresses_of(host).any(|own| own == net.addr()))
}

fn has_any(host: &Host, addresses: &[IpAddr]) -> bool {
    addresses_of(host).any(|own| addresses.contains(&own))
}
