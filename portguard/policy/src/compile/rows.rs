//! One row of a document: whether it holds, what it opens to whom, or why it opens nothing.

use std::collections::BTreeSet;

use super::{Compiler, facts};
use crate::catalog::{Direction, Inert, Peer, Role, Row, System};
use crate::policy::{Grant, GrantKind, Omitted, Outbound, Peers, RowFacts};

impl<'a> Compiler<'a, '_> {
    /// One row of a document, for the roles of this host that have it.
    pub(super) fn row(&mut self, system: &'a System, row: &'a Row, users: &[&'a Role]) {
        let site = self.system_site(system);
        let settings = site.row(&system.id, &row.id);
        self.policy.rows.push(RowFacts {
            id: row.id.clone(),
            role: users
                .first()
                .map(|role| format!("{}/{}", system.id, role.id)),
            purpose: row.purpose.clone(),
            citation: system.cite(row),
            audit: settings.is_some_and(|settings| settings.audit)
                || users.iter().all(|role| self.stays_in_audit(system, role)),
        });
        if let Some(reason) = settings.and_then(|settings| settings.off.as_ref()) {
            return self.omit(row, "off", format!("switched off by the site: {reason}"));
        }
        if let Some(inert) = row.inert {
            let (reason, detail) = inert_words(inert);
            return self.omit(row, reason, detail.to_owned());
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

    fn inbound(&mut self, system: &'a System, row: &'a Row, users: &[&'a Role]) {
        let mut offsets = BTreeSet::new();
        for role in users {
            offsets.insert(self.own_offset(system, row, role));
        }
        let mut grants = Vec::new();
        for offset in offsets {
            let ports = self.ports(system, row, offset);
            if !ports.is_empty() {
                let peers = self.peers.row(system, row, None);
                self.grant(row, &ports, peers, &mut grants);
            }
        }
        self.policy.inbound.append(&mut grants);
    }

    /// Outbound ports move with the offsets of the servers at the other end, where these are roles.
    fn outbound(&mut self, system: &'a System, row: &'a Row, users: &[&'a Role]) {
        let mut grants = Vec::new();
        if row.offset
            && row
                .peers
                .iter()
                .any(|peer| matches!(peer, Peer::Role(_) | Peer::SameRole))
        {
            for offset in self.peer_offsets(system, row) {
                let ports = self.ports(system, row, offset);
                if !ports.is_empty() {
                    let peers = self.peers.row(system, row, Some(offset));
                    self.grant(row, &ports, peers, &mut grants);
                }
            }
        } else {
            let own: BTreeSet<_> = users
                .iter()
                .map(|role| self.own_offset(system, row, role))
                .collect();
            for offset in own {
                let ports = self.ports(system, row, offset);
                if !ports.is_empty() {
                    let peers = self.peers.row(system, row, None);
                    self.grant(row, &ports, peers, &mut grants);
                }
            }
        }
        self.policy.outbound.append(&mut grants);
    }

    fn grant(
        &mut self,
        row: &Row,
        ports: &[(u16, u16)],
        peers: Result<Peers, String>,
        grants: &mut Vec<Grant>,
    ) {
        let peers = match peers {
            Ok(peers) => peers,
            Err(detail) => return self.omit(row, "no-peer", detail),
        };
        for (first, last) in ports {
            for transport in &row.transports {
                grants.push(Grant {
                    kind: GrantKind::Documented,
                    transport: *transport,
                    first: *first,
                    last: *last,
                    peers,
                    row: row.id.clone(),
                });
            }
        }
    }

    pub(super) fn omit(&mut self, row: &Row, reason: &str, detail: String) {
        self.policy.omitted.push(Omitted {
            row: row.id.clone(),
            reason: reason.to_owned(),
            detail,
        });
    }

    fn stays_in_audit(&self, system: &System, role: &Role) -> bool {
        let id = format!("{}/{}", system.id, role.id);
        self.subject
            .host
            .is_some_and(|host| host.audit_roles.contains(&id))
    }
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
            "concerns devices or networks that are no host of this system",
        ),
        Inert::NoNumber => ("no-number", "the document prints no number"),
    }
}
