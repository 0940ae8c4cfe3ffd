//! Who a row is for: documents' peers to sets of prefixes, by the site's words and the inventory.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "all other kinds are alike here"
)]

mod far;
mod roles;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::answers::{self, Unprinted};
use super::inventory::Inventory;
use super::missing::Missing;
use super::narrow::{self, End};
use super::sets::{Gathered, Sets, narrowed};
use super::views::{View, Views};
use super::{Inputs, terms::Terms};
use crate::catalog::{Direction, Peer, PeerClass, Row, System};
use crate::policy::Peers;
use crate::site::{Site, Unresolved, Who};

/// How the reason begins that a row is for a role which no other host has.
pub(super) const ALONE: &str = "no other host ";

/// Rows with equal keys, of which the site says nothing in particular, have the same peers.
type Key<'a> = (
    &'a str,
    &'a str,
    &'a [Peer],
    Option<PeerClass>,
    bool,
    Direction,
    Vec<&'a str>,
);

#[derive(Debug)]
pub(super) struct Resolver<'a> {
    site: &'a Site,
    views: &'a Views,
    resolved: &'a BTreeMap<String, Vec<IpAddr>>,
    inventory: Inventory<'a>,
    terms: Terms<'a>,
    pub(super) sets: Sets,
    pub(super) missing: Missing,
    cache: BTreeMap<Key<'a>, Result<Peers, String>>,
    /// Some hosts serve rows on some of their interfaces only.
    has_interfaces: bool,
    /// Why hosts that could be meant by the row at hand are not.
    excluded: Vec<String>,
}

/// Which of a row's peers are asked for.
#[derive(Debug)]
pub(super) enum Part {
    All,
    /// Of the roles' hosts, these, each as a server of one role.
    Hosts(Vec<(String, usize)>),
    /// What the site gives for a role by address.
    Given(String),
    /// All that is neither.
    Others,
}

/// A row and all that decides over its peers.
pub(super) struct Asking<'a, 'p> {
    pub(super) system: &'a System,
    pub(super) row: &'a Row,
    pub(super) view: &'a View,
    /// Roles of the host that have the row.
    pub(super) users: Vec<&'a str>,
    pub(super) direction: Direction,
    pub(super) part: &'p Part,
    /// The peer at hand is narrowed to addresses that the site gives: who is missing is said by these.
    pub(super) is_narrowed: Cell<bool>,
}

impl<'a> Asking<'a, '_> {
    fn given(&self, key: &str) -> Option<&'a Who> {
        self.view.site.peers.get(key).map(|(who, _)| who)
    }

    fn wants_others(&self) -> bool {
        matches!(self.part, Part::All | Part::Others)
    }
}

/// Where a role sends to all members of a group.
const MULTICAST: [(IpAddr, u8); 2] = [
    (IpAddr::V4(Ipv4Addr::new(224, 0, 0, 0)), 4),
    (IpAddr::V6(Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0)), 8),
];

impl<'a> Resolver<'a> {
    pub(super) fn new(inputs: &Inputs<'a>, views: &'a Views, inventory: Inventory<'a>) -> Self {
        Self {
            site: inputs.site,
            views,
            resolved: inputs.resolved,
            terms: Terms::new(inputs, inventory.clone()),
            inventory,
            sets: Sets::default(),
            missing: Missing::default(),
            cache: BTreeMap::new(),
            has_interfaces: inputs
                .site
                .hosts
                .iter()
                .any(|host| !host.interfaces.is_empty()),
            excluded: Vec::new(),
        }
    }

    /// A row's peers, or of them one part. The error says why nobody is left.
    #[expect(clippy::needless_pass_by_value, reason = "a question is asked once")]
    pub(super) fn row(&mut self, asking: Asking<'a, '_>) -> Result<Peers, String> {
        let Asking { system, row, .. } = asking;
        let key = (
            system.id.as_str(),
            row.role.as_str(),
            row.peers.as_slice(),
            row.class,
            row.other_roles_only,
            asking.direction,
            asking.users.clone(),
        );
        let is_common = !narrow::is_spoken_of(&asking.view.site, system, row)
            && matches!(asking.part, Part::All)
            && !self.views.vary(&system.id)
            && !self.has_interfaces;
        if is_common && let Some(found) = self.cache.get(&key) {
            return found.clone();
        }
        self.missing.touched = false;
        let found = self.fresh(&asking);
        // What is missing is reported with every row that wants it, so it must be met again.
        if is_common && !self.missing.touched {
            self.cache.insert(key, found.clone());
        }
        found
    }

    /// Peers that the site itself names: management, baseline, its own rows. `None` = nobody.
    pub(super) fn said(&mut self, who: &'a Who) -> Option<Peers> {
        let mut gathered = Gathered::default();
        self.terms.who(who, None, &mut gathered);
        let mut others = gathered.clone();
        let own = self.inventory.own_addresses();
        others
            .nets
            .retain(|net| !own.iter().any(|own| IpNet::from(*own) == *net));
        // A host is never its own peer; whoever names nobody else is told.
        self.sets
            .intern(if others.is_empty() { gathered } else { others })
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

    fn fresh(&mut self, asking: &Asking<'a, '_>) -> Result<Peers, String> {
        let Asking {
            system, row, view, ..
        } = asking;
        self.excluded.clear();
        let end = match asking.direction {
            Direction::Out => End::Sender,
            Direction::In | Direction::Both => End::Listener,
        };
        let of_end = narrow::only(&view.site, system, row, end);
        // Who may connect to a listener is no list of where to connect to, unless nobody here listens.
        let of_row = narrow::plain(&view.site, system, row).filter(|_| end == End::Sender);
        let (mut hosts, mut others) = (Gathered::default(), Gathered::default());
        for peer in &row.peers {
            if narrow::is_of_system(row, peer) {
                asking.is_narrowed.set(of_end.is_some());
                self.peer(asking, peer, &mut hosts);
            } else {
                asking.is_narrowed.set(of_end.is_some() || of_row.is_some());
                self.peer(asking, peer, &mut others);
            }
        }
        let had = !hosts.is_empty() || !others.is_empty();
        let names = [hosts.names.as_slice(), others.names.as_slice()].concat();
        if let Some(only) = of_row {
            others = self.narrowed(others, only);
        }
        hosts.join(others);
        if let Some(only) = of_end {
            hosts = self.narrowed(hosts, only);
        }
        let nobody = self.nobody(asking, &names, had);
        self.sets.intern(hosts).ok_or(nobody)
    }

    fn narrowed(&mut self, gathered: Gathered, only: &'a Who) -> Gathered {
        let mut narrow = Gathered::default();
        self.terms.who(only, None, &mut narrow);
        narrowed(gathered, narrow)
    }

    /// Why a row is for nobody here.
    fn nobody(&self, asking: &Asking<'a, '_>, names: &[String], had: bool) -> String {
        if had {
            return "the site's `only` leaves none of the peers that the document allows"
                .to_owned();
        }
        let mut excluded = self.excluded.clone();
        excluded.sort_unstable();
        excluded.dedup();
        let id = &asking.system.id;
        if !excluded.is_empty() {
            return excluded.join("; ");
        }
        if names.is_empty() {
            return "the site gives it no peers".to_owned();
        }
        let mut names = names.to_vec();
        names.dedup();
        let (roles, rest): (Vec<_>, Vec<_>) = names
            .into_iter()
            .partition(|name| name.starts_with("role "));
        let (domains, others): (Vec<_>, Vec<_>) = rest
            .into_iter()
            .partition(|name| name.starts_with("domain "));
        let mut why = Vec::new();
        if !roles.is_empty() {
            let is_elsewhere = roles.iter().any(|name| self.is_anywhere(name));
            let place = if is_elsewhere {
                "of its clusters"
            } else {
                "of the site"
            };
            let roles = roles.join(", ");
            why.push(format!(
                "{ALONE}{place} has {roles}; a host is never its own peer"
            ));
        }
        if !domains.is_empty() {
            let domains = domains.join(", ");
            why.push(format!("{domains} has no known address"));
        }
        if !others.is_empty() {
            why.push(format!(
                "the site gives no peers for {} of {id}",
                others.join(", ")
            ));
        }
        why.join("; ")
    }

    /// Whether a host of any cluster is what `role SYSTEM/ROLE` says.
    fn is_anywhere(&self, name: &str) -> bool {
        let id = name.strip_prefix("role ").and_then(|id| id.split_once('/'));
        id.is_some_and(|(system, role)| {
            let mut hosts = self.inventory.hosts_with(system, role).into_iter();
            hosts.any(|host| !self.inventory.is_own(host))
        })
    }

    fn peer(&mut self, asking: &Asking<'a, '_>, peer: &'a Peer, into: &mut Gathered) {
        let id = &asking.system.id;
        match peer {
            Peer::Role(role) => return self.role(asking, role, into),
            Peer::SameRole => return self.role(asking, &asking.row.role, into),
            Peer::Unprinted => return self.unprinted(asking, into),
            _ if !asking.wants_others() => return,
            _ => {}
        }
        match peer {
            Peer::Prefix(net) => into.prefix(*net),
            Peer::Group(group) => self.given(asking, group, &format!("{id} {group}"), into, || {
                let title = asking.system.groups.get(group).map_or("", String::as_str);
                format!("{id} names {group} ({title}), which the site does not define")
            }),
            Peer::Asn(number) => {
                self.given(asking, &format!("asn:{number}"), &format!("AS{number}"), into, || {
                    format!("{id} names autonomous system {number}, whose prefixes the site does not give")
                });
            }
            Peer::Domain(name) => self.domain(asking, name, into),
            Peer::Multicast if asking.direction == Direction::Out => self.multicast(asking, into),
            // Handled above, or nobody here.
            Peer::Multicast | Peer::Itself | Peer::Role(_) | Peer::SameRole | Peer::Unprinted => {}
        }
    }

    /// Groups that the site names, else any multicast group.
    fn multicast(&mut self, asking: &Asking<'a, '_>, into: &mut Gathered) {
        if let Some(who) = asking.given("multicast") {
            return self.terms.who(who, Some("multicast groups"), into);
        }
        let nets = MULTICAST
            .iter()
            .map(|(address, length)| IpNet::new_assert(*address, *length));
        into.nets.extend(nets);
        into.names.push("multicast groups".to_owned());
    }

    /// A peer that only the site can give.
    fn given(
        &mut self,
        asking: &Asking<'a, '_>,
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

    fn domain(&mut self, asking: &Asking<'a, '_>, name: &str, into: &mut Gathered) {
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

    fn unprinted(&mut self, asking: &Asking<'a, '_>, into: &mut Gathered) {
        let Unprinted {
            particular,
            general,
        } = answers::unprinted(self.site, &asking.view.site, asking.system, asking.row);
        let members = asking.row.class == Some(PeerClass::ClusterMembers);
        if let Some(who) = particular {
            if asking.wants_others() && (!members || self.may_send(asking)) {
                self.terms.who(who, Some("unprinted peers"), into);
            }
            return;
        }
        if let Some(who) = general {
            if asking.wants_others() {
                self.terms.who(who, Some("unprinted peers"), into);
            }
            // An answer to all questions does not cut the members of a cluster off from each other.
            if members && *who != Who::None {
                self.members(asking, into);
            }
            return;
        }
        let is_known = |role: &&str| self.inventory.has_related(&asking.system.id, role);
        let has_given = |role: &&str| asking.view.site.peers.contains_key(*role);
        if members
            && asking
                .users
                .iter()
                .any(|role| is_known(role) || has_given(role))
        {
            return self.members(asking, into);
        }
        if !asking.wants_others() {
            return;
        }
        into.any = true;
        if !asking.is_narrowed.get() {
            self.ask(asking);
        }
    }

    /// The other servers of the host's own roles, as far as they are known.
    fn members(&mut self, asking: &Asking<'a, '_>, into: &mut Gathered) {
        for role in asking.users.clone() {
            let id = &asking.system.id;
            let hosts = self.inventory.members(id, role);
            let is_other = |index: &usize| !self.inventory.is_own(*index);
            let including = self.inventory.related_hosts(id, role);
            if !hosts.iter().any(is_other) && including.iter().any(is_other) {
                self.excluded.push(format!(
                    "cluster members have the same role, and no other host has {id}/{role} itself"
                ));
            }
            self.is_elsewhere(asking, role, &including);
            if self.hosts_of(asking, role, hosts, into) {
                into.names.push(format!("role {}/{role}", asking.system.id));
            }
        }
    }

    /// Who is meant where nothing is printed is a question for the site, one for each class of rows.
    fn ask(&mut self, asking: &Asking<'a, '_>) {
        let id = &asking.system.id;
        let row = &asking.row.id;
        match asking.row.class {
            None => self.missing.want("unprinted-peers", id.clone(), row, || {
                (
                    format!("{id} does not name the peers of some rows"),
                    format!(
                        "write `unprinted_peers = [...]` or `\"any\"` under [systems.{id}], or `--unprinted-peers any|CIDR,...`"
                    ),
                )
            }),
            Some(class) => {
                let name = class.as_str();
                self.missing.want("unprinted-peers", format!("{id}/{name}"), row, || {
                    (
                        format!("{id} does not name the peers of some rows for {}", class.title()),
                        format!(
                            "write `unprinted_peers.{name} = [...]` under [systems.{id}], or `--unprinted-peers any|CIDR,...` for all rows"
                        ),
                    )
                });
            }
        }
    }

    /// A peer that the document names and nobody gives.
    fn absent(
        &mut self,
        code: &'static str,
        asking: &Asking<'a, '_>,
        key: &str,
        into: &mut Gathered,
        message: impl FnOnce() -> String,
    ) {
        let id = &asking.system.id;
        let what = format!("{id}/{key}");
        if asking.is_narrowed.get() && !asking.system.roles.contains_key(key) {
            // A narrowed row is for whom the narrowing says: nothing is missing. Who has a role is said by giving it.
            into.any = true;
            return;
        }
        match self.site.unresolved_peers {
            Some(Unresolved::None) => {
                self.excluded.push(format!(
                    "the site does not define `{key}` of {id}, and keeps such rows closed"
                ));
                into.names.push(what);
            }
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
