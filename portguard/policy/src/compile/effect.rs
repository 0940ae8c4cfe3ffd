//! Lints for settings that would have no effect: whoever writes one believes that it does something.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "all other kinds are alike here"
)]

use std::collections::BTreeSet;

use super::changes::{Change, changed};
use super::inventory::clusters_of;
use super::inventory::{self, addresses_of};
use super::lint::Lint;
use super::some_of;
use crate::catalog::{Peer, Row, System};
use crate::diagnostic::{Diagnostic, Level};
use crate::site::{ChangedPorts, Host, Mode, Place, SystemSite, Term, Who, names_row};

impl<'a> Lint<'a, '_> {
    /// What is said of a system, a cluster or a host, against the rows of the system.
    pub(super) fn effect(&mut self, system: &'a System, said: &'a SystemSite) {
        for (key, (change, place)) in &said.ports {
            self.port_change(system, key, change, *place);
        }
        self.contradictory_ports(system, said);
        for (key, settings) in &said.rows {
            let rows = named(system, key);
            if rows.is_empty() {
                continue;
            }
            let has_ports = || {
                said.ports
                    .keys()
                    .find(|other| rows.iter().any(|row| names_row(other, &system.id, &row.id)))
            };
            if settings.off.is_some()
                && let Some(port) = has_ports()
            {
                let message =
                    format!("row `{key}` is switched off: its changed port `{port}` has no effect");
                let hint =
                    "remove one of the two; another row of the same listener can change the port";
                self.error(settings.place, "no-effect", message, hint);
            } else if settings.off.is_some()
                && (settings.only.is_some() || settings.unprinted_peers.is_some() || settings.audit)
            {
                let message =
                    format!("row `{key}` is switched off: other settings of it have no effect");
                self.error(settings.place, "no-effect", message, "remove them");
            } else if let Some(inert) = rows.iter().map(|row| row.inert).next().flatten()
                && rows.iter().all(|row| row.inert.is_some())
            {
                let message = format!(
                    "row `{key}` opens nothing ({}): settings of it have no effect",
                    inert.as_str()
                );
                self.error(settings.place, "no-effect", message, "remove them");
            } else if settings.unprinted_peers.is_some()
                && !rows.iter().any(|row| row.peers.contains(&Peer::Unprinted))
            {
                let message =
                    format!("row `{key}` prints its peers: `unprinted_peers` has no effect");
                let hint = "narrow the row with `only`";
                self.error(settings.place, "no-effect", message, hint);
            }
        }
        for (class, (_, place)) in &said.unprinted_classes {
            if !system.rows.iter().any(|row| row.class == Some(*class)) {
                let classes: BTreeSet<_> = system.rows.iter().filter_map(|row| row.class).collect();
                let known: Vec<_> = classes.iter().map(|class| class.as_str()).collect();
                let message = format!(
                    "{} has no row of class `{}` without peers",
                    system.id,
                    class.as_str()
                );
                let hint = format!("its classes: {}", known.join(", "));
                self.error(*place, "no-effect", message, hint);
            }
        }
        for (key, (_, place)) in &said.peers {
            if system.roles.contains_key(key) && !is_peer(system, key) {
                let message = format!("no row of {} has role `{key}` as its peer", system.id);
                self.error(*place, "no-effect", message, "remove it");
            }
        }
        for (role, (_, place)) in &said.offsets {
            self.offset(system, role, *place);
        }
        if let Some((who, _)) = said.peers.get("multicast") {
            self.multicast(system, who);
        }
        self.addresses(system, said);
    }

    /// Members of a multicast group are no group.
    fn multicast(&mut self, system: &System, who: &Who) {
        for (term, place) in who.terms() {
            let is_group = match term {
                Term::Prefix(net) => net.network().is_multicast(),
                Term::Host(_) | Term::Role(_) => false,
                // What these stand for is known later, or they are the site's own names for such groups.
                Term::Group(_) | Term::Domain(_) | Term::File(_) => true,
            };
            if !is_group {
                let message = format!(
                    "`multicast` of {} takes multicast addresses, and this is not one",
                    system.id
                );
                let hint = "write the group's address, such as `228.0.0.4`, or leave it out for all of them";
                self.error(*place, "no-multicast-address", message, hint);
            }
        }
    }

    fn offset(&mut self, system: &System, role: &str, place: Place) {
        if let Some(known) = system.roles.get(role)
            && known.is_abstract
        {
            let servers: Vec<String> = system
                .host_roles()
                .filter(|server| server.has_offset && system.closure(&server.id).contains(role))
                .map(|server| server.id.clone())
                .collect();
            let message = format!(
                "`{}/{role}` is not a server of its own, so it has no offset",
                system.id
            );
            let hint = format!("give it to the server: {}", some_of(&servers));
            self.error(place, "no-effect", message, hint);
            return;
        }
        let moves = || {
            let closure = system.closure(role);
            let mut rows = system.rows.iter().filter(|row| row.offset);
            rows.any(|row| closure.contains(row.role.as_str()))
        };
        let is_named = || {
            let ports = system.rows.iter().flat_map(|row| &row.ports);
            ports
                .map(ToString::to_string)
                .any(|port| port.ends_with(&format!("+offset({role})")))
        };
        if system.roles.contains_key(role) && !moves() && !is_named() {
            let message = format!(
                "no port of role `{}/{role}` moves with an offset",
                system.id
            );
            self.error(place, "no-effect", message, "remove it");
        }
    }

    fn port_change(&mut self, system: &System, key: &str, change: &ChangedPorts, place: Place) {
        let rows = named(system, key);
        let Some(first) = rows.first() else {
            return;
        };
        if rows.iter().all(|row| row.inert.is_some()) {
            let message = format!("row `{key}` opens nothing, so its ports cannot be changed");
            let hint = first.notes.first().cloned().unwrap_or_default();
            self.error(place, "no-effect", message, hint);
            return;
        }
        if let Some((from, given)) = first.ports_from.and_then(|from| {
            let mut given = changed(first, change).into_iter().flat_map(|(_, new)| new);
            Some((from, given.find(|range| range.first < from)?.first))
        }) {
            let message =
                format!("row `{key}` gets port {given}, but its document has none below {from}");
            let hint = format!("give ports from {from} up");
            self.error(place, "port-out-of-range", message, hint);
            return;
        }
        let printed: Vec<_> = first.ports.iter().map(ToString::to_string).collect();
        if let ChangedPorts::Each(each) = change
            && let Some(unknown) = each.keys().find(|key| !printed.contains(key))
        {
            let message = format!("row `{key}` prints no port `{}`", unknown.escape_debug());
            let hint = format!("it prints {}", printed.join(", "));
            self.error(place, "no-effect", message, hint);
        } else if changed(first, change).is_empty() {
            let message = format!("row `{key}` prints {} ports: give as many", printed.len());
            let example: Vec<_> = printed.iter().map(|port| format!("{port} = NEW")).collect();
            let hint = format!("say which becomes which: `{{ {} }}`", example.join(", "));
            self.error(place, "which-port", message, hint);
        }
    }

    fn contradictory_ports(&mut self, system: &System, said: &SystemSite) {
        let changes = Change::all(system, said, |_| true);
        let mut reported = BTreeSet::new();
        for (index, one) in changes.iter().enumerate() {
            for other in changes.iter().skip(index + 1) {
                if one.contradicts(other) && reported.insert((&one.key, &other.key)) {
                    let message = format!(
                        "`{}` and `{}` are one listener ({}) and get different ports",
                        one.key, other.key, one.spec
                    );
                    let hint = "one of them is enough: the other row follows";
                    self.error(other.place, "contradiction", message, hint);
                }
            }
        }
    }

    /// Addresses that are given for a role and belong to a host of the inventory without it: one end would be open.
    fn addresses(&mut self, system: &System, said: &'a SystemSite) {
        for (key, (who, _)) in &said.peers {
            if !system.roles.contains_key(key) {
                continue;
            }
            for (term, place) in who.terms() {
                let lacking = |host: &&Host| {
                    let mut roles =
                        inventory::roles_of(host).filter_map(|(id, _)| id.split_once('/'));
                    !roles.any(|(of, role)| {
                        of == system.id && system.closure(role).contains(key.as_str())
                    })
                };
                let hosts = self
                    .site
                    .hosts
                    .iter()
                    .filter(|host| self.means(term, host, &mut Vec::new()));
                let found: Vec<String> = hosts
                    .filter(lacking)
                    .map(|host| host.name.clone())
                    .collect();
                let (plural, verb) = if found.len() == 1 {
                    ("", "does")
                } else {
                    ("s", "do")
                };
                if !found.is_empty() {
                    let message = format!(
                        "host{plural} {} would be `{key}` of {} by address, and {verb} not have the role: its own end stays closed there",
                        some_of(&found),
                        system.id
                    );
                    let including = system
                        .host_roles()
                        .filter(|role| system.closure(&role.id).contains(key.as_str()));
                    let roles: Vec<String> = including
                        .map(|role| format!("{}/{}", system.id, role.id))
                        .collect();
                    let hint = format!(
                        "give the host a role of {}, or leave its address out",
                        some_of(&roles)
                    );
                    let diagnostic = Diagnostic::warning("address-without-role", message);
                    self.push(*place, diagnostic, hint);
                }
            }
        }
    }

    /// Whether a term has an address of a host of the inventory.
    fn means(&self, term: &'a Term, host: &Host, above: &mut Vec<&'a str>) -> bool {
        let has = |net: &ipnet::IpNet| addresses_of(host).any(|address| net.contains(&address));
        match term {
            Term::Prefix(net) => has(net),
            Term::Host(name) => host.name == *name,
            Term::Group(name) if !above.contains(&name.as_str()) => {
                above.push(name);
                let group = self.site.groups.get(name);
                let mut members = group.into_iter().flat_map(|group| &group.members.0);
                let is_in = members.any(|(member, _)| self.means(member, host, above));
                above.pop();
                is_in
            }
            Term::File(path) => self
                .inputs
                .files
                .get(path)
                .is_some_and(|nets| nets.iter().any(has)),
            _ => false,
        }
    }

    /// A cluster that no host is in.
    pub(super) fn cluster(&mut self, system: &System, name: &str, place: Place) {
        let hosts = 0..self.site.hosts.len();
        let is_used = hosts
            .map(Some)
            .chain([None])
            .any(|host| clusters_of(self.site, &system.id, host).any(|own| own == name));
        if !is_used {
            let message = format!("no host is in cluster `{name}`");
            let hint = format!("write `cluster = \"{name}\"` for its hosts");
            self.error(place, "no-effect", message, hint);
        }
    }

    /// What stays in audit on a host that does anyway.
    fn audited(&mut self, host: &Host) {
        let modes = host
            .interfaces
            .values()
            .map(|interface| interface.mode_said);
        let mut enforced = modes.flatten().filter(|(mode, _)| *mode == Mode::Enforce);
        let is_said = !host.audit_ports.is_empty() || !host.audit_roles.is_empty();
        if let Some((Mode::Audit, place)) = host.mode_said
            && is_said
            && enforced.next().is_none()
        {
            let message = format!(
                "host `{}` is in audit, and all of its ports and roles with it: `audit_ports` and `audit_roles` add nothing",
                host.name
            );
            // Whoever prepares for enforce writes them before.
            let hint = "they count when the host enforces";
            self.push(
                place,
                Diagnostic::new(Level::Note, "already-in-audit", message),
                hint,
            );
        }
    }

    /// What a host says of systems, roles and rows that it does not have.
    pub(super) fn host_settings(&mut self, host: &'a Host) {
        self.audited(host);
        let has = |id: &str| {
            let (system, role) = id.split_once('/')?;
            let system = self.inputs.catalog.systems.get(system)?;
            let mut own = inventory::roles_of(host).filter_map(|(id, _)| id.split_once('/'));
            Some(own.any(|(of, own)| {
                of == system.id && (own == role || system.closure(own).contains(role))
            }))
        };
        for (id, (_, place)) in &host.offsets {
            if let Some((system, role)) = id.split_once('/')
                && let Some(system) = self.inputs.catalog.systems.get(system)
            {
                self.offset(system, role, *place);
            }
        }
        let offsets = host.offsets.iter().map(|(id, (_, place))| (id, *place));
        let audit = host.audit_roles.iter().map(|(id, place)| (id, *place));
        let absent: Vec<_> = offsets
            .chain(audit)
            .filter(|(id, _)| has(id) == Some(false))
            .collect();
        for (id, place) in absent {
            let message = format!("host `{}` does not have the role `{id}`", host.name);
            self.error(
                place,
                "no-effect",
                message,
                "remove it, or give the host the role",
            );
        }
        for (id, said) in &host.systems {
            let Some(system) = self.inputs.catalog.systems.get(id) else {
                if let Err(diagnostic) = self.inputs.catalog.system(id) {
                    self.push(said.place, diagnostic, "");
                }
                continue;
            };
            let prefix = format!("{id}/");
            if !inventory::roles_of(host).any(|(role, _)| role.starts_with(&prefix)) {
                let message = format!("host `{}` has no role of {id}", host.name);
                self.error(
                    said.place,
                    "no-effect",
                    message,
                    "remove it, or give the host a role",
                );
            }
            self.system(system, said);
        }
        for interface in host.interfaces.values() {
            for (role, place) in &interface.roles {
                if host.roles.iter().any(|(own, _)| own == role) {
                    let message = format!(
                        "`{role}` is among the roles of host `{}`, which all of its interfaces serve",
                        host.name
                    );
                    let hint = "name it only under the interfaces that serve it";
                    self.error(*place, "no-effect", message, hint);
                }
            }
            for (name, place) in interface.rows.iter().chain(&interface.without_rows) {
                let row = name.split_once('/');
                let system = row.and_then(|(system, _)| self.inputs.catalog.systems.get(system));
                let known = row
                    .zip(system)
                    .is_some_and(|((_, key), system)| !named(system, key).is_empty());
                let is_here = |role: &str| {
                    let roles = interface.roles.iter().chain(&host.roles);
                    let mut roles = roles.filter_map(|(id, _)| id.split_once('/'));
                    roles.any(|(of, own)| {
                        row.zip(system).is_some_and(|((id, _), system)| {
                            of == id && system.closure(own).contains(role)
                        })
                    })
                };
                if known
                    && let Some((system, (_, key))) = system.zip(row)
                    && !named(system, key).iter().any(|row| is_here(&row.role))
                {
                    let message =
                        format!("interface has no role of the row `{}`", name.escape_debug());
                    let hint = "remove it, or give the interface or the host the role";
                    self.error(*place, "no-effect", message, hint);
                } else if !known {
                    let message = format!("there is no row `{}`", name.escape_debug());
                    self.error(
                        *place,
                        "unknown-row",
                        message,
                        "rows are written `SYSTEM/ROW`, as `portguard catalog show` lists them",
                    );
                }
            }
        }
    }
}

fn named<'s>(system: &'s System, key: &str) -> Vec<&'s Row> {
    let rows = system.rows.iter();
    rows.filter(|row| names_row(key, &system.id, &row.id))
        .collect()
}

/// Whether a row of the system has the role, or one that it includes, at its other end.
fn is_peer(system: &System, role: &str) -> bool {
    let closure = system.closure(role);
    system.rows.iter().any(|row| {
        row.peers.iter().any(|peer| match peer {
            Peer::Role(peer) => closure.contains(peer.as_str()),
            Peer::SameRole => closure.contains(row.role.as_str()),
            Peer::Unprinted => row.class.is_some() && closure.contains(row.role.as_str()),
            _ => false,
        })
    })
}
