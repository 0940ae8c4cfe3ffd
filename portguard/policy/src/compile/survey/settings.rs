//! Every setting of a site by itself: where it stands, the site without it, and the site with another value in its place.

use ipnet::IpNet;

use crate::catalog::{Peer, PeerClass, Row, System};
use crate::compile::answers;
use crate::site::{
    ChangedPorts, Chosen, Place, Ports, RowSite, Site, SystemSite, Term, Terms, Who, names_row,
};

/// Whose words a setting is among.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Level {
    System,
    Cluster(String),
    Host(usize),
}

/// Which of them it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Key {
    Deployment,
    Version,
    Option(String),
    Without(String),
    Choice(String),
    Peer(String),
    Unprinted,
    Class(PeerClass),
    Offset(String),
    /// A row, and the printed number if the site names it.
    Port(String, Option<String>),
    Only(String),
    RowUnprinted(String),
    Audit(String),
    Off(String),
    /// Of a host, by `SYSTEM/ROLE`.
    HostOffset(String),
    AuditRole(String),
    /// Of a host's interface.
    InterfaceRow(String, String),
    InterfaceWithout(String, String),
}

/// A setting of one system.
#[derive(Debug, Clone)]
pub(super) struct Setting {
    pub(super) level: Level,
    pub(super) key: Key,
    pub(super) place: Place,
}

/// An address that no site means.
fn nobody() -> Who {
    let net = IpNet::from(std::net::IpAddr::from([198, 51, 100, 254]));
    Who::These(Terms(vec![(Term::Prefix(net), Place::default())]))
}

/// All that a site says of a system.
pub(super) fn all(site: &Site, system: &str) -> Vec<Setting> {
    let mut found = Vec::new();
    if let Some(said) = site.systems.get(system) {
        of(said, &Level::System, &mut found);
        for (name, cluster) in &said.clusters {
            of(cluster, &Level::Cluster(name.clone()), &mut found);
        }
    }
    found.extend(of_hosts(site, system));
    found
}

/// What it says of single hosts.
pub(super) fn of_hosts(site: &Site, system: &str) -> Vec<Setting> {
    let mut found = Vec::new();
    let prefix = format!("{system}/");
    for (index, host) in site.hosts.iter().enumerate() {
        let level = Level::Host(index);
        if let Some(said) = host.systems.get(system) {
            of(said, &level, &mut found);
        }
        let mut push = |key, place| {
            found.push(Setting {
                level: level.clone(),
                key,
                place,
            });
        };
        for (role, (_, place)) in host
            .offsets
            .iter()
            .filter(|(id, _)| id.starts_with(&prefix))
        {
            push(Key::HostOffset(role.clone()), *place);
        }
        for (role, place) in host
            .audit_roles
            .iter()
            .filter(|(id, _)| id.starts_with(&prefix))
        {
            push(Key::AuditRole(role.clone()), *place);
        }
        for (name, interface) in &host.interfaces {
            for (row, place) in interface
                .rows
                .iter()
                .filter(|(id, _)| id.starts_with(&prefix))
            {
                push(Key::InterfaceRow(name.clone(), row.clone()), *place);
            }
            for (row, place) in interface
                .without_rows
                .iter()
                .filter(|(id, _)| id.starts_with(&prefix))
            {
                push(Key::InterfaceWithout(name.clone(), row.clone()), *place);
            }
        }
    }
    found
}

fn of(said: &SystemSite, level: &Level, found: &mut Vec<Setting>) {
    let mut push = |key, place| {
        found.push(Setting {
            level: level.clone(),
            key,
            place,
        });
    };
    if let Some((_, place)) = &said.deployment {
        push(Key::Deployment, *place);
    }
    if let Some((_, place)) = &said.version {
        push(Key::Version, *place);
    }
    for (option, place) in &said.options {
        push(Key::Option(option.clone()), *place);
    }
    for (option, place) in &said.without {
        push(Key::Without(option.clone()), *place);
    }
    for (choice, chosen) in &said.choices {
        push(Key::Choice(choice.clone()), chosen.place);
    }
    for (peer, (_, place)) in &said.peers {
        push(Key::Peer(peer.clone()), *place);
    }
    if let Some(who) = &said.unprinted_peers {
        let place = who.terms().first().map_or(said.place, |(_, place)| *place);
        push(Key::Unprinted, place);
    }
    for (class, (_, place)) in &said.unprinted_classes {
        push(Key::Class(*class), *place);
    }
    for (role, (_, place)) in &said.offsets {
        push(Key::Offset(role.clone()), *place);
    }
    for (row, (change, place)) in &said.ports {
        match change {
            ChangedPorts::All(_) => push(Key::Port(row.clone(), None), *place),
            ChangedPorts::Each(each) => {
                for printed in each.keys() {
                    push(Key::Port(row.clone(), Some(printed.clone())), *place);
                }
            }
        }
    }
    for (row, settings) in &said.rows {
        let parts = [
            (settings.only.is_some(), Key::Only(row.clone())),
            (
                settings.unprinted_peers.is_some(),
                Key::RowUnprinted(row.clone()),
            ),
            (settings.audit, Key::Audit(row.clone())),
            (settings.off.is_some(), Key::Off(row.clone())),
        ];
        for (_, key) in parts.into_iter().filter(|(is_said, _)| *is_said) {
            push(key, settings.place);
        }
    }
}

impl Setting {
    /// How the site file has it.
    pub(super) fn words(&self) -> String {
        match &self.key {
            Key::Deployment => "`deployment`".to_owned(),
            Key::Version => "`version`".to_owned(),
            Key::Option(id) => format!("option `{id}`"),
            Key::Without(id) => format!("`without` option `{id}`"),
            Key::Choice(id) => format!("choice `{id}`"),
            Key::Peer(id) => format!("peer `{id}`"),
            Key::Unprinted => "`unprinted_peers`".to_owned(),
            Key::Class(class) => format!("`unprinted_peers` of class `{}`", class.as_str()),
            Key::Offset(role) | Key::HostOffset(role) => format!("offset of `{role}`"),
            Key::Port(row, None) => format!("changed port of row `{row}`"),
            Key::Port(row, Some(printed)) => format!("changed port {printed} of row `{row}`"),
            Key::Only(row) => format!("`only` of row `{row}`"),
            Key::RowUnprinted(row) => format!("`unprinted_peers` of row `{row}`"),
            Key::Audit(row) => format!("`audit` of row `{row}`"),
            Key::Off(row) => format!("`off` of row `{row}`"),
            Key::AuditRole(role) => format!("`audit_roles` with `{role}`"),
            Key::InterfaceRow(name, row) => format!("row `{row}` of interface `{name}`"),
            Key::InterfaceWithout(name, row) => {
                format!("`without_rows` `{row}` of interface `{name}`")
            }
        }
    }

    /// Who is who, and which product this is, is so whether or not something depends on it.
    pub(super) fn is_fact(&self) -> bool {
        matches!(
            self.key,
            Key::Deployment | Key::Version | Key::Peer(_) | Key::Unprinted | Key::Class(_)
        )
    }

    /// Rows that it is about; for facts, those whose condition asks for them.
    pub(super) fn rows<'s>(&self, system: &'s System) -> Vec<&'s Row> {
        let is_meant = |row: &&Row| {
            let asks = |test: &dyn Fn(&crate::catalog::Condition) -> bool| {
                row.condition.as_ref().is_some_and(test)
            };
            let named = |key: &str| names_row(key, &system.id, &row.id);
            let of_role = |role: &str| system.closure(role).contains(row.role.as_str());
            let local = |id: &str| {
                id.split_once('/')
                    .map_or(id.to_owned(), |(_, id)| id.to_owned())
            };
            match &self.key {
                Key::Deployment => asks(&|condition| !condition.deployments.is_empty()),
                Key::Version => asks(&|condition| !condition.version.is_empty()),
                Key::Option(id) | Key::Without(id) => asks(&|condition| {
                    condition.options.contains(id) || condition.without.contains(id)
                }),
                Key::Choice(id) => {
                    asks(&|condition| condition.choices.contains_key(id))
                        || row.pick.as_ref() == Some(id)
                }
                Key::Peer(key) => {
                    let mut peers = row.peers.iter();
                    peers.any(|peer| answers::is_about(key, peer, system, row))
                }
                Key::Unprinted => row.peers.contains(&Peer::Unprinted),
                Key::Class(class) => row.class == Some(*class),
                Key::Offset(role) => row.offset && of_role(role),
                Key::HostOffset(id) | Key::AuditRole(id) => of_role(&local(id)),
                Key::Port(key, _)
                | Key::Only(key)
                | Key::RowUnprinted(key)
                | Key::Audit(key)
                | Key::Off(key) => named(key),
                Key::InterfaceRow(_, key) | Key::InterfaceWithout(_, key) => named(&local(key)),
            }
        };
        system.rows.iter().filter(is_meant).collect()
    }

    /// The site without it.
    pub(super) fn removed(&self, site: &Site, system: &str) -> Site {
        self.changed(site, system, &|_| {}, &|_| {})
    }

    /// Sites that say something else in its place.
    pub(super) fn others(&self, site: &Site, system: &System) -> Vec<Site> {
        let id = &system.id;
        let with = |set: &dyn Fn(&mut SystemSite)| self.changed(site, id, set, &|_| {});
        let on_host = |set: &dyn Fn(&mut crate::site::Host)| self.changed(site, id, &|_| {}, set);
        let place = self.place;
        match &self.key {
            Key::Deployment => system
                .deployments
                .keys()
                .map(|other| with(&|said| said.deployment = Some((other.clone(), place))))
                .collect(),
            Key::Version => {
                let bounds = system.rows.iter().flat_map(|row| &row.condition);
                let mut tried: Vec<Vec<u32>> = bounds
                    .flat_map(|condition| &condition.version)
                    .map(|bound| bound.version.clone())
                    .collect();
                tried.extend([vec![0], vec![u32::MAX]]);
                tried.sort_unstable();
                tried.dedup();
                tried
                    .iter()
                    .map(|version| with(&|said| said.version = Some((version.clone(), place))))
                    .collect()
            }
            Key::Option(option) => {
                vec![with(&|said| _ = said.without.insert(option.clone(), place))]
            }
            Key::Without(option) => {
                vec![with(&|said| _ = said.options.insert(option.clone(), place))]
            }
            Key::Choice(choice) => {
                let values = system.choices.get(choice).into_iter();
                let values = values.flat_map(|choice| choice.values.keys());
                values
                    .map(|value| {
                        with(&|said| {
                            let chosen = Chosen {
                                values: vec![value.clone()],
                                until: None,
                                place,
                            };
                            said.choices.insert(choice.clone(), chosen);
                        })
                    })
                    .collect()
            }
            Key::Peer(key) => vec![with(&|said| {
                _ = said.peers.insert(key.clone(), (nobody(), place));
            })],
            Key::Unprinted => vec![with(&|said| said.unprinted_peers = Some(nobody()))],
            Key::Class(class) => {
                vec![with(&|said| {
                    _ = said.unprinted_classes.insert(*class, (nobody(), place));
                })]
            }
            Key::Offset(role) => {
                vec![with(&|said| {
                    _ = said.offsets.insert(role.clone(), (vec![7], place));
                })]
            }
            Key::Port(row, printed) => vec![with(&|said| {
                let new = vec![Ports { first: 1, last: 1 }];
                match (printed, said.ports.get_mut(row)) {
                    (Some(printed), Some((ChangedPorts::Each(each), _))) => {
                        each.insert(printed.clone(), new);
                    }
                    (Some(printed), _) => {
                        let each = [(printed.clone(), new)].into();
                        said.ports
                            .insert(row.clone(), (ChangedPorts::Each(each), place));
                    }
                    (None, _) => {
                        said.ports
                            .insert(row.clone(), (ChangedPorts::All(new), place));
                    }
                }
            })],
            Key::Only(row) => vec![with(&|said| self.settings(said, row).only = Some(nobody()))],
            Key::RowUnprinted(row) => {
                vec![with(&|said| {
                    self.settings(said, row).unprinted_peers = Some(nobody());
                })]
            }
            // There are two values, and the other one is none.
            Key::Audit(_)
            | Key::Off(_)
            | Key::AuditRole(_)
            | Key::InterfaceRow(..)
            | Key::InterfaceWithout(..) => Vec::new(),
            Key::HostOffset(role) => {
                vec![on_host(&|host| {
                    _ = host.offsets.insert(role.clone(), (vec![7], place));
                })]
            }
        }
    }

    fn settings<'s>(&self, said: &'s mut SystemSite, row: &str) -> &'s mut RowSite {
        said.rows.entry(row.to_owned()).or_insert_with(|| RowSite {
            place: self.place,
            ..RowSite::default()
        })
    }

    /// Takes a part of what is said of a row away, and with the last part the whole.
    fn without(&self, said: &mut SystemSite, row: &str, take: impl FnOnce(&mut RowSite)) {
        let one = self.settings(said, row);
        take(one);
        if one.only.is_none() && one.unprinted_peers.is_none() && !one.audit && one.off.is_none() {
            said.rows.remove(row);
        }
    }

    /// The site without it, and then with what is `set`.
    fn changed(
        &self,
        site: &Site,
        system: &str,
        set: &dyn Fn(&mut SystemSite),
        on_host: &dyn Fn(&mut crate::site::Host),
    ) -> Site {
        let mut site = site.clone();
        if let Level::Host(index) = self.level
            && let Some(host) = site.hosts.get_mut(index)
        {
            match &self.key {
                Key::HostOffset(role) => _ = host.offsets.remove(role),
                Key::AuditRole(role) => _ = host.audit_roles.remove(role),
                Key::InterfaceRow(name, row) => {
                    if let Some(interface) = host.interfaces.get_mut(name) {
                        interface.rows.retain(|(id, _)| id != row);
                    }
                }
                Key::InterfaceWithout(name, row) => {
                    if let Some(interface) = host.interfaces.get_mut(name) {
                        interface.without_rows.retain(|(id, _)| id != row);
                    }
                }
                Key::Deployment
                | Key::Version
                | Key::Option(_)
                | Key::Without(_)
                | Key::Choice(_)
                | Key::Peer(_)
                | Key::Unprinted
                | Key::Class(_)
                | Key::Offset(_)
                | Key::Port(..)
                | Key::Only(_)
                | Key::RowUnprinted(_)
                | Key::Audit(_)
                | Key::Off(_) => {}
            }
            on_host(host);
        }
        let said = match &self.level {
            Level::System => site.systems.get_mut(system),
            Level::Cluster(name) => site
                .systems
                .get_mut(system)
                .and_then(|said| said.clusters.get_mut(name)),
            Level::Host(index) => site
                .hosts
                .get_mut(*index)
                .and_then(|host| host.systems.get_mut(system)),
        };
        if let Some(said) = said {
            self.remove(said);
            set(said);
        }
        site
    }

    fn remove(&self, said: &mut SystemSite) {
        match &self.key {
            Key::Deployment => said.deployment = None,
            Key::Version => said.version = None,
            Key::Option(id) => _ = said.options.remove(id),
            Key::Without(id) => _ = said.without.remove(id),
            Key::Choice(id) => _ = said.choices.remove(id),
            Key::Peer(id) => _ = said.peers.remove(id),
            Key::Unprinted => said.unprinted_peers = None,
            Key::Class(class) => _ = said.unprinted_classes.remove(class),
            Key::Offset(role) => _ = said.offsets.remove(role),
            Key::Port(row, None) => _ = said.ports.remove(row),
            Key::Port(row, Some(printed)) => {
                let is_empty = match said.ports.get_mut(row) {
                    Some((ChangedPorts::Each(each), _)) => {
                        each.remove(printed);
                        each.is_empty()
                    }
                    _ => false,
                };
                if is_empty {
                    said.ports.remove(row);
                }
            }
            Key::Only(row) => self.without(said, row, |one| one.only = None),
            Key::RowUnprinted(row) => self.without(said, row, |one| one.unprinted_peers = None),
            Key::Audit(row) => self.without(said, row, |one| one.audit = false),
            Key::Off(row) => self.without(said, row, |one| one.off = None),
            Key::HostOffset(_)
            | Key::AuditRole(_)
            | Key::InterfaceRow(..)
            | Key::InterfaceWithout(..) => {}
        }
    }
}
