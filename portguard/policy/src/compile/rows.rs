//! One row of a document: whether it holds, what it opens to whom, or why it opens nothing.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "all other kinds are alike here"
)]

use std::cell::Cell;
use std::collections::BTreeMap;

use super::listeners::{Ending, Listener, ids};
use super::peers::{Asking, Part};
use super::{Compiler, facts, narrow};
use crate::catalog::{Direction, Inert, Peer, PeerClass, PortSpec, Role, Row, System};
use crate::diagnostic::Diagnostic;
use crate::policy::{Grant, GrantKind, Omitted, Outbound, Peers, RowFacts};
use crate::site::UnresolvedPorts;

/// Numbers, or what is printed in their place.
type Numbers = Result<Ending, PortSpec>;

impl<'a> Compiler<'a, '_> {
    /// One row of a document, for the roles of this host that have it.
    pub(super) fn row(&mut self, system: &'a System, row: &'a Row, users: &[&'a Role]) {
        let site = &self.views.at(&system.id, self.subject.index).site;
        let words: Vec<String> = row.peers.iter().map(ToString::to_string).collect();
        self.policy.rows.push(RowFacts {
            id: row.id.clone(),
            role: users
                .first()
                .map(|role| format!("{}/{}", system.id, role.id)),
            purpose: row.purpose.clone(),
            citation: system.cite(row),
            audit: site
                .of_row(&system.id, &row.id, |settings| settings.audit.then_some(()))
                .is_some()
                || users.iter().all(|role| self.stays_in_audit(system, role)),
            peers: words.join(", "),
        });
        if let Some(reason) = site.off(&system.id, &row.id) {
            return self.omit(row, "off", format!("switched off by the site: {reason}"));
        }
        if let Some(inert) = row.inert {
            let (reason, detail) = inert_words(inert);
            return self.omit(row, reason, detail.to_owned());
        }
        if let Some(detail) = self.elsewhere(system, row) {
            return self.omit(row, "other-interface", detail);
        }
        match facts::judge(row.condition.as_ref(), system, site) {
            facts::Truth::Holds => {}
            facts::Truth::Fails(detail) => return self.omit(row, "condition", detail),
            facts::Truth::Unsaid(unsaid) => {
                for fact in unsaid {
                    self.unsaid
                        .entry((system.id.clone(), fact))
                        .or_default()
                        .push(row.id.clone());
                }
            }
        }
        if row.peers.iter().all(|peer| *peer == Peer::Itself) {
            return self.omit(
                row,
                "loopback",
                "only from the host to itself, over loopback".to_owned(),
            );
        }
        if matches!(row.direction, Direction::In | Direction::Both) {
            self.inbound(system, row, users);
        }
        if matches!(row.direction, Direction::Out | Direction::Both) {
            if self.inputs.site.outbound == Outbound::Off {
                self.omit(
                    row,
                    "outbound-off",
                    "what the host sends is not judged".to_owned(),
                );
            } else {
                self.outbound(system, row, users);
            }
        }
    }

    /// Why a row is not for the interface at hand, where a host serves its rows on several.
    fn elsewhere(&self, system: &System, row: &Row) -> Option<String> {
        let host = self.subject.host?;
        if !narrow::is_served(system, row, host) {
            return Some("the site serves it on none of the host's interfaces".to_owned());
        }
        let name = self.inputs.interface?;
        let interface = host.interfaces.get(name)?;
        (!interface.serves(&row.id))
            .then(|| format!("the site serves it on other interfaces than {name}"))
    }

    fn inbound(&mut self, system: &'a System, row: &'a Row, users: &[&'a Role]) {
        // Where peers depend on which of this host's servers is meant, what one of them listens on is not for the others':
        // members of a cluster are of one kind, and other subsystems are not one's own.
        let is_of_one = row.class == Some(PeerClass::ClusterMembers) || row.other_roles_only;
        if is_of_one && users.len() > 1 {
            for user in users {
                self.inbound(system, row, &[*user]);
            }
            return;
        }
        let roles = ids(users);
        let at = Listener {
            roles: &roles,
            named: &row.role,
            host: self.subject.index,
            view: self.views.at(&system.id, self.subject.index),
            is_other: false,
        };
        self.crowded(system, row, &at);
        let ports = self.ports(system, row, &at);
        let peers = self.peers_of(system, row, users, Direction::In, &Part::All);
        let grants = self.grants(system, row, ports, peers);
        self.policy.inbound.extend(grants);
    }

    /// Whoever connects uses the numbers of the servers at the other end.
    fn outbound(&mut self, system: &'a System, row: &'a Row, users: &[&'a Role]) {
        let mut parts = self.destinations(system, row, users);
        if let [(_, part)] = parts.as_mut_slice() {
            *part = Part::All;
        }
        let (mut reasons, mut is_meant) = (Vec::new(), false);
        for (ports, part) in parts {
            match self.peers_of(system, row, users, Direction::Out, &part) {
                Ok(peers) => {
                    is_meant = true;
                    let grants = self.grants(system, row, ports, Ok(peers));
                    self.policy.outbound.extend(grants);
                }
                Err(why) if !reasons.contains(&why) => reasons.push(why),
                Err(_) => {}
            }
        }
        if !is_meant {
            // Each part knows of its own peers only; why all of them are none is asked of the whole.
            let whole = self.peers_of(system, row, users, Direction::Out, &Part::All);
            self.omit(
                row,
                "no-peer",
                whole.err().unwrap_or_else(|| reasons.join("; ")),
            );
        }
    }

    /// The row's destinations by the numbers on which they listen.
    fn destinations(
        &mut self,
        system: &'a System,
        row: &'a Row,
        users: &[&'a Role],
    ) -> Vec<(Numbers, Part)> {
        let id = system.id.as_str();
        let (view, own) = (self.views.at(id, self.subject.index), ids(users));
        let roles = far_roles(row, &own);
        let others = Listener {
            roles: &own,
            named: &row.role,
            host: self.subject.index,
            view,
            is_other: true,
        };
        let is_plain = !row.offset && view.changes.is_empty() && !self.views.vary(id);
        let has_own_number = |spec: &PortSpec| matches!(spec, PortSpec::Offset { .. });
        if roles.is_empty() || (is_plain && !row.ports.iter().any(has_own_number)) {
            return vec![(self.ports(system, row, &others), Part::All)];
        }
        let mut found: BTreeMap<Numbers, Vec<(String, usize)>> = BTreeMap::new();
        let mut parts = Vec::new();
        for (role, is_member) in &roles {
            let hosts = if *is_member {
                self.inventory.members(id, role)
            } else {
                self.inventory.related_hosts(id, role)
            };
            let named = if *is_member { row.role.as_str() } else { *role };
            for host in hosts {
                let theirs = if *is_member {
                    vec![*role]
                } else {
                    self.inventory.roles_at(id, role, host)
                };
                let at = Listener {
                    roles: &theirs,
                    named,
                    host: Some(host),
                    view: self.views.at(id, Some(host)),
                    is_other: false,
                };
                if self.inventory.is_own(host) {
                    continue;
                }
                let ports = self.ports(system, row, &at);
                found
                    .entry(ports)
                    .or_default()
                    .push(((*role).to_owned(), host));
            }
            if view
                .site
                .peers
                .keys()
                .any(|key| system.closure(key).contains(role))
            {
                let at = Listener {
                    roles: &[role],
                    named,
                    host: None,
                    view,
                    is_other: false,
                };
                parts.push((
                    self.ports(system, row, &at),
                    Part::Given((*role).to_owned()),
                ));
            }
        }
        parts.extend(
            found
                .into_iter()
                .map(|(ports, hosts)| (ports, Part::Hosts(hosts))),
        );
        let is_missing = |(role, _): &(&str, bool)| !self.inventory.has_related(id, role);
        let is_role = |peer: &Peer| matches!(peer, Peer::Role(_) | Peer::SameRole);
        let has_others = row.peers.iter().any(|peer| !is_role(peer));
        if has_others || roles.iter().any(is_missing) || parts.is_empty() {
            parts.push((self.ports(system, row, &others), Part::Others));
        }
        parts
    }

    fn peers_of(
        &mut self,
        system: &'a System,
        row: &'a Row,
        users: &[&'a Role],
        direction: Direction,
        part: &Part,
    ) -> Result<Peers, String> {
        let asking = Asking {
            system,
            row,
            view: self.views.at(&system.id, self.subject.index),
            users: ids(users),
            direction,
            part,
            is_narrowed: Cell::new(false),
        };
        self.peers.row(asking)
    }

    /// Grants for what the row opens; whatever opens nothing is listed as omitted.
    fn grants(
        &mut self,
        system: &System,
        row: &Row,
        ports: Numbers,
        peers: Result<Peers, String>,
    ) -> Vec<Grant> {
        let peers = match peers {
            Ok(peers) => peers,
            Err(detail) => {
                self.omit(row, "no-peer", detail);
                return Vec::new();
            }
        };
        let ports = match ports {
            Ok(ports) => ports,
            Err(spec) => {
                self.unnumbered(system, row, &spec, peers);
                return Vec::new();
            }
        };
        if ports.is_empty() {
            let message = format!("row `{}` has no port left", row.id);
            self.diagnostics
                .push(Diagnostic::warning("no-port-left", message).at(row.location.clone()));
            self.omit(row, "no-port", "no port is left".to_owned());
        }
        let site = &self.views.at(&system.id, self.subject.index).site;
        let of_row = facts::until(row.condition.as_ref(), site);
        let mut grants = Vec::new();
        for (until, ranges) in ports {
            for (first, last) in ranges {
                grants.extend(row.transports.iter().map(|transport| Grant {
                    kind: GrantKind::Documented,
                    transport: *transport,
                    first,
                    last,
                    peers,
                    row: row.id.clone(),
                    until: until.into_iter().chain(of_row).min(),
                }));
            }
        }
        grants
    }

    /// A row whose numbers the document leaves open and the site does not give.
    fn unnumbered(&mut self, system: &System, row: &Row, spec: &PortSpec, peers: Peers) {
        let local = row.id.strip_prefix(&format!("{}/", system.id));
        let local = local.unwrap_or(&row.id);
        let key = local.split("/in").next().unwrap_or(local);
        let key = key.split("/out").next().unwrap_or(key);
        let hint = format!(
            "write `\"{key}\" = \"FIRST-LAST\"` under [systems.{}.ports]",
            system.id
        );
        let what = match spec {
            PortSpec::Dynamic => "ports assigned at run time",
            PortSpec::Random => "a port chosen at each start",
            _ => "a port that the document does not print",
        };
        self.policy.omitted.push(Omitted {
            row: row.id.clone(),
            reason: "dynamic".to_owned(),
            detail: format!("{what}; {hint}"),
            peers: Some(peers),
        });
        if self.inputs.site.unresolved_ports != Some(UnresolvedPorts::None) {
            let id = format!("{}/{}", system.id, key);
            self.peers.missing.want("unresolved-ports", id, &row.id, || {
                (
                    format!("{} names {what}: {}", system.id, row.purpose),
                    format!("{hint}, or `unresolved_ports = \"none\"` at the top of the file (`--unresolved-ports none`) to keep all such rows closed"),
                )
            });
        }
    }

    pub(super) fn omit(&mut self, row: &Row, reason: &str, detail: String) {
        self.policy.omitted.push(Omitted {
            row: row.id.clone(),
            reason: reason.to_owned(),
            detail,
            peers: None,
        });
    }

    fn stays_in_audit(&self, system: &System, role: &Role) -> bool {
        let id = format!("{}/{}", system.id, role.id);
        self.subject
            .host
            .is_some_and(|host| host.audit_roles.contains_key(&id))
    }
}

/// Roles at the far end, and whether they are of the host's own kind: members of a cluster.
fn far_roles<'r>(row: &'r Row, own: &[&'r str]) -> Vec<(&'r str, bool)> {
    let mut roles = Vec::new();
    for peer in &row.peers {
        match peer {
            Peer::Role(role) => roles.push((role.as_str(), false)),
            Peer::SameRole => roles.push((row.role.as_str(), false)),
            Peer::Unprinted if row.class == Some(PeerClass::ClusterMembers) => {
                roles.extend(own.iter().map(|role| (*role, true)));
            }
            _ => {}
        }
    }
    roles
}

fn inert_words(inert: Inert) -> (&'static str, &'static str) {
    match inert {
        Inert::OutOfBand => (
            "out-of-band",
            "on a management controller beside the host's own network stack",
        ),
        Inert::Loopback => (
            "loopback",
            "only over loopback, which never passes a network interface",
        ),
        Inert::OtherDevice => (
            "other-device",
            "concerns devices or networks that are not hosts of this system",
        ),
        Inert::NoNumber => ("no-number", "the document prints no number"),
    }
}
