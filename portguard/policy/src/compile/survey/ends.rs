//! What one of two hosts may send and the other does not accept, or the reverse.

mod named;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::outcome::{Candidate, enforcing, policy};
use super::sample;
use crate::catalog::{Catalog, Direction, Row, System};
use crate::compile::inventory::{Inventory, addresses_of, clusters_of};
use crate::compile::narrow::base;
use crate::compile::views::Views;
use crate::compile::{Inputs, some_of};
use crate::diagnostic::{Diagnostic, Level};
use crate::human;
use crate::policy::{Compiled, Grant, GrantKind, Outbound, Policy};
use crate::site::Host;

/// Of the host that is asked for, against every other.
pub(in crate::compile) fn differing(inputs: &Inputs<'_>, compiled: &Compiled) -> Vec<Diagnostic> {
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
    let inventory = Inventory::new(&inputs, Some(own));
    let mut all: BTreeMap<usize, Open> = BTreeMap::new();
    for one in Candidate::all(&inputs) {
        if let Some(index) = one.index {
            let policy = policy(&inputs, &views, &one, None, &mut Vec::new());
            all.entry(index).or_default().push(policy);
        }
    }
    let ours = all.remove(&own).unwrap_or_default();
    let seen = |host| Seen {
        inputs: &inputs,
        views: &views,
        inventory: inventory.of(Some(host)),
        host,
    };
    let here = seen(own);
    let mut found = Found::new();
    for (index, theirs) in all {
        here.towards(index, true, (&ours, &theirs), &mut found);
        seen(index).towards(own, false, (&theirs, &ours), &mut found);
    }
    report(found)
}

/// A host's policies, one an interface.
type Open = Vec<Policy>;

/// What is open at one end only, to the other hosts.
type Found = BTreeMap<Finding, BTreeSet<String>>;

/// What is open at one end only.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Finding {
    row: String,
    /// At the host that is asked for.
    is_ours: bool,
    /// There it may be sent.
    is_sent: bool,
    ports: String,
    why: String,
    is_documented: bool,
    level: Level,
    /// Where the row stands.
    place: String,
}

/// The site as one of its hosts sees it.
struct Seen<'a> {
    inputs: &'a Inputs<'a>,
    views: &'a Views,
    inventory: Inventory<'a>,
    host: usize,
}

impl Seen<'_> {
    fn host(&self, index: usize) -> Option<&Host> {
        self.inputs.site.hosts.get(index)
    }

    /// What is open here towards another host and is not there.
    fn towards(
        &self,
        index: usize,
        is_ours: bool,
        (open, theirs): (&Open, &Open),
        found: &mut Found,
    ) {
        let (Some(own), Some(other)) = (self.host(self.host), self.host(index)) else {
            return;
        };
        let named = if is_ours { other } else { own };
        for policy in open {
            for (is_sent, grants) in [(true, &policy.outbound), (false, &policy.inbound)] {
                for grant in grants {
                    if !is_closed(policy, grant, is_sent, (own, other), theirs) {
                        continue;
                    }
                    let has_row = theirs.iter().any(|one| one.facts(&grant.row).is_some());
                    if !self.is_far_end(grant, index, has_row) {
                        continue;
                    }
                    let finding = Finding {
                        row: grant.row.clone(),
                        is_ours,
                        is_sent,
                        ports: grant.ports(),
                        why: self.why(grant, index, is_ours, is_sent, theirs),
                        is_documented: grant.kind == GrantKind::Documented,
                        // Such a host is guarded only if a document has a role for it.
                        level: if self.is_bare(index) && !self.is_for_roles(grant) {
                            Level::Note
                        } else {
                            Level::Warning
                        },
                        place: policy.place_of(&grant.row),
                    };
                    found.entry(finding).or_default().insert(named.name.clone());
                }
            }
        }
    }

    /// Why the other end is closed; that is this host's if the words are `not ours`.
    fn why(
        &self,
        grant: &Grant,
        index: usize,
        is_ours: bool,
        is_sent: bool,
        theirs: &Open,
    ) -> String {
        let there = if is_ours { "there" } else { "here" };
        let known = row(self.inputs.catalog, &grant.row);
        if let Some((system, _)) = known
            && theirs.iter().any(|one| one.systems.contains(&system.id))
            && !self.inventory.is_related(&system.id, index)
        {
            let named = |host: usize| {
                let names: Vec<String> = clusters_of(self.inputs.site, &system.id, Some(host))
                    .map(str::to_owned)
                    .collect();
                if names.is_empty() {
                    "in no cluster".to_owned()
                } else {
                    format!("of cluster {}", some_of(&names))
                }
            };
            let (other, this) = if is_ours {
                (index, self.host)
            } else {
                (self.host, index)
            };
            return format!("it is {}, and this host {}", named(other), named(this));
        }
        let address = self
            .host(self.host)
            .and_then(|own| own.addresses.first())
            .map(|(address, _)| *address);
        let ends = address.and_then(|address| {
            let open = covering(theirs, !is_sent, grant)
                .filter(|(policy, one)| policy.admits(one.peers, address));
            open.filter_map(|(_, one)| one.until).max()
        });
        if let Some(until) = ends {
            return format!("{there} it ends at {}", human::time(until));
        }
        // What would accept is no reason why nothing may be sent.
        let no_end = if is_sent {
            Direction::Out
        } else {
            Direction::In
        };
        let is_other_end = |id: &str| {
            let other = row(self.inputs.catalog, id);
            known.zip(other).is_some_and(|((_, own), (_, other))| {
                let is_like = || {
                    let mut same = other.ports.iter().filter(|spec| !spec.is_open());
                    other.transports.contains(&grant.transport)
                        && same.any(|spec| own.ports.contains(spec))
                        && self.is_peer_of(other)
                };
                other.direction != no_end && (base(id) == base(&own.id) || is_like())
            })
        };
        if self.is_bare(index) {
            let who = if is_ours { "it" } else { "this host" };
            return format!("{who} has no role, so no row of a document opens anything {there}");
        }
        let mut omitted = theirs.iter().flat_map(|one| &one.omitted);
        if let Some(one) = omitted.find(|one| is_other_end(&one.row)) {
            return format!("{there} row `{}` opens nothing: {}", one.row, one.detail);
        }
        let mut others = covering(theirs, !is_sent, grant);
        match others.next() {
            Some((_, one)) => format!("{there} row `{}` is for others", one.row),
            None => format!("{there} no row opens it"),
        }
    }
}

/// A row of a document, by its full id.
fn row<'c>(catalog: &'c Catalog, id: &str) -> Option<(&'c System, &'c Row)> {
    let (of, _) = id.split_once('/')?;
    let system = catalog.systems.get(of)?;
    Some((system, system.rows.iter().find(|row| row.id == id)?))
}

/// Whether what is open at one end towards an address of the other host is not open there.
fn is_closed(
    policy: &Policy,
    grant: &Grant,
    is_sent: bool,
    (own, other): (&Host, &Host),
    theirs: &Open,
) -> bool {
    let meant = addresses_of(other).filter(|address| policy.admits(grant.peers, *address));
    let families: BTreeSet<bool> = meant.map(|address| address.is_ipv6()).collect();
    let mut own = own.addresses.iter().map(|(address, _)| *address);
    own.any(|address| {
        families.contains(&address.is_ipv6()) && !is_open(theirs, !is_sent, grant, address)
    })
}

fn report(found: Found) -> Vec<Diagnostic> {
    let mut all = Vec::new();
    for (finding, hosts) in found {
        let hosts: Vec<String> = hosts.into_iter().collect();
        let hosts = some_of(&hosts);
        let Finding {
            row, ports, why, ..
        } = finding;
        let what = match (finding.is_ours, finding.is_sent) {
            (true, true) => {
                format!("lets this host send {ports} to {hosts}, which does not accept it")
            }
            (true, false) => format!("accepts {ports} from {hosts}, which may not send it"),
            (false, true) => {
                format!("lets {hosts} send {ports} to this host, which does not accept it")
            }
            (false, false) => {
                format!("of {hosts} accepts {ports} from this host, which may not send it")
            }
        };
        let hint = if finding.is_documented {
            "set the same at both ends, or `[[row]]` at each where the document does not have it"
        } else {
            "write a `[[row]]` for the other end as well"
        };
        all.push(
            Diagnostic::new(
                finding.level,
                "ends-differ",
                format!("row `{row}` {what}: {why}"),
            )
            .at(finding.place)
            .hint(hint),
        );
    }
    all
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
