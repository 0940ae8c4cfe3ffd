//! Who a row is for: documents' peers and the site's terms to sets of prefixes, each distinct set kept once.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use ipnet::IpNet;

use super::{Inputs, inventory::Inventory, some_of};
use crate::catalog::{Peer, Row, System};
use crate::diagnostic::{Diagnostic, Level};
use crate::policy::{PeerSet, Peers};
use crate::site::{RowSite, Site, SystemSite, Term, Unresolved, Who};

/// Names of more are cut short.
const MAX_NAMES: usize = 6;

/// Peers gathered so far.
#[derive(Debug, Clone, Default)]
struct Gathered {
    any: bool,
    nets: Vec<IpNet>,
    names: Vec<String>,
}

/// A peer that nobody gave, and the rows that want it.
#[derive(Debug, Default)]
struct Missing {
    message: String,
    hint: String,
    rows: Vec<String>,
}

type RowKey<'a> = (&'a str, &'a str, &'a [Peer], Option<u16>);

#[derive(Debug)]
pub(super) struct Resolver<'a> {
    site: &'a Site,
    resolved: &'a BTreeMap<String, Vec<std::net::IpAddr>>,
    files: &'a BTreeMap<String, Vec<IpNet>>,
    inventory: Inventory<'a>,
    sets: Vec<PeerSet>,
    /// Prefixes' hash to sets that have it.
    interned: HashMap<u64, Vec<u32>>,
    /// Names of each set, before they are joined.
    names: Vec<BTreeSet<String>>,
    cache: BTreeMap<RowKey<'a>, Result<Peers, String>>,
    /// Groups, flattened.
    groups: BTreeMap<&'a str, Vec<IpNet>>,
    /// (code, what) to who wants it.
    missing: BTreeMap<(&'static str, String), Missing>,
    everybody: BTreeMap<String, Vec<String>>,
    /// Domain names that were not looked up, and the rows that name them.
    unasked: BTreeMap<String, Vec<String>>,
    /// Something about the row at hand went into `missing` or `everybody`.
    reported: bool,
}

impl<'a> Resolver<'a> {
    pub(super) fn new(inputs: &Inputs<'a>, inventory: Inventory<'a>) -> Self {
        Self {
            site: inputs.site,
            resolved: inputs.resolved,
            files: inputs.files,
            inventory,
            sets: Vec::new(),
            interned: HashMap::new(),
            names: Vec::new(),
            cache: BTreeMap::new(),
            groups: BTreeMap::new(),
            missing: BTreeMap::new(),
            everybody: BTreeMap::new(),
            unasked: BTreeMap::new(),
            reported: false,
        }
    }

    /// A row's peers; `offset`: of its role peers only those with that port offset. The error says why nobody is left.
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
        // What is missing is reported with every row that wants it, so only what is all there may come from the cache.
        if settings.is_none()
            && let Some(found) = self.cache.get(&key)
        {
            return found.clone();
        }
        self.reported = false;
        let found = self.fresh_row(system, row, site, settings, offset);
        if settings.is_none() && !self.reported {
            self.cache.insert(key, found.clone());
        }
        found
    }

    fn fresh_row(
        &mut self,
        system: &'a System,
        row: &'a Row,
        site: Option<&'a SystemSite>,
        settings: Option<&'a RowSite>,
        offset: Option<u16>,
    ) -> Result<Peers, String> {
        let only = settings.and_then(|settings| settings.only.as_ref());
        let mut gathered = Gathered::default();
        for peer in &row.peers {
            self.peer(system, row, peer, site, settings, offset, &mut gathered);
        }
        if let Some(only) = only {
            let mut narrow = Gathered::default();
            self.who(only, "only", &mut narrow);
            gathered = narrowed(gathered, narrow);
        }
        let nobody = || match gathered.names.as_slice() {
            [] => "the site says that nobody is meant".to_owned(),
            names => format!("no address is left of {}", names.join(", ")),
        };
        let detail = nobody();
        self.intern(gathered).ok_or(detail)
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "all of a row's context decides over one peer"
    )]
    fn peer(
        &mut self,
        system: &'a System,
        row: &'a Row,
        peer: &'a Peer,
        site: Option<&'a SystemSite>,
        settings: Option<&'a RowSite>,
        offset: Option<u16>,
        into: &mut Gathered,
    ) {
        let given = |key: &str| {
            site.and_then(|site| site.peers.get(key))
                .map(|(who, _)| who)
        };
        // A narrowed row is for whom the narrowing says, so nothing is missing.
        let narrowed = settings.is_some_and(|settings| settings.only.is_some());
        let id = &system.id;
        match peer {
            Peer::Itself => {}
            Peer::Prefix(net) => {
                into.nets.push(*net);
                into.names.push(shown(*net));
            }
            Peer::Role(role) => self.role(system, row, role, site, offset, narrowed, into),
            Peer::SameRole => self.role(system, row, &row.role, site, offset, narrowed, into),
            Peer::Group(group) => {
                if let Some(who) = given(group) {
                    self.who(who, &format!("{id} {group}"), into);
                } else {
                    let title = system.groups.get(group).map_or("", String::as_str);
                    let message = format!(
                        "{id} names {group} ({title}), and the site does not say who that is"
                    );
                    self.absent(
                        "unresolved-peer",
                        system,
                        row,
                        group,
                        message,
                        narrowed,
                        into,
                    );
                }
            }
            Peer::Asn(number) => {
                let key = format!("asn:{number}");
                if let Some(who) = given(&key) {
                    self.who(who, &format!("AS{number}"), into);
                } else {
                    let message = format!(
                        "{id} names autonomous system {number}, and the site does not give its prefixes"
                    );
                    self.absent(
                        "unresolved-peer",
                        system,
                        row,
                        &key,
                        message,
                        narrowed,
                        into,
                    );
                }
            }
            Peer::Domain(name) => {
                let key = format!("domain:{name}");
                if let Some(who) = given(&key) {
                    return self.who(who, name, into);
                }
                match self.resolved.get(&name.to_ascii_lowercase()) {
                    Some(addresses) if !addresses.is_empty() => {
                        into.nets.extend(
                            addresses
                                .iter()
                                .map(|address| IpNet::from(address.to_canonical())),
                        );
                        into.names.push(format!("domain {name}"));
                    }
                    Some(_) => {
                        let message = format!("{id} names {name}, which does not resolve");
                        self.absent(
                            "unresolved-domain",
                            system,
                            row,
                            &key,
                            message,
                            narrowed,
                            into,
                        );
                    }
                    // Nobody asked: an offline command. Closed, and said.
                    None => {
                        into.names.push(format!("domain {name}"));
                        self.reported = true;
                        self.unasked
                            .entry(name.clone())
                            .or_default()
                            .push(row.id.clone());
                    }
                }
            }
            Peer::Unprinted => {
                let who = settings
                    .and_then(|settings| settings.unprinted_peers.as_ref())
                    .or_else(|| site?.unprinted_peers.as_ref())
                    .or(self.site.unprinted_peers.as_ref());
                match who {
                    Some(who) => self.who(who, "unprinted peers", into),
                    None if narrowed => into.any = true,
                    None => {
                        into.any = true;
                        self.miss("unprinted-peers", id, row, Missing {
                            message: format!("{id} does not print the peers of some rows"),
                            hint: format!("write `unprinted_peers = [...]` or `\"any\"` under [systems.{id}], or `--unprinted-peers any|CIDR,...`"),
                            rows: Vec::new(),
                        });
                    }
                }
            }
        }
    }

    #[expect(clippy::too_many_arguments, reason = "as above")]
    fn role(
        &mut self,
        system: &'a System,
        row: &'a Row,
        role: &'a str,
        site: Option<&'a SystemSite>,
        offset: Option<u16>,
        narrowed: bool,
        into: &mut Gathered,
    ) {
        let hosts = self.inventory.hosts_with(&system.id, role);
        let mut found = !hosts.is_empty();
        for index in hosts {
            let wanted = offset
                .is_none_or(|offset| self.inventory.offset_at(&system.id, role, index) == offset);
            if wanted && Some(index) != self.inventory.own {
                self.host(index, into);
            }
        }
        into.names.push(format!("role {}/{role}", system.id));
        let said =
            offset.is_none_or(|offset| self.inventory.offset(&system.id, &[role], None) == offset);
        for (key, (who, _)) in site.into_iter().flat_map(|site| &site.peers) {
            if system.closure(key).contains(role) {
                found = true;
                if said {
                    self.who(who, &format!("role {}/{role}", system.id), into);
                }
            }
        }
        if !found {
            into.names.pop();
            let message = format!(
                "{} names role {role}, and no host of the inventory has it",
                system.id
            );
            self.absent(
                "unresolved-peer",
                system,
                row,
                role,
                message,
                narrowed,
                into,
            );
        }
    }

    /// A peer that the document names and the site does not give.
    #[expect(clippy::too_many_arguments, reason = "one message's parts")]
    fn absent(
        &mut self,
        code: &'static str,
        system: &System,
        row: &Row,
        key: &str,
        message: String,
        narrowed: bool,
        into: &mut Gathered,
    ) {
        match self.site.unresolved_peers {
            _ if narrowed => into.any = true,
            Some(Unresolved::None) => into.names.push(format!("{}/{key}", system.id)),
            Some(Unresolved::Any) => {
                into.any = true;
                self.reported = true;
                let rows = self
                    .everybody
                    .entry(format!("{}/{key}", system.id))
                    .or_default();
                if rows.last() != Some(&row.id) {
                    rows.push(row.id.clone());
                }
            }
            None | Some(Unresolved::Refuse) => {
                into.any = true;
                let id = &system.id;
                let quoted = if key.contains([':', '.']) {
                    format!("\"{key}\"")
                } else {
                    key.to_owned()
                };
                let host = if system.roles.contains_key(key) {
                    ", or a host that has the role"
                } else {
                    ""
                };
                let hint = format!(
                    "write `{quoted} = [...]` under [systems.{id}.peers]{host}, or `--peer {id}/{key}=CIDR,...`"
                );
                self.miss(
                    code,
                    &format!("{id}/{key}"),
                    row,
                    Missing {
                        message,
                        hint,
                        rows: Vec::new(),
                    },
                );
            }
        }
    }

    fn miss(&mut self, code: &'static str, what: &str, row: &Row, missing: Missing) {
        self.reported = true;
        let entry = self
            .missing
            .entry((code, what.to_owned()))
            .or_insert(missing);
        if entry.rows.last() != Some(&row.id) {
            entry.rows.push(row.id.clone());
        }
    }

    fn host(&self, index: usize, into: &mut Gathered) {
        if let Some(host) = self.inventory.host(index) {
            into.nets.extend(
                host.addresses
                    .iter()
                    .map(|(address, _)| IpNet::from(*address)),
            );
        }
    }

    /// What the site says, under the name that a reader knows it by.
    fn who(&mut self, who: &'a Who, name: &str, into: &mut Gathered) {
        match who {
            Who::Any => into.any = true,
            Who::None => {}
            Who::These(terms) => {
                for (term, _) in &terms.0 {
                    self.term(term, &mut Vec::new(), into);
                    if let Term::Prefix(_) = term {
                        into.names.push(name.to_owned());
                    }
                }
            }
        }
    }

    /// One term; `above`: groups that it is within. Cycles are reported elsewhere and end here.
    fn term(&mut self, term: &'a Term, above: &mut Vec<&'a str>, into: &mut Gathered) {
        match term {
            Term::Prefix(net) => into.nets.push(*net),
            Term::Group(name) => {
                if let Some(nets) = self.groups.get(name.as_str()) {
                    into.nets.extend(nets);
                } else if let Some(group) = self
                    .site
                    .groups
                    .get(name)
                    .filter(|_| !above.contains(&name.as_str()))
                {
                    above.push(name);
                    let mut own = Gathered::default();
                    for (member, _) in &group.members.0 {
                        self.term(member, above, &mut own);
                    }
                    above.pop();
                    let nets = IpNet::aggregate(&own.nets);
                    into.nets.extend(&nets);
                    self.groups.insert(name, nets);
                }
                if above.is_empty() {
                    into.names.push(format!("group {name}"));
                }
            }
            Term::Role(role) => {
                if let Some((system, role)) = role.split_once('/') {
                    for index in self.inventory.hosts_with(system, role) {
                        if Some(index) != self.inventory.own {
                            self.host(index, into);
                        }
                    }
                }
                into.names.push(format!("role {role}"));
            }
            Term::Host(name) => {
                let found = self.site.host(name);
                let addresses = found.into_iter().flat_map(|host| &host.addresses);
                into.nets
                    .extend(addresses.map(|(address, _)| IpNet::from(*address)));
                into.names.push(format!("host {name}"));
            }
            Term::Domain(name) => {
                if let Some(addresses) = self.resolved.get(name) {
                    into.nets.extend(
                        addresses
                            .iter()
                            .map(|address| IpNet::from(address.to_canonical())),
                    );
                }
                into.names.push(format!("domain {name}"));
            }
            Term::File(path) => {
                into.nets.extend(self.files.get(path).into_iter().flatten());
                into.names.push(format!("file {path}"));
            }
        }
    }

    /// Peers that the site itself names: management, baseline, its own rows. `None` = nobody.
    pub(super) fn said(&mut self, who: &'a Who) -> Option<Peers> {
        let mut gathered = Gathered::default();
        if let Who::These(terms) = who {
            for (term, _) in &terms.0 {
                self.term(term, &mut Vec::new(), &mut gathered);
                if let Term::Prefix(net) = term {
                    gathered.names.push(shown(*net));
                }
            }
        }
        gathered.any |= *who == Who::Any;
        self.intern(gathered)
    }

    fn intern(&mut self, gathered: Gathered) -> Option<Peers> {
        if gathered.any {
            return Some(Peers::Any);
        }
        let mut prefixes = IpNet::aggregate(&gathered.nets);
        prefixes.sort_unstable();
        if prefixes.is_empty() {
            return None;
        }
        if prefixes.len() == 2 && prefixes.iter().all(|net| net.prefix_len() == 0) {
            return Some(Peers::Any);
        }
        let hash = hash(&prefixes);
        let candidates = self.interned.entry(hash).or_default();
        let same = candidates.iter().copied().find(|index| {
            self.sets
                .get(*index as usize)
                .is_some_and(|set| set.prefixes == prefixes)
        });
        let index = same.unwrap_or_else(|| {
            let index = u32::try_from(self.sets.len()).unwrap_or(u32::MAX);
            candidates.push(index);
            self.sets.push(PeerSet {
                name: String::new(),
                prefixes,
            });
            self.names.push(BTreeSet::new());
            index
        });
        if let Some(names) = self.names.get_mut(index as usize) {
            names.extend(gathered.names);
        }
        Some(Peers::Set(index))
    }

    /// The sets, named.
    pub(super) fn sets(&mut self) -> Vec<PeerSet> {
        let mut sets = std::mem::take(&mut self.sets);
        for (set, names) in sets.iter_mut().zip(&self.names) {
            let shown: Vec<_> = names.iter().take(MAX_NAMES).map(String::as_str).collect();
            set.name = shown.join(", ");
            if names.len() > MAX_NAMES {
                set.name = format!("{} and {} more", set.name, names.len() - MAX_NAMES);
            }
        }
        sets
    }

    /// Says which peers nobody gave.
    pub(super) fn report(&self, enforce: bool, diagnostics: &mut Vec<Diagnostic>) {
        for ((code, what), missing) in &self.missing {
            // The site's own word binds in audit, too; it is about named peers only.
            let refused = enforce
                || (self.site.unresolved_peers == Some(Unresolved::Refuse)
                    && *code != "unprinted-peers");
            let level = if refused {
                Level::Error
            } else {
                Level::Warning
            };
            let judged = if refused {
                ""
            } else {
                "; audit judges them as any"
            };
            let message = format!(
                "{}: rows {}{judged}",
                missing.message,
                some_of(&missing.rows)
            );
            let system = what.split('/').next().unwrap_or_default();
            let place = self
                .site
                .systems
                .get(system)
                .and_then(|site| self.site.at(site.place));
            let place = place
                .or_else(|| missing.rows.first().cloned())
                .unwrap_or_default();
            diagnostics.push(
                Diagnostic::new(level, code, message)
                    .at(place)
                    .hint(missing.hint.clone()),
            );
        }
        for (name, rows) in &self.unasked {
            let message = format!(
                "domain {name} was not looked up, and is nobody here: rows {}",
                some_of(rows)
            );
            let place = rows.first().cloned().unwrap_or_default();
            let hint = "it is resolved when the policy is loaded; `--resolve` does it now";
            diagnostics.push(
                Diagnostic::new(Level::Note, "domain-not-asked", message)
                    .at(place)
                    .hint(hint),
            );
        }
        for (what, rows) in &self.everybody {
            let message = format!(
                "nobody gave `{what}`, which is judged as any, as the site says: rows {}",
                some_of(rows)
            );
            diagnostics.push(
                Diagnostic::warning("unresolved-any", message)
                    .at(rows.first().cloned().unwrap_or_default()),
            );
        }
    }
}

fn shown(net: IpNet) -> String {
    if net.prefix_len() == net.max_prefix_len() {
        net.addr().to_string()
    } else {
        net.to_string()
    }
}

/// `DefaultHasher::new` has fixed keys; the hash only finds candidates.
fn hash(prefixes: &[IpNet]) -> u64 {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    prefixes.hash(&mut hasher);
    hasher.finish()
}

/// Both the document's and the narrowing's.
fn narrowed(document: Gathered, narrow: Gathered) -> Gathered {
    match (document.any, narrow.any) {
        (true, _) => narrow,
        (_, true) => document,
        (false, false) => {
            let nets = intersection(
                &IpNet::aggregate(&document.nets),
                &IpNet::aggregate(&narrow.nets),
            );
            Gathered {
                any: false,
                nets,
                names: narrow.names,
            }
        }
    }
}

/// Prefixes in both; each list is sorted and disjoint, so one pass over both does.
fn intersection(left: &[IpNet], right: &[IpNet]) -> Vec<IpNet> {
    let (mut left, mut right) = (left.iter().peekable(), right.iter().peekable());
    let mut both = Vec::new();
    while let (Some(a), Some(b)) = (left.peek(), right.peek()) {
        if a.contains(*b) {
            both.push(**b);
            right.next();
        } else if b.contains(*a) {
            both.push(**a);
            left.next();
        } else if a < b {
            left.next();
        } else {
            right.next();
        }
    }
    both
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intersection_keeps_the_narrower() {
        let nets = |text: &str| {
            text.split(' ')
                .map(|net| net.parse().unwrap())
                .collect::<Vec<IpNet>>()
        };
        let left = nets("10.0.0.0/8 192.168.1.0/24 2001:db8::/32");
        let right = nets("10.1.0.0/16 10.3.0.0/16 192.168.0.0/16 2001:db8:1::/48 fd00::/8");
        let both = nets("10.1.0.0/16 10.3.0.0/16 192.168.1.0/24 2001:db8:1::/48");
        assert_eq!(intersection(&left, &right), both);
        assert_eq!(intersection(&right, &left), both);
    }
}
