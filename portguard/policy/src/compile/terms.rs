//! The site's own words for peers to prefixes: groups, hosts, roles, domains, files.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

use super::{Inputs, inventory::Inventory, sets::Gathered};
use crate::site::{Site, Term, Who};

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

    /// One term; `above`: groups that it is within. Cycles are told elsewhere and end here.
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
