//! Who a row is for: documents' peers to sets of prefixes, by the site's words and the inventory.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

use super::inventory::Inventory;
use super::missing::Missing;
use super::sets::{Gathered, Sets, narrowed};
use super::{Inputs, terms::Terms};
use crate::catalog::{Peer, Row, System};
use crate::policy::Peers;
use crate::site::{RowSite, Site, SystemSite, Unresolved, Who};

/// Rows with equal keys, of which the site says nothing in particular, have the same peers.
type Key<'a> = (&'a str, &'a str, &'a [Peer], Option<u16>);

#[derive(Debug)]
pub(super) struct Resolver<'a> {
    site: &'a Site,
    resolved: &'a BTreeMap<String, Vec<IpAddr>>,
    inventory: Inventory<'a>,
    terms: Terms<'a>,
    pub(super) sets: Sets,
    pub(super) missing: Missing,
    cache: BTreeMap<Key<'a>, Result<Peers, String>>,
}

/// A row and all that decides over its peers.
#[derive(Clone, Copy)]
struct Asking<'a> {
    system: &'a System,
    row: &'a Row,
    site: Option<&'a SystemSite>,
    settings: Option<&'a RowSite>,
    /// Of role peers, only servers with this port offset.
    offset: Option<u16>,
}

impl<'a> Asking<'a> {
    fn given(&self, key: &str) -> Option<&'a Who> {
        self.site
            .and_then(|site| site.peers.get(key))
            .map(|(who, _)| who)
    }

    fn only(&self) -> Option<&'a Who> {
        self.settings.and_then(|settings| settings.only.as_ref())
    }
}

impl<'a> Resolver<'a> {
    pub(super) fn new(inputs: &Inputs<'a>, inventory: Inventory<'a>) -> Self {
        Self {
            site: inputs.site,
            resolved: inputs.resolved,
            terms: Terms::new(inputs, inventory.clone()),
            inventory,
            sets: Sets::default(),
            missing: Missing::default(),
            cache: BTreeMap::new(),
        }
    }

    /// A row's peers; `offset`: of role peers only servers with that port offset. The error says why nobody is left.
    pub(super) fn row(
        &mut self,
        system: &'a System,
        row: &'a Row,
        offset: Option<u16>,
    ) -> Result<Peers, String> {
        let site = self.site.systems.get(&system.id);
        let settings = site.and_then(|site| site.row(&system.id, &row.id));
        let key = (
            system.id.as_str(),
            row.role.as_str(),
            row.peers.as_slice(),
            offset,
        );
        if settings.is_none()
            && let Some(found) = self.cache.get(&key)
        {
            return found.clone();
        }
        self.missing.touched = false;
        let found = self.fresh(Asking {
            system,
            row,
            site,
            settings,
            offset,
        });
        // What is missing is told with every row that wants it, so it must be met again.
        if settings.is_none() && !self.missing.touched {
            self.cache.insert(key, found.clone());
        }
        found
    }

    /// Peers that the site itself names: management, baseline, its own rows. `None` = nobody.
    pub(super) fn said(&mut self, who: &'a Who) -> Option<Peers> {
        let mut gathered = Gathered::default();
        self.terms.who(who, None, &mut gathered);
        self.sets.intern(gathered)
    }

    /// Who is said, and these addresses besides; `None` if nobody is said.
    pub(super) fn said_and(&mut self, who: &'a Who, besides: &[IpNet]) -> Option<Peers> {
        let mut gathered = Gathered::default();
        self.terms.who(who, None, &mut gathered);
        if gathered.any || !gathered.nets.is_empty() || !gathered.domains.is_empty() {
            for net in besides {
                gathered.prefix(*net);
            }
        }
        self.sets.intern(gathered)
    }

    fn fresh(&mut self, asking: Asking<'a>) -> Result<Peers, String> {
        let mut gathered = Gathered::default();
        for peer in &asking.row.peers {
            self.peer(asking, peer, &mut gathered);
        }
        if let Some(only) = asking.only() {
            let mut narrow = Gathered::default();
            self.terms.who(only, None, &mut narrow);
            gathered = narrowed(gathered, narrow);
        }
        let nobody = match gathered.names.as_slice() {
            [] => "the site says that nobody is meant".to_owned(),
            names => format!("no address is left of {}", names.join(", ")),
        };
        self.sets.intern(gathered).ok_or(nobody)
    }

    fn peer(&mut self, asking: Asking<'a>, peer: &'a Peer, into: &mut Gathered) {
        let id = &asking.system.id;
        match peer {
            Peer::Itself => {}
            Peer::Prefix(net) => into.prefix(*net),
            Peer::Role(role) => self.role(asking, role, into),
            Peer::SameRole => self.role(asking, &asking.row.role, into),
            Peer::Group(group) => self.given(asking, group, &format!("{id} {group}"), into, || {
                let title = asking.system.groups.get(group).map_or("", String::as_str);
                format!("{id} names {group} ({title}), and the site does not say who that is")
            }),
            Peer::Asn(number) => {
                self.given(asking, &format!("asn:{number}"), &format!("AS{number}"), into, || {
                    format!("{id} names autonomous system {number}, and the site does not give its prefixes")
                });
            }
            Peer::Domain(name) => self.domain(asking, name, into),
            Peer::Unprinted => self.unprinted(asking, into),
        }
    }

    /// A peer that only the site can give.
    fn given(
        &mut self,
        asking: Asking<'a>,
        key: &str,
        name: &str,
        into: &mut Gathered,
        message: impl FnOnce() -> String,
    ) {
        match asking.given(key) {
            Some(who) => self.terms.who(who, Some(name), into),
            None => self.absent("unresolved-peer", asking, key, into, message),
        }
    }

    fn domain(&mut self, asking: Asking<'a>, name: &str, into: &mut Gathered) {
        let key = format!("domain:{name}");
        if let Some(who) = asking.given(&key) {
            return self.terms.who(who, Some(name), into);
        }
        match self.resolved.get(&name.to_ascii_lowercase()) {
            Some(addresses) if !addresses.is_empty() => {
                into.domain(name, addresses);
                into.names.push(format!("domain {name}"));
            }
            Some(_) => {
                self.sets.resolved(name, &[]);
                self.absent("unresolved-domain", asking, &key, into, || {
                    format!("{} names {name}, which does not resolve", asking.system.id)
                });
            }
            // Nobody asked: an offline command. Closed, and said.
            None => {
                into.names.push(format!("domain {name}"));
                self.missing.unasked(name, &asking.row.id);
            }
        }
    }

    fn unprinted(&mut self, asking: Asking<'a>, into: &mut Gathered) {
        let said = asking
            .settings
            .and_then(|settings| settings.unprinted_peers.as_ref());
        let said = said.or_else(|| asking.site?.unprinted_peers.as_ref());
        if let Some(who) = said.or(self.site.unprinted_peers.as_ref()) {
            return self.terms.who(who, Some("unprinted peers"), into);
        }
        into.any = true;
        if asking.only().is_none() {
            let id = &asking.system.id;
            self.missing.want("unprinted-peers", id.clone(), &asking.row.id, || {
                (
                    format!("{id} does not print the peers of some rows"),
                    format!(
                        "write `unprinted_peers = [...]` or `\"any\"` under [systems.{id}], or `--unprinted-peers any|CIDR,...`"
                    ),
                )
            });
        }
    }

    fn role(&mut self, asking: Asking<'a>, role: &str, into: &mut Gathered) {
        let Asking { system, offset, .. } = asking;
        let id = &system.id;
        let name = format!("role {id}/{role}");
        let hosts = self.inventory.hosts_with(id, role);
        let mut found = !hosts.is_empty();
        for index in hosts {
            let wanted =
                offset.is_none_or(|offset| self.inventory.offset_at(id, role, index) == offset);
            if wanted {
                self.inventory.addresses(index, &mut into.nets);
            }
        }
        // Addresses that are given for a role, or for one that includes it, have the system's offset.
        let wanted = offset.is_none_or(|offset| self.inventory.offset(id, &[role], None) == offset);
        for (key, (who, _)) in asking.site.into_iter().flat_map(|site| &site.peers) {
            if system.closure(key).contains(role) {
                found = true;
                if wanted {
                    self.terms.who(who, Some(&name), into);
                }
            }
        }
        if found {
            into.names.push(name);
        } else {
            self.absent("unresolved-peer", asking, role, into, || {
                format!("{id} names role {role}, and no host of the inventory has it")
            });
        }
    }

    /// A peer that the document names and nobody gives.
    fn absent(
        &mut self,
        code: &'static str,
        asking: Asking<'a>,
        key: &str,
        into: &mut Gathered,
        message: impl FnOnce() -> String,
    ) {
        let id = &asking.system.id;
        let what = format!("{id}/{key}");
        if asking.only().is_some() {
            // A narrowed row is for whom the narrowing says: nothing is missing.
            into.any = true;
            return;
        }
        match self.site.unresolved_peers {
            Some(Unresolved::None) => into.names.push(what),
            Some(Unresolved::Any) => {
                into.any = true;
                self.missing.everybody(what, &asking.row.id);
            }
            None | Some(Unresolved::Refuse) => {
                into.any = true;
                self.missing.want(code, what, &asking.row.id, || {
                    let quoted = if key.contains([':', '.']) { format!("\"{key}\"") } else { key.to_owned() };
                    let is_role = asking.system.roles.contains_key(key);
                    let host = if is_role { ", or a host that has the role" } else { "" };
                    let hint = format!(
                        "write `{quoted} = [...]` under [systems.{id}.peers]{host}, or `--peer {id}/{key}=CIDR,...`"
                    );
                    (message(), hint)
                });
            }
        }
    }
}
