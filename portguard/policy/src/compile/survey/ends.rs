//! What one of two hosts may send and the other does not accept, or the reverse.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "all other kinds are alike here"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::outcome::{Candidate, enforcing, policy};
use super::sample;
use crate::catalog::{Direction, Peer, PeerClass, Row, System};
use crate::compile::inventory::{Inventory, addresses_of, clusters_of, roles_of};
use crate::compile::narrow::base;
use crate::compile::views::Views;
use crate::compile::{Inputs, some_of};
use crate::diagnostic::Diagnostic;
use crate::human;
use crate::policy::{Compiled, Grant, GrantKind, Outbound, Peers, Policy};
use crate::site::{Host, Place, Term};

/// Of the host that is asked for, against every other.
pub(super) fn differing(inputs: &Inputs<'_>, compiled: &Compiled) -> Vec<Diagnostic> {
    let mut hosts = inputs.site.hosts.iter();
    let own = hosts.position(|host| Some(&host.name) == compiled.policy.host.as_ref());
    // What is sent is not judged at all.
    let is_judged = inputs.site.outbound != Outbound::Off;
    let Some(own) = own.filter(|_| is_judged) else {
        return Vec::new();
    };
    let whole = enforcing(inputs.site);
    let sample = sample::hosts(&whole, Some(own));
    let own = sample.range(..own).count();
    let site = sample::reduced(&whole, &sample);
    let inputs = Inputs {
        site: &site,
        ..inputs.clone()
    };
    let views = Views::new(&inputs);
    let mut all: BTreeMap<usize, Vec<Candidate>> = BTreeMap::new();
    for one in Candidate::all(&inputs) {
        if let Some(index) = one.index {
            all.entry(index).or_default().push(one);
        }
    }
    let ours = all.remove(&own).unwrap_or_default();
    let is_of_ours = |system: &str| ours.iter().any(|one| one.is_of(system));
    let systems: Vec<&System> = inputs
        .catalog
        .systems
        .values()
        .filter(|system| is_of_ours(&system.id))
        .collect();
    all.retain(|_, theirs| {
        systems
            .iter()
            .any(|system| theirs.iter().any(|one| one.is_of(&system.id)))
    });
    let mut ends = Ends {
        views: &views,
        inventory: Inventory::new(&inputs, Some(own)),
        inputs: &inputs,
        systems,
        own,
        found: BTreeMap::new(),
    };
    let ours = ends.open(&views, &ours);
    for (index, theirs) in all {
        let theirs = ends.open(&views, &theirs);
        ends.compare(index, &ours, &theirs);
    }
    ends.report()
}

/// A host's policies, one an interface.
type Open = Vec<Policy>;

struct Ends<'a> {
    views: &'a Views,
    inputs: &'a Inputs<'a>,
    inventory: Inventory<'a>,
    systems: Vec<&'a System>,
    own: usize,
    /// (row, whether it is sent from here, ports, why) to the other hosts.
    found: BTreeMap<(String, bool, String, String), BTreeSet<String>>,
}

impl<'a> Ends<'a> {
    fn open(&self, views: &Views, candidates: &[Candidate]) -> Open {
        let one = |candidate| policy(self.inputs, views, candidate, None, &mut Vec::new());
        candidates.iter().map(one).collect()
    }

    fn host(&self, index: usize) -> Option<&'a Host> {
        self.inputs.site.hosts.get(index)
    }

    fn row(&self, id: &str) -> Option<(&'a System, &'a Row)> {
        let (of, _) = id.split_once('/')?;
        let system = self.systems.iter().find(|system| system.id == of)?;
        Some((system, system.rows.iter().find(|row| row.id == id)?))
    }

    fn compare(&mut self, index: usize, ours: &Open, theirs: &Open) {
        let (Some(own), Some(other)) = (self.host(self.own), self.host(index)) else {
            return;
        };
        for is_sent in [true, false] {
            for policy in ours {
                let grants = if is_sent {
                    &policy.outbound
                } else {
                    &policy.inbound
                };
                let documented = grants
                    .iter()
                    .filter(|grant| grant.kind == GrantKind::Documented);
                for grant in documented {
                    self.grant(
                        index,
                        (own, other),
                        is_sent,
                        (policy, grant),
                        (ours, theirs),
                    );
                }
            }
        }
    }

    /// One thing that is open here towards the other host, if it is.
    fn grant(
        &mut self,
        index: usize,
        (own, other): (&Host, &Host),
        is_sent: bool,
        (policy, grant): (&Policy, &Grant),
        (ours, theirs): (&Open, &Open),
    ) {
        let Some((system, row)) = self.row(&grant.row) else {
            return;
        };
        if !self.is_far_end(system, row, grant, index, theirs) {
            return;
        }
        let meant = addresses_of(other).filter(|address| policy.admits(grant.peers, *address));
        let families: BTreeSet<bool> = meant.map(|address| address.is_ipv6()).collect();
        let mut own = own.addresses.iter().map(|(address, _)| *address);
        let is_closed = own.any(|address| {
            families.contains(&address.is_ipv6()) && !is_open(theirs, !is_sent, grant, address)
        });
        if !is_closed {
            return;
        }
        let why = self.why(system, row, grant, index, is_sent, (ours, theirs));
        let key = (row.id.clone(), is_sent, ports(grant), why);
        self.found
            .entry(key)
            .or_default()
            .insert(other.name.clone());
    }

    /// Whether another host is at the far end of a row, not only among the addresses that a wide prefix has.
    fn is_far_end(
        &self,
        system: &System,
        row: &Row,
        grant: &Grant,
        index: usize,
        theirs: &Open,
    ) -> bool {
        let has = |role: &str| !self.inventory.roles_at(&system.id, role, index).is_empty();
        let is_of_system = theirs.iter().any(|one| one.systems.contains(&system.id));
        let by_role = row.peers.iter().any(|peer| match peer {
            Peer::Role(role) => has(role),
            Peer::SameRole => has(&row.role),
            // Whoever the site names for members, of whatever role of the system.
            Peer::Unprinted => row.class == Some(PeerClass::ClusterMembers) && is_of_system,
            _ => false,
        });
        let has_role = self
            .host(index)
            .is_some_and(|host| roles_of(host).next().is_some());
        let by_name = has_role
            && row.peers.iter().any(|peer| {
                let Peer::Group(group) = peer else {
                    return false;
                };
                let view = &self.views.at(&system.id, Some(self.own)).site;
                let said = view.peers.get(group);
                said.is_some_and(|(who, _)| self.names(who.terms(), index, &mut Vec::new()))
            });
        let is_same = row.direction == Direction::Both
            && theirs
                .iter()
                .any(|one| one.rows.iter().any(|facts| facts.id == row.id));
        (by_role && grant.peers != Peers::Any) || by_name || is_same
    }

    /// Whether a host is named itself, not only among the addresses of a network.
    fn names(&self, terms: &'a [(Term, Place)], index: usize, above: &mut Vec<&'a str>) -> bool {
        let Some(host) = self.host(index) else {
            return false;
        };
        terms.iter().any(|(term, _)| match term {
            Term::Host(name) => *name == host.name,
            Term::Role(id) => self.inventory.named(id).contains(&index),
            Term::Prefix(net) => {
                net.prefix_len() == net.max_prefix_len()
                    && addresses_of(host).any(|own| own == net.addr())
            }
            Term::Group(name) if !above.contains(&name.as_str()) => {
                above.push(name);
                let group = self.inputs.site.groups.get(name);
                let is_in = group.is_some_and(|group| self.names(&group.members.0, index, above));
                above.pop();
                is_in
            }
            _ => false,
        })
    }

    fn why(
        &self,
        system: &System,
        row: &Row,
        grant: &Grant,
        index: usize,
        is_sent: bool,
        (_, theirs): (&Open, &Open),
    ) -> String {
        let is_of_system = theirs.iter().any(|one| one.systems.contains(&system.id));
        if is_of_system && !self.inventory.is_related(&system.id, index) {
            let named = |host: Option<usize>| {
                let names: Vec<String> = clusters_of(self.inputs.site, &system.id, host)
                    .map(str::to_owned)
                    .collect();
                if names.is_empty() {
                    "in no cluster".to_owned()
                } else {
                    format!("of cluster {}", some_of(&names))
                }
            };
            return format!(
                "it is {}, and this host {}",
                named(Some(index)),
                named(Some(self.own))
            );
        }
        let address = self
            .host(self.own)
            .and_then(|own| own.addresses.first())
            .map(|(address, _)| *address);
        let ends = address.and_then(|address| {
            let open = covering(theirs, !is_sent, grant)
                .filter(|(policy, one)| policy.admits(one.peers, address));
            open.filter_map(|(_, one)| one.until).max()
        });
        if let Some(until) = ends {
            return format!("there it ends at {}", human::time(until));
        }
        let mut omitted = theirs.iter().flat_map(|one| &one.omitted);
        let is_other_end = |id: &str| {
            base(id) == base(&row.id)
                || self.row(id).is_some_and(|(_, other)| {
                    other.transports.contains(&grant.transport)
                        && other.ports.iter().any(|spec| row.ports.contains(spec))
                })
        };
        if let Some(one) = omitted.find(|one| is_other_end(&one.row)) {
            return format!("there row `{}` opens nothing: {}", one.row, one.detail);
        }
        let mut others = covering(theirs, !is_sent, grant);
        match others.next() {
            Some((_, one)) => format!("there row `{}` is for others", one.row),
            None => "there no row opens it".to_owned(),
        }
    }

    fn report(self) -> Vec<Diagnostic> {
        let mut all = Vec::new();
        for ((row, is_sent, ports, why), hosts) in self.found {
            let hosts: Vec<String> = hosts.into_iter().collect();
            let (open, closed) = if is_sent {
                ("lets this host send", "does not accept it")
            } else {
                ("accepts", "may not send it")
            };
            let towards = if is_sent { "to" } else { "from" };
            let message = format!(
                "row `{row}` {open} {ports} {towards} {}, which {closed}: {why}",
                some_of(&hosts)
            );
            let hint = "say the same at both ends, or `[[row]]` at each where the document does not have it";
            all.push(
                Diagnostic::warning("ends-differ", message)
                    .at(row)
                    .hint(hint),
            );
        }
        all
    }
}

fn ports(grant: &Grant) -> String {
    if grant.first == grant.last {
        format!("{}/{}", grant.transport, grant.first)
    } else {
        format!("{}/{}-{}", grant.transport, grant.first, grant.last)
    }
}

/// What a host opens of the same ports.
fn covering<'p>(
    open: &'p Open,
    is_outbound: bool,
    grant: &'p Grant,
) -> impl Iterator<Item = (&'p Policy, &'p Grant)> {
    open.iter().flat_map(move |policy| {
        let grants = if is_outbound {
            &policy.outbound
        } else {
            &policy.inbound
        };
        let same = grants.iter().filter(|one| {
            one.transport == grant.transport && one.first <= grant.last && grant.first <= one.last
        });
        same.map(move |one| (policy, one))
    })
}

/// Whether all ports of a grant are open to an address at the other end, for as long as here.
fn is_open(open: &Open, is_outbound: bool, grant: &Grant, address: IpAddr) -> bool {
    let lasting = |until: Option<u64>| until.unwrap_or(u64::MAX);
    let mut ranges: Vec<(u16, u16)> = covering(open, is_outbound, grant)
        .filter(|(policy, one)| {
            policy.admits(one.peers, address) && lasting(one.until) >= lasting(grant.until)
        })
        .map(|(_, one)| (one.first, one.last))
        .collect();
    ranges = crate::compile::changes::merged(ranges);
    ranges
        .iter()
        .any(|(first, last)| *first <= grant.first && grant.last <= *last)
}
