//! Who has which role: the inventory indexed once, so that a peer's addresses are a look-up.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;

use ipnet::IpNet;

use crate::catalog::Catalog;
use crate::site::{Host, Site};

use super::Inputs;

/// The index.
#[derive(Debug, Clone)]
pub(super) struct Inventory<'a> {
    site: &'a Site,
    catalog: &'a Catalog,
    /// The host that is compiled: no peer of itself.
    own: Option<usize>,
    /// `SYSTEM/ROLE` as hosts say it, to hosts.
    hosts: Rc<HashMap<&'a str, Vec<usize>>>,
    /// (system, role) to the roles that include it.
    including: Rc<BTreeMap<(&'a str, &'a str), Vec<&'a str>>>,
}

impl<'a> Inventory<'a> {
    pub(super) fn new(inputs: &Inputs<'a>, own: Option<usize>) -> Self {
        let mut hosts: HashMap<&str, Vec<usize>> = HashMap::new();
        for (index, host) in inputs.site.hosts.iter().enumerate() {
            for (role, _) in roles_of(host) {
                hosts.entry(role.as_str()).or_default().push(index);
            }
        }
        let mut including: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for system in inputs.catalog.systems.values() {
            for outer in system.roles.keys() {
                for inner in system.closure(outer) {
                    including
                        .entry((system.id.as_str(), inner))
                        .or_default()
                        .push(outer.as_str());
                }
            }
        }
        Self {
            site: inputs.site,
            catalog: inputs.catalog,
            own,
            hosts: Rc::new(hosts),
            including: Rc::new(including),
        }
    }

    /// Roles that have this role's rows: itself and whatever includes it.
    pub(super) fn including(&self, system: &str, role: &str) -> Vec<&'a str> {
        let id = self
            .catalog
            .systems
            .get_key_value(system)
            .and_then(|(id, system)| {
                system
                    .roles
                    .get_key_value(role)
                    .map(|(role, _)| (id.as_str(), role.as_str()))
            });
        id.and_then(|id| self.including.get(&id))
            .cloned()
            .unwrap_or_default()
    }

    /// Hosts that have a role or one that includes it, this host among them; sorted.
    pub(super) fn hosts_with(&self, system: &str, role: &str) -> Vec<usize> {
        let mut found = BTreeSet::new();
        for outer in self.including(system, role) {
            if let Some(hosts) = self.hosts.get(format!("{system}/{outer}").as_str()) {
                found.extend(hosts.iter().copied());
            }
        }
        found.into_iter().collect()
    }

    fn host(&self, index: usize) -> Option<&'a Host> {
        self.site.hosts.get(index)
    }

    /// Adds a host's addresses, unless it is the host that is compiled: it is no peer of itself.
    pub(super) fn addresses(&self, index: usize, nets: &mut Vec<IpNet>) {
        if self.own != Some(index) {
            let host = self.host(index);
            let addresses = host.into_iter().flat_map(|host| &host.addresses);
            nets.extend(addresses.map(|(address, _)| IpNet::from(*address)));
        }
    }

    /// The port offset of the server that has `role` on a host; the host's word before the system's.
    pub(super) fn offset(&self, system: &str, roles: &[&str], host: Option<&Host>) -> u16 {
        let host_said = roles.iter().find_map(|role| {
            host?
                .offsets
                .get(&format!("{system}/{role}"))
                .map(|(offset, _)| *offset)
        });
        let system_said = || {
            let site = self.site.systems.get(system)?;
            roles
                .iter()
                .find_map(|role| site.offsets.get(*role).map(|(offset, _)| *offset))
        };
        host_said.or_else(system_said).unwrap_or(0)
    }

    /// The offset of whatever role of this host provides `role`.
    pub(super) fn offset_at(&self, system: &str, role: &str, host: usize) -> u16 {
        let host = self.host(host);
        let having = self.including(system, role);
        let own = host
            .into_iter()
            .flat_map(roles_of)
            .filter_map(|(id, _)| id.split_once('/'));
        let mut roles: Vec<&str> = own
            .filter(|(of, id)| *of == system && having.contains(id))
            .map(|(_, id)| id)
            .collect();
        roles.push(role);
        self.offset(system, &roles, host)
    }
}

/// Every role of a host, on whatever interface.
pub(super) fn roles_of(host: &Host) -> impl Iterator<Item = &(String, crate::site::Place)> {
    host.roles.iter().chain(
        host.interfaces
            .values()
            .flat_map(|interface| &interface.roles),
    )
}
