//! Which port numbers a row opens on this host: changed ports, offsets, choices, ranges given for dynamic ones.

use std::collections::BTreeSet;

use super::{Compiler, facts::Fact};
use crate::catalog::{Peer, PortSpec, Role, Row, System};
use crate::diagnostic::Diagnostic;

impl<'a> Compiler<'a, '_> {
    /// The offset of this host's own server, for one of its roles.
    pub(super) fn own_offset(&self, system: &System, row: &Row, role: &Role) -> u16 {
        if row.offset {
            self.inventory
                .offset(&system.id, &[&role.id, &row.role], self.subject.host)
        } else {
            0
        }
    }

    /// Offsets of the servers that a row's role peers have; sorted, never empty.
    pub(super) fn peer_offsets(&self, system: &System, row: &Row) -> BTreeSet<u16> {
        let roles = row.peers.iter().filter_map(|peer| match peer {
            Peer::Role(role) => Some(role.as_str()),
            Peer::SameRole => Some(row.role.as_str()),
            Peer::Group(_)
            | Peer::Prefix(_)
            | Peer::Asn(_)
            | Peer::Domain(_)
            | Peer::Itself
            | Peer::Unprinted => None,
        });
        let mut offsets = BTreeSet::new();
        for role in roles {
            offsets.extend(self.role_offsets(system, role));
        }
        offsets
    }

    /// Offsets of the hosts that have a role, and the system's own where peers are given by address or not at all.
    fn role_offsets(&self, system: &System, role: &str) -> BTreeSet<u16> {
        let hosts = self.inventory.hosts_with(&system.id, role).into_iter();
        let mut offsets: BTreeSet<_> = hosts
            .map(|host| self.inventory.offset_at(&system.id, role, host))
            .collect();
        let given = &self.system_site(system).peers;
        if offsets.is_empty() || given.keys().any(|key| system.closure(key).contains(role)) {
            offsets.insert(self.inventory.offset(&system.id, &[role], None));
        }
        offsets
    }

    /// Sorted, merged ranges of a row at an offset. Whatever opens nothing is listed as omitted.
    pub(super) fn ports(
        &mut self,
        system: &'a System,
        row: &'a Row,
        offset: u16,
    ) -> Vec<(u16, u16)> {
        let site = self.system_site(system);
        let changed = site
            .row_ports(&system.id, &row.id)
            .map(|(ports, _)| ports.as_slice());
        let changed: Vec<(u16, u16)> = changed
            .unwrap_or_default()
            .iter()
            .map(|ports| (ports.first, ports.last))
            .collect();
        if row.customisable && !changed.is_empty() {
            return merged(changed);
        }
        let picked = row.pick.as_ref().and_then(|pick| site.choices.get(pick));
        if let (Some(pick), None) = (&row.pick, picked) {
            let rows = self
                .unsaid
                .entry((system.id.clone(), Fact::Choice(pick.clone())))
                .or_default();
            if rows.last() != Some(&row.id) {
                rows.push(row.id.clone());
            }
        }
        let mut ranges = Vec::new();
        let mut unknown = None;
        for spec in &row.ports {
            if picked.is_some_and(|(value, _)| *value != spec.to_string()) {
                continue;
            }
            match spec {
                PortSpec::Range(first, last) => {
                    self.moved(row, (*first, *last), offset, &mut ranges);
                }
                PortSpec::Offset { base, role } => {
                    for theirs in self.role_offsets(system, role) {
                        self.moved(row, (*base, *base), theirs, &mut ranges);
                    }
                }
                PortSpec::Dynamic | PortSpec::Random if !changed.is_empty() => {
                    ranges.extend(&changed);
                }
                PortSpec::Dynamic | PortSpec::Random => unknown = Some(spec),
            }
        }
        if let Some(spec) = unknown {
            let local = row
                .id
                .strip_prefix(&format!("{}/", system.id))
                .unwrap_or(&row.id);
            let detail = format!(
                "{spec} ports; give them a range with `\"{local}\" = \"FIRST-LAST\"` under [systems.{}.ports]",
                system.id
            );
            self.omit(row, "dynamic", detail);
        } else if ranges.is_empty() {
            let detail = "no port is left".to_owned();
            let message = format!("row `{}` has no port left", row.id);
            self.diagnostics
                .push(Diagnostic::warning("no-port-left", message).at(row.location.clone()));
            self.omit(row, "no-port", detail);
        }
        merged(ranges)
    }

    fn moved(&mut self, row: &Row, range: (u16, u16), offset: u16, ranges: &mut Vec<(u16, u16)>) {
        if let (Some(first), Some(last)) =
            (range.0.checked_add(offset), range.1.checked_add(offset))
        {
            ranges.push((first, last));
        } else {
            let message = format!(
                "row `{}`: port {} and offset {offset} are beyond 65535",
                row.id, range.1
            );
            self.diagnostics
                .push(Diagnostic::error("port-overflow", message).hint("choose a smaller offset"));
        }
    }
}

/// Sorted, overlapping and adjacent ranges joined.
pub(super) fn merged(mut ranges: Vec<(u16, u16)>) -> Vec<(u16, u16)> {
    ranges.sort_unstable();
    let mut joined: Vec<(u16, u16)> = Vec::with_capacity(ranges.len());
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
