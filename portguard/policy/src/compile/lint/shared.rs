//! Addresses that several hosts own.

use std::collections::BTreeMap;

use super::Lint;
use crate::compile::inventory;
use crate::diagnostic::Diagnostic;
use crate::site::Place;

impl Lint<'_, '_> {
    /// An address that hosts of different installations share: what comes from it counts as both's.
    pub(super) fn shared_addresses(&mut self) {
        let mut owners: BTreeMap<std::net::IpAddr, Vec<(usize, Place)>> = BTreeMap::new();
        for (index, host) in self.site.hosts.iter().enumerate() {
            for (address, place) in &host.shared_addresses {
                owners.entry(*address).or_default().push((index, *place));
            }
        }
        for (address, owners) in owners {
            let strangers = owners.iter().enumerate().find_map(|(at, (one, _))| {
                let mut rest = owners.iter().skip(at + 1);
                rest.find_map(|(other, place)| Some((self.apart(*one, *other)?, *place)))
            });
            if let Some(((one, other, system), place)) = strangers {
                let message = format!(
                    "address {address} is shared by `{one}` and `{other}`, which are in different clusters of {system}: packets from it count for both"
                );
                let hint = "give each cluster an address of its own, or the hosts one cluster";
                self.push(
                    place,
                    Diagnostic::warning("shared-across-clusters", message),
                    hint,
                );
            }
        }
    }

    /// A system of which two hosts have roles and no cluster in common, with their names.
    fn apart(&self, one: usize, other: usize) -> Option<(String, String, String)> {
        let systems = self.inputs.catalog.systems.keys();
        let hosts = [self.site.hosts.get(one)?, self.site.hosts.get(other)?];
        let is_apart = |system: &&String| {
            let prefix = format!("{system}/");
            let has = |host: &&crate::site::Host| {
                inventory::roles_of(host).any(|(id, _)| id.starts_with(&prefix))
            };
            let clusters = |index| inventory::clusters_of(self.site, system, Some(index));
            let mut theirs = clusters(other).peekable();
            let is_common = match (clusters(one).next(), theirs.peek()) {
                (None, None) => true,
                _ => theirs.any(|name| clusters(one).any(|own| own == name)),
            };
            hosts.iter().all(has) && !is_common
        };
        let system = systems.into_iter().find(is_apart)?;
        let [one, other] = hosts;
        Some((one.name.clone(), other.name.clone(), system.clone()))
    }
}
