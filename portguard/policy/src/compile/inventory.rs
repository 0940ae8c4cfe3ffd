//! Who has which role: the inventory indexed once, so that a peer's addresses are a look-up.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::rc::Rc;

use ipnet::IpNet;

use crate::catalog::Catalog;
use crate::site::{Host, Place, Site, SystemSite};

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
    /// Addresses that are one host's, to its name.
    owners: Rc<HashMap<IpAddr, &'a str>>,
}

impl<'a> Inventory<'a> {
    pub(super) fn new(inputs: &Inputs<'a>, own: Option<usize>) -> Self {
        let mut hosts: HashMap<&str, Vec<usize>> = HashMap::new();
        let mut owners = HashMap::new();
        for (index, host) in inputs.site.hosts.iter().enumerate() {
            let addresses = host.addresses.iter();
            owners.extend(addresses.map(|(address, _)| (*address, host.name.as_str())));
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
            owners: Rc::new(owners),
        }
    }

    /// The same for another host.
    pub(super) fn of(&self, own: Option<usize>) -> Self {
        Self {
            own,
            ..self.clone()
        }
    }

    /// The host whose address this is; one that moves between hosts is nobody's in particular.
    pub(super) fn owner(&self, address: IpAddr) -> Option<&'a str> {
        self.owners.get(&address).copied()
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

    /// Adds a host's addresses, unless it is the host that is compiled: it is not a peer of itself.
    pub(super) fn addresses(&self, index: usize, nets: &mut Vec<IpNet>) {
        if self.own != Some(index) {
            let host = self.host(index);
            let addresses = host.into_iter().flat_map(addresses_of);
            nets.extend(addresses.map(IpNet::from));
        }
    }

    /// The host that is compiled, if it is in the inventory.
    pub(super) fn own(&self) -> Option<usize> {
        self.own
    }

    /// The addresses that only the host has that is compiled.
    pub(super) fn own_addresses(&self) -> Vec<IpAddr> {
        let host = self.own.and_then(|index| self.site.hosts.get(index));
        let addresses = host.into_iter().flat_map(|host| &host.addresses);
        addresses.map(|(address, _)| *address).collect()
    }

    /// Whether a host is the one that is compiled.
    pub(super) fn is_own(&self, index: usize) -> bool {
        self.own == Some(index)
    }

    /// Whether a host is of an installation of the system that the compiled host is of, too.
    pub(super) fn is_related(&self, system: &str, index: usize) -> bool {
        let own = clusters_of(self.site, system, self.own);
        let mut theirs = clusters_of(self.site, system, Some(index)).peekable();
        match (own.clone().next(), theirs.peek()) {
            (None, None) => true,
            _ => theirs.any(|cluster| own.clone().any(|ours| ours == cluster)),
        }
    }

    /// As [`Self::hosts_with`], of the compiled host's installations only.
    pub(super) fn related_hosts(&self, system: &str, role: &str) -> Vec<usize> {
        let mut hosts = self.hosts_with(system, role);
        hosts.retain(|index| self.is_related(system, *index));
        hosts
    }

    /// Of the compiled host's installations, hosts that are given exactly this role: members of a cluster are of one kind.
    pub(super) fn members(&self, system: &str, role: &str) -> Vec<usize> {
        let exact = self.hosts.get(format!("{system}/{role}").as_str());
        let mut hosts = exact.cloned().unwrap_or_default();
        hosts.sort_unstable();
        hosts.dedup();
        hosts.retain(|index| self.is_related(system, *index));
        hosts
    }

    pub(super) fn has_related(&self, system: &str, role: &str) -> bool {
        !self.related_hosts(system, role).is_empty()
    }

    /// Hosts that a site means by `SYSTEM/ROLE`, of the compiled host's installations if it is of any, or by
    /// `SYSTEM/ROLE@CLUSTER` (`@*`: of all).
    pub(super) fn named(&self, words: &str) -> Vec<usize> {
        let (id, cluster) = match words.split_once('@') {
            Some((id, cluster)) => (id, Some(cluster)),
            None => (words, None),
        };
        let Some((system, role)) = id.split_once('/') else {
            return Vec::new();
        };
        let mut hosts = self.hosts_with(system, role);
        hosts.retain(|index| match cluster {
            Some("*") => true,
            Some(cluster) => clusters_of(self.site, system, Some(*index)).any(|own| own == cluster),
            None => {
                let mut own = clusters_of(self.site, system, self.own);
                own.next().is_none() || self.is_related(system, *index)
            }
        });
        hosts
    }

    /// Roles of a host that are `role` or include it.
    pub(super) fn roles_at(&self, system: &str, role: &str, index: usize) -> Vec<&'a str> {
        let having = self.including(system, role);
        let roles = self.host(index).into_iter().flat_map(roles_of);
        let ids = roles.filter_map(|(id, _)| id.split_once('/'));
        ids.filter(|(of, id)| *of == system && having.contains(id))
            .map(|(_, id)| id)
            .collect()
    }

    /// Port offsets of the servers of a role: `roles` are its names, the surest first; the host's word before the system's.
    pub(super) fn offsets(
        &self,
        system: &str,
        roles: &[&str],
        host: Option<usize>,
        said: &SystemSite,
    ) -> Vec<u16> {
        let host = host.and_then(|index| self.host(index));
        let of_host = roles.iter().find_map(|role| {
            let offsets = &host?.offsets;
            offsets.get(&format!("{system}/{role}"))
        });
        let of_system = || roles.iter().find_map(|role| said.offsets.get(*role));
        of_host
            .or_else(of_system)
            .map_or_else(|| vec![0], |(offsets, _)| offsets.clone())
    }
}

/// Every role of a host, on whatever interface.
pub(super) fn roles_of(host: &Host) -> impl Iterator<Item = &(String, Place)> {
    host.roles.iter().chain(
        host.interfaces
            .values()
            .flat_map(|interface| &interface.roles),
    )
}

/// Addresses under which a host's peers see it, shared ones among them.
pub(super) fn addresses_of(host: &Host) -> impl Iterator<Item = IpAddr> {
    let all = host.addresses.iter().chain(&host.shared_addresses);
    all.map(|(address, _)| *address)
}

/// Installations of a system that a host belongs to; none: the one that has no name.
pub(super) fn clusters_of<'s>(
    site: &'s Site,
    system: &str,
    host: Option<usize>,
) -> impl Iterator<Item = &'s str> + Clone {
    let own = host.and_then(|index| site.hosts.get(index));
    let of_system = own
        .and_then(|host| host.systems.get(system))
        .map(|said| said.cluster.as_slice());
    let own: Option<&'s [(String, Place)]> = own.map(|host| host.cluster.as_slice());
    let general = site.systems.get(system).map(|said| said.cluster.as_slice());
    let is_said = |said: &&[(String, Place)]| !said.is_empty();
    let said = of_system
        .filter(is_said)
        .or(own.filter(is_said))
        .or(general);
    said.unwrap_or_default()
        .iter()
        .map(|(name, _)| name.as_str())
}
