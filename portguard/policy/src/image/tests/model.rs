//! What a policy means, read off its grants.

use std::net::IpAddr;

use portguard_common::reason::Direction;
use portguard_common::tables::Key;

use crate::catalog::Transport;
use crate::policy::{GrantKind, Peers, Policy};

/// What the policy says to a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    Granted {
        kind: GrantKind,
        rows: Vec<String>,
    },
    /// The host answers whom it serves.
    Reply,
    Foreign,
    Closed,
}

pub(super) struct Model<'a>(pub(super) &'a Policy);

impl Model<'_> {
    pub(super) fn judge(&self, direction: Direction, key: Key, peer: IpAddr, other: u16) -> Answer {
        let answer = self.look(direction, key, peer);
        let is_port = key.space() < 3;
        let is_granted = matches!(answer, Answer::Granted { .. });
        if direction == Direction::Egress && is_port && !is_granted {
            let served = self.look(Direction::Ingress, Key::port(key.space(), other), peer);
            if matches!(served, Answer::Granted { .. }) {
                return Answer::Reply;
            }
        }
        answer
    }

    /// Whether violations of a key are spared.
    pub(super) fn is_audit(&self, direction: Direction, key: Key) -> bool {
        let by_port = direction == Direction::Ingress
            && self
                .0
                .settings
                .audit_ports
                .iter()
                .any(|(transport, first, last)| {
                    space(*transport) == key.space() && (*first..=*last).contains(&key.number())
                });
        let grants = self.grants(direction, key);
        let is_audit_row = |row: &str| {
            self.0
                .rows
                .iter()
                .any(|facts| facts.id == row && facts.audit)
        };
        by_port || (!grants.is_empty() && grants.iter().all(|(_, _, row)| is_audit_row(row)))
    }

    fn look(&self, direction: Direction, key: Key, peer: IpAddr) -> Answer {
        let grants = self.grants(direction, key);
        if grants.is_empty() {
            return Answer::Closed;
        }
        let admitting = grants
            .iter()
            .filter(|(_, peers, _)| self.admits(*peers, peer));
        let mut rows: Vec<String> = admitting
            .clone()
            .map(|(_, _, row)| (*row).to_owned())
            .collect();
        rows.sort();
        rows.dedup();
        match admitting.map(|(kind, _, _)| *kind).min() {
            Some(kind) => Answer::Granted { kind, rows },
            None => Answer::Foreign,
        }
    }

    /// What opens a key, for whom.
    pub(super) fn grants(&self, direction: Direction, key: Key) -> Vec<(GrantKind, Peers, &str)> {
        let policy = self.0;
        if key == Key::ECHO {
            let peers = match direction {
                Direction::Ingress => policy.echo,
                Direction::Egress => Some(Peers::Any),
            };
            return peers
                .map(|peers| (GrantKind::Baseline, peers, "baseline/echo"))
                .into_iter()
                .collect();
        }
        if key.space() == 3 {
            let listed = policy
                .protocols
                .iter()
                .filter(|grant| u16::from(grant.protocol) == key.number());
            return listed
                .map(|grant| (GrantKind::Site, grant.peers, grant.row.as_str()))
                .collect();
        }
        let grants = match direction {
            Direction::Ingress => &policy.inbound,
            Direction::Egress => &policy.outbound,
        };
        grants
            .iter()
            .filter(|grant| space(grant.transport) == key.space())
            .filter(|grant| (grant.first..=grant.last).contains(&key.number()))
            .map(|grant| (grant.kind, grant.peers, grant.row.as_str()))
            .collect()
    }

    fn admits(&self, peers: Peers, peer: IpAddr) -> bool {
        match peers {
            Peers::Any => true,
            Peers::Set(set) => {
                let set = &self.0.sets[usize::try_from(set).expect("an index")];
                set.prefixes.iter().any(|prefix| prefix.contains(&peer))
            }
        }
    }
}

fn space(transport: Transport) -> u32 {
    match transport {
        Transport::Tcp => 0,
        Transport::Udp => 1,
        Transport::Sctp => 2,
    }
}
