//! The site: what an operator says of hosts, peers, systems and modes; one TOML file, or command-line flags.
//!
//! This module owns the types. `site/parse.rs` reads the file, `site/flags.rs` the flags; both give a [`Site`] in which every
//! thing said keeps its [`Place`]. Whether it makes sense with the catalog is the compiler's question. Pure: no file is opened.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::catalog::{Direction, PeerClass, Transport};
use crate::policy::Outbound;

mod flags;
mod layers;
mod parse;
mod parse_host;
mod parse_system;
pub mod prefixes;
mod read;
mod schema;
mod system;
mod term;
#[cfg(test)]
mod tests;
mod values;

pub use flags::Flags;
pub(crate) use flags::has_peer;
pub use read::nearest;
pub use schema::{FILE as SCHEMA_FILE, schema};
pub(crate) use system::end_of_day;
pub use system::{ChangedPorts, Chosen, RowSite, SystemSite, names_row};
pub use term::{Ports, Term, Terms, Who};

/// Larger files are refused.
pub const MAX_BYTES: usize = 16 << 20;

/// Where in the site file something is said; line 0 is the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Place {
    /// From 1.
    pub line: u32,
    /// From 1, in characters.
    pub column: u32,
}

/// Count, or drop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// Violations are counted and passed.
    #[default]
    Audit,
    /// Violations are dropped.
    Enforce,
}

/// What becomes of a peer that the document names and the site does not give.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unresolved {
    /// An error.
    Refuse,
    /// Judged as anybody.
    Any,
    /// Nobody.
    None,
}

/// What becomes of a row whose port numbers neither the document nor the site gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnresolvedPorts {
    /// An error in enforce.
    Refuse,
    /// The row opens nothing.
    None,
}

/// All that one site says.
#[derive(Debug, Clone, Default)]
pub struct Site {
    /// The file's name, for messages; empty if there is only a command line.
    pub file: String,
    /// Ingress.
    pub mode: Mode,
    /// What the file says and where, whatever the command line says.
    pub mode_said: Option<(Mode, Place)>,
    /// Egress.
    pub outbound: Outbound,
    /// Where.
    pub outbound_place: Option<Place>,
    /// Who is meant where a document prints no peer; `None` = not said.
    pub unprinted_peers: Option<Who>,
    /// The same by class of rows, before [`Self::unprinted_peers`].
    pub unprinted_classes: BTreeMap<PeerClass, (Who, Place)>,
    /// See [`UnresolvedPorts`]; `None` = refuse.
    pub unresolved_ports: Option<UnresolvedPorts>,
    /// See [`Unresolved`]; `None` = refuse in enforce, anybody (with a warning) in audit.
    pub unresolved_peers: Option<Unresolved>,
    /// Later fragments are violations.
    pub strict_fragments: bool,
    /// EtherTypes other than IPv4, IPv6 and ARP are violations.
    pub strict_ethertypes: bool,
    /// Of these, the ones that pass all the same, by the names of [`portguard_common::ethertypes`]; `None` = the usual ones.
    pub allowed_ethertypes: Option<Vec<String>>,
    /// Judge only what is for the host's own addresses.
    pub host_addresses_only: bool,
    /// Directories of user catalogs, relative to the site file; loading them is the caller's job.
    pub catalogs: Vec<String>,
    /// Named peers.
    pub groups: BTreeMap<String, Group>,
    /// Management access; `None` = not said.
    pub management: Option<Management>,
    /// Services that every host needs.
    pub baseline: Baseline,
    /// Settings of the flow table.
    pub timeouts: Timeouts,
    /// By system id.
    pub systems: BTreeMap<String, SystemSite>,
    /// Rows of the site's own.
    pub rows: Vec<OwnRow>,
    /// The inventory.
    pub hosts: Vec<Host>,
}

/// A named set of peers.
#[derive(Debug, Clone)]
pub struct Group {
    /// Who.
    pub members: Terms,
    /// Where.
    pub place: Place,
}

/// Management access.
#[derive(Debug, Clone, Default)]
pub struct Management {
    /// Access that stays open whatever the documents say; empty = none, and the site said so.
    pub allow: Vec<Access>,
    /// Where.
    pub place: Place,
}

/// `tcp/22=admins`.
#[derive(Debug, Clone)]
pub struct Access {
    /// TCP, UDP or SCTP.
    pub transport: Transport,
    /// First and last port.
    pub ports: (u16, u16),
    /// From whom.
    pub peers: Who,
    /// Where.
    pub place: Place,
}

/// Services that every host needs, whatever the documents say.
#[derive(Debug, Clone)]
pub struct Baseline {
    /// `DHCP` and `DHCPv6` servers, both directions.
    pub dhcp: Who,
    /// Who may ping.
    pub echo: Who,
    /// Name servers that the host asks.
    pub dns: Who,
    /// Time servers that the host asks.
    pub ntp: Who,
    /// IP protocols without ports.
    pub protocols: Vec<Protocol>,
    /// Roles (`SYSTEM/ROLE`) of hosts that have none of that system.
    pub profiles: Vec<(String, Place)>,
}

impl Default for Baseline {
    fn default() -> Self {
        Self {
            dhcp: Who::Any,
            echo: Who::Any,
            dns: Who::Any,
            ntp: Who::Any,
            protocols: Vec::new(),
            profiles: Vec::new(),
        }
    }
}

/// An IP protocol without ports that the site lets in.
#[derive(Debug, Clone)]
pub struct Protocol {
    /// IP protocol number.
    pub number: u8,
    /// From whom.
    pub peers: Who,
    /// Why.
    pub reason: Option<String>,
    /// Where.
    pub place: Place,
}

/// Settings of the flow table; `None` = the default.
#[derive(Debug, Clone, Copy, Default)]
pub struct Timeouts {
    /// Seconds.
    pub tcp_idle: Option<u32>,
    /// Seconds.
    pub udp_idle: Option<u32>,
    /// Flows that the table holds.
    pub flows: Option<u32>,
}

/// A row of the site's own.
#[derive(Debug, Clone)]
pub struct OwnRow {
    /// Kebab-case, unique.
    pub name: String,
    /// In or out.
    pub direction: Direction,
    /// At least one.
    pub transports: Vec<Transport>,
    /// At least one.
    pub ports: Vec<Ports>,
    /// Who.
    pub peers: Who,
    /// Why; a site must say.
    pub reason: String,
    /// Last day, `YYYY-MM-DD`.
    pub expires: Option<String>,
    /// Only on these hosts, if any are named.
    pub hosts: Vec<(String, Place)>,
    /// Only on hosts with one of these roles, if any are named.
    pub roles: Vec<(String, Place)>,
    /// Stays in audit.
    pub audit: bool,
    /// Where.
    pub place: Place,
}

/// A host of the inventory.
#[derive(Debug, Clone, Default)]
pub struct Host {
    /// Unique.
    pub name: String,
    /// Its addresses, as its peers see them.
    pub addresses: Vec<(IpAddr, Place)>,
    /// Addresses that move between hosts or belong to several: each owner lists them.
    pub shared_addresses: Vec<(IpAddr, Place)>,
    /// Installations that the host belongs to.
    pub cluster: Vec<(String, Place)>,
    /// What holds for this host, before its cluster and the system.
    pub systems: BTreeMap<String, SystemSite>,
    /// `SYSTEM/ROLE`.
    pub roles: Vec<(String, Place)>,
    /// What each interface serves, where the host has several networks.
    pub interfaces: BTreeMap<String, Interface>,
    /// Port offsets by `SYSTEM/ROLE`, before the system's: one for each server of the role.
    pub offsets: BTreeMap<String, (Vec<u16>, Place)>,
    /// Roles that stay in audit.
    pub audit_roles: BTreeMap<String, Place>,
    /// Ports that stay in audit.
    pub audit_ports: Vec<(Transport, u16, u16)>,
    /// Of this host, before the site's.
    pub mode: Option<Mode>,
    /// What the file says and where, whatever the command line says.
    pub mode_said: Option<(Mode, Place)>,
    /// Where.
    pub place: Place,
}

/// An interface of a host.
#[derive(Debug, Clone, Default)]
pub struct Interface {
    /// `SYSTEM/ROLE`, beside those of the host.
    pub roles: Vec<(String, Place)>,
    /// Only these rows (`SYSTEM/ROW`) are served here, if any are named.
    pub rows: Vec<(String, Place)>,
    /// These rows are not served here.
    pub without_rows: Vec<(String, Place)>,
    /// Of this interface, before the host's.
    pub mode: Option<Mode>,
    /// What the file says and where, whatever the command line says.
    pub mode_said: Option<(Mode, Place)>,
}

impl Interface {
    /// Whether a row, by its full id, is served here as far as rows are named.
    pub(crate) fn serves(&self, row: &str) -> bool {
        let names = |list: &[(String, Place)]| {
            list.iter().any(|(wanted, _)| {
                let local = wanted.split_once('/');
                local.is_some_and(|(system, key)| names_row(key, system, row))
            })
        };
        (self.rows.is_empty() || names(&self.rows)) && !names(&self.without_rows)
    }
}

impl Site {
    /// `file:line:column`, or `None` for the command line.
    pub fn at(&self, place: Place) -> Option<String> {
        (place.line > 0).then(|| format!("{}:{}:{}", self.file, place.line, place.column))
    }

    /// What the file says of the mode of an interface, and where: the interface's own, the host's, or the site's.
    pub fn mode_said(&self, host: Option<&str>, interface: &str) -> Option<(Mode, Place)> {
        let host = host.and_then(|name| self.host(name));
        let interface = host.and_then(|host| host.interfaces.get(interface));
        interface
            .and_then(|interface| interface.mode_said)
            .or_else(|| host.and_then(|host| host.mode_said))
            .or(self.mode_said)
    }

    /// Every role that a host or the baseline names.
    pub fn roles(&self) -> impl Iterator<Item = &str> {
        let own = self.hosts.iter().flat_map(|host| {
            let interfaces = host.interfaces.values().flat_map(|i| &i.roles);
            host.roles.iter().chain(interfaces)
        });
        own.chain(&self.baseline.profiles)
            .map(|(role, _)| role.as_str())
    }

    /// The host of that name.
    pub fn host(&self, name: &str) -> Option<&Host> {
        self.hosts.iter().find(|host| host.name == name)
    }

    /// Prefix files that the site names: the caller reads them, [`prefixes::parse`] makes prefixes of them.
    pub fn files(&self) -> BTreeSet<&str> {
        self.terms()
            .filter_map(|(term, _)| match term {
                Term::File(path) => Some(path.as_str()),
                Term::Prefix(_)
                | Term::Group(_)
                | Term::Role(_)
                | Term::Host(_)
                | Term::Domain(_) => None,
            })
            .collect()
    }

    /// Domain names that the site itself names as peers; documents' own are added by the compiler.
    pub fn domains(&self) -> BTreeSet<&str> {
        self.terms()
            .filter_map(|(term, _)| match term {
                Term::Domain(name) => Some(name.as_str()),
                Term::Prefix(_)
                | Term::Group(_)
                | Term::Role(_)
                | Term::Host(_)
                | Term::File(_) => None,
            })
            .collect()
    }

    /// Every term said anywhere.
    pub fn terms(&self) -> impl Iterator<Item = &(Term, Place)> {
        let baseline = &self.baseline;
        let systems = self
            .systems
            .values()
            .chain(self.hosts.iter().flat_map(|host| host.systems.values()));
        let whos = self
            .unprinted_peers
            .iter()
            .chain(self.unprinted_classes.values().map(|(who, _)| who))
            .chain([&baseline.dhcp, &baseline.echo, &baseline.dns, &baseline.ntp])
            .chain(baseline.protocols.iter().map(|protocol| &protocol.peers))
            .chain(
                self.management
                    .iter()
                    .flat_map(|m| m.allow.iter().map(|access| &access.peers)),
            )
            .chain(self.rows.iter().map(|row| &row.peers))
            .chain(systems.flat_map(|system| {
                let layers = std::iter::once(system).chain(system.clusters.values());
                layers.flat_map(SystemSite::whos)
            }));
        self.groups
            .values()
            .flat_map(|group| group.members.0.iter())
            .chain(whos.flat_map(|who| who.terms().iter()))
    }
}
