//! A role as a peer: the hosts of the site that have it.

use super::super::inventory::clusters_of;
use super::super::sets::Gathered;
use super::{Asking, Part, Resolver};
use crate::site::Who;

impl<'a> Resolver<'a> {
    pub(super) fn role(&mut self, asking: &Asking<'a, '_>, role: &'a str, into: &mut Gathered) {
        let id = &asking.system.id;
        let hosts = self.inventory.related_hosts(id, role);
        let is_elsewhere = self.is_elsewhere(asking, role, &hosts);
        if self.hosts_of(asking, role, hosts, into) {
            into.names.push(format!("role {id}/{role}"));
        } else if asking.wants_others() {
            let own = clusters_of(self.site, id, self.inventory.own());
            let place = match (is_elsewhere, own.count()) {
                (true, 0) => " that is in no cluster, as this one is,",
                (true, _) => " of its cluster",
                (false, _) => " of the inventory",
            };
            self.absent("unresolved-peer", asking, role, into, || {
                format!("{id} names role {role}, and no host{place} has it")
            });
        }
    }

    /// Whether a role's only hosts beside this one are of other clusters; if so, that is why it is for nobody.
    pub(super) fn is_elsewhere(
        &mut self,
        asking: &Asking<'a, '_>,
        role: &str,
        related: &[usize],
    ) -> bool {
        let id = &asking.system.id;
        let is_other = |index: &&usize| !self.inventory.is_own(**index);
        let is_elsewhere = !related.iter().any(|index| is_other(&index))
            && self
                .inventory
                .hosts_with(id, role)
                .iter()
                .any(|index| is_other(&index));
        if is_elsewhere {
            self.excluded.push(format!(
                "the other hosts with role {id}/{role} belong to other clusters"
            ));
        }
        is_elsewhere
    }

    /// Adds those of a role that are asked for; whether the site knows any.
    pub(super) fn hosts_of(
        &mut self,
        asking: &Asking<'a, '_>,
        role: &str,
        hosts: Vec<usize>,
        into: &mut Gathered,
    ) -> bool {
        let Asking { system, row, .. } = asking;
        let id = &system.id;
        let mut found = !hosts.is_empty();
        for index in hosts {
            let is_wanted = match asking.part {
                Part::All => true,
                Part::Hosts(wanted) => wanted.iter().any(|(of, host)| of == role && *host == index),
                Part::Given(_) | Part::Others => false,
            };
            if !is_wanted || self.inventory.is_own(index) {
                continue;
            }
            let name = self
                .site
                .hosts
                .get(index)
                .map_or("", |host| host.name.as_str());
            if !self.is_other(asking, role, index) {
                self.excluded
                    .push(format!("`{name}` has no other role than this host"));
            } else if let Some(why) = self.closed_at(asking, index) {
                self.excluded
                    .push(format!("towards `{name}` it is closed: there it {why}"));
            } else {
                let before = into.nets.len();
                self.inventory.addresses(index, &mut into.nets);
                if into.nets.len() == before {
                    self.excluded.push(format!("`{name}` has no address"));
                }
            }
        }
        let name = format!("role {id}/{role}");
        for (key, (who, _)) in &asking.view.site.peers {
            if system.closure(key).contains(role) {
                found = true;
                if *who == Who::None {
                    self.excluded
                        .push(format!("the site gives no peers for `{key}` of {id}"));
                }
                let is_wanted = match asking.part {
                    Part::All => true,
                    Part::Given(wanted) => wanted == role,
                    Part::Hosts(_) | Part::Others => false,
                };
                // Addresses that are given for the host's own role are of its kind, too.
                let is_other = !row.other_roles_only || asking.users.iter().any(|own| own != key);
                if is_wanted && is_other && self.may_send(asking) {
                    self.terms.who(who, Some(&name), into);
                }
            }
        }
        found
    }
}
