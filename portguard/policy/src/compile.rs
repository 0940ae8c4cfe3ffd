//! Catalog and site to one host's [`Policy`]: deterministic, offline, and never silent about what it leaves out.
//!
//! `select` finds the host, `inventory` who has which role, `facts` whether a row holds, `ports` and `peers` what it opens to
//! whom, `own` what the site adds; `lint` and `review` look at the site before and at the grants after.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use portguard_common::reason::Direction as Way;

use crate::catalog::{Catalog, Direction, Peer, Role, Row, System};
use crate::diagnostic::{Diagnostic, Level};
use crate::human::some;
use crate::policy::{Compiled, Grant, Outbound, Policy, Settings};
use crate::site::{Mode, Site};

mod answers;
mod batch;
mod changes;
mod contradictions;
mod effect;
mod endings;
mod ethertypes;
mod facts;
#[cfg(any(test, feature = "generate"))]
pub mod generate;
mod impossible;
mod inventory;
mod limits;
mod lint;
mod listeners;
mod missing;
mod narrow;
mod own;
mod peers;
mod review;
mod rows;
mod select;
mod sets;
mod survey;
mod terms;
#[cfg(test)]
pub(crate) mod tests;
mod views;

use inventory::Inventory;
use peers::Resolver;
use select::Subject;

pub use batch::Batch;
pub use select::Selection;
pub use survey::{review, site as review_site};

/// All that a policy is made of. Nothing else has any say: the same inputs give the same policy, byte for byte.
#[derive(Debug, Clone)]
pub struct Inputs<'a> {
    /// The vendors' matrices.
    pub catalog: &'a Catalog,
    /// What the operator says; flags are already applied.
    pub site: &'a Site,
    /// Which host.
    pub host: Selection,
    /// Only what this interface serves.
    pub interface: Option<&'a str>,
    /// The machine's own addresses, for [`Selection::Local`]. They say which host of the site this is, and go nowhere else.
    pub local_addresses: &'a [IpAddr],
    /// The machine's own name, for [`Selection::Local`].
    pub hostname: Option<&'a str>,
    /// What each domain name of [`domains`] resolves to, by its lower-case name.
    pub resolved: &'a BTreeMap<String, Vec<IpAddr>>,
    /// Contents of each file of [`Site::files`].
    pub files: &'a BTreeMap<String, Vec<IpNet>>,
    /// The day (`YYYY-MM-DD`, in UTC) or the moment (RFC 3339), for rows that expire; without it none does.
    pub today: Option<&'a str>,
}

/// Compiles one host's policy. Use it only if no diagnostic is an error.
pub fn compile(inputs: &Inputs<'_>) -> Compiled {
    Batch::new(inputs).compile(inputs)
}

/// Errors first, then by place; each once.
fn sorted(diagnostics: &mut Vec<Diagnostic>) {
    diagnostics.sort_by(|a, b| {
        (b.level, &a.location, a.code, &a.message).cmp(&(a.level, &b.location, b.code, &b.message))
    });
    diagnostics.dedup();
}

/// Domain names (lower-case) that [`compile`] wants resolved for this host.
pub fn domains(inputs: &Inputs<'_>) -> BTreeSet<String> {
    let mut names: BTreeSet<String> = inputs
        .site
        .domains()
        .into_iter()
        .map(str::to_owned)
        .collect();
    let Some(subject) = Subject::select(inputs, &mut Vec::new()) else {
        return names;
    };
    for (system, roles) in subject.systems() {
        let rows = system
            .rows
            .iter()
            .filter(|row| !users(system, row, &roles).is_empty());
        for peer in rows.flat_map(|row| &row.peers) {
            if let Peer::Domain(name) = peer {
                let given = inputs.site.systems.get(&system.id);
                let given =
                    given.is_some_and(|site| site.peers.contains_key(&format!("domain:{name}")));
                if !given {
                    names.insert(name.to_ascii_lowercase());
                }
            }
        }
    }
    names
}

/// Roles of the host that have this row.
fn users<'a>(system: &'a System, row: &Row, roles: &[&'a Role]) -> Vec<&'a Role> {
    roles
        .iter()
        .copied()
        .filter(|role| system.closure(&role.id).contains(row.role.as_str()))
        .collect()
}

struct Compiler<'a, 'd> {
    inputs: &'a Inputs<'a>,
    subject: &'a Subject<'a>,
    inventory: Inventory<'a>,
    peers: Resolver<'a>,
    policy: Policy,
    diagnostics: &'d mut Vec<Diagnostic>,
    /// Facts that rows depend on and the site does not say: (system, fact) to rows.
    unsaid: BTreeMap<(String, facts::Fact), Vec<String>>,
    views: &'a views::Views,
    /// Only rows of this one.
    system: Option<&'a str>,
}

impl<'a, 'd> Compiler<'a, 'd> {
    fn new(
        inputs: &'a Inputs<'a>,
        subject: &'a Subject<'a>,
        views: &'a views::Views,
        diagnostics: &'d mut Vec<Diagnostic>,
    ) -> Self {
        let inventory = Inventory::new(inputs, subject.index);
        Self::with(inputs, subject, views, inventory, diagnostics)
    }

    fn with(
        inputs: &'a Inputs<'a>,
        subject: &'a Subject<'a>,
        views: &'a views::Views,
        inventory: Inventory<'a>,
        diagnostics: &'d mut Vec<Diagnostic>,
    ) -> Self {
        Self {
            inputs,
            subject,
            peers: Resolver::new(inputs, views, inventory.clone()),
            inventory,
            policy: Policy::default(),
            diagnostics,
            unsaid: BTreeMap::new(),
            views,
            system: None,
        }
    }

    fn run(mut self) -> Policy {
        self.policy.host = self.subject.host.map(|host| host.name.clone());
        self.policy.roles = self.subject.role_ids();
        self.policy.settings = self.settings();
        self.management();
        self.baseline();
        for (system, roles) in self.systems() {
            self.policy.systems.push(system.id.clone());
            for row in &system.rows {
                let users = users(system, row, &roles);
                if !users.is_empty() {
                    self.row(system, row, &users);
                }
            }
        }
        self.own_rows();
        self.contradictions();
        self.report_unsaid();
        let (catalog, settings) = (self.inputs.catalog, &self.policy.settings);
        self.peers.missing.report(
            self.inputs.site,
            |rows| any_enforced(catalog, settings, rows),
            self.diagnostics,
        );
        self.finish()
    }

    /// The host's roles by system.
    fn systems(&self) -> Vec<(&'a System, Vec<&'a Role>)> {
        let mut systems = self.subject.systems();
        systems.retain(|(system, _)| self.system.is_none_or(|only| only == system.id));
        systems
    }

    fn settings(&mut self) -> Settings {
        let site = self.inputs.site;
        let enforce = self.subject.mode == Mode::Enforce;
        let defaults = Settings::default();
        if enforce && site.outbound == Outbound::Off {
            let message = "enforce needs outbound: without it, replies to the host's own connections are not recognised";
            let hint = "write `outbound = \"audit\"`, or stay in audit";
            self.diagnostics
                .push(Diagnostic::error("enforce-without-outbound", message).hint(hint));
        }
        let host_addresses = site.host_addresses_only.then(|| {
            let named = self
                .subject
                .host
                .into_iter()
                .flat_map(inventory::addresses_of);
            let mut all: Vec<IpNet> = named.map(IpNet::from).collect();
            all.sort_unstable();
            all.dedup();
            all
        });
        Settings {
            enforce,
            outbound: site.outbound,
            strict_fragments: site.strict_fragments,
            strict_ethertypes: site.strict_ethertypes,
            ethertypes: self.ethertypes(),
            host_addresses,
            audit_ports: self
                .subject
                .host
                .map(|host| host.audit_ports.clone())
                .unwrap_or_default(),
            tcp_idle: site.timeouts.tcp_idle.unwrap_or(defaults.tcp_idle),
            udp_idle: site.timeouts.udp_idle.unwrap_or(defaults.udp_idle),
            flows: site.timeouts.flows.unwrap_or(defaults.flows),
        }
    }

    fn report_unsaid(&mut self) {
        for ((system_id, fact), rows) in std::mem::take(&mut self.unsaid) {
            let Some(system) = self.inputs.catalog.systems.get(&system_id) else {
                continue;
            };
            let site = self.inputs.site.systems.get(&system_id);
            let level = if any_enforced(self.inputs.catalog, &self.policy.settings, &rows) {
                Level::Error
            } else {
                Level::Warning
            };
            let (code, message, hint) = fact.words(system, &rows);
            let diagnostic = Diagnostic::new(level, code, message).hint(hint);
            let place = site.and_then(|site| self.inputs.site.at(site.place));
            self.diagnostics
                .push(diagnostic.at_known(place.or_else(|| rows.first().cloned())));
        }
    }

    fn finish(mut self) -> Policy {
        self.policy.domains = self.peers.sets.domains();
        self.policy.sets = self.peers.sets.finish();
        self.policy.hosts = named_hosts(&self.inventory, &self.policy);
        for grants in [&mut self.policy.inbound, &mut self.policy.outbound] {
            let key = |grant: &Grant| {
                (
                    grant.kind,
                    grant.row.clone(),
                    grant.transport,
                    grant.first,
                    grant.last,
                    grant.peers,
                    grant.until,
                )
            };
            grants.sort_by_cached_key(key);
            grants.dedup();
        }
        self.policy
            .omitted
            .sort_by(|a, b| (&a.row, &a.reason).cmp(&(&b.row, &b.reason)));
        self.policy.omitted.dedup();
        review::policy(&self.policy, self.diagnostics);
        limits::policy(&self.policy, self.diagnostics);
        self.policy
    }
}

/// Whose addresses the policy's sets name; an address that moves between hosts is nobody's in particular.
fn named_hosts(inventory: &Inventory<'_>, policy: &Policy) -> BTreeMap<IpAddr, String> {
    let prefixes = policy.sets.iter().flat_map(|set| &set.prefixes);
    let single = prefixes.filter(|net| net.prefix_len() == net.max_prefix_len());
    single
        .filter_map(|net| {
            let address = net.addr();
            Some((address, inventory.owner(address)?.to_owned()))
        })
        .collect()
}

/// `a`, `b`, and 3 more.
fn some_of(names: &[String]) -> String {
    some(names.iter().map(|name| format!("`{name}`")), 5, ", ")
}

/// Whether any of these rows is judged in a direction that enforces: what is unclear there would be dropped or let
/// through, while audit only counts.
fn any_enforced(catalog: &Catalog, settings: &Settings, rows: &[String]) -> bool {
    let (inbound, outbound) = (settings.drops(Way::Ingress), settings.drops(Way::Egress));
    let all = || catalog.systems.values().flat_map(|system| &system.rows);
    rows.iter().any(|id| {
        match all().find(|row| row.id == *id).map(|row| row.direction) {
            Some(Direction::In) => inbound,
            Some(Direction::Out) => outbound,
            // A row of the site's own, or of both directions.
            Some(Direction::Both) | None => inbound || outbound,
        }
    })
}
