//! The site's own words for peers to prefixes: groups, hosts, roles, domains, files.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

use super::{Inputs, inventory::Inventory, sets::Gathered};
use crate::site::{Place, Site, Term, Who};

#[derive(Debug)]
pub(super) struct Terms<'a> {
    site: &'a Site,
    resolved: &'a BTreeMap<String, Vec<IpAddr>>,
    files: &'a BTreeMap<String, Vec<IpNet>>,
    inventory: Inventory<'a>,
    /// Groups, flattened.
    groups: BTreeMap<&'a str, Group>,
}

/// A group's prefixes, and domain names with what they resolved to.
type Group = (Vec<IpNet>, BTreeMap<String, Vec<IpAddr>>);

impl<'a> Terms<'a> {
    pub(super) fn new(inputs: &Inputs<'a>, inventory: Inventory<'a>) -> Self {
        Self {
            site: inputs.site,
            resolved: inputs.resolved,
            files: inputs.files,
            inventory,
            groups: BTreeMap::new(),
        }
    }

    /// Everybody whom the site means; `name`: how a reader knows plain prefixes, where they stand for something.
    pub(super) fn who(&mut self, who: &'a Who, name: Option<&str>, into: &mut Gathered) {
        into.any |= *who == Who::Any;
        for (term, _) in who.terms() {
            match (term, name) {
                (Term::Prefix(net), None) => into.prefix(*net),
                (Term::Prefix(net), Some(name)) => {
                    into.nets.push(*net);
                    into.names.push(name.to_owned());
                }
                _ => self.term(term, &mut Vec::new(), into),
            }
        }
    }

    /// Whether a host of the inventory is among those whom the site means. A host is never its own peer, but it may be one
    /// of those who are meant.
    pub(super) fn is_among(&mut self, who: &'a Who, host: usize) -> bool {
        *who == Who::Any || self.is_of(who.terms(), host, &mut Vec::new())
    }

    fn is_of(&mut self, terms: &'a [(Term, Place)], host: usize, above: &mut Vec<&'a str>) -> bool {
        let Some(named) = self.site.hosts.get(host) else {
            return false;
        };
        terms.iter().any(|(term, _)| match term {
            Term::Role(id) => self.inventory.named(id).contains(&host),
            Term::Host(name) => *name == named.name,
            Term::Group(name) => {
                let group = self
                    .site
                    .groups
                    .get(name)
                    .filter(|_| !above.contains(&name.as_str()));
                above.push(name);
                let is_in = group.is_some_and(|group| self.is_of(&group.members.0, host, above));
                above.pop();
                is_in
            }
            Term::Prefix(_) | Term::Domain(_) | Term::File(_) => {
                let mut gathered = Gathered::default();
                self.term(term, &mut Vec::new(), &mut gathered);
                let resolved = gathered
                    .domains
                    .values()
                    .flatten()
                    .map(|one| IpNet::from(*one));
                let nets: Vec<IpNet> = gathered.nets.iter().copied().chain(resolved).collect();
                super::inventory::addresses_of(named)
                    .any(|own| nets.iter().any(|net| net.contains(&own)))
            }
        })
    }

    /// One term; `above`: groups that it is within. Cycles are reported elsewhere and end here.
    fn term(&mut self, term: &'a Term, above: &mut Vec<&'a str>, into: &mut Gathered) {
        match term {
            Term::Prefix(net) => into.nets.push(*net),
            Term::Group(name) => {
                self.group(name, above, into);
                into.names.push(format!("group {name}"));
            }
            Term::Role(id) => {
                for index in self.inventory.named(id) {
                    self.inventory.addresses(index, &mut into.nets);
                }
                into.names.push(format!("role {id}"));
            }
            Term::Host(name) => {
                let host = self.site.host(name).into_iter();
                let addresses = host.flat_map(super::inventory::addresses_of);
                into.nets.extend(addresses.map(IpNet::from));
                into.names.push(format!("host {name}"));
            }
            Term::Domain(name) => {
                // One that nobody asked for is nobody here.
                if let Some(addresses) = self.resolved.get(name) {
                    into.domain(name, addresses);
                }
                into.names.push(format!("domain {name}"));
            }
            Term::File(path) => {
                into.nets.extend(self.files.get(path).into_iter().flatten());
                into.names.push(format!("file {path}"));
            }
        }
    }

    fn group(&mut self, name: &'a str, above: &mut Vec<&'a str>, into: &mut Gathered) {
        if let Some((nets, domains)) = self.groups.get(name) {
            into.nets.extend(nets);
            into.domains.extend(domains.clone());
            return;
        }
        let Some(group) = self
            .site
            .groups
            .get(name)
            .filter(|_| !above.contains(&name))
        else {
            return;
        };
        above.push(name);
        let mut members = Gathered::default();
        for (member, _) in &group.members.0 {
            self.term(member, above, &mut members);
        }
        above.pop();
        let nets = IpNet::aggregate(&members.nets);
        into.nets.extend(&nets);
        into.domains.extend(members.domains.clone());
        self.groups.insert(name, (nets, members.domains));
    }
}
